//! A test's own database, queue, workers and API on the ground's servers, and the one verdict on all of it.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use e2e::flow::{Flow, Load, Published};
use e2e::generator::random::Random;
use e2e::generator::{Event, Generator, Shape};
use e2e::process::{self, Service};
use e2e::progress::say;
use e2e::proxy::Proxy;
use e2e::publisher::{Publisher, unique_queue};
use e2e::servers::connect;
use e2e::token::SECRET;
use e2e::watch::Watch;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::ground::{Flavor, Ground};
use crate::proof::Proof;

/// Within what time after a fault's end events must be stored again.
const RECOVERY: Duration = Duration::from_secs(15);
/// Without a further event for so long, what is missing will not come any more.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a worker's memory must stay below with the default prefetch and these events.
const MEMORY: u64 = 200 << 20;

pub(crate) fn setting(name: &str) -> Result<String> {
    std::env::var_os(name)
        .and_then(|value| value.into_string().ok())
        .with_context(|| format!("{name} is not set: run the suite by `make test`"))
}

pub(crate) struct Scene {
    pub(crate) ground: Ground,
    pub(crate) flavor: Flavor,
    pub(crate) what: &'static str,
    pub(crate) began: Instant,
    /// The database's name.
    pub(crate) name: String,
    /// What the roles' names begin with.
    roles: String,
    pub(crate) queue: String,
    /// A session of the owner, which no fault of the network reaches.
    pub(crate) owner: tokio_postgres::Client,
    /// What workers and API reach the database through.
    pub(crate) database: Proxy,
    /// What workers reach the broker through.
    pub(crate) broker: Proxy,
    pub(crate) workers: Vec<Service>,
    pub(crate) api: Service,
    pub(crate) watch: Option<Watch>,
    pub(crate) flow: Option<Flow>,
    /// What was published besides the flow.
    pub(crate) more: Published,
    pub(crate) proof: Proof,
    /// How many messages the broker itself may have given up on.
    pub(crate) given_up: u32,
    /// For how long nothing may happen while something is missing.
    pub(crate) patience: Duration,
    /// What a worker's memory must stay below.
    pub(crate) memory: u64,
    pub(crate) random: Random,
    seed: u64,
    logs: PathBuf,
    queue_since: Instant,
}

impl Scene {
    /// A migrated database, a queue, the API and one worker, and events that keep coming.
    pub(crate) async fn begin(flavor: Flavor, what: &'static str) -> Result<Self> {
        Self::begin_with(flavor, what, &[]).await
    }

    /// The same, with settings for the worker.
    pub(crate) async fn begin_with(
        flavor: Flavor,
        what: &'static str,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let mut scene = Self::calm(flavor, what).await?;
        scene.start_worker(settings).await?;
        scene.start_flow(Load::of(scene.seed));
        // The fault comes into the middle of work.
        scene.wait_stored_at_least(500).await?;
        Ok(scene)
    }

    /// Without a worker and without events.
    pub(crate) async fn calm(flavor: Flavor, what: &'static str) -> Result<Self> {
        Self::calm_on(Ground::take(flavor).await?, what).await
    }

    /// The same, on a server of its own whose disk is small.
    pub(crate) async fn calm_on_small_disk(flavor: Flavor, what: &'static str) -> Result<Self> {
        Self::calm_on(Ground::take_with_small_disk(flavor).await?, what).await
    }

    async fn calm_on(mut ground: Ground, what: &'static str) -> Result<Self> {
        let flavor = ground.flavor;
        let began = Instant::now();
        let seed = match setting("FAULT_SEED") {
            Ok(seed) => seed.parse().context("FAULT_SEED")?,
            Err(_) => SystemTime::now()
                .duration_since(UNIX_EPOCH)?
                .subsec_nanos()
                .into(),
        };
        say(format_args!("{what} ({}): FAULT_SEED={seed}", flavor.name()));
        let name = format!("faults_{}", Uuid::new_v4().simple());
        let admin = ground.postgres().connect("postgres").await?;
        for statement in [
            format!("CREATE DATABASE {name}"),
            format!("CREATE ROLE {name}_writer LOGIN"),
            format!("CREATE ROLE {name}_reader LOGIN"),
        ] {
            admin.batch_execute(&statement).await?;
        }
        let logs = PathBuf::from(setting("E2E_LOGS")?).join(&name);
        std::fs::create_dir_all(&logs)?;
        let owner = ground.postgres().connect(&name).await?;
        let database = Proxy::start(ground.postgres().port()).await?;
        let broker = Proxy::start(ground.rabbitmq().port()).await?;
        let queue = unique_queue("faults");
        let (writer, reader) = (format!("{name}_writer"), format!("{name}_reader"));
        process::run(
            &PathBuf::from(setting("E2E_WORKER_BIN")?),
            &["migrate"],
            &[
                ("DATABASE_URL", &ground.postgres().url(&name)),
                ("WRITER_ROLE", &writer),
                ("READER_ROLE", &reader),
                ("DATABASE_FLAVOR", flavor.name()),
            ],
        )
        .await?;
        let reads = url_as(&database.url(&ground.postgres().url(&name))?, &reader)?;
        let api = start_api(&reads, &logs.join("api.log")).await?;
        let mut scene = Self {
            ground,
            flavor,
            what,
            began,
            roles: name.clone(),
            name,
            queue,
            owner,
            database,
            broker,
            workers: Vec::new(),
            api,
            watch: None,
            flow: None,
            more: Published::default(),
            proof: Proof::default(),
            given_up: 0,
            patience: PATIENCE,
            memory: MEMORY,
            random: Random::of(&[seed]),
            seed,
            logs,
            queue_since: Instant::now(),
        };
        scene.watch = Some(Watch::start(scene.admin()?));
        Ok(scene)
    }

