//! How a question is asked: the relations that answer it, and its SQL.

use tokio_postgres::Row as SqlRow;

use super::leaders::{Leaders, Ranking};
use super::{Ask, Key, MOST_ROWS, Rows, number};
use crate::calendar::Buckets;
use crate::query::grouped::{Grouping, Groups, Text, grouped};
use crate::query::keys::Keys;
use crate::query::measures::{RowError, plain, totals, zeros};
use crate::query::{Dimension, Param, Statement};
use crate::rollup::{Kept, Segment, Unanswerable, cover};

/// What has to be read for an answer, which is one statement, or one whose rows make the next.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan<'a> {
    ask: &'a Ask,
    segments: Vec<Segment>,
    before: Option<Vec<Segment>>,
    ranking: Option<Ranking>,
}

/// A question that has no exact answer, or has one that could not be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The question itself.
    Range(Unanswerable),
    /// The range that it is compared with.
    Before(Unanswerable),
}

impl Ask {
    /// What to read.
    ///
    /// # Errors
    /// If no set of relations answers exactly.
    pub fn plan(&self, kept: Kept) -> Result<Plan<'_>, Refused> {
        let needs = self.needs(kept);
        let segments = cover(&self.buckets, &needs).map_err(Refused::Range)?;
        let before = self.before.as_ref().map(|buckets| cover(buckets, &needs));
        Ok(Plan {
            ask: self,
            before: before.transpose().map_err(Refused::Before)?,
            segments,
            ranking: Ranking::of(self, kept),
        })
    }

    pub(super) fn grouping<'a>(&'a self, buckets: &'a Buckets, dimensions: &'a [Dimension]) -> Grouping<'a> {
        Grouping {
            scope: self.question.scope,
            filter: &self.question.filter,
            buckets,
            dimensions,
            detail: self.detail(),
            groups: Groups::All,
        }
    }

    /// The keys that have rows of their own, where not all have.
    fn leaders(&self, text: &mut Text, keys: Keys) -> Option<String> {
        let leaders = match &self.rows {
            Rows::Ranked { top } | Rows::Buckets { top: Some(top), .. } => {
                leading(text, keys, "grouped", *top)
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
                format!("SELECT k0 FROM grouped{after} ORDER BY k0 LIMIT {limit}::bigint")
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
        // All of them are on it.
        if from == 0 && starts.len() <= limit {
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
}

impl Plan<'_> {
    /// What the question is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.ask.name
    }

    /// The statement to begin with.
    #[must_use]
    pub fn first(&self) -> Statement {
        match &self.ranking {
            None => self.statement(&Leaders::default()),
            Some(ranking) => ranking.statement(self.ask),
        }
    }

    /// The statement whose rows are the answer, by the rows of the first one; `None` if they are that.
    ///
    /// # Errors
    /// If they are not of that statement's shape.
    pub fn next(&self, rows: &[SqlRow]) -> Result<Option<Statement>, RowError> {
        match &self.ranking {
            None => Ok(None),
            Some(_) => Ok(Some(self.statement(&Leaders::from_rows(self.ask, rows)?))),
        }
    }

    /// The statement that asks the question.
    fn statement(&self, leaders: &Leaders) -> Statement {
        let ask = self.ask;
        let text = &mut Text::default();
        let detail = ask.detail();
        let keys = Keys(ask.group_by.len());
        let most = MOST_ROWS + 1;
        let mut with = Vec::new();
        let mut join = None;
        let groups = match &self.ranking {
            None => grouped(text, &ask.grouping(&ask.buckets, &ask.group_by), &self.segments),
            Some(ranking) => ranking.grouped(ask, text, &mut with, &self.segments, leaders),
        };
        with.push(format!("grouped AS MATERIALIZED (\n{groups}\n)"));
        if self.ranking.is_none()
            && let Some(leaders) = ask.leaders(text, keys)
        {
            with.push(leaders);
            let outer = if matches!(ask.rows, Rows::ById { .. }) {
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
        let shown = ask.shown(text, &mut with, &mut parts, keys);
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
        if let Some((buckets, segments)) = ask.before.as_ref().zip(self.before.as_deref()) {
            // Rows of a list are compared one by one, a chart as a whole.
            let by_row = join
                .as_ref()
                .filter(|_| !matches!(ask.rows, Rows::Buckets { .. }));
            let dimensions = if by_row.is_some() { &*ask.group_by } else { &[] };
            let grouped = grouped(text, &ask.grouping(buckets, dimensions), segments);
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
        Statement {
            name: ask.name,
            sql: format!(
                "-- {}\nWITH {}\n{}",
                ask.name,
                with.join(",\n"),
                parts.join("\nUNION ALL\n")
            ),
            params: std::mem::take(&mut text.params),
        }
    }
}

fn conditions(conditions: &[String]) -> String {
    if conditions.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", conditions.join(" AND "))
    }
}

/// The keys with the most tokens, of all that `groups` has.
pub(super) fn leading(text: &mut Text, keys: Keys, groups: &str, top: u32) -> String {
    let names = keys.plain();
    let top = text.bind(Param::Number(i64::from(top)));
    format!(
        "SELECT {names} FROM {groups} GROUP BY {names} \
         ORDER BY sum(input_tokens + output_tokens) DESC, {names} LIMIT {top}::bigint"
    )
}
