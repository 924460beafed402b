//! What the answers must be: the sums over events whose facts are known, to the last digit.

use std::collections::{BTreeMap, HashMap};
use std::ops::{AddAssign, Range};

use time::OffsetDateTime;
use uuid::Uuid;

use crate::generator::{Fact, decimal};

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// The sums that the API answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// Requests.
    pub requests: i64,
    /// Requests whose status is not `success`.
    pub errors: i64,
    /// Tokens of the prompts.
    pub input_tokens: i64,
    /// Tokens of the answers.
    pub output_tokens: i64,
    /// Both.
    pub total_tokens: i64,
    /// Units of 1e-10 USD.
    pub cost_e10: i128,
}

impl Measures {
    /// The cost in USD, as decimal text without superfluous zeros.
    pub fn cost(&self) -> String {
        decimal::text(self.cost_e10)
    }
}

impl AddAssign<&Self> for Measures {
    fn add_assign(&mut self, part: &Self) {
        self.requests += part.requests;
        self.errors += part.errors;
        self.input_tokens += part.input_tokens;
        self.output_tokens += part.output_tokens;
        self.total_tokens += part.total_tokens;
        self.cost_e10 += part.cost_e10;
    }
}

impl AddAssign<&Counted> for Measures {
    fn add_assign(&mut self, event: &Counted) {
        self.requests += 1;
        self.errors += i64::from(event.is_error);
        self.input_tokens += i64::from(event.input_tokens);
        self.output_tokens += i64::from(event.output_tokens);
        self.total_tokens += i64::from(event.input_tokens) + i64::from(event.output_tokens);
        self.cost_e10 += event.cost_e10;
    }
}

/// What is kept of an event in order to answer any question about it.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Unix microseconds.
    pub time_us: i64,
    /// The user.
    pub user_id: Uuid,
    /// The key.
    pub api_key_id: Uuid,
    /// The model's name.
    pub model: &'static str,
    /// `success`, or something that counts as an error.
    pub status: &'static str,
    /// Time to the first token.
    pub latency_ms: Option<i32>,
    is_error: bool,
    input_tokens: i32,
    output_tokens: i32,
    cost_e10: i128,
}

/// Which events a question is about. The default is all of them.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Only this organization.
    pub org_id: Option<Uuid>,
    /// Only this span, the end exclusive.
    pub time: Option<Range<OffsetDateTime>>,
    /// Only these users; all when empty.
    pub users: Vec<Uuid>,
    /// Only these models; all when empty.
    pub models: Vec<String>,
    /// Only these keys; all when empty.
    pub keys: Vec<Uuid>,
    /// Only these statuses; all when empty.
    pub statuses: Vec<String>,
}

impl Question {
    /// About one organization.
    pub fn of(org_id: Uuid) -> Self {
        Self {
            org_id: Some(org_id),
            ..Self::default()
        }
    }

    /// The same, from `start` until before `end`.
    #[must_use]
    pub fn between(mut self, start: OffsetDateTime, end: OffsetDateTime) -> Self {
        self.time = Some(start..end);
        self
    }

    /// The same, for one user.
    #[must_use]
    pub fn user(mut self, user_id: Uuid) -> Self {
        self.users.push(user_id);
        self
    }

    /// The same, for one model.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.models.push(model.into());
        self
    }

    fn asks_for(&self, event: &Counted) -> bool {
        let at = i128::from(event.time_us) * 1_000;
        let in_time = self.time.as_ref().is_none_or(|time| {
            time.start.unix_timestamp_nanos() <= at && at < time.end.unix_timestamp_nanos()
        });
        in_time
            && (self.users.is_empty() || self.users.contains(&event.user_id))
            && (self.models.is_empty() || self.models.iter().any(|model| model == event.model))
            && (self.keys.is_empty() || self.keys.contains(&event.api_key_id))
            && (self.statuses.is_empty() || self.statuses.iter().any(|status| status == event.status))
    }
}

/// Every event that was counted, in a form that answers questions.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    organizations: HashMap<Uuid, Vec<Counted>>,
}

impl Truth {
    /// Counts an event. To be called once for each, however often it is published.
    pub fn add(&mut self, fact: &Fact) {
        self.organizations.entry(fact.org_id).or_default().push(Counted {
            time_us: fact.time_us,
            user_id: fact.user_id,
            api_key_id: fact.api_key_id,
            model: fact.model,
            status: fact.status,
            latency_ms: fact.latency_ms,
            is_error: fact.is_error(),
            input_tokens: fact.input_tokens,
            output_tokens: fact.output_tokens,
            cost_e10: fact.cost_e10,
        });
    }

