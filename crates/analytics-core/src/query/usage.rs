//! Usage in buckets of time, by any mix of columns: rows, and the totals of all, from one snapshot.

use std::cmp::Reverse;
use std::collections::HashMap;

use time::OffsetDateTime;
use tokio_postgres::Row as SqlRow;
use uuid::Uuid;

use super::grouped::{Grouping, Groups, Text, are_many, grouped};
use super::keys::Keys;
use super::measures::{Detail, Measures, RowError, names, negated, plain, sums_of_sums, totals, zeros};
use super::{Dimension, Filter, Param, Question, Scope, Statement};
use crate::calendar::{BucketWidth, Buckets};
use crate::rollup::{Kept, Needs, Segment, Unanswerable, cover};

/// The most rows of an answer.
pub const MOST_ROWS: usize = 10_000;

/// A question and the shape that its answer shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What the statement is called.
    pub name: &'static str,
    /// What is asked.
    pub question: Question,
    /// How its range is cut.
    pub buckets: Buckets,
    /// What the rows of a bucket are told apart by.
    pub group_by: Vec<Dimension>,
    /// Which rows.
    pub rows: Rows,
    /// Whether latencies are asked for.
    pub latency: bool,
    /// The range to compare with, as one bucket.
    pub before: Option<Buckets>,
    /// When it is asked, which makes no difference to the answer: see [`Needs::now`].
    pub now: OffsetDateTime,
}

/// Which rows an answer has. Totals are of all, whatever is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// Buckets in order of time.
    Buckets {
        /// The place of the first one.
        from: usize,
        /// How many there are at most.
        limit: usize,
        /// Whether those without usage count.
        filled: bool,
        /// Only the groups with the most tokens in the whole range, and the rest as one.
        top: Option<u32>,
    },
    /// The groups with the most tokens, and the rest as one.
    Ranked {
        /// How many.
        top: u32,
    },
    /// Groups in order of their one key.
    ById {
        /// The last one that is known already.
        after: Option<Key>,
        /// How many there are at most.
        limit: usize,
    },
}

/// The key of a group: an id or a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// An id.
    Id(Uuid),
    /// A word.
    Word(String),
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Of the whole range and filter.
    pub totals: Measures,
    /// Of the range that it is compared with.
    pub before: Option<Measures>,
    /// Bucket by bucket; in a bucket, most tokens first, or by key.
    pub rows: Vec<Row>,
    /// Where the next page begins, if there is one.
    pub next: Option<Next>,
}

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// With this bucket.
    Bucket(usize),
    /// After this key.
    After(String),
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The place of its bucket.
    pub bucket: usize,
    /// Its values of the dimensions, in their order; none of them where it stands for the rest.
    pub keys: Option<Vec<String>>,
    /// What is counted.
    pub measures: Measures,
    /// What was counted in the range that it is compared with.
    pub before: Option<Measures>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// More than [`MOST_ROWS`].
    #[error("the answer has more than {MOST_ROWS} rows")]
    TooManyRows,
    /// See there.
    #[error(transparent)]
    Row(#[from] RowError),
}

impl Ask {
    /// Whether a rollup by user or by key has to answer.
    #[must_use]
    pub fn is_by_user(&self) -> bool {
        let filter = &self.question.filter;
        !filter.user_ids.is_empty()
            || !filter.api_key_ids.is_empty()
            || self.group_by.iter().any(|dimension| dimension.is_of_users())
    }

    /// Whether a relation that does not tell models and statuses apart cannot answer.
    fn is_by_model(&self) -> bool {
        let filter = &self.question.filter;
        !filter.models.is_empty()
            || !filter.statuses.is_empty()
            || self.group_by.iter().any(|dimension| dimension.is_of_models())
    }

    /// How much is asked about latencies.
    #[must_use]
    pub fn detail(&self) -> Detail {
        match (self.latency, self.is_by_user()) {
            (false, _) => Detail::Counts,
            (true, true) => Detail::Mean,
            (true, false) => Detail::Histogram,
        }
    }

    fn needs(&self, kept: Kept) -> Needs {
        Needs {
            users: self.is_by_user(),
            models: self.is_by_model(),
            as_of_commit: false,
            one_organization: matches!(self.question.scope, Scope::Organization(_)),
            now: self.now,
            kept,
        }
    }

    /// The relations that answer, in order of time.
    ///
    /// # Errors
    /// If none answer exactly.
    pub fn segments(&self, kept: Kept) -> Result<Vec<Segment>, Unanswerable> {
        cover(&self.buckets, &self.needs(kept))
    }

