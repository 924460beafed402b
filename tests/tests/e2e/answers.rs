//! Questions of every shape, held against a naive count of the published events.

use anyhow::{Result, ensure};
use e2e::api::{self, Client};
use e2e::generator::{Event, Generator, Shape};
use e2e::token::{Claims, SECRET};
use e2e::truth::{Measures, Question, Truth};
use time::format_description::well_known::Rfc3339;
use time::macros::time;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::platform::{Flavor, Platform, system_admin};

crate::in_both_flavors!(any_range_and_filter_is_exact, periods_limits_and_roles);

struct Published {
    platform: Platform,
    truth: Truth,
    organizations: Vec<Uuid>,
    now: OffsetDateTime,
}

async fn publish(flavor: Flavor, seed: u64, count: usize, days: i64) -> Result<Published> {
    let platform = Platform::new(flavor).await?;
    let _worker = platform.worker(&[]).await?;
    let now = OffsetDateTime::now_utc();
    let shape = Shape {
        seed,
        organizations: 6,
        start: now - Duration::days(days),
        end: now,
    };
    let mut generator = Generator::new(&shape);
    let events: Vec<Event> = generator.by_ref().take(count).collect();
    platform
        .publisher()
        .await?
        .publish(events.iter().map(|event| &event.body))
        .await?;
    platform.wait_stored(i64::try_from(count)?, 0).await?;
    let mut truth = Truth::default();
    truth.extend(events.iter().map(|event| &event.fact));
    Ok(Published {
        platform,
        truth,
        organizations: generator.organizations(),
        now,
    })
}

/// A small generator of choices: the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        // Knuth's MMIX constants; the high bits are the good ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

async fn any_range_and_filter_is_exact(flavor: Flavor) -> Result<()> {
    let Published {
        platform,
        truth,
        organizations,
        now,
    } = publish(flavor, 11, 6_000, 20).await?;
    let api = platform.api(&[]).await?;
    let admin = system_admin(&api)?;
    let mut dice = Dice(7);
    let mut counted = 0;
    for round in 0..80 {
        let org_id = organizations[usize::try_from(dice.below(3))?];
        let grain = [1, 60, 900, 3_600, 86_400][usize::try_from(dice.below(5))?];
        let seconds = |dice: &mut Dice, days: u64| i64::try_from(dice.below(days * 86_400)).unwrap_or(0);
        let start = now - Duration::days(20) + Duration::seconds(seconds(&mut dice, 19));
        let start = OffsetDateTime::from_unix_timestamp(start.unix_timestamp() / grain * grain)?;
        let end = start + Duration::seconds((seconds(&mut dice, 6) / grain + 1) * grain);
        let mut question = Question::of(org_id).between(start, end);
        let mut parameters = vec![
            ("start_time", start.format(&Rfc3339)?),
            ("end_time", end.unix_timestamp().to_string()),
        ];
        let everyone = truth.by_user(&Question::of(org_id));
        if dice.below(2) == 0 {
            for (user_id, _) in everyone.iter().take(2) {
                question = question.user(*user_id);
                parameters.push(("user_id", user_id.to_string()));
            }
        }
        if dice.below(3) == 0 {
            for (model, _) in truth.by_model(&Question::of(org_id)).iter().take(2) {
                question = question.model(*model);
                parameters.push(("model", (*model).to_string()));
            }
        }
        let width = ["1h", "1d", "all"][usize::try_from(dice.below(3))?];
        let what = format!("round {round}: {org_id} {width} {parameters:?}");
        let mut parameters: Vec<(&str, &str)> =
            parameters.iter().map(|(name, value)| (*name, &**value)).collect();
        parameters.push(("limit", "1000"));

        let total = truth.total(&question);
        counted += total.requests;
        for (path, key) in [("users", "user_id"), ("models", "model")] {
            let answer = admin.get(&format!("orgs/{org_id}/{path}"), &parameters).await?;
            ensure!(
                api::measures(&answer["totals"])? == total,
                "totals of {path}, {what}"
            );
            let expected: Vec<(String, Measures)> = match path {
                "users" => truth
                    .by_user(&question)
                    .into_iter()
                    .map(|(id, m)| (id.to_string(), m))
                    .collect(),
                _ => truth
                    .by_model(&question)
                    .into_iter()
                    .map(|(id, m)| (id.to_owned(), m))
                    .collect(),
            };
            ensure!(
                api::rows(&answer, key)? == expected.into_iter().collect(),
                "{path}, {what}"
            );
        }
        parameters.push(("bucket_width", width));
        let answer = admin.get(&format!("orgs/{org_id}/usage"), &parameters).await?;
        ensure!(
            api::measures(&answer["totals"])? == total,
            "totals of usage, {what}"
        );
        let expected: Vec<Measures> = match width {
            "1h" => truth.by_hour(&question).into_values().collect(),
            "1d" => truth.by_day(&question).into_values().collect(),
            _ if total.requests == 0 => Vec::new(),
            _ => vec![total],
        };
        let answered: Vec<Measures> = api::buckets(&answer)?.into_values().collect();
        ensure!(answered == expected, "usage, {what}");
    }
    ensure!(
        counted > 3_000,
        "the questions were about {counted} requests only"
    );
    Ok(())
}

