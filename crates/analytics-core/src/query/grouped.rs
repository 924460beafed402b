//! The part that all questions share: sums of the measures by bucket and columns, over the segments of a
//! range.

use std::fmt::Write as _;

use uuid::Uuid;

use super::keys::Keys;
use super::measures::{Detail, sums, sums_of_sums, values};
use super::{Dimension, Filter, Param, Scope};
use crate::calendar::Buckets;
use crate::rollup::{Relation, Segment, Sign};

/// A text with parameters, while it grows.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) params: Vec<Param>,
}

impl Text {
    /// Binds a value; returns its placeholder.
    pub(super) fn bind(&mut self, value: Param) -> String {
        self.params.push(value);
        format!("${}", self.params.len())
    }
}

/// What to add up.
pub(super) struct Grouping<'a> {
    pub(super) scope: Scope,
    pub(super) filter: &'a Filter,
    pub(super) buckets: &'a Buckets,
    pub(super) dimensions: &'a [Dimension],
    pub(super) detail: Detail,
    pub(super) groups: Groups<'a>,
}

/// Which groups there are.
#[derive(Clone, Copy)]
pub(super) enum Groups<'a> {
    /// All.
    All,
    /// Those in `leaders`, and all others as one whose keys are null.
    LeadersAndRest,
    /// Some that are known: those in `leaders`, unless their users or keys say which.
    Known(&'a Known),
}

/// Groups whose ids are known.
pub(super) struct Known {
    /// Whose rows they have: users, or organizations.
    pub(super) owner: Dimension,
    /// Which of these.
    pub(super) owners: Vec<Uuid>,
    /// Their keys, if groups are told apart by these alone.
    pub(super) keys: Option<Vec<Uuid>>,
}

/// `SELECT bucket, k0, k1, …, measures` over all segments.
///
/// `bucket` is where the bucket begins; of the first one perhaps its beginning before the range's.
pub(super) fn grouped(text: &mut Text, grouping: &Grouping<'_>, segments: &[Segment]) -> String {
    let Grouping {
        buckets,
        dimensions,
        detail,
        ..
    } = *grouping;
    let mut filter = filter(text, grouping.scope, grouping.filter);
    // Keys outside of what users are looked up by: an index is looked into for each user with each key otherwise, and
    // to plan how a columnstore is filtered by both takes longer than that saves.
    let mut of_keys = String::new();
    if let Groups::Known(known) = grouping.groups {
        let owners = text.bind(Param::Ids(known.owners.clone()));
        let _ = write!(filter, " AND {} = ANY({owners}::uuid[])", known.owner.column());
        if let Some(keys) = &known.keys {
            let keys = text.bind(Param::Ids(keys.clone()));
            of_keys = format!(" WHERE api_key_id = ANY({keys}::uuid[])");
        }
    }
    let bucket = Bucket::of(text, buckets, segments);
    let keys = Keys(dimensions.len());
    let many = are_many(dimensions);
    // Events have varchar: a union is added up like one table only if its parts are of the same types.
    let text_type = if many { "::text" } else { "" };
    let named: String = dimensions
        .iter()
        .enumerate()
        .map(|(place, dimension)| match dimension.is_id() {
            true => format!(", {} AS k{place}", dimension.column()),
            false => format!(", {}{text_type} AS k{place}", dimension.column()),
        })
        .collect();
    // A user may have many rows a day: fewer are left to be added up with those of weeks. Only where all sums are bigint,
    // as values are.
    let by_itself = |relation| {
        relation == Relation::DailyByUser && detail == Detail::RANK && dimensions == [Dimension::User]
    };
    let mut parts = Vec::with_capacity(segments.len());
    for Segment {
        relation,
        range,
        sign,
    } in segments.iter().copied()
    {
        let from = text.bind(Param::Time(range.start()));
        let to = text.bind(Param::Time(range.end()));
        let time = relation.time_column();
        let name = relation.name();
        let rows = format!("FROM {name}\n    WHERE {time} >= {from} AND {time} < {to}{filter}");
        let rows = match of_keys.is_empty() {
            true => rows,
            false => format!("FROM (\n    SELECT * {rows} OFFSET 0) AS owned"),
        };
        let rows = format!("{rows}{of_keys}");
        let bucket = match sign {
            Sign::Plus => bucket.expression(time),
            Sign::Minus => bucket.last(text, buckets),
        };
        parts.push(match bucket {
            Expression::Constant(bucket) | Expression::Varying(bucket) if many && !by_itself(relation) => {
                let values = values(relation, sign, detail);
                format!("    SELECT {bucket} AS bucket{named}, {values}\n    {rows}")
            }
            // A constant is no column to group by: without it, a columnstore is added up by whole columns.
            Expression::Constant(bucket) => {
                let (by, sums) = (by_place(2, dimensions.len()), sums(relation, sign, detail));
                format!(
                    "    SELECT {bucket} AS bucket{named}, {sums}\n    {rows}{by}\n    HAVING count(*) > 0"
                )
            }
            Expression::Varying(bucket) => {
                let (by, sums) = (by_place(1, dimensions.len() + 1), sums(relation, sign, detail));
                format!("    SELECT {bucket} AS bucket{named}, {sums}\n    {rows}{by}")
            }
        });
    }
    // Many groups of one hypertable would be added up chunk by chunk, and the sums of each passed on serialized, which
    // takes longer: nothing is pulled up past an offset. A union is no hypertable. Few groups of one part are done.
    let fence = match parts.as_slice() {
        [only] if !many => return only.clone(),
        [_] => " OFFSET 0",
        _ => "",
    };
    // A group of which nothing is left was not there.
    let left = match segments.iter().any(|segment| segment.sign == Sign::Minus) {
        true => "\n    HAVING sum(requests) <> 0",
        false => "",
    };
    let on = keys.equal("segment");
    let (keys, join) = match grouping.groups {
        Groups::All => (keys.of("segment"), String::new()),
        Groups::LeadersAndRest => (keys.of("leaders"), format!(" LEFT JOIN leaders ON {on}")),
        Groups::Known(_) if dimensions.len() == 1 => (keys.of("segment"), String::new()),
        Groups::Known(_) => (keys.of("leaders"), format!(" JOIN leaders ON {on}")),
    };
    format!(
        "    SELECT bucket{keys}, {}\n    FROM (\n{}{fence}\n    ) AS segment{join}\n    GROUP BY bucket{keys}{left}",
        sums_of_sums(detail),
        parts.join("\n    UNION ALL\n")
    )
}