    /// The statement that asks.
    ///
    /// # Errors
    /// If no set of relations answers exactly.
    pub fn statement(&self, kept: Kept) -> Result<Statement, Refused> {
        let segments = self.segments(kept).map_err(Refused::Range)?;
        let before = match &self.before {
            Some(buckets) => {
                let segments = cover(buckets, &self.needs(kept)).map_err(Refused::Before)?;
                Some((buckets, segments))
            }
            None => None,
        };
        let mut text = Text::default();
        let ranking = self.ranking(kept, &segments);
        let sql = self.sql(
            &mut text,
            &segments,
            ranking.as_ref(),
            before.as_ref().map(|(buckets, segments)| (*buckets, &**segments)),
        );
        Ok(Statement {
            name: self.name,
            sql,
            params: text.params,
        })
    }

    /// How leaders are looked for among so many groups that it would not do to have them bucket by bucket first.
    fn ranking(&self, kept: Kept, segments: &[Segment]) -> Option<Ranking> {
        let over_time =
            matches!(self.rows, Rows::Buckets { top: Some(_), .. }) && self.buckets.starts().len() > 1;
        if !over_time || !are_many(&self.group_by) {
            return None;
        }
        let whole = Buckets::new(self.buckets.range(), BucketWidth::All, self.buckets.zone());
        let needs = self.needs(kept);
        let coarser = cover(&whole, &needs).unwrap_or_else(|_| segments.to_vec());
        let Filter {
            user_ids,
            api_key_ids,
            ..
        } = &self.question.filter;
        let all = Needs {
            users: false,
            as_of_commit: true,
            ..needs
        };
        let everything = match needs.one_organization && user_ids.is_empty() && api_key_ids.is_empty() {
            true => cover(&self.buckets, &all).ok(),
            false => None,
        };
        Some(Ranking {
            whole,
            segments: coarser,
            everything,
        })
    }

