//! The one door to the database, and the only place where a query runs.
//!
//! A question has 900 ms to reach the database: a connection from the pool, opened if need be, and the
//! first answer on it. That first answer is the freshness statement, which is sent ahead of the question
//! on the same connection without waiting in between. So it costs no round trip, its claim is never newer
//! than the data, and a connection that leads nowhere any more (a failover, a partition) shows at once. It is the
//! same in every answer and has no parameters, and so it is prepared and planned once for each connection.
//! The question itself may then take as long as the statement timeout lets it.
//!
//! A connection goes back to the pool only when everything that was sent on it has been answered; after an
//! error, a deadline, or a caller that hung up, its session is ended first ([`lease`]). So the pool's size
//! bounds the sessions that the server has for questions; the probes have one beside it ([`probe`]).

mod lease;
mod probe;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use analytics_core::query::usage::Plan;
use analytics_core::query::{Param, Statement, freshness};
use analytics_core::rollup::Kept;
use analytics_runtime::postgres::{Database as Address, TlsConnector, explain};
use deadpool_postgres::{
    BuildError, Connect, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime,
};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, error::Elapsed, sleep, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};
use tracing::{error, warn};

use lease::Lease;
use probe::Probe;

use crate::auth::Permitted;
use crate::error::{ApiError, Dependency};
use crate::metrics;

/// Within a second, a dashboard shall know that the database is away.
const REACH_TIMEOUT: Duration = Duration::from_millis(900);
/// For each address of the database: with several, one that leads nowhere must not use up all of the time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often it is looked whether the database is ready, beside the time that a look takes.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The server's own limit for a statement.
const STATEMENT_TIMEOUT: &str = "5s";
/// Behind the server's: only a connection that leads nowhere gets this far.
const QUERY_TIMEOUT: Duration = Duration::from_millis(5_500);

/// What every session is set to. `DATABASE_URL` may set other parameters, not these.
const SESSION: [(&str, &str); 7] = [
    // Whatever the role may do: this service reads.
    ("default_transaction_read_only", "on"),
    ("statement_timeout", STATEMENT_TIMEOUT),
    // A generic plan cannot know which partitions or chunks a range excludes.
    ("plan_cache_mode", "force_custom_plan"),
    // What is asked for is in memory, or on a disk without a head. By the default of 4 the planner reads a
    // month of everybody rather than one organization's rows by their key, in twice the time.
    ("random_page_cost", "1.1"),
    // One question, one core: what others ask and what is being stored go on beside it.
    ("max_parallel_workers_per_gather", "0"),
    // Compiling a plan takes longer than running any of ours.
    ("jit", "off"),
    // TimescaleDB 2.27.2 has no plan for a merge of columnstore batches by a varchar ("missing operator"). A
    // PostgreSQL without it takes the setting for one of an extension that is not there.
    ("timescaledb.enable_decompression_sorted_merge", "off"),
];

/// The pool of read-only sessions.
pub(crate) struct Database {
    pool: Pool,
    probe: Probe,
    runtime: Handle,
    tls: TlsConnector,
    /// What the last answer said.
    kept: Mutex<Kept>,
    /// What the last look found.
    ready: Mutex<Result<(), Unready>>,
}

/// What came back for a question.
pub(crate) struct Read {
    pub(crate) freshness: freshness::Freshness,
    pub(crate) rows: Vec<Row>,
}

/// Why no question can be answered now.
#[derive(Debug, Clone)]
pub(crate) enum Unready {
    /// It cannot be reached.
    Database,
    /// It can, but its schema is not the one that this build reads.
    Schema(String),
}

