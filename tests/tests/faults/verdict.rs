//! The one verdict on a scene, whatever was done to it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::api::{self, Client};
use e2e::flow::Published;
use e2e::oracle;
use e2e::process;
use e2e::progress::say;
use e2e::publisher::Queues;
use e2e::token::{Claims, SECRET};
use e2e::truth::Truth;
use time::{OffsetDateTime, Time};

use crate::scene::{Scene, setting};

/// Within what time a fresh event must be in the answers once all is calm, on a machine that is shared.
const FRESH: Duration = Duration::from_secs(5);

impl Scene {
    /// The oracle: everything is as if nothing had happened, and the fault did happen.
    pub(crate) async fn verdict(mut self) -> Result<()> {
        let proof = self.proof.check()?;
        let published = self.end_of_flow().await?;
        self.wait_all_stored(&published).await?;
        oracle::assert_stored(&self.owner, published.events.iter().map(|event| &event.fact)).await?;
        oracle::assert_dead_letters(&self.owner, &published.malformed).await?;
        self.maintain().await?;
        oracle::assert_rollups(&self.owner).await?;
        let seen = self.assert_answers(&published).await?;
        let fresh = self.assert_fresh().await?;
        let memory = self.assert_workers_live_and_end().await?;
        say(format_args!(
            "{} ({}): exact in {:.1} s; {} events, {} repeats, {} malformed; {proof}; fresh after {fresh:?}; \
             {memory} MiB; {} answers, {} refusals within {:?}",
            self.what,
            self.flavor.name(),
            self.began.elapsed().as_secs_f64(),
            published.events.len(),
            published.repeats,
            published.malformed.len(),
            seen.answers,
            seen.refusals,
            seen.slowest_refusal,
        ));
        self.remove().await
    }

    /// Stops the flow; what it and the test published.
    pub(crate) async fn end_of_flow(&mut self) -> Result<Published> {
        let mut published = match self.flow.take() {
            Some(flow) => flow.finish().await?,
            None => Published::default(),
        };
        published.events.append(&mut self.more.events);
        published.malformed.append(&mut self.more.malformed);
        Ok(published)
    }

    pub(crate) async fn wait_all_stored(&self, published: &Published) -> Result<()> {
        let letters: HashSet<&[u8]> = published.malformed.iter().map(|message| &*message.body).collect();
        let expected = (
            i64::try_from(published.events.len())?,
            i64::try_from(letters.len())?,
        );
        let query = "SELECT (SELECT count(*) FROM usage_events), (SELECT count(*) FROM dead_letters)";
        let mut last = ((0, 0), Instant::now());
        loop {
            let row = self.owner.query_one(query, &[]).await?;
            let found: (i64, i64) = (row.get(0), row.get(1));
            if found == expected {
                return Ok(());
            }
            if found != last.0 {
                last = (found, Instant::now());
            }
            if last.1.elapsed() > self.patience || found.0 > expected.0 || found.1 > expected.1 {
                bail!(
                    "{found:?} events and dead letters are stored, not {expected:?}; {}",
                    self.log_tails()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn maintain(&mut self) -> Result<String> {
        let url = self.owner_url();
        let binary = PathBuf::from(setting("E2E_WORKER_BIN")?);
        let environment = [("DATABASE_URL", &*url)];
        Ok(process::run(&binary, &["maintain"], &environment).await?.0)
    }

    async fn assert_answers(&mut self, published: &Published) -> Result<e2e::watch::Seen> {
        let seen = match self.watch.take() {
            Some(watch) => watch.finish().await?,
            None => e2e::watch::Seen::default(),
        };
        let mut truth = Truth::default();
        truth.extend(published.events.iter().map(|event| &event.fact));
        let times = published.events.iter().map(|event| event.fact.time_us);
        let midnight = |us: i64| {
            OffsetDateTime::from_unix_timestamp(us / 1_000_000).map(|time| time.replace_time(Time::MIDNIGHT))
        };
        let start = midnight(times.clone().min().context("nothing was published")?)?;
        let end = midnight(times.max().unwrap_or_default())? + time::Duration::DAY;
        let verdict = api::compare_all(&self.admin()?, &truth, start, end).await?;
        ensure!(verdict.differences.is_empty(), "{:#?}", verdict.differences);
        ensure!(seen.answers > 0, "the API never answered");
        Ok(seen)
    }

    pub(crate) fn admin(&self) -> Result<Client> {
        Client::new(&self.api.url("/"), &Claims::system_admin(), SECRET)
    }

    /// An event that happens now is soon in the answers.
    async fn assert_fresh(&mut self) -> Result<Duration> {
        let event = self.event_now();
        let publisher = self.publisher().await?;
        let admin = self.admin()?;
        let path = format!("orgs/{}/usage", event.fact.org_id);
        let requests = async || -> Result<i64> {
            let answer = admin.get(&path, &[("period", "last_24h")]).await?;
            Ok(api::measures(&answer["totals"])?.requests)
        };
        let before = requests().await?;
        publisher.publish([&event.body]).await?;
        let began = Instant::now();
        while requests().await? != before + 1 {
            ensure!(
                began.elapsed() < FRESH,
                "a fresh event is not visible after {FRESH:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(began.elapsed())
    }

    /// Nobody died by itself, memory was bounded, all end in order; then nothing is left in the queue,
    /// neither ready nor held by anybody.
    async fn assert_workers_live_and_end(&mut self) -> Result<u64> {
        let mut most = 0;
        for worker in &mut self.workers {
            if let Some(status) = worker.ended()? {
                bail!("a worker died by itself: {status}; {}", worker.log());
            }
            most = most.max(worker.peak_rss_bytes().unwrap_or(u64::MAX));
            let (status, took) = worker.terminate(Duration::from_secs(11)).await?;
            ensure!(
                status.success() && took < Duration::from_secs(10),
                "a worker ended with {status} after {took:?}"
            );
        }
        ensure!(most < self.memory, "a worker took {} MiB", most >> 20);
        let queues = Queues::connect(&self.ground.rabbitmq().url()).await?;
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut waiting = queues.waiting(&self.queue).await?;
        while waiting != Some((0, 0)) {
            ensure!(
                Instant::now() < deadline,
                "after the workers' end the queue has {waiting:?} messages and consumers"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
            waiting = queues.waiting(&self.queue).await?;
        }
        let given_up = queues.ready(&format!("{}.dead-letter", self.queue)).await?;
        ensure!(
            given_up.unwrap_or(0) == self.given_up,
            "the broker gave up on {given_up:?} messages"
        );
        Ok(most >> 20)
    }

    async fn remove(mut self) -> Result<()> {
        drop(self.api);
        let admin = self.ground.postgres().connect("postgres").await?;
        admin
            .batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name))
            .await?;
        let queues = Queues::connect(&self.ground.rabbitmq().url()).await?;
        queues.delete(&self.queue).await?;
        queues.delete(&format!("{}.dead-letter", self.queue)).await?;
        self.ground.give_back().await
    }
}
