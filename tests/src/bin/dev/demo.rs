//! `dev demo`: everything at work, as a newcomer should see it, and every answer checked when it ends.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::api::{self, Client};
use e2e::generator::{Event, Generator, Shape};
use e2e::malformed;
use e2e::orphans;
use e2e::process::Service;
use e2e::progress::{Step, say};
use e2e::publisher::Publisher;
use e2e::servers::{Edition, Postgres, Profile, RabbitMq};
use e2e::token::{self, Claims};
use e2e::truth::{Question, Truth};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::interrupt::{self, Interrupt};
use crate::services::Services;
use crate::tables::{self, thousands};

const DATABASE: &str = "usage_analytics";
const QUEUE: &str = "usage-events";
/// The running month, and the same days of the one before.
const HISTORY_DAYS: i64 = 62;
const HISTORY_EVENTS: usize = 200_000;
/// Events that are published twice, as a producer does that missed the confirmation.
const REPEATED: usize = 2_000;
const LIVE_PER_SECOND: u64 = 50;
/// How long a published event may take until the API counts it.
const COUNTED_WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn run(plain: bool) -> Result<ExitCode> {
    let seconds = seconds_from_environment()?;
    let mut interrupt = Interrupt::listen()?;
    let Some(demo) = interrupt.or(Demo::start(plain)).await else {
        return Ok(interrupt::exit_code());
    };
    let mut demo = demo?;
    let ended = demo.run(&mut interrupt, seconds).await;
    let removed = demo.remove().await;
    let code = ended?;
    removed?;
    Ok(code)
}

/// Servers and services of a demo, and what has been published to them.
struct Demo {
    postgres: Postgres,
    rabbitmq: RabbitMq,
    worker: Service,
    api: Service,
    publisher: Publisher,
    client: Client,
    generator: Generator,
    truth: Truth,
    first_day: OffsetDateTime,
    logs: String,
}

impl Demo {
    async fn start(plain: bool) -> Result<Self> {
        orphans::remove_of_the_dead().await?;
        let edition = Edition::to_try(plain);
        let name = |server: &str| format!("demo-{}-{server}", std::process::id());
        let (postgres_name, rabbitmq_name) = (name("postgres"), name("rabbitmq"));
        let (postgres, rabbitmq) = tokio::try_join!(
            Postgres::start(&postgres_name, edition, Profile::Modest, &[]),
            RabbitMq::start(&rabbitmq_name, &[])
        )?;
        postgres.ensure_database(DATABASE).await?;
        let services = Services::new(postgres.url(DATABASE), rabbitmq.url(), QUEUE, "demo-logs")?;

        let step = Step::begin("bringing the database to the schema");
        let said = services.migrate().await?;
        step.done("done");
        said.lines().for_each(|line| say(format_args!("    {line}")));

        let step = Step::begin("starting ingest-worker and analytics-api");
        let (worker, api) = tokio::try_join!(services.start_worker(&[]), services.start_api(&[]))?;
        step.done("ready");

        let now = OffsetDateTime::now_utc();
        let start = now - time::Duration::days(HISTORY_DAYS);
        let generator = Generator::new(&Shape {
            seed: 42,
            organizations: 100,
            start,
            end: now,
        });
        let client = Client::new(&api.url("/"), &Claims::system_admin(), token::SECRET)?;
        let publisher = Publisher::connect(&rabbitmq.url(), QUEUE).await?;
        let mut demo = Self {
            postgres,
            rabbitmq,
            worker,
            api,
            publisher,
            client,
            generator,
            truth: Truth::default(),
            first_day: start.replace_time(time::Time::MIDNIGHT),
            logs: services.logs().display().to_string(),
        };
        demo.publish_history().await?;
        Ok(demo)
    }

    /// Two months of events, some of them twice, and twenty messages that are none.
    async fn publish_history(&mut self) -> Result<()> {
        let step = Step::begin(format!(
            "publishing {HISTORY_DAYS} days of usage: {} events, {} of them twice, 20 malformed messages",
            thousands(HISTORY_EVENTS),
            thousands(REPEATED)
        ));
        let began = Instant::now();
        let mut said = Instant::now();
        let truth = &mut self.truth;
        let mut repeated = Vec::with_capacity(REPEATED);
        let bodies = self
            .generator
            .in_order(HISTORY_EVENTS)
            .enumerate()
            .map(|(i, event)| {
                truth.add(&event.fact);
                if i % (HISTORY_EVENTS / REPEATED) == 0 {
                    repeated.push(event.body.clone());
                }
                if said.elapsed() > Duration::from_secs(3) {
                    said = Instant::now();
                    say(format_args!("    {} published", thousands(i)));
                }
                event.body
            });
        self.publisher.publish(bodies).await?;
        self.publisher.publish(&repeated).await?;
        let malformed = malformed::twenty(OffsetDateTime::now_utc());
        self.publisher
            .publish(malformed.iter().map(|message| &message.body))
            .await?;
        let rate = (HISTORY_EVENTS + REPEATED) as f64 / began.elapsed().as_secs_f64();
        step.done(format_args!("confirmed, {rate:.0} messages/s"));

        let step = Step::begin("waiting until the API counts them all");
        self.wait_until_counted().await?;
        step.done("counted");
        Ok(())
    }

