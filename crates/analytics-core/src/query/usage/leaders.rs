//! Charts of leaders: the ten users, or organizations, with the most tokens, by the day, and everybody else as one.
//!
//! They are looked for first, over the whole range and by tokens alone, in a statement of its own: with their ids as
//! values, a columnstore filters a column of users as it lies, and an index is probed for them alone. The chart is one
//! more statement, and one snapshot; who is in it was true a few milliseconds before. (What another user does in between
//! with a key of theirs is among the rest: it is later than what the answer says it counts through.)
//!
//! The rest is what is left of everything without the leaders, where everything is known from fewer rows than
//! all groups have.

use std::collections::HashSet;

use tokio_postgres::Row as SqlRow;
use uuid::Uuid;

use super::plan::leading;
use super::{Ask, Key, Rows};
use crate::calendar::{BucketWidth, Buckets};
use crate::query::grouped::{Grouping, Groups, Known, Text, are_many, grouped};
use crate::query::keys::Keys;
use crate::query::measures::{Detail, RowError, names, negated, sums_of_sums};
use crate::query::{Dimension, Param, Statement};
use crate::rollup::{Kept, Needs, Segment, cover};

/// How leaders are found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ranking {
    /// How many.
    top: u32,
    /// Whose rows are read: leaders are users or organizations, or of users.
    owner: Dimension,
    /// The range, as one bucket.
    whole: Buckets,
    /// What answers for that.
    segments: Vec<Segment>,
    /// What answers for all groups together, bucket by bucket, if that does.
    everything: Option<Vec<Segment>>,
}

/// Groups that have rows of their own.
#[derive(Debug, Default)]
pub(super) struct Leaders {
    /// What each is told apart by.
    keys: Vec<Vec<Key>>,
    /// Whose rows they have: see [`Ranking::owner`].
    owners: Vec<Uuid>,
}

impl Ranking {
    /// Where leaders are looked for among so many groups that it would not do to have them bucket by bucket first.
    pub(super) fn of(ask: &Ask, kept: Kept) -> Option<Self> {
        let Rows::Buckets { top: Some(top), .. } = ask.rows else {
            return None;
        };
        let owner = match (&*ask.group_by, are_many(&ask.group_by)) {
            _ if ask.buckets.starts().len() == 1 => return None,
            (_, true) => Dimension::User,
            ([Dimension::Organization], false) => Dimension::Organization,
            _ => return None,
        };
        let whole = Buckets::new(ask.buckets.range(), BucketWidth::All, ask.buckets.zone());
        let needs = ask.needs(kept);
        let segments = cover(&whole, &needs).ok()?;
        let filter = &ask.question.filter;
        let all = Needs {
            users: false,
            organizations: false,
            ..needs
        };
        let few = !filter.user_ids.is_empty() || !filter.api_key_ids.is_empty();
        let is_known = needs.one_organization || owner == Dimension::Organization;
        let everything = match is_known && !few {
            true => cover(&ask.buckets, &all).ok(),
            false => None,
        };
        if owner == Dimension::Organization && everything.is_none() {
            return None;
        }
        Some(Self {
            top,
            owner,
            whole,
            segments,
            everything,
        })
    }

    /// Looks for them.
    pub(super) fn statement(&self, ask: &Ask) -> Statement {
        let keys = Keys(ask.group_by.len());
        let mut dimensions = ask.group_by.clone();
        let owner = dimensions.iter().position(|dimension| *dimension == self.owner);
        if owner.is_none() {
            dimensions.push(self.owner);
        }
        let mut text = Text::default();
        let ranked = Grouping {
            detail: Detail::RANK,
            ..ask.grouping(&self.whole, &dimensions)
        };
        let ranked = grouped(&mut text, &ranked, &self.segments);
        let name = "leaders";
        let found = match owner {
            // Each group is one row.
            Some(owner) => {
                let top = text.bind(Param::Number(i64::from(self.top)));
                format!(
                    "SELECT k{owner} AS owner{} FROM ranked ORDER BY input_tokens + output_tokens DESC{} \
                     LIMIT {top}::bigint",
                    keys.of("ranked"),
                    keys.of("ranked")
                )
            }
            None => {
                let leaders = leading(&mut text, keys, "ranked", self.top);
                format!(
                    "SELECT ranked.k{} AS owner{} FROM ranked JOIN ({leaders}) AS leaders ON {}",
                    keys.0,
                    keys.of("ranked"),
                    keys.equal("ranked")
                )
            }
        };
        let sql = format!("-- {name}\nWITH ranked AS MATERIALIZED (\n{ranked}\n)\n{found}");
        Statement {
            name,
            sql,
            params: text.params,
        }
    }

