//! The answers in the shape of OpenAI's organization usage API, held against the published events.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use e2e::api::Client;
use e2e::generator::decimal;
use e2e::token::{Claims, SECRET};
use e2e::truth::{Measures, Question};
use serde_json::Value;
use time::{Duration, OffsetDateTime, Time};

use crate::platform::{Flavor, system_admin};
use crate::questions::{Published, publish};

crate::in_both_flavors!(tools_that_read_openai_can_read_us);

const DAYS: i64 = 20;

async fn tools_that_read_openai_can_read_us(flavor: Flavor) -> Result<()> {
    let Published {
        platform,
        truth,
        organizations,
        now,
    } = publish(flavor, 73, 3_000, DAYS).await?;
    let service = platform.api(&[]).await?;
    let org_id = organizations[0];
    let org_admin = Client::new(&service.url("/"), &Claims::org_admin(org_id), SECRET)?;
    let start = now.replace_time(Time::MIDNIGHT) - Duration::days(DAYS);
    let start_time = start.unix_timestamp().to_string();
    let question = Question::of(org_id).between(start, now);

    let grouped = truth.grouped(&question, |_, event| {
        let day = event.time_us.div_euclid(86_400_000_000) * 86_400;
        (day, event.model.to_owned(), event.user_id.to_string())
    });
    let answered = pages(
        &org_admin,
        "/v1/organization/usage/completions",
        &[
            ("start_time", &start_time),
            ("group_by", "model"),
            ("group_by[]", "user_id"),
        ],
    )
    .await?;
    ensure!(answered.len() > 20, "{} buckets", answered.len());
    let mut found = BTreeMap::new();
    for bucket in &answered {
        for result in bucket["results"].as_array().context("results")? {
            let text = |name: &str| result[name].as_str().map(str::to_owned).context("a key");
            let number = |name: &str| result[name].as_i64().context("a number");
            let key = (
                bucket["start_time"].as_i64().context("a start")?,
                text("model")?,
                text("user_id")?,
            );
            let numbers = [
                number("num_model_requests")?,
                number("input_tokens")?,
                number("output_tokens")?,
            ];
            ensure!(result["api_key_id"].is_null() && result["project_id"].is_null());
            ensure!(found.insert(key, numbers).is_none(), "{result} twice");
        }
    }
    let expected: BTreeMap<_, _> = grouped
        .into_iter()
        .map(|(key, sums)| (key, [sums.requests, sums.input_tokens, sums.output_tokens]))
        .collect();
    ensure!(found == expected, "{found:?}, not {expected:?}");

    let costs = pages(
        &org_admin,
        "/v1/organization/costs",
        &[("start_time", &start_time), ("limit", "5")],
    )
    .await?;
    let days = truth.by_day(&question);
    for bucket in &costs {
        let day = OffsetDateTime::from_unix_timestamp(bucket["start_time"].as_i64().context("a start")?)?;
        match bucket["results"].as_array().map(Vec::as_slice) {
            Some([result]) => {
                // The digits as they came: no float in between.
                let value = result["amount"]["value"].to_string();
                let cost = decimal::e10(&value).with_context(|| value.clone())?;
                ensure!(days.get(&day).map(|day| day.cost_e10) == Some(cost), "{bucket}");
            }
            Some([]) => ensure!(!days.contains_key(&day), "{bucket}"),
            _ => anyhow::bail!("{bucket}"),
        }
    }
    ensure!(
        i64::try_from(costs.len())? == DAYS + 1,
        "{} days of costs",
        costs.len()
    );

    // A user sees itself, a system admin names an organization, and nobody another's.
    let user_id = *truth.by_user(&question).keys().next().context("a user")?;
    let user = Client::new(&service.url("/"), &Claims::org_user(org_id, user_id), SECRET)?;
    let month = [("start_time", &*start_time), ("limit", "31")];
    let own = sum(&pages(&user, "/v1/organization/usage/completions", &month).await?)?;
    ensure!(
        own == truth.total(&question.clone().user(user_id)).requests,
        "{own}"
    );
    let named = org_id.to_string();
    let mut of_named = month.to_vec();
    of_named.push(("org_id", &named));
    let admin = system_admin(&service)?;
    let all = sum(&pages(&admin, "/v1/organization/usage/completions", &of_named).await?)?;
    ensure!(all == truth.total(&question).requests, "{all}");
    // OpenAI's clients name it in a header.
    let by_header = in_header(&admin, &of_named[..2], &named).await?;
    ensure!(by_header.status() == 200, "{}", by_header.status());
    let vary = by_header.headers().get("vary").context("vary")?.to_str()?;
    ensure!(vary.ends_with("openai-organization"), "{vary}");
    let body: Value = serde_json::from_slice(&by_header.bytes().await?)?;
    let of_header = sum(body["data"].as_array().context("data")?)?;
    ensure!(of_header == all, "{of_header}, not {all}");
    let other = organizations[1].to_string();
    for (client, parameters, organization, expected) in [
        (&org_admin, &of_named[..2], &named, 200),
        (&org_admin, &of_named[..2], &other, 403),
        (&user, &of_named[..2], &other, 403),
        (&admin, &of_named[..], &other, 400),
        (&admin, &of_named[..], &named, 200),
    ] {
        let status = in_header(client, parameters, organization).await?.status();
        ensure!(status == expected, "{organization} {parameters:?}: {status}");
    }
    let outsider = Client::new(&service.url("/"), &Claims::org_admin(organizations[1]), SECRET)?;
    let (status, _) = outsider.ask("/v1/organization/costs", &of_named).await?;
    ensure!(status == 403, "{status}");
    let (status, _) = admin.ask("/v1/organization/costs", &month).await?;
    ensure!(status == 400, "{status}");
    ensure!(truth.total(&question) != Measures::default());
    Ok(())
}

/// Completions of the organization that the header names.
async fn in_header(
    client: &Client,
    parameters: &[(&str, &str)],
    organization: &str,
) -> Result<reqwest::Response> {
    let url = client.url("/v1/organization/usage/completions", parameters)?;
    let request = reqwest::Client::new().get(url).bearer_auth(client.token());
    Ok(request.header("OpenAI-Organization", organization).send().await?)
}

async fn pages(client: &Client, path: &str, parameters: &[(&str, &str)]) -> Result<Vec<Value>> {
    let mut buckets = Vec::new();
    let mut page: Option<String> = None;
    loop {
        let mut asked = parameters.to_vec();
        asked.extend(page.as_deref().map(|page| ("page", page)));
        let answer = client.get(path, &asked).await?;
        buckets.extend(answer["data"].as_array().context("data")?.iter().cloned());
        match answer["next_page"].as_str() {
            Some(next) => page = Some(next.to_owned()),
            None => return Ok(buckets),
        }
    }
}

fn sum(buckets: &[Value]) -> Result<i64> {
    let results = buckets
        .iter()
        .filter_map(|bucket| bucket["results"].as_array())
        .flatten();
    results
        .map(|result| result["num_model_requests"].as_i64().context("a number"))
        .sum()
}