    async fn run(&mut self, interrupt: &mut Interrupt, seconds: Option<u64>) -> Result<ExitCode> {
        match interrupt.or(self.show()).await {
            Some(shown) => shown?,
            None => return Ok(interrupt::exit_code()),
        }
        let limit = seconds.map(Duration::from_secs);
        match limit {
            Some(limit) => say(format_args!(
                "live for {} s, {LIVE_PER_SECOND} events/s",
                limit.as_secs()
            )),
            None => say(format_args!(
                "live, {LIVE_PER_SECOND} events/s. Ctrl-C stops everything."
            )),
        }
        if interrupt.or(self.live(limit)).await.transpose()?.is_none() {
            say("stopping everything");
            return Ok(ExitCode::SUCCESS);
        }
        match interrupt.or(self.check()).await.transpose()? {
            Some(true) => Ok(ExitCode::SUCCESS),
            Some(false) => Ok(ExitCode::FAILURE),
            None => Ok(interrupt::exit_code()),
        }
    }

    /// The first answers, and how to ask for more.
    async fn show(&self) -> Result<()> {
        let largest = self.generator.organizations()[0];
        let span = [("period", "last_30d")];
        let days = self.client.get("system/usage", &span).await?;
        let organizations = self.client.get("system/orgs", &span).await?;
        let models = self.client.get("system/models", &span).await?;
        let users = self.client.get(&format!("orgs/{largest}/users"), &span).await?;
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "\n{}",
            tables::days("last 30 days, all organizations", &days, 7)?
        )?;
        writeln!(
            out,
            "\n{}",
            tables::ranking("top organizations", &organizations, "org_id", 5)?
        )?;
        writeln!(out, "\n{}", tables::ranking("models", &models, "model", 10)?)?;
        writeln!(
            out,
            "\n{}",
            tables::ranking("users of the largest", &users, "user_id", 5)?
        )?;
        writeln!(out, "\nfreshness: {}", freshness(&users))?;

