//! The steps, in the order of their running.

use analytics_core::dead_letters::EXPIRE;
use analytics_core::maintenance::{
    AUDIT_DAY, FORGET_WORKERS, LOOK_BRIEFLY, LOOK_FREELY, MOVE_FLOOR, REPEATED_LATELY,
};
use analytics_core::reconcile::span;
use analytics_core::rollup::Relation;
use analytics_core::schema::Flavor;
use time::{Duration, OffsetDateTime, Time};

use super::{Maintainer, MaintenanceError, postgres, timescaledb};
use crate::metrics;

/// One thing that maintenance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Brings late events into the hourly aggregate, and closed hours out of the live part.
    RefreshHourly,
    /// The same for days.
    RefreshDaily,
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
            Self::RefreshHourly => "refresh_hourly",
            Self::RefreshDaily => "refresh_daily",
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

    /// What is due every few seconds.
    pub(super) fn often(flavor: Flavor) -> &'static [Self] {
        match flavor {
            Flavor::TimescaleDb => &[Self::RefreshHourly, Self::RefreshDaily],
            Flavor::Postgres => &[],
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
        Step::RefreshHourly => timescaledb::refresh(client, "usage_hourly", months).await,
        Step::RefreshDaily => timescaledb::refresh(client, "usage_daily", months).await,
        Step::FinishDetaches => postgres::finish_detaches(client).await,
        Step::Partitions => postgres::ensure_partitions(client).await,
        Step::Columnstore => timescaledb::columnstore(client, maintainer.patient).await,
        Step::Retention => {
            // The floor first: an event that was accepted between a drop and the floor's move could be a
            // redelivery of one that was dropped.
            let floor: OffsetDateTime = client
                .query_one(MOVE_FLOOR, &[&maintainer.config.raw_retention_days, &months])
                .await?
                .try_get(0)?;
            let cutoff = floor - Duration::DAY;
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
    let (week, _) = span(Relation::WeeklyByKey, day);
    if !maintainer.patient {
        maintainer.client.batch_execute(LOOK_BRIEFLY).await?;
    }
    let row = maintainer.client.query_one(AUDIT_DAY, &[&day, &week]).await;
    maintainer.client.batch_execute(LOOK_FREELY).await?;
    let row = row?;
    let (by_user, by_quarter, by_week): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    for (relation, differences) in [
        ("usage_daily_by_user", by_user),
        ("usage_quarter_hourly", by_quarter),
        ("usage_weekly_by_key", by_week),
    ] {
        let shown = f64::from(u32::try_from(differences).unwrap_or(u32::MAX));
        ::metrics::gauge!(metrics::AUDIT_DIFFERENCES, "relation" => relation).set(shown);
        if differences > 0 {
            tracing::error!(relation, differences, day = %day.date(), "a rollup differs from its raw events, or a week from its days");
        }
    }
    // The oldest raw day may be partly dropped.
    let kept = i64::from(maintainer.config.raw_retention_days) - 1;
    maintainer.audit_day = (maintainer.audit_day + 1) % kept;
    Ok(format!(
        "{}: {by_user}, {by_quarter} and {by_week} organizations differ",
        day.date()
    ))
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