    /// How many events were counted.
    pub fn len(&self) -> usize {
        self.organizations.values().map(Vec::len).sum()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of a question's events together.
    pub fn total(&self, question: &Question) -> Measures {
        self.grouped(question, |_, _| ()).remove(&()).unwrap_or_default()
    }

    /// For each organization.
    pub fn by_organization(&self, question: &Question) -> BTreeMap<Uuid, Measures> {
        self.grouped(question, |org_id, _| org_id)
    }

    /// For each user.
    pub fn by_user(&self, question: &Question) -> BTreeMap<Uuid, Measures> {
        self.grouped(question, |_, event| event.user_id)
    }

    /// For each key.
    pub fn by_key(&self, question: &Question) -> BTreeMap<Uuid, Measures> {
        self.grouped(question, |_, event| event.api_key_id)
    }

    /// For each model.
    pub fn by_model(&self, question: &Question) -> BTreeMap<&'static str, Measures> {
        self.grouped(question, |_, event| event.model)
    }

    /// For each hour of UTC that has events, by its beginning.
    pub fn by_hour(&self, question: &Question) -> BTreeMap<OffsetDateTime, Measures> {
        self.grouped(question, |_, event| bucket(event.time_us, HOUR_US))
    }

    /// For each day of UTC that has events, by its beginning.
    pub fn by_day(&self, question: &Question) -> BTreeMap<OffsetDateTime, Measures> {
        self.grouped(question, |_, event| bucket(event.time_us, DAY_US))
    }

    /// For whatever a key makes of an event and its organization.
    pub fn grouped<K: Ord>(
        &self,
        question: &Question,
        key: impl Fn(Uuid, &Counted) -> K,
    ) -> BTreeMap<K, Measures> {
        let mut groups: BTreeMap<K, Measures> = BTreeMap::new();
        self.each(question, |org_id, event| {
            *groups.entry(key(org_id, event)).or_default() += event;
        });
        groups
    }

    /// Latencies that were measured, smallest first, for whatever a key makes of an event.
    pub fn latencies<K: Ord>(
        &self,
        question: &Question,
        key: impl Fn(Uuid, &Counted) -> K,
    ) -> BTreeMap<K, Vec<i32>> {
        let mut groups: BTreeMap<K, Vec<i32>> = BTreeMap::new();
        self.each(question, |org_id, event| {
            groups
                .entry(key(org_id, event))
                .or_default()
                .extend(event.latency_ms);
        });
        groups
            .values_mut()
            .for_each(|latencies| latencies.sort_unstable());
        groups
    }

    fn each(&self, question: &Question, mut of: impl FnMut(Uuid, &Counted)) {
        let mut count = |org_id: Uuid, events: &[Counted]| {
            for event in events.iter().filter(|event| question.asks_for(event)) {
                of(org_id, event);
            }
        };
        match question.org_id {
            Some(org_id) => count(
                org_id,
                self.organizations.get(&org_id).map_or(&[][..], Vec::as_slice),
            ),
            None => self
                .organizations
                .iter()
                .for_each(|(org_id, events)| count(*org_id, events)),
        }
    }
}

impl<'a> Extend<&'a Fact> for Truth {
    fn extend<I: IntoIterator<Item = &'a Fact>>(&mut self, facts: I) {
        facts.into_iter().for_each(|fact| self.add(fact));
    }
}

fn bucket(time_us: i64, width_us: i64) -> OffsetDateTime {
    let start = i128::from(time_us.div_euclid(width_us) * width_us) * 1_000;
    // Every event's time was an OffsetDateTime once.
    OffsetDateTime::from_unix_timestamp_nanos(start).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::{Measures, Question, Truth};
    use crate::generator::{Generator, Shape};

    fn sum<'a>(parts: impl IntoIterator<Item = &'a Measures>) -> Measures {
        parts.into_iter().fold(Measures::default(), |mut sum, part| {
            sum += part;
            sum
        })
    }

    #[test]
    fn every_way_to_group_adds_up() {
        let shape = Shape {
            seed: 3,
            organizations: 20,
            start: datetime!(2026-03-01 00:00 UTC),
            end: datetime!(2026-03-08 00:00 UTC),
        };
        let mut truth = Truth::default();
        let facts: Vec<_> = Generator::new(&shape)
            .take(5_000)
            .map(|event| event.fact)
            .collect();
        truth.extend(&facts);
        assert_eq!(truth.len(), 5_000);

        let all = Question::default();
        let total = truth.total(&all);
        assert_eq!(total.requests, 5_000);
        assert_eq!(
            total.cost_e10,
            facts.iter().map(|fact| fact.cost_e10).sum::<i128>()
        );
        assert_eq!(sum(truth.by_organization(&all).values()), total);
        assert_eq!(sum(truth.by_user(&all).values()), total);
        assert_eq!(sum(truth.by_key(&all).values()), total);
        assert_eq!(sum(truth.by_model(&all).values()), total);
        assert_eq!(sum(truth.by_hour(&all).values()), total);
        assert_eq!(truth.by_day(&all).len(), 7);

        let noon = datetime!(2026-03-04 12:00 UTC);
        let first = truth.total(&all.clone().between(shape.start, noon));
        let second = truth.total(&all.between(noon, shape.end));
        assert!(first.requests > 0 && second.requests > 0);
        assert_eq!(sum([&first, &second]), total);
    }
}
