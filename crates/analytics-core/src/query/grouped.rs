//! The part that all questions share: sums of the measures by bucket and columns, over the segments of a
//! range.

use std::fmt::Write as _;

use time::OffsetDateTime;

use super::measures::{Detail, minus_sums, sums, sums_of_sums};
use super::{Dimension, Filter, Param, Scope};
use crate::calendar::Buckets;
use crate::rollup::{Read, Segment, Sign};

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
    let filter = filter(text, grouping.scope, grouping.filter);
    let bucket = Bucket::of(text, buckets, segments);
    let keys: String = (0..dimensions.len()).map(|place| format!(", k{place}")).collect();
    let named: String = dimensions
        .iter()
        .enumerate()
        .map(|(place, dimension)| format!(", {} AS k{place}", dimension.column()))
        .collect();
    let mut parts = Vec::with_capacity(segments.len());
    for segment in segments {
        let from = text.bind(Param::Time(segment.range.start()));
        let to = text.bind(Param::Time(segment.range.end()));
        let time = segment.relation.time_column();
        let read = match &segment.read {
            Read::All => String::new(),
            Read::Only(starts) => format!(" AND {time} = ANY({}::timestamptz[])", times(text, starts)),
            Read::Except(starts) => format!(" AND {time} <> ALL({}::timestamptz[])", times(text, starts)),
        };
        let rows = format!(
            "FROM {}\n    WHERE {time} >= {from} AND {time} < {to}{read}{filter}",
            segment.relation.name()
        );
        let (bucket, sums) = match segment.sign {
            Sign::Plus => (bucket.expression(time), sums(segment.relation, detail)),
            Sign::Minus => (bucket.last(text, buckets), minus_sums(segment.relation, detail)),
        };
        parts.push(match bucket {
            // A constant is no column to group by: without it, a columnstore is added up by whole columns.
            Expression::Constant(start) => {
                let by = by_place(2, dimensions.len());
                format!("    SELECT {start} AS bucket{named}, {sums}\n    {rows}{by}\n    HAVING count(*) > 0")
            }
            // Likewise: first by the relation's own buckets, which are few against its rows.
            Expression::Computed(bucket) if segment.relation.grain().is_some() && are_few(dimensions) => {
                let by = by_place(1, dimensions.len() + 1);
                format!(
                    "    SELECT {bucket} AS bucket{keys}, {}\n    FROM (SELECT {time}{named}, {sums}\n    {rows}{by}) AS fine{by}",
                    sums_of_sums(detail)
                )
            }
            Expression::Computed(bucket) | Expression::Column(bucket) => {
                let by = by_place(1, dimensions.len() + 1);
                format!("    SELECT {bucket} AS bucket{named}, {sums}\n    {rows}{by}")
            }
        });
    }
    // One segment is grouped by the key already.
    if let [only] = parts.as_slice() {
        return only.clone();
    }
    // A group of which nothing is left was not there.
    let left = match segments.iter().any(|segment| segment.sign == Sign::Minus) {
        true => "\n    HAVING sum(requests) <> 0",
        false => "",
    };
    format!(
        "    SELECT bucket{keys}, {}\n    FROM (\n{}\n    ) AS segment\n    GROUP BY bucket{keys}{left}",
        sums_of_sums(detail),
        parts.join("\n    UNION ALL\n")
    )
}

fn times(text: &mut Text, times: &[OffsetDateTime]) -> String {
    text.bind(Param::Times(times.to_vec()))
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
                starts: times(text, buckets.starts()),
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
            Self::OfRelation => Expression::Column(time.to_owned()),
            // The origin is not after any row: date_bin of PostgreSQL before 15.6 is wrong there.
            Self::Even { step, origin } => Expression::Computed(format!(
                "date_bin(interval '{step} seconds', {time}, {origin}::timestamptz)"
            )),
            Self::Listed { starts } => Expression::Computed(format!(
                "({starts}::timestamptz[])[width_bucket({time}, {starts}::timestamptz[])]"
            )),
        }
    }
}

/// What a bucket is in SQL.
enum Expression {
    Constant(String),
    Column(String),
    Computed(String),
}

/// Whether groups are few: models and statuses are, whoever used them are not.
fn are_few(dimensions: &[Dimension]) -> bool {
    dimensions.iter().all(|dimension| dimension.is_of_models())
}

/// `GROUP BY` so many columns from a place on. By place, because a relation has a column named `bucket`.
fn by_place(first: usize, count: usize) -> String {
    if count == 0 {
        return String::new();
    }
    let places: Vec<String> = (first..first + count).map(|place| place.to_string()).collect();
    format!("\n    GROUP BY {}", places.join(", "))
}
