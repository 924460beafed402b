//! Random questions: every zone, width, range, filter, grouping and page, held against a naive count of the
//! published events, one by one.
//!
//! A question that is refused must name the nearest one that is not, and that one is asked.

mod contract;
mod dice;
mod expected;
mod spelled;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use e2e::api::{self, Client};
use e2e::generator::{Event, Generator, Shape};
use e2e::token::{Claims, SECRET};
use e2e::truth::{Measures, Truth};
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::platform::{Flavor, Platform, system_admin};
use contract::Contract;
use dice::Dice;
use expected::{Calendar, Expected, Group};
use spelled::{Asked, Shown};

crate::in_both_flavors!(
    random_questions_are_answered_exactly,
    leaders_over_time_are_those_of_the_whole_range,
    no_row_twice_and_none_missing_while_events_arrive,
);

const EVENTS: usize = 6_000;
const DAYS: i64 = 80;
const ROUNDS: usize = 120;
const LEADING: usize = 60;

/// A platform that has stored events, and the truth about them.
pub(crate) struct Published {
    pub(crate) platform: Platform,
    pub(crate) truth: Truth,
    pub(crate) organizations: Vec<Uuid>,
    pub(crate) now: OffsetDateTime,
}

pub(crate) async fn publish(flavor: Flavor, seed: u64, count: usize, days: i64) -> Result<Published> {
    publish_in_parts(flavor, seed, &[(count, None)], days).await
}

/// Parts of so many events, each after maintenance that has closed the hours and days that most of it falls into. Those
/// of a part are anywhere in these days, or all in the four days that begin so long ago.
async fn publish_in_parts(
    flavor: Flavor,
    seed: u64,
    parts: &[(usize, Option<Duration>)],
    days: i64,
) -> Result<Published> {
    let platform = Platform::new(flavor).await?;
    let _worker = platform.worker(&[]).await?;
    let now = OffsetDateTime::now_utc();
    let shape = Shape {
        seed,
        organizations: 5,
        start: now - Duration::days(days),
        end: now,
    };
    let mut generator = Generator::new(&shape);
    let publisher = platform.publisher().await?;
    let (mut truth, mut stored) = (Truth::default(), 0);
    for (count, ago) in parts.iter().copied() {
        if stored > 0 {
            platform.maintain().await?;
        }
        let events: Vec<Event> = match ago {
            None => generator.by_ref().take(count).collect(),
            Some(ago) => {
                let step = Duration::days(4) / u32::try_from(count)?;
                let times = (0..u32::try_from(count)?).map(|place| now - ago + step * place);
                times.map(|time| generator.at(time)).collect()
            }
        };
        publisher.publish(events.iter().map(|event| &event.body)).await?;
        stored += i64::try_from(count)?;
        platform.wait_stored(stored, 0).await?;
        truth.extend(events.iter().map(|event| &event.fact));
    }
    Ok(Published {
        platform,
        truth,
        organizations: generator.organizations(),
        now,
    })
}

async fn random_questions_are_answered_exactly(flavor: Flavor) -> Result<()> {
    let published = publish(flavor, 71, EVENTS, DAYS).await?;
    // What is over is read from derived rungs.
    published.platform.maintain().await?;
    let (counted, refused, rows) = ask_all(&published, ROUNDS, Asked::random).await?;
    ensure!(
        counted > 20_000 && rows > 2_000,
        "{counted} requests in {rows} rows are too few"
    );
    ensure!(
        refused > 3 && refused < ROUNDS / 3,
        "{refused} questions of {ROUNDS} were refused"
    );
    Ok(())
}

/// They are found, and told apart from the rest, in ways of their own that chance seldom meets. The rest is a
/// difference: both sides have to know late events.
async fn leaders_over_time_are_those_of_the_whole_range(flavor: Flavor) -> Result<()> {
    // A week with more rows of an organization than a batch of the columnstore has, and late events for it.
    let dense = Some(Duration::days(16));
    let parts = [(EVENTS - 500, None), (EVENTS, dense), (500, None), (500, dense)];
    let published = publish_in_parts(flavor, 71, &parts, DAYS).await?;
    let (counted, refused, rows) = ask_all(&published, LEADING, Asked::leaders_over_time).await?;
    ensure!(
        counted > 10_000 && rows > 1_000 && refused < LEADING / 3,
        "{counted} requests in {rows} rows, {refused} questions refused"
    );
    Ok(())
}

