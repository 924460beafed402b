//! What every question costs: the largest and a median organization, and the system, over a history of
//! two months; with nothing else going on, while events arrive, and right after that with nothing else going
//! on again: what is live is compared with that, over the same events.
//!
//! Live and idle again alternate, in rounds, and what is told is the median of the rounds: a machine that has
//! neighbours is not the same from second to second. For the same reason live is compared with idle round by round, and
//! where a target is missed, the question is asked for as many rounds again and one: the medians are then of all of them.
//!
//! After each answer the client counts for a while, always equally far: how long that takes tells how fast the
//! machine itself was, with nothing of ours to do for it.
//!
//! What stands for the platform, its broker and its publishers, would have machines of their own: here it gives way
//! to what is ours ([`load`](super::load)), and still has to bring as many events as it should.
//!
//! `BENCH_QUESTIONS="by the day"` asks only those that are called so, and `BENCH_ROUNDS=0` asks nothing live.
//!
//! The API keeps no answers, so each one is computed. What a question costs is the time until its whole
//! answer is here, over HTTP, one question at a time. Then nothing is asked for as long as that took: asked without a
//! pause they would keep a core busy for themselves, and on a small machine fewer events would arrive than should.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::api::Client;
use e2e::generator::{Generator, Shape};
use e2e::token::{Claims, SECRET};
use serde::Serialize;
use time::OffsetDateTime;

use super::load::{Arrived, Load};
use super::{ORGANIZATIONS, median};

const HISTORY_DAYS: i64 = 60;
/// The most that a question about one organization may take, at p99.
const ORGANIZATION_TARGET_MS: f64 = 50.0;
/// The same, about the system: what the specification demands.
const SYSTEM_TARGET_MS: f64 = 500.0;
/// How much longer a question may take, in the median, while events arrive.
pub(crate) const LIVE_FACTOR: f64 = 1.3;
/// Asked before, and not counted: connections, plans, pages read for the first time.
const WARM_UP: usize = 5;
const ASKED: usize = 100;
/// And for so long, at least: what is short meets several batches of what arrives, and not one or none.
const ASKED_FOR: Duration = Duration::from_millis(1_500);
/// But not for longer than that, if it is slow.
const ASKED_AT_MOST_FOR: Duration = Duration::from_secs(6);
/// How far the client counts after an answer: some 0.3 ms.
const COUNTED: u32 = 1_000_000;
/// For how long answers are asked for their age.
const AGE_FOR: Duration = Duration::from_secs(30);
/// For how long events arrive before the first answer that counts.
const BEFORE_LIVE: Duration = Duration::from_secs(1);
const SEED: u64 = 77;

/// What there was to measure.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Questions {
    /// Cores that events keep busy while they arrive and nobody asks: publisher, broker, worker and database.
    /// A question that would have a core for itself can't be as fast live as idle if less than one is left.
    pub(crate) cores_busy_live: f64,
    /// How many of them did arrive.
    pub(crate) arrived: Arrived,
    /// How old the answers' data was while they arrived, in seconds: of 99 in a hundred answers at most this.
    pub(crate) age_p99_seconds: f64,
    pub(crate) asked: Vec<Question>,
}

/// What one question took.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) target_ms: f64,
    pub(crate) idle: Spread,
    pub(crate) live: Spread,
    /// Right after `live`, over the same events.
    pub(crate) idle_again: Spread,
    /// How much longer the median answer took live than idle again.
    pub(crate) live_factor: f64,
    /// The same of counting.
    pub(crate) counting_factor: f64,
    /// How many rounds these are the medians of.
    pub(crate) rounds: usize,
}

/// Of [`ASKED`] answers or more, but of what is slow of fewer; or the medians of several.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Spread {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// What counting took beside them, in the median.
    pub(crate) counting_ms: f64,
}

/// One round of a question.
struct Round {
    live: Spread,
    idle_again: Spread,
}

impl Spread {
    fn median<T>(of: &[T], spread: fn(&T) -> &Self) -> Self {
        Self {
            p50_ms: median(of, |one| spread(one).p50_ms),
            p99_ms: median(of, |one| spread(one).p99_ms),
            counting_ms: median(of, |one| spread(one).counting_ms),
        }
    }
}

impl Question {
    fn count(&mut self, rounds: &[Round]) {
        self.live = Spread::median(rounds, |round| &round.live);
        self.idle_again = Spread::median(rounds, |round| &round.idle_again);
        self.live_factor = median(rounds, |round| round.live.p50_ms / round.idle_again.p50_ms);
        self.counting_factor = median(rounds, |round| {
            round.live.counting_ms / round.idle_again.counting_ms
        });
        self.rounds = rounds.len();
    }

    pub(crate) fn is_good(&self) -> bool {
        [self.idle, self.live, self.idle_again]
            .iter()
            .all(|spread| spread.p99_ms <= self.target_ms)
            && self.live_factor <= LIVE_FACTOR
    }
}

