//! Usage events as the platform's producers write them, with the truth about each.
//!
//! Deterministic: the same [`Shape`] gives the same events in the same order. Organizations, users and
//! models are of uneven size, the load follows the working day, and the spelling varies as it does in the
//! field: money as Go's floats, decimal strings or with an exponent, times with offsets and nanoseconds,
//! fields that are absent, null or unknown.

pub mod decimal;
mod population;
pub mod random;
mod rhythm;
mod spelling;

use population::Population;
use random::Random;
use rhythm::Rhythm;
use time::OffsetDateTime;
use uuid::Uuid;

/// Stands in every error message: what must never reach a log can be searched for.
pub const ERROR_MESSAGE_CANARY: &str = "canary-6f1d2c";

/// What kind of stream to make.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Another seed, another stream, other organizations.
    pub seed: u64,
    /// How many organizations there are.
    pub organizations: usize,
    /// The earliest time of an event.
    pub start: OffsetDateTime,
    /// Every event happens before.
    pub end: OffsetDateTime,
}

/// What must be stored of an event, field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Unix microseconds.
    pub time_us: i64,
    /// With the time and the organization, what identifies the event.
    pub event_id: Uuid,
    /// The organization.
    pub org_id: Uuid,
    /// The user.
    pub user_id: Uuid,
    /// The key.
    pub api_key_id: Uuid,
    /// The model's name.
    pub model: &'static str,
    /// Tokens of the prompt.
    pub input_tokens: i32,
    /// Tokens of the answer.
    pub output_tokens: i32,
    /// Of the prompt's, those read from a cache, where the producer says.
    pub cached_input_tokens: Option<i32>,
    /// Of the answer's, those spent on reasoning, where the producer says.
    pub reasoning_tokens: Option<i32>,
    /// Units of 1e-10 USD.
    pub cost_e10: i128,
    /// Time to the first token.
    pub latency_ms: Option<i32>,
    /// `success`, or something that counts as an error.
    pub status: &'static str,
    /// What went wrong.
    pub error_message: Option<String>,
    /// The router's id of the request.
    pub request_id: Option<String>,
}

impl Fact {
    /// Whether it counts as an error.
    pub fn is_error(&self) -> bool {
        self.status != "success"
    }
}

/// An event: what is published, and what must come of it.
#[derive(Clone, Debug)]
pub struct Event {
    /// The message.
    pub body: Vec<u8>,
    /// Its meaning.
    pub fact: Fact,
}

/// Makes events. As an iterator it never ends, and gives times in no order.
#[derive(Clone, Debug)]
pub struct Generator {
    random: Random,
    population: Population,
    rhythm: Rhythm,
}

impl Generator {
    /// A generator at the beginning of its stream.
    pub fn new(shape: &Shape) -> Self {
        Self {
            random: Random::of(&[shape.seed, 0]),
            population: Population::new(shape.seed, shape.organizations),
            rhythm: Rhythm::new(shape.start, shape.end),
        }
    }

    /// The ids of all organizations, the largest first.
    pub fn organizations(&self) -> Vec<Uuid> {
        self.population.organizations().collect()
    }

    /// An event of this time.
    pub fn at(&mut self, time: OffsetDateTime) -> Event {
        self.event(time.unix_timestamp_nanos())
    }

    /// `count` events over the whole span, in the order of their times.
    pub fn in_order(&mut self, count: usize) -> impl Iterator<Item = Event> {
        (0..count).map(move |i| {
            let quantile = (i as f64 + self.random.unit()) / count as f64;
            self.event(self.rhythm.at(quantile))
        })
    }

    fn event(&mut self, unix_ns: i128) -> Event {
        let random = &mut self.random;
        let caller = self.population.draw_caller(random);
        let model = self.population.draw_model(random);
        let status = match random.below(1_000) {
            0..=939 => "success",
            940..=964 => "error",
            965..=979 => "timeout",
            980..=989 => "throttled",
            990..=998 => "budget_exceeded",
            // One that no part of the platform knows yet.
            _ => "preempted",
        };
        let refused = matches!(status, "throttled" | "budget_exceeded");
        let input_tokens = if refused { 0 } else { size(random, 14) };
        let output_tokens = if status == "success" { size(random, 11) } else { 0 };
        let mut fact = Fact {
            time_us: 0,
            event_id: random.uuid(),
            org_id: caller.org_id,
            user_id: caller.user_id,
            api_key_id: caller.api_key_id,
            model: model.name,
            input_tokens,
            output_tokens,
            // A part of all of it, or none.
            cached_input_tokens: random.one_in(3).then(|| input_tokens >> random.below(3)),
            reasoning_tokens: random.one_in(4).then(|| output_tokens >> random.below(3)),
            cost_e10: i128::from(input_tokens) * model.input_price_e10
                + i128::from(output_tokens) * model.output_price_e10,
            latency_ms: (!refused && !random.one_in(50)).then(|| size(random, 16)),
            status,
            error_message: (status != "success")
                .then(|| format!("upstream said \"{status}\"\n\tgäve up; {ERROR_MESSAGE_CANARY}")),
            request_id: (!random.one_in(20)).then(|| random.uuid().to_string()),
        };
        let body = spelling::write_body(&mut fact, unix_ns, random);
        Event { body, fact }
    }
}

impl Iterator for Generator {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let quantile = self.random.unit();
        Some(self.event(self.rhythm.at(quantile)))
    }
}

/// A number of up to `bits` bits, every order of magnitude as likely as the next.
fn size(random: &mut Random, bits: u64) -> i32 {
    let magnitude = 1 << random.below(bits);
    i32::try_from(magnitude + random.below(magnitude)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
