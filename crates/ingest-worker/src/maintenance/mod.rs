//! Maintenance: the ladder's buckets closed, partitions ahead, chunks to the columnstore, what is past its
//! retention dropped, and rollups audited against what they are added up from. One loop for both flavors, run by one
//! process at a time; every step can be repeated and be cut short.

mod ladder;
mod postgres;
mod steps;
mod timescaledb;

use std::sync::Arc;
use std::time::{Duration, Instant};

use analytics_core::maintenance::{
    PARTITION_IS_MISSING, READ_FLAVOR, READ_OTHER_OWNER, SESSION, TRY_LOCK, UNLOCK,
};
use analytics_core::schema::Flavor;
use tokio::sync::Notify;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

use crate::config::MaintenanceConfig;
use crate::metrics;
use steps::Step;

/// Between two looks whether a bucket is over, and whether a partition is missing.
const CLOSE_EVERY: Duration = Duration::from_secs(5);
/// Between two rounds of the rest.
const UPKEEP_EVERY: Duration = Duration::from_secs(180);
/// For how long the lock is free between two rounds, so that `maintain` gets its turn.
const GAP: Duration = Duration::from_millis(200);
/// Between two looks whether somebody else has given maintenance up.
const LOCK_EVERY: Duration = Duration::from_secs(5);

/// For how long a command asks again for what is locked, by VACUUM or a slow batch for instance.
const LOCKED_PATIENCE: Duration = Duration::from_secs(120);
/// Between two times that it asks; each lasts as long as a step may wait for a lock.
const LOCKED_PAUSE: Duration = Duration::from_secs(1);

/// How long a connection may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(60);
/// How long a round may take. Far above what the largest chunk needs: it ends a wait for a server that was cut
/// off and says nothing.
const ROUND_DEADLINE: Duration = Duration::from_secs(2 * 3600);

/// Why maintenance could not be done.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The database's word.
    #[error("the database refused: {}", .0.as_db_error().map_or_else(|| .0.to_string(), |db| format!("{} ({})", db.message(), db.code().code())))]
    Database(#[from] tokio_postgres::Error),
    /// No word from the database.
    #[error("the database has been silent for {} s", .0.as_secs())]
    Silent(Duration),
    /// A step failed.
    #[error("{} of {of} steps failed: {}", .failed.len(), .failed.join("; "))]
    Steps {
        /// What failed, with the database's words.
        failed: Vec<String>,
        /// How many steps there were.
        of: usize,
    },
}

impl MaintenanceError {
    fn is_locked(&self) -> bool {
        matches!(self, Self::Database(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE))
    }
}

/// Closing and dropping are the owner's alone, and so is changing what is stored.
pub(crate) async fn become_owner(client: &Client) -> Result<(), tokio_postgres::Error> {
    if let Some(owner) = client.query_opt(READ_OTHER_OWNER, &[]).await? {
        let owner: String = owner.try_get(0)?;
        client
            .batch_execute(&format!("-- become_owner\nSET ROLE {owner}"))
            .await?;
    }
    Ok(())
}

/// A session that holds the lock and has the owner's rights.
struct Maintainer {
    client: Client,
    flavor: Flavor,
    config: MaintenanceConfig,
    /// Days back from today whose audit comes next.
    audit_day: i64,
    /// Whether nothing else waits, so that a step may take as long as it takes, and is tried again where it met a
    /// lock.
    patient: bool,
}

impl Maintainer {
    async fn open(config: &MaintenanceConfig) -> Result<Self, MaintenanceError> {
        let connect = tokio::time::timeout(CONNECT_DEADLINE, config.database.connect());
        let client = connect
            .await
            .map_err(|_| MaintenanceError::Silent(CONNECT_DEADLINE))??;
        for setting in SESSION {
            client.batch_execute(setting).await?;
        }
        become_owner(&client).await?;
        let name: String = client.query_one(READ_FLAVOR, &[]).await?.try_get(0)?;
        let flavor = Flavor::from_name(&name).unwrap_or(Flavor::Postgres);
        if flavor == Flavor::TimescaleDb {
            client
                .batch_execute(analytics_core::maintenance::timescaledb::SESSION)
                .await?;
        }
        Ok(Self {
            client,
            flavor,
            config: config.clone(),
            audit_day: 0,
            patient: false,
        })
    }

    async fn try_lock(&self) -> Result<bool, tokio_postgres::Error> {
        self.client.query_one(TRY_LOCK, &[]).await?.try_get(0)
    }

    /// What is due; then the lock is free for a moment. Returns whether this process has it again.
    async fn round(&mut self, upkeep_at: &mut Instant) -> Result<bool, MaintenanceError> {
        let _ = self.run(Step::Close).await;
        if self.flavor == Flavor::Postgres && self.partition_is_missing().await? {
            let _ = self.run(Step::Partitions).await;
        }
        if Instant::now() >= *upkeep_at {
            for step in Step::upkeep(self.flavor) {
                let _ = self.run(*step).await;
            }
            *upkeep_at = Instant::now() + UPKEEP_EVERY;
        }
        // Failed steps are for the next round; a connection that is gone is not.
        self.client.batch_execute(UNLOCK).await?;
        tokio::time::sleep(GAP).await;
        Ok(self.try_lock().await?)
    }

    /// Not by a statement that waits: its snapshot would keep dead rows alive, and hold detaches up.
    async fn wait_for_lock(&self) -> Result<(), tokio_postgres::Error> {
        while !self.try_lock().await? {
            tokio::time::sleep(GAP / 4).await;
        }
        Ok(())
    }