    fn grouping<'a>(&'a self, buckets: &'a Buckets, dimensions: &'a [Dimension]) -> Grouping<'a> {
        Grouping {
            scope: self.question.scope,
            filter: &self.question.filter,
            buckets,
            dimensions,
            detail: self.detail(),
            groups: Groups::All,
        }
    }

    fn sql(
        &self,
        text: &mut Text,
        segments: &[Segment],
        ranking: Option<&Ranking>,
        before: Option<(&Buckets, &[Segment])>,
    ) -> String {
        let detail = self.detail();
        let keys = Keys(self.group_by.len());
        let most = MOST_ROWS + 1;
        let mut with = Vec::new();
        let mut join = None;
        let groups = match ranking {
            None => grouped(text, &self.grouping(&self.buckets, &self.group_by), segments),
            Some(ranking) => self.leaders_and_rest(text, &mut with, segments, ranking),
        };
        with.push(format!("grouped AS MATERIALIZED (\n{groups}\n)"));
        if ranking.is_none()
            && let Some(leaders) = self.leaders(text, keys, "grouped")
        {
            with.push(leaders);
            let outer = if matches!(self.rows, Rows::ById { .. }) {
                ""
            } else {
                "LEFT "
            };
            join = Some(format!("{outer}JOIN leaders ON {}", keys.equal("grouped")));
        }
        let mut parts = vec![format!(
            "SELECT 'total' AS part, NULL::timestamptz AS bucket{}, {} FROM grouped",
            keys.nulls(),
            totals(detail)
        )];
        let shown = self.shown(text, &mut with, &mut parts, keys);
        parts.push(match &join {
            None => format!(
                "(SELECT 'row', bucket{}, {} FROM grouped{shown} ORDER BY bucket LIMIT {most})",
                keys.texts("grouped"),
                plain(detail)
            ),
            Some(join) => format!(
                "(SELECT 'row', bucket{}, {} FROM grouped {join}{shown} \
                 GROUP BY bucket{} ORDER BY bucket LIMIT {most})",
                keys.texts("leaders"),
                totals(detail),
                keys.of("leaders")
            ),
        });
        if let Some((buckets, segments)) = before {
            // Rows of a list are compared one by one, a chart as a whole.
            let by_row = join
                .as_ref()
                .filter(|_| !matches!(self.rows, Rows::Buckets { .. }));
            let dimensions = if by_row.is_some() { &*self.group_by } else { &[] };
            let grouped = grouped(text, &self.grouping(buckets, dimensions), segments);
            with.push(format!("before AS MATERIALIZED (\n{grouped}\n)"));
            parts.push(format!(
                "SELECT 'before', NULL{}, {} FROM before",
                keys.nulls(),
                totals(detail)
            ));
            if by_row.is_some() {
                parts.push(format!(
                    "SELECT 'row before', NULL{}, {} FROM before JOIN leaders ON {}",
                    keys.texts("leaders"),
                    plain(detail),
                    keys.equal("before")
                ));
            }
        }
        format!(
            "-- {}\nWITH {}\n{}",
            self.name,
            with.join(",\n"),
            parts.join("\nUNION ALL\n")
        )
    }

    /// Groups bucket by bucket, where the leaders of all time are known first.
    ///
    /// The rest is what is left of everything without the leaders, where everything is known from fewer rows than
    /// all groups have.
    fn leaders_and_rest(
        &self,
        text: &mut Text,
        with: &mut Vec<String>,
        segments: &[Segment],
        ranking: &Ranking,
    ) -> String {
        let keys = Keys(self.group_by.len());
        let mut dimensions = self.group_by.clone();
        let owner = dimensions
            .iter()
            .position(|dimension| *dimension == Dimension::User);
        let owner = owner.unwrap_or_else(|| {
            dimensions.push(Dimension::User);
            keys.0
        });
        let ranked = Grouping {
            detail: Detail::Tokens,
            ..self.grouping(&ranking.whole, &dimensions)
        };
        let ranked = grouped(text, &ranked, &ranking.segments);
        with.push(format!("ranked AS MATERIALIZED (\n{ranked}\n)"));
        with.extend(self.leaders(text, keys, "ranked"));
        let mut grouping = self.grouping(&self.buckets, &self.group_by);
        let Some(everything) = &ranking.everything else {
            grouping.groups = Groups::LeadersAndRest;
            return grouped(text, &grouping, segments);
        };
        with.push(format!(
            "owners AS MATERIALIZED (\n    SELECT DISTINCT ranked.k{owner} AS owner FROM ranked JOIN leaders ON {}\n)",
            keys.equal("ranked")
        ));
        grouping.groups = Groups::Leaders;
        let own = grouped(text, &grouping, segments);
        with.push(format!("own AS MATERIALIZED (\n{own}\n)"));
        let everything = grouped(text, &self.grouping(&self.buckets, &[]), everything);
        let detail = self.detail();
        let (names, negated, rest) = (names(detail), negated(detail), sums_of_sums(detail));
        format!(
            "    SELECT bucket{}, {names} FROM own\n    UNION ALL\n    SELECT bucket{}, {rest}\n    FROM (\n\
             {everything}\n    UNION ALL\n    SELECT bucket, {negated} FROM own\n    ) AS rest\n    \
             GROUP BY bucket HAVING sum(requests) <> 0",
            keys.of("own"),
            keys.untyped_nulls(),
        )
    }

    /// The keys that have rows of their own, where not all have; `groups` has all of them.
    fn leaders(&self, text: &mut Text, keys: Keys, groups: &str) -> Option<String> {
        let names = keys.plain();
        let leaders = match &self.rows {
            Rows::Ranked { top } | Rows::Buckets { top: Some(top), .. } => {
                let top = text.bind(Param::Number(i64::from(*top)));
                format!(
                    "SELECT {names} FROM {groups} GROUP BY {names} \
                     ORDER BY sum(input_tokens + output_tokens) DESC, {names} LIMIT {top}::bigint"
                )
            }
            Rows::ById { after, limit } => {
                let after = match after {
                    None => String::new(),
                    Some(Key::Id(id)) => format!(" WHERE k0 > {}::uuid", text.bind(Param::Id(*id))),
                    Some(Key::Word(word)) => {
                        let word = text.bind(Param::Text(word.clone()));
                        format!(" WHERE k0::text > {word}::text COLLATE \"C\"")
                    }
                };
                let limit = text.bind(Param::Number(number(*limit) + 1));
                format!("SELECT k0 FROM {groups}{after} ORDER BY k0 LIMIT {limit}::bigint")
            }
            Rows::Buckets { top: None, .. } => return None,
        };
        Some(format!("leaders AS MATERIALIZED (\n    {leaders}\n)"))
    }

    /// The condition on the buckets of this page.
    fn shown(&self, text: &mut Text, with: &mut Vec<String>, parts: &mut Vec<String>, keys: Keys) -> String {
        let Rows::Buckets {
            from, limit, filled, ..
        } = self.rows
        else {
            return String::new();
        };
        let starts = self.buckets.starts();
        if starts.len() == 1 {
            return String::new();
        }
        // The first bucket may begin before the range.
        let mut bounds = Vec::new();
        if from > 0
            && let Some(start) = starts.get(from)
        {
            bounds.push(format!("bucket >= {}", text.bind(Param::Time(*start))));
        }
        if filled {
            if let Some(end) = starts.get(from.saturating_add(limit)) {
                bounds.push(format!("bucket < {}", text.bind(Param::Time(*end))));
            }
            return conditions(&bounds);
        }
        let limit = text.bind(Param::Number(number(limit)));
        with.push(format!(
            "page AS MATERIALIZED (\n    SELECT DISTINCT bucket FROM grouped{} ORDER BY bucket LIMIT {limit}::bigint + 1\n)",
            conditions(&bounds)
        ));
        parts.push(format!(
            "(SELECT 'next', bucket{}, {} FROM page ORDER BY bucket OFFSET {limit}::bigint)",
            keys.nulls(),
            zeros(self.detail())
        ));
        format!(" WHERE bucket IN (SELECT bucket FROM page ORDER BY bucket LIMIT {limit}::bigint)")
    }

    /// Reads the rows of [`Ask::statement`].
    ///
    /// # Errors
    /// If there are more than an answer may have, or they are not of that statement's shape.
    pub fn answer(&self, rows: &[SqlRow]) -> Result<Answer, AnswerError> {
        let detail = self.detail();
        let (mut all, mut before, mut next) = (None, None, None);
        let mut shown = Vec::with_capacity(rows.len());
        let mut rows_before = HashMap::new();
        for row in rows {
            let measures = Measures::from_row(row, detail)?;
            match row.try_get("part").map_err(RowError::from)? {
                "total" => all = Some(measures),
                "before" => before = Some(measures),
                "next" => next = Some(Next::Bucket(self.place(row)?)),
                "row before" => {
                    rows_before.insert(self.keys(row)?, measures);
                }
                _ => shown.push(Row {
                    bucket: self.place(row)?,
                    keys: self.keys(row)?,
                    measures,
                    before: None,
                }),
            }
        }
        if shown.len() > MOST_ROWS {
            return Err(AnswerError::TooManyRows);
        }
        if let Some(all) = before.filter(|_| !matches!(self.rows, Rows::Buckets { .. })) {
            compare_rows(&mut shown, &rows_before, all);
        }
        let by_id = matches!(self.rows, Rows::ById { .. });
        // UNION ALL promises no order.
        shown.sort_by(|one, other| {
            let rank = |row: &Row| {
                let tokens = if by_id { 0 } else { row.measures.total_tokens() };
                (row.bucket, row.keys.is_none(), Reverse(tokens))
            };
            rank(one)
                .cmp(&rank(other))
                .then_with(|| one.keys.cmp(&other.keys))
        });
        match self.rows {
            Rows::ById { limit, .. } if shown.len() > limit => {
                shown.truncate(limit);
                let last = shown.last().and_then(|row| row.keys.as_ref()?.first().cloned());
                next = last.map(Next::After);
            }
            Rows::Buckets {
                from,
                limit,
                filled: true,
                ..
            } => {
                let end = from.saturating_add(limit);
                next = (end < self.buckets.starts().len()).then_some(Next::Bucket(end));
            }
            _ => {}
        }
        Ok(Answer {
            totals: all.ok_or(RowError::NoTotals)?,
            before,
            rows: shown,
            next,
        })
    }

    fn place(&self, row: &SqlRow) -> Result<usize, RowError> {
        let start: OffsetDateTime = row.try_get("bucket")?;
        let start = start.max(self.buckets.range().start());
        self.buckets.place(start).ok_or(RowError::NoBucket)
    }

    /// `None` for the row that stands for the rest.
    fn keys(&self, row: &SqlRow) -> Result<Option<Vec<String>>, RowError> {
        let mut keys = Vec::with_capacity(self.group_by.len());
        for place in 0..self.group_by.len() {
            match row.try_get::<_, Option<String>>(&*format!("k{place}"))? {
                Some(key) => keys.push(key),
                None => return Ok(None),
            }
        }
        Ok(Some(keys))
    }
}

/// How the leaders of a range are found.
struct Ranking {
    /// It, as one bucket.
    whole: Buckets,
    /// What answers for that.
    segments: Vec<Segment>,
    /// What answers for all groups together, bucket by bucket, if that does.
    everything: Option<Vec<Segment>>,
}

/// A question that has no exact answer, or has one that could not be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The question itself.
    Range(Unanswerable),
    /// The range that it is compared with.
    Before(Unanswerable),
}

fn compare_rows(rows: &mut [Row], before: &HashMap<Option<Vec<String>>, Measures>, all: Measures) {
    let mut rest = all;
    for measures in before.values() {
        rest = rest.less(measures);
    }
    for row in rows {
        row.before = Some(match &row.keys {
            None => rest,
            keys => before.get(keys).copied().unwrap_or_else(|| all.none()),
        });
    }
}

fn conditions(conditions: &[String]) -> String {
    if conditions.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", conditions.join(" AND "))
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