    /// Workers and API that are started from now on use another database.
    pub(crate) fn use_database(&mut self, name: &str) {
        name.clone_into(&mut self.name);
    }

    /// Ends the API, and starts another one.
    pub(crate) async fn restart_api(&mut self) -> Result<()> {
        if let Some(watch) = self.watch.take() {
            watch.finish().await?;
        }
        let owner = self.owner_url();
        let url = self.database.url(&owner)?;
        let reads = url_as(&url, &format!("{}_reader", self.roles))?;
        self.api = start_api(&reads, &self.logs.join("api-2.log")).await?;
        self.watch = Some(Watch::start(self.admin()?));
        Ok(())
    }

    /// Lets events come.
    pub(crate) fn start_flow(&mut self, load: Load) {
        let url = self.ground.rabbitmq().url();
        self.flow = Some(Flow::start(&url, &self.queue, load));
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn owner_url(&mut self) -> String {
        let name = self.name.clone();
        self.ground.postgres().url(&name)
    }

    /// Starts one more worker and waits until it is ready.
    pub(crate) async fn start_worker(&mut self, settings: &[(&str, &str)]) -> Result<()> {
        let worker = self.launch_worker(settings)?;
        self.workers.push(worker);
        let worker = self.workers.last_mut().context("just started")?;
        worker.wait_ready(Duration::from_secs(30)).await
    }

    /// A worker as in production: a writer, with maintenance as the owner. Not among [`Self::workers`] yet.
    pub(crate) fn launch_worker(&mut self, settings: &[(&str, &str)]) -> Result<Service> {
        let (database, broker) = (self.database.port(), self.broker.port());
        self.launch_worker_through(database, broker, settings)
    }

    /// The same, through proxies of its own.
    pub(crate) fn launch_worker_through(
        &mut self,
        database: u16,
        broker: u16,
        settings: &[(&str, &str)],
    ) -> Result<Service> {
        let owner = with_port(&self.owner_url(), database)?;
        let writer = url_as(&owner, &format!("{}_writer", self.roles))?;
        let broker = with_port(&self.ground.rabbitmq().url(), broker)?;
        let mut environment = vec![
            ("DATABASE_URL", &*writer),
            ("MAINTENANCE_DATABASE_URL", &*owner),
            ("RABBITMQ_URL", &*broker),
            ("QUEUE_NAME", &*self.queue),
            ("LOG_FORMAT", "text"),
        ];
        environment.extend(settings);
        let log = self.logs.join(format!("worker-{}.log", Uuid::new_v4().simple()));
        Service::launch(&PathBuf::from(setting("E2E_WORKER_BIN")?), &environment, &log)
    }

    /// Waits a random time up to this.
    pub(crate) async fn wait_up_to(&mut self, longest: Duration) {
        let share = self.random.unit();
        tokio::time::sleep(longest.mul_f64(share)).await;
    }

    pub(crate) async fn count(&self, query: &str) -> Result<i64> {
        Ok(self.owner.query_one(query, &[]).await?.get(0))
    }

    /// After the server was restarted.
    pub(crate) async fn reconnect_owner(&mut self) -> Result<()> {
        let url = self.owner_url();
        self.owner = connect(&url).await?;
        Ok(())
    }

    pub(crate) async fn stored(&self) -> Result<i64> {
        self.count("SELECT count(*) FROM usage_events").await
    }

    pub(crate) async fn wait_stored_at_least(&self, events: i64) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.stored().await? < events {
            ensure!(
                Instant::now() < deadline,
                "{} of {events} stored",
                self.stored().await?
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// RabbitMQ 3.10 writes the register of its quorum queues seconds after a declaration: a broker that is
    /// killed before does not find the queue's log again.
    pub(crate) async fn wait_registered(&self) {
        let age = self.queue_since.elapsed();
        tokio::time::sleep(Duration::from_secs(7).saturating_sub(age)).await;
    }

    /// The sum of a metric over the workers that run.
    pub(crate) async fn metric(&self, name: &str) -> Result<f64> {
        let mut sum = 0.0;
        for worker in &self.workers {
            sum += worker.metric(name).await?;
        }
        Ok(sum)
    }

    pub(crate) async fn publisher(&mut self) -> Result<Publisher> {
        Publisher::connect(&self.ground.rabbitmq().url(), &self.queue).await
    }

    /// Events of the last half hour besides the flow's.
    pub(crate) fn events(&mut self, count: usize) -> Vec<Event> {
        let end = OffsetDateTime::now_utc();
        let shape = Shape {
            seed: self.random.below(u64::MAX),
            organizations: 8,
            start: end - time::Duration::minutes(30),
            end,
        };
        Generator::new(&shape).take(count).collect()
    }

    /// An event of this moment.
    pub(crate) fn event_now(&mut self) -> Event {
        let now = OffsetDateTime::now_utc();
        let shape = Shape {
            seed: self.random.below(u64::MAX),
            organizations: 8,
            start: now - time::Duration::minutes(1),
            end: now,
        };
        Generator::new(&shape).at(now)
    }

    /// The fault is over: an event that is published now must be stored soon.
    pub(crate) async fn recovered(&mut self) -> Result<()> {
        self.recovered_within(RECOVERY).await
    }

    /// The same, where something has to be noticed first.
    pub(crate) async fn recovered_within(&mut self, patience: Duration) -> Result<()> {
        let over = Instant::now();
        let event = self.events(1).remove(0);
        let publish = async {
            loop {
                let attempt = async {
                    let publisher = self.publisher().await?;
                    publisher.publish([&event.body]).await
                };
                match tokio::time::timeout(patience, attempt).await {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(error)) if over.elapsed() > patience => return Err(error),
                    Err(_) => bail!("the broker does not take a message {patience:?} after the fault"),
                    Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        };
        publish.await?;
        let (org, id) = (event.fact.org_id, event.fact.event_id);
        let query = "SELECT count(*) FROM usage_events WHERE org_id = $1 AND event_id = $2";
        while self.owner.query_one(query, &[&org, &id]).await?.get::<_, i64>(0) == 0 {
            if over.elapsed() > patience {
                let autopsy = self.autopsy().await;
                bail!("an event published after the fault is not stored {patience:?} later; {autopsy}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        say(format_args!(
            "{} ({}): recovered {:.1} s after the fault",
            self.what,
            self.flavor.name(),
            over.elapsed().as_secs_f64()
        ));
        self.more.events.push(event);
        Ok(())
    }

    /// What everybody says, for a person.
    pub(crate) async fn autopsy(&mut self) -> String {
        let mut said = self.log_tails();
        let columns = ["name", "messages_ready", "messages_unacknowledged", "consumers"];
        for command in [
            [&["list_queues"][..], &columns].concat(),
            vec!["list_connections", "name", "state", "channels"],
        ] {
            said += "\n";
            said += &match self.ground.rabbitmq().ctl(&command).await {
                Ok(words) => words,
                Err(error) => format!("{error:#}"),
            };
        }
        let sessions = "SELECT string_agg(format('%s: %s %s %s', application_name, state, wait_event, query), E'\\n') \
                        FROM pg_stat_activity WHERE datname = current_database()";
        said += &match self.owner.query_one(sessions, &[]).await {
            Ok(row) => row.get::<_, Option<String>>(0).unwrap_or_default(),
            Err(error) => format!("{error:#}"),
        };
        said
    }

    pub(crate) fn log_tails(&self) -> String {
        let tail = |worker: &Service| {
            let log = worker.log();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("dead letter")).collect();
            lines[lines.len().saturating_sub(15)..].join("\n  ")
        };
        let tails: Vec<String> = self.workers.iter().map(tail).collect();
        format!("the workers said:\n  {}", tails.join("\n  --\n  "))
    }
}

async fn start_api(database: &str, log: &std::path::Path) -> Result<Service> {
    let environment = [
        ("DATABASE_URL", database),
        ("JWT_SECRET", SECRET),
        ("SHUTDOWN_DELAY_SECONDS", "0"),
        // The verdict asks about every organization, as fast as it is answered.
        ("RATE_LIMIT_PER_SECOND", "0"),
    ];
    Service::start(&PathBuf::from(setting("E2E_API_BIN")?), &environment, log).await
}

fn url_as(url: &str, role: &str) -> Result<String> {
    let mut url = reqwest::Url::parse(url)?;
    url.set_username(role)
        .ok()
        .context("the server's URL takes no user")?;
    Ok(url.to_string())
}

fn with_port(url: &str, port: u16) -> Result<String> {
    let mut url = reqwest::Url::parse(url)?;
    url.set_port(Some(port)).ok().context("a URL without a port")?;
    Ok(url.to_string())
}