/// Asks so many questions; returns how many requests were counted, how many questions were refused at first, and how
/// many rows there were.
async fn ask_all(
    published: &Published,
    rounds: usize,
    ask: impl Fn(&mut Dice, &Published) -> Result<Asked>,
) -> Result<(i64, usize, usize)> {
    let service = published.platform.api(&[]).await?;
    let admin = system_admin(&service)?;
    let mut dice = Dice::new(17);
    let mut calendar = Calendar::default();
    let contract = Contract::read()?;
    let (mut counted, mut refused, mut rows) = (0, 0, 0);
    for round in 0..rounds {
        let mut asked = ask(&mut dice, published)?;
        let what = format!("round {round}: {asked:?}");
        let (status, body) = asked.ask(&admin, None).await?;
        if status == 400 {
            refused += 1;
            asked.mend(&body).with_context(|| what.clone())?;
        }
        let what = format!("{what}, asked as {asked:?}");
        let expected = Expected::of(&asked, &published.truth, &mut calendar)?;
        counted += expected.total.requests;
        rows += check(&admin, &contract, &asked, &expected)
            .await
            .with_context(|| what)?;
    }
    Ok((counted, refused, rows))
}

/// Asks all pages, and holds them against what is expected. Returns how many rows there were.
async fn check(client: &Client, contract: &Contract, asked: &Asked, expected: &Expected) -> Result<usize> {
    let mut page: Option<String> = None;
    let mut found: Vec<(i64, Group, Measures)> = Vec::new();
    let mut buckets = 0;
    loop {
        let (status, body) = asked.ask(client, page.as_deref()).await?;
        ensure!(status == 200, "{status} {body}");
        contract.check(&asked.path(), &body)?;
        ensure!(
            api::measures(&body["totals"])? == expected.total,
            "totals: {}, not {:?}",
            body["totals"],
            expected.total
        );
        ensure!(
            (body["freshness"]["state"] == "no_data") == (expected.total.requests == 0),
            "{}",
            body["freshness"]
        );
        if let Some(before) = &expected.before {
            ensure!(
                api::measures(&body["comparison"]["totals"])? == *before,
                "before: {}, not {before:?}",
                body["comparison"]
            );
        }
        if asked.latency {
            expected.check_latency(asked, &body["totals"]["latency"])?;
        }
        let data = body["data"].as_array().context("data")?;
        match asked.shown {
            Shown::List { .. } => {
                for line in data {
                    found.push((
                        expected.start,
                        Group::read(line, &asked.group_by)?,
                        api::measures(line)?,
                    ));
                }
            }
            Shown::Buckets { .. } => {
                buckets += data.len();
                for bucket in data {
                    let start = spelled::microseconds(&bucket["start_time"])?;
                    for result in bucket["results"].as_array().context("results")? {
                        found.push((
                            start,
                            Group::read(result, &asked.group_by)?,
                            api::measures(result)?,
                        ));
                    }
                }
            }
        }
        ensure!(body["has_more"] == body["next_page"].is_string());
        match body["next_page"].as_str() {
            Some(next) => page = Some(next.to_owned()),
            None => break,
        }
    }
    let count = found.len();
    let zeros = found
        .iter()
        .filter(|(_, _, measures)| *measures == Measures::default())
        .count();
    if asked.fills() {
        ensure!(
            buckets == expected.buckets,
            "{buckets} buckets, not {}",
            expected.buckets
        );
    } else {
        // A row of zeros is one that nobody asked for.
        ensure!(zeros == 0, "{zeros} rows of zeros");
    }
    let mut answered = BTreeMap::new();
    for (start, group, measures) in found {
        let twice = answered.insert((start, group.clone()), measures);
        ensure!(twice.is_none(), "{start} {group:?} twice");
    }
    answered.retain(|_, measures| *measures != Measures::default());
    for (key, expected) in &expected.rows {
        ensure!(
            answered.get(key) == Some(expected),
            "{key:?}: {:?}, not {expected:?}",
            answered.get(key)
        );
    }
    ensure!(
        answered.len() == expected.rows.len(),
        "{:?} is not expected",
        answered.keys().find(|key| !expected.rows.contains_key(key))
    );
    Ok(count)
}