/// The events of the history.
pub(crate) fn shape() -> Shape {
    let end = OffsetDateTime::now_utc();
    Shape {
        seed: SEED,
        organizations: ORGANIZATIONS,
        start: end - time::Duration::days(HISTORY_DAYS),
        end,
    }
}

/// Asks every question, idle and live, in so many rounds. `cpu` is what this
/// process and all servers have used; `stored` waits until the worker has stored that many.
pub(crate) async fn measure(
    rabbitmq_url: &str,
    queue: &str,
    api_base: &str,
    rounds: usize,
    cpu: impl Fn() -> Duration,
    stored: impl AsyncFn(usize) -> Result<()>,
) -> Result<Questions> {
    let client = Client::new(api_base, &Claims::system_admin(), SECRET)?;
    let mut questions = Questions::default();
    for asked in all_questions() {
        questions.asked.push(Question {
            idle: idle(&client, &asked, rounds).await?,
            name: asked.name.clone(),
            target_ms: asked.target_ms,
            ..Question::default()
        });
    }
    let mut arrived = Arrived::default();
    let stored_after = async |events: usize| {
        let began = Instant::now();
        stored(events).await?;
        anyhow::Ok(began.elapsed())
    };
    let load = Load::start(rabbitmq_url, queue, shape()).await?;
    tokio::time::sleep(BEFORE_LIVE).await;
    let (used, began) = (cpu(), Instant::now());
    tokio::time::sleep(Duration::from_secs(5)).await;
    questions.cores_busy_live = cpu().saturating_sub(used).as_secs_f64() / began.elapsed().as_secs_f64();
    questions.age_p99_seconds = age(&client).await?;
    let published = load.stop().await?;
    arrived.add(published, stored_after(published.0).await?);
    for (question, asked) in questions.asked.iter_mut().zip(all_questions()) {
        if rounds == 0 {
            break;
        }
        let most = 2 * rounds + 1;
        let mut asked_in = Vec::with_capacity(most);
        while asked_in.len() < rounds || asked_in.len() < most && !question.is_good() {
            let load = Load::start(rabbitmq_url, queue, shape()).await?;
            tokio::time::sleep(BEFORE_LIVE).await;
            let live = ask(&client, &asked).await?;
            let published = load.stop().await?;
            arrived.add(published, stored_after(arrived.events + published.0).await?);
            let idle_again = ask(&client, &asked).await?;
            asked_in.push(Round { live, idle_again });
            if [rounds, most].contains(&asked_in.len()) {
                question.count(&asked_in);
            }
        }
    }
    questions.arrived = arrived;
    Ok(questions)
}

struct Asked {
    name: String,
    target_ms: f64,
    path: String,
    parameters: Vec<(&'static str, &'static str)>,
}

/// The question that all others are compared with, the smallest.
pub(crate) const BASE: &str = "median organization: days, 30 d";

/// Whether there is anything to ask.
pub(crate) fn are_any() -> bool {
    !all_questions().is_empty()
}

const DAYS: (&str, &str) = ("period", "last_30d");
const NEW_YORK: (&str, &str) = ("time_zone", "America/New_York");
const KOLKATA: (&str, &str) = ("time_zone", "Asia/Kolkata");
const BY_USER: (&str, &str) = ("group_by", "user_id");
const TEN: (&str, &str) = ("top", "10");

/// Name, path below the organization, parameters.
type Spelled = (&'static str, &'static str, Vec<(&'static str, &'static str)>);

fn of_organization() -> Vec<Spelled> {
    let by_model = ("group_by", "model");
    let day = ("period", "last_24h");
    vec![
        // First what reads raw events: each second of load adds as many to this day as the history has in hours.
        (
            "minutes, 24 h",
            "usage",
            vec![day, ("bucket_width", "1m"), ("limit", "1000")],
        ),
        ("users, last 24 h", "users", vec![day]),
        ("days, 30 d", "usage", vec![DAYS]),
        ("days by model", "usage", vec![DAYS, by_model]),
        ("days with latency", "usage", vec![DAYS, ("include", "latency")]),
        ("days in New York", "usage", vec![DAYS, NEW_YORK]),
        ("days in Kolkata", "usage", vec![DAYS, KOLKATA]),
        (
            "this month and the last",
            "usage",
            vec![("period", "this_month"), ("compare", "previous_period")],
        ),
        (
            "hours, 7 d",
            "usage",
            vec![("period", "last_7d"), ("bucket_width", "1h"), ("limit", "200")],
        ),
        ("quarter hours, 24 h", "usage", vec![day, ("bucket_width", "15m")]),
        ("users, 30 d", "users", vec![DAYS]),
        ("users, 30 d, in New York", "users", vec![DAYS, NEW_YORK]),
        ("ten users by the day", "usage", vec![DAYS, BY_USER, TEN]),
        (
            "ten users by the day in New York",
            "usage",
            vec![DAYS, BY_USER, TEN, NEW_YORK],
        ),
        (
            "ten users by the day in Kolkata",
            "usage",
            vec![DAYS, BY_USER, TEN, KOLKATA],
        ),
        (
            "ten users x models by the day",
            "usage",
            vec![DAYS, BY_USER, by_model, TEN],
        ),
        (
            "ten keys by the day",
            "usage",
            vec![DAYS, ("group_by", "api_key_id"), TEN],
        ),
        ("users, this month", "users", vec![]),
        ("keys, 30 d", "keys", vec![DAYS]),
        ("models, 30 d", "models", vec![DAYS]),
    ]
}