    /// Groups bucket by bucket, of these leaders and the rest.
    pub(super) fn grouped(
        &self,
        ask: &Ask,
        text: &mut Text,
        with: &mut Vec<String>,
        segments: &[Segment],
        leaders: &Leaders,
    ) -> String {
        let keys = Keys(ask.group_by.len());
        let mut grouping = ask.grouping(&ask.buckets, &ask.group_by);
        let Some(everything) = &self.everything else {
            with.push(leaders.table(text, &ask.group_by));
            grouping.groups = Groups::LeadersAndRest;
            return grouped(text, &grouping, segments);
        };
        if ask.group_by.len() > 1 {
            with.push(leaders.table(text, &ask.group_by));
        }
        let known = Known {
            owner: self.owner,
            owners: leaders.owners.clone(),
            keys: (ask.group_by == [Dimension::ApiKey]).then(|| leaders.ids(0).collect()),
        };
        grouping.groups = Groups::Known(&known);
        let own = grouped(text, &grouping, segments);
        with.push(format!("own AS MATERIALIZED (\n{own}\n)"));
        let everything = grouped(text, &ask.grouping(&ask.buckets, &[]), everything);
        let detail = ask.detail();
        let (names, negated, rest) = (names(detail), negated(detail), sums_of_sums(detail));
        format!(
            "    SELECT bucket{}, {names} FROM own\n    UNION ALL\n    SELECT bucket{}, {rest}\n    FROM (\n\
             {everything}\n    UNION ALL\n    SELECT bucket, {negated} FROM own\n    ) AS rest\n    \
             GROUP BY bucket HAVING sum(requests) <> 0",
            keys.of("own"),
            keys.untyped_nulls(),
        )
    }
}

impl Leaders {
    /// Reads the rows of [`Ranking::statement`]: a group has one for each of its users.
    pub(super) fn from_rows(ask: &Ask, rows: &[SqlRow]) -> Result<Self, RowError> {
        let (mut keys, mut owners) = (HashSet::new(), HashSet::new());
        for row in rows {
            owners.insert(row.try_get("owner")?);
            let key = ask.group_by.iter().enumerate().map(|(place, dimension)| {
                let name = &*format!("k{place}");
                match dimension.is_id() {
                    true => row.try_get(name).map(Key::Id),
                    false => row.try_get(name).map(Key::Word),
                }
            });
            keys.insert(key.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(Self {
            keys: keys.into_iter().collect(),
            owners: owners.into_iter().collect(),
        })
    }

    /// What they have at one place of their keys.
    fn ids(&self, place: usize) -> impl Iterator<Item = Uuid> {
        self.keys.iter().filter_map(move |key| key.get(place)?.id())
    }

    /// Their keys as the table `leaders`.
    fn table(&self, text: &mut Text, dimensions: &[Dimension]) -> String {
        let columns: Vec<String> = dimensions
            .iter()
            .enumerate()
            .map(|(place, dimension)| {
                if dimension.is_id() {
                    let ids = self.ids(place).collect();
                    format!("{}::uuid[]", text.bind(Param::Ids(ids)))
                } else {
                    let words = self.keys.iter().filter_map(|key| key.get(place)?.word());
                    format!("{}::text[]", text.bind(Param::Texts(words.collect())))
                }
            })
            .collect();
        format!(
            "leaders AS MATERIALIZED (\n    SELECT * FROM unnest({}) AS leader({})\n)",
            columns.join(", "),
            Keys(dimensions.len()).plain()
        )
    }
}

impl Key {
    fn id(&self) -> Option<Uuid> {
        match self {
            Self::Id(id) => Some(*id),
            Self::Word(_) => None,
        }
    }

    fn word(&self) -> Option<String> {
        match self {
            Self::Word(word) => Some(word.clone()),
            Self::Id(_) => None,
        }
    }
}
