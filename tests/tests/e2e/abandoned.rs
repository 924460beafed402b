//! Questions that nobody waits for any more: they end at the database as well, and the sessions of the API
//! are never more than its pool.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::process::Service;
use e2e::token::{Claims, SECRET};
use reqwest::Url;
use uuid::Uuid;

use crate::platform::{Flavor, Platform};

crate::in_both_flavors!(
    a_question_that_nobody_waits_for_ends_at_the_database,
    a_busy_pool_is_no_reason_to_be_unready
);

const POOL: i64 = 3;
/// The pool and the session of the probes.
const SESSIONS: i64 = POOL + 1;

/// A question whose answer needs the table that [`lock`] locks.
fn question(api: &Service) -> Result<(Url, String)> {
    let organization = Uuid::new_v4();
    let path = format!("/api/v1/analytics/orgs/{organization}/usage");
    let mut url = Url::parse(&api.url(&path))?;
    url.query_pairs_mut()
        .append_pair("start_time", "2026-11-01T00:15:00Z")
        .append_pair("end_time", "2026-11-03T00:30:00Z");
    Ok((url, Claims::org_admin(organization).sign(SECRET)?))
}

/// Makes every question wait, until what it returns is dropped.
async fn lock(platform: &Platform) -> Result<tokio_postgres::Client> {
    let locking = e2e::servers::connect(&platform.owner_url()?).await?;
    let statement = "BEGIN; LOCK TABLE usage_quarter_hourly IN ACCESS EXCLUSIVE MODE";
    locking.batch_execute(statement).await?;
    Ok(locking)
}

async fn sessions(platform: &Platform, also: &str) -> Result<i64> {
    let query = format!(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE datname = current_database() AND application_name = 'analytics-api' {also}"
    );
    platform.count(&query).await
}

async fn wait_for_waiting(platform: &Platform, number: i64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while sessions(platform, "AND wait_event_type = 'Lock'").await? != number {
        ensure!(
            Instant::now() < deadline,
            "not {number} questions wait for the lock"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn a_question_that_nobody_waits_for_ends_at_the_database(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let api = platform.api(&[("DATABASE_POOL_SIZE", &POOL.to_string())]).await?;
    let (url, token) = question(&api)?;
    let locking = lock(&platform).await?;
    for _ in 0..3 {
        let asking: Vec<_> = (0..POOL)
            .map(|_| {
                let asked = reqwest::Client::new().get(url.clone()).bearer_auth(&token);
                tokio::spawn(asked.send())
            })
            .collect();
        wait_for_waiting(&platform, POOL).await?;
        // They hang up; the next ones come at once.
        asking.iter().for_each(tokio::task::JoinHandle::abort);
        let hung_up = Instant::now();
        loop {
            let found = sessions(&platform, "").await?;
            ensure!(found <= SESSIONS, "{found} sessions, with a pool of {POOL}");
            if sessions(&platform, "AND state = 'active'").await? == 0 {
                break;
            }
            ensure!(
                hung_up.elapsed() < Duration::from_secs(3),
                "questions run on after their callers went away"
            );
        }
    }
    locking.batch_execute("ROLLBACK").await?;
    let answer = reqwest::Client::new().get(url).bearer_auth(&token).send().await?;
    ensure!(answer.status() == 200, "{}", answer.status());
    ensure!(
        sessions(&platform, "").await? <= SESSIONS,
        "sessions were left behind"
    );
    Ok(())
}

async fn a_busy_pool_is_no_reason_to_be_unready(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let api = platform.api(&[("DATABASE_POOL_SIZE", "1")]).await?;
    let (url, token) = question(&api)?;
    let _locking = lock(&platform).await?;
    let ask = || reqwest::Client::new().get(url.clone()).bearer_auth(&token).send();
    let first = tokio::spawn(ask());
    wait_for_waiting(&platform, 1).await?;
    let began = Instant::now();
    let second = ask().await?;
    ensure!(second.status() == 503, "{}", second.status());
    ensure!(
        began.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        began.elapsed()
    );
    let ready = reqwest::get(api.url("/ready")).await?;
    ensure!(ready.status() == 200, "{}", ready.text().await?);
    // The database's own limit: the first one is told that it asked for too much.
    let first = first.await??;
    ensure!(first.status() == 504, "{}", first.status());
    Ok(())
}