async fn periods_limits_and_roles(flavor: Flavor) -> Result<()> {
    let Published {
        platform,
        truth,
        organizations,
        ..
    } = publish(flavor, 12, 3_000, 50).await?;
    let service = platform.api(&[]).await?;
    let admin = system_admin(&service)?;
    let org_id = organizations[0];
    let now = OffsetDateTime::now_utc();
    let midnight = now.replace_time(time!(0:00));
    let month = midnight - Duration::days(i64::from(now.day()) - 1);
    let tomorrow = midnight + Duration::DAY;
    let hour = now - Duration::nanoseconds(i64::try_from(now.unix_timestamp_nanos() % 3_600_000_000_000)?);
    let mut expected = vec![
        (None, month, month + Duration::days(31)),
        (Some("this_month"), month, month + Duration::days(31)),
        (
            Some("last_24h"),
            hour - Duration::hours(23),
            hour + Duration::HOUR,
        ),
        (Some("last_7d"), tomorrow - Duration::days(7), tomorrow),
        (Some("last_30d"), tomorrow - Duration::days(30), tomorrow),
    ];
    let last_month = month - Duration::DAY;
    expected.push((
        Some("last_month"),
        last_month - Duration::days(i64::from(last_month.day()) - 1),
        month,
    ));
    for (period, start, end) in expected {
        let parameters: Vec<(&str, &str)> = period.map(|period| ("period", period)).into_iter().collect();
        let question = Question::default().between(start, end);
        let answer = admin.get("system/usage", &parameters).await?;
        ensure!(
            api::measures(&answer["totals"])? == truth.total(&question),
            "system, {period:?}"
        );
        let answer = admin.get(&format!("orgs/{org_id}/usage"), &parameters).await?;
        let of_org = Question::of(org_id).between(start, end);
        ensure!(
            api::measures(&answer["totals"])? == truth.total(&of_org),
            "{org_id}, {period:?}"
        );
    }

    // The limit cuts rows, not totals; the most tokens come first, and all others are one row.
    let all = [("period", "last_30d"), ("limit", "1000")];
    let whole = admin.get("system/orgs", &all).await?;
    let cut = admin
        .get("system/orgs", &[("period", "last_30d"), ("limit", "2")])
        .await?;
    ensure!(cut["totals"] == whole["totals"] && cut["has_more"] == false && cut["next_page"].is_null());
    ensure!(cut["data"].as_array().map(Vec::len) == Some(3) && cut["data"][0] == whole["data"][0]);
    ensure!(cut["data"][2]["org_id"].is_null() && cut["data"][2]["other"] == true);
    let tokens = |row: usize| whole["data"][row]["total_tokens"].as_i64();
    ensure!(tokens(0) >= tokens(1) && tokens(1) >= tokens(2));

    // An org user sees itself, and nothing else.
    let user_id = *truth
        .by_user(&Question::of(org_id))
        .keys()
        .next()
        .ok_or_else(|| anyhow::anyhow!("no user"))?;
    let user = Client::new(&service.url("/"), &Claims::org_user(org_id, user_id), SECRET)?;
    let answer = user
        .get(&format!("orgs/{org_id}/usage"), &[("period", "last_30d")])
        .await?;
    let own = Question::of(org_id)
        .user(user_id)
        .between(tomorrow - Duration::days(30), tomorrow);
    ensure!(
        api::measures(&answer["totals"])? == truth.total(&own),
        "an org user's own usage"
    );
    let outsider = Client::new(&service.url("/"), &Claims::org_admin(organizations[1]), SECRET)?;
    let foreign = [
        user.ask(&format!("orgs/{org_id}/users"), &[]).await?,
        user.ask("system/orgs", &[]).await?,
        outsider.ask(&format!("orgs/{org_id}/usage"), &[]).await?,
        outsider
            .ask(&format!("orgs/{}/usage", Uuid::new_v4()), &[])
            .await?,
        outsider.ask("system/usage", &[]).await?,
    ];
    for (status, body) in foreign {
        ensure!(status == 403, "{status} {body}");
    }
    // Nothing at all is a 200 that says so.
    let answer = admin.get(&format!("orgs/{}/usage", Uuid::new_v4()), &[]).await?;
    ensure!(api::measures(&answer["totals"])? == Measures::default());
    ensure!(answer["freshness"]["state"] == "no_data", "{answer}");
    Ok(())
}