        let org_admin = Claims::org_admin(largest).sign(token::SECRET)?;
        let url = |path: &str, parameters: &[(&str, &str)]| self.client.url(path, parameters);
        writeln!(
            out,
            "\nLook at it, as the system admin and as the admin of the largest organization:\n"
        )?;
        for token in [self.client.token(), &org_admin] {
            // In the fragment, which browsers do not send; the page removes it at once.
            writeln!(out, "  {}#token={token}", self.api.url("/"))?;
        }
        writeln!(out, "\nAsk yourself. As the system admin:\n")?;
        writeln!(out, "  export TOKEN={}", self.client.token())?;
        for url in [
            url("system/usage", &[("period", "last_24h"), ("bucket_width", "1h")])?,
            url("system/orgs", &[("period", "this_month"), ("limit", "5")])?,
        ] {
            writeln!(out, "  curl -s -H \"Authorization: Bearer $TOKEN\" '{url}'")?;
        }
        writeln!(
            out,
            "\nAs an admin of the largest organization, who may read nothing else:\n"
        )?;
        writeln!(out, "  export ORG_TOKEN={org_admin}")?;
        for url in [
            url(&format!("orgs/{largest}/users"), &[])?,
            url(&format!("orgs/{largest}/models"), &[("period", "last_7d")])?,
            url("system/usage", &[])?,
        ] {
            writeln!(out, "  curl -s -H \"Authorization: Bearer $ORG_TOKEN\" '{url}'")?;
        }
        writeln!(out, "\nThe database, the broker, metrics and logs:\n")?;
        writeln!(out, "  psql {}", self.postgres.url(DATABASE))?;
        writeln!(out, "  {}", self.rabbitmq.url())?;
        writeln!(out, "  curl -s {}", self.worker.url("/metrics"))?;
        writeln!(out, "  curl -s {}", self.api.url("/metrics"))?;
        writeln!(out, "  {}\n", self.logs)?;
        Ok(())
    }

    /// Events of this moment, until the time is over; for ever when there is none.
    async fn live(&mut self, limit: Option<Duration>) -> Result<()> {
        let began = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(1_000 / LIVE_PER_SECOND));
        let mut said = Instant::now();
        while limit.is_none_or(|limit| began.elapsed() < limit) {
            tick.tick().await;
            let Event { body, fact } = self.generator.at(OffsetDateTime::now_utc());
            self.truth.add(&fact);
            self.publisher.publish([body]).await?;
            for (name, service) in [
                ("ingest-worker", &mut self.worker),
                ("analytics-api", &mut self.api),
            ] {
                if let Some(status) = service.ended()? {
                    bail!(
                        "{name} ended by itself with {status}; it said:\n{}",
                        service.log()
                    );
                }
            }
            if said.elapsed() > Duration::from_secs(10) {
                said = Instant::now();
                self.say_progress().await?;
            }
        }
        Ok(())
    }

    async fn say_progress(&self) -> Result<()> {
        let answer = self.answer_of_everything().await?;
        let counted = api::measures(&answer["totals"])?;
        say(format_args!(
            "  published {}, counted {}, {} USD; {}",
            thousands(self.truth.len()),
            thousands(counted.requests),
            counted.cost(),
            freshness(&answer),
        ));
        Ok(())
    }

    /// Everything that was published, as the API counts it.
    async fn answer_of_everything(&self) -> Result<serde_json::Value> {
        let (start, end) = self.span();
        let (start, end) = (start.format(&Rfc3339)?, end.format(&Rfc3339)?);
        let span = [
            ("start_time", start.as_str()),
            ("end_time", end.as_str()),
            ("bucket_width", "all"),
        ];
        self.client.get("system/usage", &span).await
    }

    /// Whole UTC days around everything that was published.
    fn span(&self) -> (OffsetDateTime, OffsetDateTime) {
        let today = OffsetDateTime::now_utc().replace_time(time::Time::MIDNIGHT);
        (self.first_day, today + time::Duration::days(1))
    }

    async fn wait_until_counted(&self) -> Result<()> {
        let expected = self.truth.total(&Question::default());
        let deadline = Instant::now() + COUNTED_WITHIN;
        let mut said = Instant::now();
        loop {
            let counted = api::measures(&self.answer_of_everything().await?["totals"])?;
            if counted == expected {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the API answers {counted:?} after {COUNTED_WITHIN:?}, true is {expected:?}");
            }
            if said.elapsed() > Duration::from_secs(3) {
                said = Instant::now();
                say(format_args!("    {} counted", thousands(counted.requests)));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Every answer against the truth; true when all are equal.
    async fn check(&self) -> Result<bool> {
        let step = Step::begin("checking every organization, user, model and day against the truth");
        // A wrong sum shows in the comparison, with its place.
        let waited = self.wait_until_counted().await;
        let (start, end) = self.span();
        let verdict = api::compare_all(&self.client, &self.truth, start, end).await?;
        let stored = self.count("usage_events").await?;
        let dead = self.count("dead_letters").await?;
        let mut differences = verdict.differences;
        if usize::try_from(stored) != Ok(self.truth.len()) {
            differences.push(format!(
                "{stored} rows are stored, {} were published",
                self.truth.len()
            ));
        }
        if dead != 20 {
            differences.push(format!("{dead} dead letters instead of 20"));
        }
        step.done(format_args!(
            "{} answers compared, {} rows stored, {dead} dead letters, {} differences",
            thousands(verdict.compared),
            thousands(stored),
            differences.len()
        ));
        for difference in differences.iter().take(20) {
            say(format_args!("  DIFFERENT: {difference}"));
        }
        if let Err(error) = waited {
            say(format_args!("  {error:#}"));
            return Ok(false);
        }
        Ok(differences.is_empty())
    }

    async fn count(&self, table: &str) -> Result<i64> {
        let client = self.postgres.connect(DATABASE).await?;
        Ok(client
            .query_one(&format!("SELECT count(*) FROM {table}"), &[])
            .await?
            .get(0))
    }

    async fn remove(mut self) -> Result<()> {
        let step = Step::begin("stopping services and servers");
        let patience = Duration::from_secs(15);
        let stopped = tokio::try_join!(self.worker.terminate(patience), self.api.terminate(patience));
        // The servers go in any case.
        tokio::try_join!(self.postgres.destroy(), self.rabbitmq.destroy())?;
        let ((worker, _), (api, _)) = stopped?;
        if !worker.success() || !api.success() {
            bail!("ingest-worker ended with {worker}, analytics-api with {api}");
        }
        step.done("done");
        Ok(())
    }
}

/// An answer's freshness as a phrase.
fn freshness(answer: &serde_json::Value) -> String {
    let freshness = &answer["freshness"];
    let state = freshness["state"].as_str().unwrap_or("unknown");
    match freshness["age_seconds"].as_f64() {
        Some(age) => format!("{state}, everything counted that was published until {age:.1} s ago"),
        None => state.to_owned(),
    }
}

/// How long the live part lasts; none: until it is interrupted.
fn seconds_from_environment() -> Result<Option<u64>> {
    match std::env::var_os("DEMO_SECONDS").filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => value
            .to_str()
            .and_then(|text| text.parse().ok())
            .map(Some)
            .context("DEMO_SECONDS must be a whole number of seconds"),
    }
}