    /// Whether a row of any process waits for a partition.
    async fn partition_is_missing(&self) -> Result<bool, tokio_postgres::Error> {
        self.client.query_one(PARTITION_IS_MISSING, &[]).await?.try_get(0)
    }

    async fn run(&mut self, step: Step) -> Result<String, MaintenanceError> {
        let began = Instant::now();
        let mut done = steps::run(self, step).await;
        // A detach that was cut short has to be finished first, so retention is left for the next round.
        while self.patient
            && step != Step::Retention
            && began.elapsed() < LOCKED_PATIENCE
            && done.as_ref().is_err_and(MaintenanceError::is_locked)
        {
            tracing::info!(step = step.name(), "locked; asking again");
            tokio::time::sleep(LOCKED_PAUSE).await;
            done = steps::run(self, step).await;
        }
        match &done {
            Ok(said) => {
                tracing::debug!(step = step.name(), said, "maintenance step done");
                ::metrics::histogram!(metrics::STEP_SECONDS, "step" => step.name()).record(began.elapsed());
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                ::metrics::gauge!(metrics::STEP_SUCCESS, "step" => step.name())
                    .set(now.map_or(0.0, |now| now.as_secs_f64()));
            }
            Err(error) => {
                // A lock that was not to be had and a deadlock alike: the next round does it.
                tracing::warn!(step = step.name(), %error, "maintenance step left for the next round");
                ::metrics::counter!(metrics::STEP_FAILURES, "step" => step.name()).increment(1);
            }
        }
        done
    }
}

/// Does the maintenance until `stop`, whenever no other process does. `missing_partition` asks for
/// partitions out of turn.
pub async fn run(config: MaintenanceConfig, missing_partition: Arc<Notify>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let turn = turn(&config, &missing_partition);
        if let Some(Err(error)) = stop.run_until_cancelled(turn).await {
            tracing::warn!(%error, "maintenance cannot go on; trying again");
        }
        ::metrics::gauge!(metrics::MAINTAINER).set(0.0);
        stop.run_until_cancelled(tokio::time::sleep(LOCK_EVERY)).await;
    }
}

/// From getting the lock to losing it or the connection. Returns at once if somebody else has the lock.
async fn turn(config: &MaintenanceConfig, missing_partition: &Notify) -> Result<(), MaintenanceError> {
    let mut maintainer = Maintainer::open(config).await?;
    if !maintainer.try_lock().await? {
        return Ok(());
    }
    tracing::info!(
        flavor = maintainer.flavor.name(),
        "this process does the maintenance"
    );
    ::metrics::gauge!(metrics::MAINTAINER).set(1.0);
    let mut upkeep_at = Instant::now();
    loop {
        let round = tokio::time::timeout(ROUND_DEADLINE, maintainer.round(&mut upkeep_at));
        if !round
            .await
            .map_err(|_| MaintenanceError::Silent(ROUND_DEADLINE))??
        {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(CLOSE_EVERY) => {}
            () = missing_partition.notified() => upkeep_at = Instant::now(),
        }
    }
}

/// Does every step once, waiting for whoever is at it; says what was done.
///
/// # Errors
/// If the database cannot be reached, or a step failed; the others were done all the same.
pub async fn once(config: &MaintenanceConfig) -> Result<Vec<String>, MaintenanceError> {
    let mut maintainer = Maintainer::open(config).await?;
    maintainer.patient = true;
    maintainer.wait_for_lock().await?;
    let mut outcomes = Vec::new();
    for step in [Step::Close].iter().chain(Step::upkeep(maintainer.flavor)) {
        outcomes.push((*step, maintainer.run(*step).await));
    }
    let of = outcomes.len();
    let mut said = vec![format!("flavor {}", maintainer.flavor.name())];
    let mut failed = Vec::new();
    for (step, outcome) in outcomes {
        match outcome {
            Ok(done) => said.push(format!("{}: {done}", step.name())),
            Err(error) => failed.push(format!("{}: {error}", step.name())),
        }
    }
    if failed.is_empty() {
        Ok(said)
    } else {
        Err(MaintenanceError::Steps { failed, of })
    }
}

/// Makes the partitions that are missing, where the flavor has any, waiting for whoever is at maintenance.
///
/// # Errors
/// If the database cannot be reached or refuses.
pub async fn make_partitions(config: &MaintenanceConfig) -> Result<(), MaintenanceError> {
    Turn::wait(config).await?.make_partitions().await
}

/// A turn at maintenance that a command has taken: nobody else maintains until it is over, so nothing is
/// dropped, moved, closed or mended by others.
pub(crate) struct Turn(Maintainer);

impl Turn {
    /// Waits for whoever is at it.
    pub(crate) async fn wait(config: &MaintenanceConfig) -> Result<Self, MaintenanceError> {
        let mut maintainer = Maintainer::open(config).await?;
        maintainer.patient = true;
        maintainer.wait_for_lock().await?;
        Ok(Self(maintainer))
    }

    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    pub(crate) async fn make_partitions(&mut self) -> Result<(), MaintenanceError> {
        if self.0.flavor == Flavor::Postgres {
            self.0.run(Step::Partitions).await?;
        }
        Ok(())
    }

    /// Lets others have theirs.
    pub(crate) async fn end(self) -> Result<(), MaintenanceError> {
        Ok(self.0.client.batch_execute(UNLOCK).await?)
    }
}