/// What was there when the first page was read is on exactly one page, whatever is added in the meantime.
async fn no_row_twice_and_none_missing_while_events_arrive(flavor: Flavor) -> Result<()> {
    let published = publish(flavor, 72, 2_000, 20).await?;
    let platform = &published.platform;
    let _worker = platform.worker(&[]).await?;
    let service = platform.api(&[]).await?;
    let org_id = published.organizations[0];
    let admin = Client::new(&service.url("/"), &Claims::org_admin(org_id), SECRET)?;
    let start = (published.now - Duration::days(20)).unix_timestamp() / 86_400 * 86_400;
    let start = start.to_string();
    let mut more = Generator::new(&Shape {
        seed: 72,
        organizations: 5,
        start: published.now - Duration::days(20),
        end: published.now,
    });
    // Those that are there already.
    let _ = more.by_ref().take(2_000).count();
    let mut stored = 2_000;
    for (path, parameters) in [
        ("usage", vec![("bucket_width", "1h"), ("start_time", &start)]),
        (
            "usage",
            vec![("bucket_width", "1d"), ("start_time", &start), ("fill", "zero")],
        ),
        ("users", vec![("order_by", "id"), ("period", "last_30d")]),
        ("keys", vec![("order_by", "id"), ("period", "last_30d")]),
        ("models", vec![("order_by", "id"), ("period", "last_30d")]),
    ] {
        let path = format!("orgs/{org_id}/{path}");
        let mut all = parameters.clone();
        all.push(("limit", "1000"));
        let there = ids(&admin.get(&path, &all).await?)?;
        ensure!(there.len() > 5, "{path} has {} rows only", there.len());
        let limit = (there.len() / 5).max(1).to_string();
        let mut paged = parameters.clone();
        paged.push(("limit", &limit));
        let mut seen: Vec<String> = Vec::new();
        let mut page: Option<String> = None;
        loop {
            let mut asked = paged.clone();
            asked.extend(page.as_deref().map(|page| ("page", page)));
            let answer = admin.get(&path, &asked).await?;
            let ids = ids(&answer)?;
            ensure!(
                ids.len().to_string() == limit || answer["has_more"] == false,
                "{path}"
            );
            seen.extend(ids);
            let Some(next) = answer["next_page"].as_str() else {
                break;
            };
            page = Some(next.to_owned());
            let events: Vec<Event> = more.by_ref().take(40).collect();
            platform
                .publisher()
                .await?
                .publish(events.iter().map(|event| &event.body))
                .await?;
            stored += 40;
            platform.wait_stored(stored, 0).await?;
        }
        let mut sorted = seen.clone();
        sorted.sort_unstable();
        sorted.dedup();
        ensure!(sorted.len() == seen.len(), "{path} has a row twice: {seen:?}");
        ensure!(
            sorted == {
                let mut seen = seen.clone();
                seen.sort_unstable();
                seen
            }
        );
        for id in &there {
            ensure!(seen.contains(id), "{path} lacks {id}");
        }
    }
    Ok(())
}

/// What tells the rows of an answer apart.
fn ids(answer: &Value) -> Result<Vec<String>> {
    let data = answer["data"].as_array().context("data")?;
    data.iter()
        .map(|row| {
            ["start_time", "user_id", "api_key_id", "model"]
                .iter()
                .find_map(|name| row[name].as_str())
                .map(str::to_owned)
                .context("an id")
        })
        .collect()
}