fn of_system() -> Vec<Spelled> {
    let by_organization = ("group_by", "org_id");
    vec![
        ("days, 30 d", "usage", vec![DAYS]),
        ("days in New York", "usage", vec![DAYS, NEW_YORK]),
        ("days in Kolkata", "usage", vec![DAYS, KOLKATA]),
        ("top organizations, 30 d", "orgs", vec![DAYS]),
        ("top organizations, this month", "orgs", vec![]),
        (
            "ten organizations by the day",
            "usage",
            vec![DAYS, by_organization, TEN],
        ),
        (
            "ten organizations by the day in New York",
            "usage",
            vec![DAYS, by_organization, TEN, NEW_YORK],
        ),
        ("models, 30 d", "models", vec![DAYS]),
    ]
}

fn all_questions() -> Vec<Asked> {
    let organizations = Generator::new(&shape()).organizations();
    let mut all = Vec::new();
    for (who, place) in [("largest", 0), ("10th", 9), ("median", organizations.len() / 2)] {
        let organization = organizations[place];
        let mut push = |what, path, parameters| {
            all.push(Asked {
                name: format!("{who} organization: {what}"),
                target_ms: ORGANIZATION_TARGET_MS,
                path,
                parameters,
            });
        };
        for (what, path, parameters) in of_organization() {
            push(what, format!("orgs/{organization}/{path}"), parameters);
        }
        let somebody = Generator::new(&shape()).find(|event| event.fact.org_id == organization);
        let user_id = somebody.map(|event| event.fact.user_id).unwrap_or_default();
        let path = || format!("orgs/{organization}/usage?user_id={user_id}");
        push("one user's days", path(), vec![DAYS]);
        push("one user's days in New York", path(), vec![DAYS, NEW_YORK]);
        push("one user's days in Kolkata", path(), vec![DAYS, KOLKATA]);
    }
    all.extend(of_system().into_iter().map(|(what, path, parameters)| Asked {
        name: format!("system: {what}"),
        target_ms: SYSTEM_TARGET_MS,
        path: format!("system/{path}"),
        parameters,
    }));
    let only = std::env::var_os("BENCH_QUESTIONS").unwrap_or_default();
    let only = only.to_string_lossy();
    all.retain(|asked| asked.name.contains(&*only) || asked.name == BASE);
    all
}

/// Before any events arrive; where it is too slow, in so many rounds.
async fn idle(client: &Client, asked: &Asked, rounds: usize) -> Result<Spread> {
    let mut asked_in = vec![ask(client, asked).await?];
    while asked_in.len() < rounds && asked_in[0].p99_ms > asked.target_ms {
        asked_in.push(ask(client, asked).await?);
    }
    Ok(Spread::median(&asked_in, |spread| spread))
}

/// How old the data of answers is, in seconds: of 99 in a hundred at most this.
async fn age(client: &Client) -> Result<f64> {
    let mut ages = Vec::new();
    let began = Instant::now();
    while began.elapsed() < AGE_FOR {
        let answer = client.get("system/models", &[("period", "last_24h")]).await?;
        ages.push(
            answer["freshness"]["age_seconds"]
                .as_f64()
                .unwrap_or(f64::INFINITY),
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ages.sort_unstable_by(f64::total_cmp);
    Ok(ages[ages.len() * 99 / 100])
}

async fn ask(client: &Client, asked: &Asked) -> Result<Spread> {
    for _ in 0..WARM_UP {
        answered(client, asked).await?;
    }
    let began = Instant::now();
    let (mut took, mut counting) = (Vec::with_capacity(ASKED), Vec::with_capacity(ASKED));
    while began.elapsed() < ASKED_FOR || took.len() < ASKED && began.elapsed() < ASKED_AT_MOST_FOR {
        let answer = answered(client, asked).await?;
        counting.push(count());
        tokio::time::sleep(answer).await;
        took.push(answer);
    }
    took.sort_unstable();
    counting.sort_unstable();
    let middle = took.len() / 2;
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    Ok(Spread {
        p50_ms: ms(took[middle]),
        p99_ms: ms(took[took.len() - 1 - took.len() / 100]),
        counting_ms: ms(counting[middle]),
    })
}

fn count() -> Duration {
    let began = Instant::now();
    for number in 0..COUNTED {
        std::hint::black_box(number);
    }
    began.elapsed()
}

async fn answered(client: &Client, asked: &Asked) -> Result<Duration> {
    let began = Instant::now();
    let (status, _) = client.fetch(&asked.path, &asked.parameters).await?;
    ensure!(status.is_success(), "{}: {status}", asked.name);
    Ok(began.elapsed())
}
