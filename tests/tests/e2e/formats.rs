//! The same answer as JSON and as CSV, compressed, and not sent again to those who have it.

use std::io::Read as _;

use anyhow::{Context, Result, ensure};
use e2e::generator::{Event, Generator, Shape};
use e2e::process::Service;
use e2e::token::{Claims, SECRET};
use reqwest::header::HeaderMap;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::platform::{Flavor, Platform};

crate::in_both_flavors!(answers_in_every_format);

/// A response whose body nobody has touched.
struct Got {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

async fn get(api: &Service, path: &str, headers: &[(&str, &str)]) -> Result<Got> {
    // Without `gzip`, which the harness does not turn on, reqwest leaves bodies as they came.
    let mut request = reqwest::Client::new()
        .get(api.url(path))
        .bearer_auth(Claims::system_admin().sign(SECRET)?);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await?;
    Ok(Got {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await?.to_vec(),
    })
}

/// The rows of a JSON answer, the bucket's times and state in each.
fn rows(answer: &Value) -> Vec<Value> {
    let data = answer["data"].as_array().cloned().unwrap_or_default();
    let mut rows = Vec::new();
    for part in data {
        let Some(results) = part["results"].as_array() else {
            rows.push(part);
            continue;
        };
        for result in results {
            let mut row = result.clone();
            for name in ["start_time", "end_time", "state"] {
                row[name] = part[name].clone();
            }
            rows.push(row);
        }
    }
    rows
}

/// The leaves of a row as CSV has them.
fn leaves(prefix: &str, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                leaves(&name, field, found);
            }
        }
        Value::Null => {}
        Value::String(text) => found.push((prefix.to_owned(), text.clone())),
        other => found.push((prefix.to_owned(), other.to_string())),
    }
}

fn hold_against(csv: &[u8], json: &Value) -> Result<usize> {
    let mut reader = csv::Reader::from_reader(csv);
    let names: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
    let mut records = reader.records();
    let rows = rows(json);
    for row in &rows {
        let record = records.next().context("CSV has fewer rows")??;
        let mut expected = Vec::new();
        leaves("", row, &mut expected);
        let written: Vec<(String, String)> = names
            .iter()
            .zip(record.iter())
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| (name.clone(), text.to_owned()))
            .collect();
        ensure!(written.len() == expected.len(), "{written:?} is not {expected:?}");
        for leaf in &expected {
            ensure!(written.contains(leaf), "{leaf:?} is not in {written:?}");
        }
    }
    ensure!(records.next().is_none(), "CSV has more rows");
    Ok(rows.len())
}

async fn answers_in_every_format(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let end = OffsetDateTime::now_utc();
    let shape = Shape {
        seed: 61,
        organizations: 40,
        start: end - time::Duration::days(20),
        end,
    };
    let events: Vec<Event> = Generator::new(&shape).take(5_000).collect();
    let worker = platform.worker(&[]).await?;
    platform
        .publisher()
        .await?
        .publish(events.iter().map(|event| &event.body))
        .await?;
    platform.wait_stored(5_000, 0).await?;
    platform.maintain().await?;
    // Nothing changes any more.
    drop(worker);
    let api = platform.api(&[]).await?;
    let organization = events[0].fact.org_id;
    let day = |time: OffsetDateTime| time.replace_time(time::Time::MIDNIGHT).format(&Rfc3339);
    let (from, to) = (day(shape.start)?, day(end + time::Duration::DAY)?);

    let mut rows = 0;
    for question in [
        "system/usage?bucket_width=1d".to_owned(),
        "system/usage?bucket_width=1d&group_by=model&group_by=status&compare=previous_period".to_owned(),
        "system/orgs?compare=previous_period".to_owned(),
        format!("orgs/{organization}/usage?bucket_width=1h&group_by=user_id"),
        format!("orgs/{organization}/users"),
        format!("orgs/{organization}/keys?top=2"),
        format!("orgs/{organization}/models?model=nobody"),
    ] {
        let and = if question.contains('?') { '&' } else { '?' };
        let path = format!("/api/v1/analytics/{question}{and}start_time={from}&end_time={to}");
        let json = get(&api, &path, &[]).await?;
        ensure!(
            json.status == 200,
            "{path}: {}",
            String::from_utf8_lossy(&json.body)
        );
        let answer: Value = serde_json::from_slice(&json.body)?;
        let csv = get(&api, &path, &[("Accept", "text/csv")]).await?;
        ensure!(csv.header("content-type").starts_with("text/csv"), "{path}");
        ensure!(
            csv.header("transfer-encoding") == "chunked",
            "{path} is not streamed"
        );
        rows += hold_against(&csv.body, &answer).context(path.clone())?;

        for (response, accept) in [(&json, "application/json"), (&csv, "text/csv")] {
            ensure!(response.header("cache-control") == "private, no-cache");
            let tag = response.header("etag").to_owned();
            let headers = [("Accept", accept), ("If-None-Match", tag.as_str())];
            let again = get(&api, &path, &headers).await?;
            ensure!(
                again.status == 304 && again.body.is_empty(),
                "{path}: {}",
                again.status
            );
            ensure!(again.header("etag") == tag && again.header("vary") == response.header("vary"));

            let headers = [("Accept", accept), ("Accept-Encoding", "gzip")];
            let packed = get(&api, &path, &headers).await?;
            ensure!(
                packed.header("content-encoding") == "gzip",
                "{path} is not compressed"
            );
            ensure!(
                packed.header("etag") == tag,
                "the tag is the same for every encoding"
            );
            let mut body = Vec::new();
            flate2::read::GzDecoder::new(packed.body.as_slice()).read_to_end(&mut body)?;
            let same = match accept {
                "text/csv" => body == response.body,
                // Its age is another one.
                _ => serde_json::from_slice::<Value>(&body)?["data"] == answer["data"],
            };
            ensure!(same, "{path}: another body when compressed");
        }
    }
    ensure!(rows > 200, "only {rows} rows were compared");

    // Another event makes it another answer.
    let path = format!("/api/v1/analytics/system/orgs?start_time={from}&end_time={to}");
    let before = get(&api, &path, &[]).await?;
    platform
        .owner
        .batch_execute(
            "INSERT INTO usage_events (time, event_id, org_id, user_id, api_key_id, model_name, input_tokens, \
             output_tokens, total_tokens, cost, status) SELECT now(), gen_random_uuid(), gen_random_uuid(), \
             gen_random_uuid(), gen_random_uuid(), '=m', 1, 2, 3, 0.5, 'success'",
        )
        .await?;
    let headers = [("If-None-Match", before.header("etag"))];
    let after = get(&api, &path, &headers).await?;
    ensure!(after.status == 200, "the data has changed: {}", after.status);
    ensure!(after.header("etag") != before.header("etag"));
    let path = format!("/api/v1/analytics/system/models?start_time={from}&end_time={to}");
    let models = get(&api, &path, &[("Accept", "text/csv")]).await?;
    let text = String::from_utf8(models.body)?;
    ensure!(text.contains("\r\n'=m,false,1,"), "{text}");
    Ok(())
}
