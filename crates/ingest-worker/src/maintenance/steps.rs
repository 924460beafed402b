//! The steps, in the order of their running.

use analytics_core::dead_letters::EXPIRE;
use analytics_core::maintenance::{FORGET_WORKERS, LOOK_BRIEFLY, LOOK_FREELY, MOVE_FLOOR, REPEATED_LATELY};
use analytics_core::reconcile::{self, span};
use analytics_core::rollup::Relation;
use analytics_core::schema::Flavor;
use time::{Duration, OffsetDateTime, Time};

use super::{Maintainer, MaintenanceError, ladder, postgres, timescaledb};
use crate::metrics;

/// One thing that maintenance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Derives the buckets that are over.
    Close,
    /// Ends detaches that were cut short.
    FinishDetaches,
    /// Makes the partitions of the accepted window and of the days ahead.
    Partitions,
    /// Moves old chunks to the columnstore.
    Columnstore,
    /// Drops what is past its retention.
    Retention,
    /// Forgets dead letters that are past theirs.
    DeadLetters,
    /// Compares a day of raw events with its rollups.
    Audit,
    /// Looks for event ids that are stored with several times or organizations.
    Identities,
    /// Forgets workers that are gone.
    Workers,
}

impl Step {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::FinishDetaches => "finish_detaches",
            Self::Partitions => "partitions",
            Self::Columnstore => "columnstore",
            Self::Retention => "retention",
            Self::DeadLetters => "dead_letters",
            Self::Audit => "audit",
            Self::Identities => "identities",
            Self::Workers => "workers",
        }
    }

    /// What is due every few minutes.
    pub(super) fn upkeep(flavor: Flavor) -> &'static [Self] {
        match flavor {
            Flavor::TimescaleDb => &[
                Self::Columnstore,
                Self::Retention,
                Self::DeadLetters,
                Self::Audit,
                Self::Identities,
                Self::Workers,
            ],
            Flavor::Postgres => &[
                Self::FinishDetaches,
                Self::Partitions,
                Self::Retention,
                Self::DeadLetters,
                Self::Audit,
                Self::Identities,
                Self::Workers,
            ],
        }
    }
}

/// Runs a step and says what it did.
pub(super) async fn run(maintainer: &mut Maintainer, step: Step) -> Result<String, MaintenanceError> {
    let client = &maintainer.client;
    let months = maintainer.config.rollup_retention_months;
    match step {
        Step::Close => ladder::close(client).await,
        Step::FinishDetaches => postgres::finish_detaches(client).await,
        Step::Partitions => postgres::ensure_partitions(client).await,
        Step::Columnstore => timescaledb::columnstore(client, maintainer.patient).await,
        Step::Retention => {
            // The floor first: an event that was accepted between a drop and the floor's move could be a
            // redelivery of one that was dropped.
            let cutoff: OffsetDateTime = client
                .query_one(MOVE_FLOOR, &[&maintainer.config.raw_retention_days, &months])
                .await?
                .try_get(0)?;
            match maintainer.flavor {
                Flavor::TimescaleDb => timescaledb::drop_expired(client, cutoff, months).await,
                Flavor::Postgres => postgres::drop_expired(client, cutoff, months).await,
            }
        }
        Step::DeadLetters => expire_dead_letters(maintainer).await,
        Step::Audit => audit(maintainer).await,
        Step::Identities => identities(maintainer).await,
        Step::Workers => {
            let forgotten = client.execute(FORGET_WORKERS, &[]).await?;
            Ok(format!("{forgotten} workers forgotten"))
        }
    }
}

async fn expire_dead_letters(maintainer: &Maintainer) -> Result<String, MaintenanceError> {
    const AT_A_TIME: i64 = 5_000;
    let days = maintainer.config.dead_letter_retention_days;
    let mut expired = 0;
    loop {
        let deleted = maintainer.client.execute(EXPIRE, &[&days, &AT_A_TIME]).await?;
        expired += deleted;
        if deleted < AT_A_TIME.unsigned_abs() {
            return Ok(format!("{expired} dead letters dropped after {days} days"));
        }
    }
}

/// One day per round: today, then one day further back each time, through all that is kept raw.
async fn audit(maintainer: &mut Maintainer) -> Result<String, MaintenanceError> {
    let today = OffsetDateTime::now_utc().replace_time(Time::MIDNIGHT);
    let day = today - Duration::days(maintainer.audit_day);
    if !maintainer.patient {
        maintainer.client.batch_execute(LOOK_BRIEFLY).await?;
    }
    let differing = differing(maintainer, day).await;
    maintainer.client.batch_execute(LOOK_FREELY).await?;
    let differing = differing?;
    // The oldest raw day may be partly dropped.
    let kept = i64::from(maintainer.config.raw_retention_days) - 1;
    maintainer.audit_day = (maintainer.audit_day + 1) % kept;
    Ok(match differing.as_slice() {
        [] => format!("{}: no rollup differs", day.date()),
        names => format!("{}: {} differ", day.date(), names.join(", ")),
    })
}

/// The rungs that differ from their source on a day, or in the week that it is of.
async fn differing(
    maintainer: &Maintainer,
    day: OffsetDateTime,
) -> Result<Vec<&'static str>, MaintenanceError> {
    let mut differing = Vec::new();
    for rung in Relation::RUNGS {
        let (start, end) = span(rung, day);
        let statement = reconcile::audit(rung);
        let row = maintainer.client.query_one(&statement, &[&start, &end]).await?;
        let organizations: i64 = row.try_get(0)?;
        let shown = f64::from(u32::try_from(organizations).unwrap_or(u32::MAX));
        ::metrics::gauge!(metrics::AUDIT_DIFFERENCES, "relation" => rung.name()).set(shown);
        if organizations > 0 {
            tracing::error!(relation = rung.name(), organizations, day = %day.date(), "a rollup differs from what it is added up from");
            differing.push(rung.name());
        }
    }
    Ok(differing)
}

async fn identities(maintainer: &Maintainer) -> Result<String, MaintenanceError> {
    if !maintainer.patient {
        maintainer.client.batch_execute(LOOK_BRIEFLY).await?;
    }
    let row = maintainer.client.query_one(REPEATED_LATELY, &[]).await;
    maintainer.client.batch_execute(LOOK_FREELY).await?;
    let row = row?;
    let (repeated, first): (i64, Option<&str>) = (row.try_get(0)?, row.try_get(1)?);
    let shown = f64::from(u32::try_from(repeated).unwrap_or(u32::MAX));
    ::metrics::gauge!(metrics::REPEATED_IDS).set(shown);
    let for_instance = first.map_or_else(String::new, |first| format!(", for instance {first}"));
    if repeated > 0 {
        tracing::error!(
            repeated,
            first,
            "event ids are stored with several times or organizations: a producer changes what it repeats"
        );
    }
    Ok(format!(
        "{repeated} event ids of the last ten minutes have several times or organizations{for_instance}"
    ))
}