/// Why a statement has no rows.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("no connection: {0}")]
    Pool(#[from] PoolError),
    #[error("no answer in time")]
    Deadline(#[from] Elapsed),
    #[error("{}", explain(.0))]
    Query(#[from] tokio_postgres::Error),
    #[error("no row of freshness")]
    NoFreshness,
    #[error("{0}")]
    Row(#[from] analytics_core::query::RowError),
}

impl Database {
    /// A pool that connects when it is first asked. To be made on the runtime of the process.
    pub(crate) fn new(address: &Address, size: usize) -> Result<Self, BuildError> {
        let address = address
            .clone()
            .session("analytics-api", &SESSION)
            .connect_timeout(CONNECT_TIMEOUT);
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let tls = address.tls();
        let manager = Manager::from_connect(address.config().clone(), Connector(address.clone()), recycling);
        let runtime = Handle::current();
        Ok(Self {
            pool: Pool::builder(manager)
                .max_size(size)
                // Nobody waits for longer, so nothing may queue for longer.
                .wait_timeout(Some(REACH_TIMEOUT))
                .runtime(Runtime::Tokio1)
                .build()?,
            probe: Probe::new(address, runtime.clone()),
            runtime,
            tls,
            kept: Mutex::new(Kept::EVERYTHING),
            ready: Mutex::new(Err(Unready::Database)),
        })
    }

    /// What it kept when it was last asked; before that, [`Kept::EVERYTHING`].
    pub(crate) fn kept(&self) -> Kept {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a question that a permit planned, and how fresh its answer is.
    pub(crate) async fn ask(&self, plan: &Permitted<Plan<'_>>) -> Result<Read, ApiError> {
        let read = self.read(plan).await.map_err(|error| {
            let (query, answer) = (plan.name(), error.answer());
            match answer {
                ApiError::Internal => error!(query, %error, "query failed"),
                _ => warn!(query, %error, "query not answered"),
            }
            answer
        })?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = read.freshness.kept;
        Ok(read)
    }

    async fn read(&self, plan: &Plan<'_>) -> Result<Read, ReadError> {
        let reached_by = Instant::now() + REACH_TIMEOUT;
        let lease = self.lease(reached_by).await?;
        // Before anything else is sent: on a new connection, this waits for an answer.
        let how_fresh = freshness::statement();
        let prepared = timeout_at(reached_by, lease.prepare_cached(how_fresh.sql())).await??;
        let answered_by = Instant::now() + QUERY_TIMEOUT;
        // In this order, which is the order in which they are sent.
        let first = plan.first();
        let (freshness_rows, mut rows) = tokio::try_join!(
            biased;
            timed(how_fresh.name(), reached_by, lease.query(&prepared, &[])),
            run(&lease, &first, answered_by),
        )?;
        if let Some(next) = plan.next(&rows)? {
            // The server gives each statement its whole time, and is to be the first to say that it is over.
            rows = run(&lease, &next, Instant::now() + QUERY_TIMEOUT).await?;
        }
        lease.give_back();
        let freshness_row = freshness_rows.first().ok_or(ReadError::NoFreshness)?;
        Ok(Read {
            freshness: freshness::answer(freshness_row)?,
            rows,
        })
    }

    /// Whether a question could be answered when it was last looked at.
    pub(crate) fn ready(&self) -> Result<(), Unready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks whether a question could be answered now.
    pub(crate) async fn look(&self) -> Result<(), Unready> {
        let found = self.probe.check(Instant::now() + REACH_TIMEOUT).await;
        self.ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&found);
        found
    }

    /// Looks again and again, for as long as it is polled.
    pub(crate) async fn keep_looking(&self) {
        loop {
            // What it found is kept for the probes.
            let _ = self.look().await;
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Puts the pool's size into the metrics.
    pub(crate) fn report_pool(&self) {
        let status = self.pool.status();
        metrics::pool_holds(status.size, status.available);
    }

    async fn lease(&self, by: Instant) -> Result<Lease, ReadError> {
        let began = Instant::now();
        let pool = self.pool.clone();
        // On the runtime of the process: a connection is driven where it was opened, and must outlive the
        // server's thread that first asked for it. And on a task of its own: one that takes longer than
        // this caller waits is there for the next.
        let opening = self.runtime.spawn(async move { pool.get().await });
        let got = match timeout_at(by, opening).await {
            Ok(Ok(got)) => Ok(got),
            Ok(Err(_)) => Ok(Err(PoolError::Closed)),
            Err(elapsed) => Err(elapsed),
        };
        let outcome = match &got {
            Ok(Ok(_)) => "ok",
            Ok(Err(_)) => "error",
            Err(_) => "timeout",
        };
        metrics::pool_waited(outcome, began.elapsed());
        Ok(Lease::new(got??, self.runtime.clone(), self.tls.clone()))
    }
}

/// Opens the pool's connections.
struct Connector(Address);

impl Connect for Connector {
    fn connect(
        &self,
        _config: &tokio_postgres::Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>> + Send + '_>>
    {
        Box::pin(self.0.connect_driven())
    }
}

/// Parses, binds and runs a statement in one round trip.
async fn run(client: &Client, statement: &Statement, by: Instant) -> Result<Vec<Row>, ReadError> {
    let values: Vec<(&(dyn ToSql + Sync), Type)> = statement
        .param_refs()
        .into_iter()
        .zip(statement.params().iter().map(sql_type))
        .collect();
    timed(statement.name(), by, client.query_typed(statement.sql(), &values)).await
}

async fn timed(
    name: &'static str,
    by: Instant,
    query: impl Future<Output = Result<Vec<Row>, tokio_postgres::Error>>,
) -> Result<Vec<Row>, ReadError> {
    let began = Instant::now();
    let got = timeout_at(by, query).await;
    let outcome = match &got {
        Ok(Ok(_)) => "ok",
        Ok(Err(error)) if error.code() == Some(&SqlState::QUERY_CANCELED) => "timeout",
        Ok(Err(_)) => "error",
        Err(_) => "timeout",
    };
    metrics::queried(name, outcome, began.elapsed());
    Ok(got??)
}

fn sql_type(param: &Param) -> Type {
    match param {
        Param::Time(_) => Type::TIMESTAMPTZ,
        Param::Times(_) => Type::TIMESTAMPTZ_ARRAY,
        Param::Id(_) => Type::UUID,
        Param::Ids(_) => Type::UUID_ARRAY,
        Param::Text(_) => Type::TEXT,
        Param::Texts(_) => Type::TEXT_ARRAY,
        Param::Number(_) => Type::INT8,
    }
}

impl ReadError {
    /// What the caller is told.
    fn answer(&self) -> ApiError {
        match self {
            Self::Pool(_) | Self::Deadline(_) => ApiError::Unavailable(Dependency::Database),
            Self::Query(error) => match error.code() {
                None => ApiError::Unavailable(Dependency::Database),
                Some(code) => of_state(code),
            },
            Self::NoFreshness | Self::Row(_) => ApiError::Internal,
        }
    }
}

/// What an SQLSTATE means to the caller: later, shorter, or never.
fn of_state(code: &SqlState) -> ApiError {
    if code == &SqlState::QUERY_CANCELED {
        return ApiError::TooSlow;
    }
    // A relation or column that is not there is a schema that was not migrated, or was for another build.
    if [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN].contains(code) {
        return ApiError::Unavailable(Dependency::Schema);
    }
    // Connection, login, transaction, resources, object state, operator's intervention, system: they pass.
    match code.code().get(..2) {
        Some("08" | "28" | "40" | "53" | "55" | "57" | "58") => ApiError::Unavailable(Dependency::Database),
        _ => ApiError::Internal,
    }
}
