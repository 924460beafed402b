//! What those who operate the API see of it: its log, its metrics, its probes, and how it stops.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::process::Service;
use e2e::token::{Claims, SECRET};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use crate::platform::{Flavor, Platform};

crate::in_both_flavors!(
    a_request_leaves_a_line_a_measurement_and_its_trace,
    a_question_is_asked_once,
    reads_across_organizations_are_written_down
);

/// Asks as this caller, with headers.
async fn ask(
    api: &Service,
    path: &str,
    claims: &Claims,
    headers: &[(&str, &str)],
) -> Result<reqwest::Response> {
    let mut request = reqwest::Client::new()
        .get(api.url(path))
        .bearer_auth(claims.sign(SECRET)?);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(request.send().await?)
}

/// The lines of a log that say this, as JSON.
fn lines(api: &Service, message: &str) -> Result<Vec<Value>> {
    let log = api.log();
    let lines: Vec<Value> = log.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    Ok(lines
        .into_iter()
        .filter(|line| line["message"] == message)
        .collect())
}

async fn a_request_leaves_a_line_a_measurement_and_its_trace(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let api = platform.api(&[]).await?;
    let organization = Uuid::new_v4();
    let claims = Claims::org_admin(organization);
    let path = format!("/api/v1/analytics/orgs/{organization}/usage?model=whose-model");
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let headers = [
        ("X-Request-Id", "from-the-portal"),
        ("traceparent", &*format!("00-{trace}-b7ad6b7169203331-01")),
    ];
    let answer = ask(&api, &path, &claims, &headers).await?;
    ensure!(answer.status() == StatusCode::OK, "{}", answer.text().await?);
    ensure!(answer.headers()["x-request-id"] == "from-the-portal");
    let parent = answer.headers()["traceparent"].to_str()?.to_owned();
    ensure!(
        parent.starts_with(&format!("00-{trace}-")) && parent.ends_with("-01"),
        "{parent}"
    );

    let said = lines(&api, "request answered")?;
    let [line] = said.as_slice() else {
        anyhow::bail!("{} lines for one request", said.len());
    };
    let route = "/api/v1/analytics/orgs/{org_id}/usage";
    ensure!(
        line["method"] == "GET" && line["route"] == route && line["status"] == 200,
        "{line}"
    );
    ensure!(line["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
    let span = &line["spans"][0];
    ensure!(
        span["request_id"] == "from-the-portal" && span["trace_id"] == trace,
        "{line}"
    );
    ensure!(
        parent.contains(span["span_id"].as_str().context("no span id")?),
        "{line}"
    );
    for personal in [&*organization.to_string(), &claims.sub, "whose-model"] {
        ensure!(!api.log().contains(personal), "the log holds {personal}");
    }

    let metrics = reqwest::get(api.url("/metrics")).await?.text().await?;
    for series in [
        format!(
            "usage_analytics_api_http_request_duration_seconds_count{{method=\"GET\",route=\"{route}\",status=\"200\"}} 1"
        ),
        "usage_analytics_api_database_pool_wait_seconds_count{outcome=\"ok\"} 1".to_owned(),
        "usage_analytics_api_database_query_duration_seconds_count{query=\"freshness\",outcome=\"ok\"} 1"
            .to_owned(),
        "usage_analytics_api_questions_in_flight 0".to_owned(),
    ] {
        ensure!(metrics.contains(&series), "{series} is not in\n{metrics}");
    }
    ensure!(
        !metrics.contains(&organization.to_string()),
        "a label names an organization"
    );
    Ok(())
}

/// A plan that the database's first words overturn is asked again: of a database that has answered before, none is.
async fn a_question_is_asked_once(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    platform.maintain().await?;
    let api = platform.api(&[]).await?;
    let admin = Claims::system_admin();
    let organization = format!("orgs/{}", Uuid::new_v4());
    let asked = async || {
        api.metric("usage_analytics_api_database_query_duration_seconds_count")
            .await
    };
    let by_day = "usage?period=last_30d&bucket_width=1d";
    let first = format!("/api/v1/analytics/{organization}/{by_day}&group_by=user_id&top=10");
    ask(&api, &first, &admin, &[]).await?.error_for_status()?;
    // Beside how fresh it is.
    for (statements, question) in [
        (1, format!("{organization}/{by_day}")),
        (
            1,
            format!("{organization}/{by_day}&group_by=model&top=3&time_zone=Asia/Kolkata"),
        ),
        (1, format!("{organization}/usage?period=last_24h&bucket_width=1m")),
        (
            1,
            format!("{organization}/users?period=last_7d&compare=previous_period"),
        ),
        (1, format!("{organization}/keys?order_by=id")),
        (1, "system/orgs?period=last_month".to_owned()),
        (2, format!("{organization}/{by_day}&group_by=user_id&top=10")),
        (
            2,
            format!("{organization}/{by_day}&group_by=api_key_id&group_by=model&top=10"),
        ),
        (
            2,
            format!(
                "{organization}/{by_day}&group_by=api_key_id&top=10&user_id={}",
                Uuid::new_v4()
            ),
        ),
    ] {
        let before = asked().await?;
        let path = format!("/api/v1/analytics/{question}");
        ask(&api, &path, &admin, &[]).await?.error_for_status()?;
        let now = asked().await?;
        ensure!(
            now - before == 1.0 + f64::from(statements),
            "{question}: {} statements",
            now - before
        );
    }
    Ok(())
}

async fn reads_across_organizations_are_written_down(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    // Whatever else is logged.
    let api = platform.api(&[("LOG_LEVEL", "error")]).await?;
    let organization = Uuid::new_v4();
    let admin = Claims::system_admin();
    let paths = [
        ("/api/v1/analytics/orgs/{org_id}/usage", organization.to_string()),
        ("/api/v1/analytics/orgs/{org_id}/users", organization.to_string()),
        ("/api/v1/analytics/system/orgs", "all".to_owned()),
    ];
    for (route, _) in &paths {
        let path = route.replace("{org_id}", &organization.to_string());
        ask(&api, &path, &admin, &[("X-Request-Id", "audited")]).await?;
    }
    // Those who read their own organization, or may not read at all, leave none.
    let own = format!("/api/v1/analytics/orgs/{organization}/usage");
    ask(&api, &own, &Claims::org_admin(organization), &[]).await?;
    ask(&api, &own, &Claims::org_admin(Uuid::new_v4()), &[]).await?;

    let events = lines(&api, "cross-organization read")?;
    ensure!(events.len() == paths.len(), "{events:?}");
    for (event, (route, read)) in events.iter().zip(&paths) {
        ensure!(
            event["target"] == "audit" && event["subject"] == admin.sub,
            "{event}"
        );
        ensure!(
            event["route"] == *route && event["organization"] == **read,
            "{event}"
        );
        ensure!(event["spans"][0]["request_id"] == "audited", "{event}");
    }
    Ok(())
}

#[tokio::test]
async fn the_api_says_that_it_stops_and_answers_until_it_does() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let mut api = platform.api(&[("SHUTDOWN_DELAY_SECONDS", "2")]).await?;
    let (address, claims) = (api.url(""), Claims::system_admin());
    let ready = reqwest::get(format!("{address}/ready")).await?;
    ensure!(ready.status() == StatusCode::OK);
    let began = Instant::now();
    let asking = async {
        // From its first no on, it answers questions all the same.
        loop {
            let ready = reqwest::get(format!("{address}/ready")).await?;
            if ready.status() == StatusCode::SERVICE_UNAVAILABLE {
                let said: Value = ready.json().await?;
                ensure!(
                    said["shutting_down"] == true && said["database"] == "ok",
                    "{said}"
                );
                break;
            }
            ensure!(began.elapsed() < Duration::from_secs(10), "ready after SIGTERM");
        }
        let question = format!("{address}/api/v1/analytics/system/models");
        let answer = reqwest::Client::new()
            .get(question)
            .bearer_auth(claims.sign(SECRET)?)
            .send()
            .await?;
        ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
        Ok(())
    };
    let (ended, asked) = tokio::join!(api.terminate(Duration::from_secs(20)), asking);
    asked?;
    let (status, elapsed) = ended?;
    ensure!(
        status.success() && elapsed >= Duration::from_secs(2),
        "{status} after {elapsed:?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_api_listens_on_ipv6_and_ipv4() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let api = platform.api(&[]).await?;
    for host in ["127.0.0.1", "[::1]"] {
        let health = reqwest::get(api.url("/health").replace("127.0.0.1", host)).await?;
        ensure!(health.status() == StatusCode::OK, "{host}: {}", health.status());
    }
    Ok(())
}

/// However slow the database is, and however many ask: the probes of Kubernetes give up after a second.
#[tokio::test]
async fn readiness_waits_for_nobody() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let api = platform.api(&[]).await?;
    // What readiness is read from answers no more.
    let locking = e2e::servers::connect(&platform.owner_url()?).await?;
    locking
        .batch_execute("BEGIN; LOCK TABLE refinery_schema_history IN ACCESS EXCLUSIVE MODE")
        .await?;
    platform.wait_for_a_lock_waiter().await?;
    let address = api.url("").trim_start_matches("http://").to_owned();
    // Clients that ask and hang up.
    for _ in 0..200 {
        let mut stream = tokio::net::TcpStream::connect(&address).await?;
        stream
            .write_all(b"GET /ready HTTP/1.1\r\nHost: api\r\n\r\n")
            .await?;
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let began = Instant::now();
        let answer = reqwest::get(api.url("/ready")).await?;
        slowest = slowest.max(began.elapsed());
        let said: Value = answer.json().await?;
        ensure!(said["shutting_down"] == false, "{said}");
    }
    ensure!(slowest < Duration::from_millis(700), "{slowest:?}");
    // What is wrong is told all the same, and so is its end.
    let wait_for = async |status: StatusCode| -> Result<()> {
        let began = Instant::now();
        while reqwest::get(api.url("/ready")).await?.status() != status {
            ensure!(began.elapsed() < Duration::from_secs(20), "never {status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    };
    wait_for(StatusCode::SERVICE_UNAVAILABLE).await?;
    locking.batch_execute("ROLLBACK").await?;
    wait_for(StatusCode::OK).await
}
