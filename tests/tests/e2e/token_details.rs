//! Cached and reasoning tokens, where producers tell them: in every rollup, and in the answers that are asked for them.

use anyhow::{Result, ensure};
use e2e::api::Client;
use e2e::generator::{Event, Generator, Shape};
use e2e::token::{Claims, SECRET};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime, Time};

use crate::platform::{Flavor, Platform};
use crate::rollups;

crate::in_both_flavors!(parts_of_tokens_are_added_up);

async fn parts_of_tokens_are_added_up(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let now = OffsetDateTime::now_utc();
    let mut generator = Generator::new(&Shape {
        seed: 91,
        organizations: 3,
        start: now - Duration::days(12),
        end: now,
    });
    let events: Vec<Event> = generator.by_ref().take(1_500).collect();
    let _worker = platform.worker(&[]).await?;
    let publisher = platform.publisher().await?;
    publisher.publish(events.iter().map(|event| &event.body)).await?;
    platform.wait_stored(1_500, 0).await?;
    platform.maintain().await?;
    rollups::assert_equal_raw(&platform).await?;

    let api = platform.api(&[]).await?;
    let org_id = generator.organizations()[0];
    let admin = Client::new(&api.url("/"), &Claims::org_admin(org_id), SECRET)?;
    let mine = || events.iter().filter(|event| event.fact.org_id == org_id);
    let sum = |of: fn(&Event) -> Option<i32>| mine().filter_map(of).map(i64::from).sum::<i64>();
    let (cached, reasoning) = (
        sum(|event| event.fact.cached_input_tokens),
        sum(|event| event.fact.reasoning_tokens),
    );
    ensure!(cached > 0 && reasoning > 0, "void: nobody told any");
    let expected = json!({"cached_input_tokens": cached, "reasoning_tokens": reasoning});

    let since = (now - Duration::days(13)).replace_time(Time::MIDNIGHT);
    let start = since.unix_timestamp().to_string();
    let range = [("start_time", &*start), ("include", "token_details")];
    let path = |what: &str| format!("orgs/{org_id}/{what}");
    for what in ["usage", "users", "keys", "models"] {
        let answer = admin.get(&path(what), &range).await?;
        ensure!(answer["totals"]["token_details"] == expected, "{what}: {answer}");
        ensure!(answer["totals"]["latency"].is_null());
    }
    let both = [range[0], range[1], ("include", "latency")];
    let answer = admin.get(&path("usage"), &both).await?;
    ensure!(answer["totals"]["token_details"] == expected && answer["totals"]["latency"].is_object());
    let answer = admin.get(&path("usage"), &range[..1]).await?;
    ensure!(answer["totals"]["token_details"].is_null(), "{answer}");

    let question = [("start_time", &*start), ("limit", "31")];
    let answer = admin.get("/v1/organization/usage/completions", &question).await?;
    let results = answer["data"].as_array().into_iter().flatten();
    let told: i64 = results
        .flat_map(|bucket| bucket["results"].as_array().into_iter().flatten())
        .filter_map(|result: &Value| result["input_cached_tokens"].as_i64())
        .sum();
    ensure!(told == cached, "{told} cached tokens, not {cached}");
    Ok(())
}