fn filter(text: &mut Text, scope: Scope, filter: &Filter) -> String {
    let mut sql = String::new();
    if let Scope::Organization(org_id) = scope {
        let id = text.bind(Param::Id(org_id));
        let _ = write!(sql, " AND org_id = {id}");
    }
    for (column, words) in [("model_name", &filter.models), ("status", &filter.statuses)] {
        if !words.is_empty() {
            let words = text.bind(Param::Texts(words.clone()));
            let _ = write!(sql, " AND {column} = ANY({words}::text[])");
        }
    }
    for (column, ids) in [("user_id", &filter.user_ids), ("api_key_id", &filter.api_key_ids)] {
        if !ids.is_empty() {
            let ids = text.bind(Param::Ids(ids.clone()));
            let _ = write!(sql, " AND {column} = ANY({ids}::uuid[])");
        }
    }
    sql
}

/// How a row finds its bucket.
enum Bucket {
    /// There is one.
    Only { start: String },
    /// They are those of the relation.
    OfRelation,
    /// All are of one width.
    Even { step: i64, origin: String },
    /// They are looked up in a list.
    Listed { starts: String },
}

impl Bucket {
    fn of(text: &mut Text, buckets: &Buckets, segments: &[Segment]) -> Self {
        if let [only] = buckets.starts() {
            return Self::Only {
                start: text.bind(Param::Time(*only)),
            };
        }
        let mut counting = segments.iter().filter(|part| part.sign == Sign::Plus);
        match buckets.uniform() {
            Some((step, _)) if counting.all(|part| part.relation.grain() == Some(step)) => Self::OfRelation,
            Some((step, origin)) => Self::Even {
                step: step.whole_seconds(),
                origin: text.bind(Param::Time(origin)),
            },
            None => Self::Listed {
                starts: text.bind(Param::Times(buckets.starts().to_vec())),
            },
        }
    }

    /// The last one, whatever the time.
    fn last(&self, text: &mut Text, buckets: &Buckets) -> Expression {
        let start = match self {
            Self::Only { start } => start.clone(),
            _ => text.bind(Param::Time(buckets.last().start())),
        };
        Expression::Constant(format!("{start}::timestamptz"))
    }

    fn expression(&self, time: &str) -> Expression {
        match self {
            Self::Only { start } => Expression::Constant(format!("{start}::timestamptz")),
            Self::OfRelation => Expression::Varying(time.to_owned()),
            // The origin is not after any row: date_bin of PostgreSQL before 15.6 is wrong there.
            Self::Even { step, origin } => Expression::Varying(format!(
                "date_bin(interval '{step} seconds', {time}, {origin}::timestamptz)"
            )),
            Self::Listed { starts } => Expression::Varying(format!(
                "({starts}::timestamptz[])[width_bucket({time}, {starts}::timestamptz[])]"
            )),
        }
    }
}

/// What a bucket is in SQL.
enum Expression {
    Constant(String),
    Varying(String),
}

/// Whether groups may be many: users and keys are, models and statuses are not. (Organizations are many as well, but
/// hardly asked for over more than one relation, and added up by whole columns.)
pub(super) fn are_many(dimensions: &[Dimension]) -> bool {
    dimensions.iter().any(|dimension| dimension.is_of_users())
}

/// `GROUP BY` so many columns from a place on. By place, because a relation has a column named `bucket`.
fn by_place(first: usize, count: usize) -> String {
    if count == 0 {
        return String::new();
    }
    let places: Vec<String> = (first..first + count).map(|place| place.to_string()).collect();
    format!("\n    GROUP BY {}", places.join(", "))
}
