//! `reconcile`: every rollup against what it is added up from, a UTC day at a time, and mended where asked to.

mod compare;
mod mend;
mod report;

use analytics_core::ingest::READ_WINDOW;
use analytics_core::reconcile::span;
use analytics_core::rollup::Relation;
use clap::Args;
use time::{Date, Duration, OffsetDateTime, Time};
use tokio_util::sync::CancellationToken;

use self::compare::Difference;
use self::report::Report;
use super::owner::Owner;
use super::{Ended, OperatorError, moment};
use crate::config::{MaintenanceConfig, OperatorConfig};

/// What to compare.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The first UTC day [default: the first one whose raw events are all kept]
    #[arg(long, value_name = "DAY", value_parser = moment::parse_day)]
    from: Option<Date>,
    /// The UTC day after the last one [default: tomorrow]
    #[arg(long, value_name = "DAY", value_parser = moment::parse_day)]
    to: Option<Date>,
    /// Mend the rollups; workers may go on writing
    #[arg(long)]
    repair: bool,
    /// Leave out the search for event ids with two times or organizations, which reads all of it at once
    #[arg(long)]
    no_ids: bool,
    /// How many differences, and how many event ids, are printed
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Compares, and mends if asked to.
///
/// # Errors
/// If it could not be done.
pub async fn run(
    arguments: &Arguments,
    config: &OperatorConfig,
    stop: CancellationToken,
) -> Result<Ended, OperatorError> {
    let mut owner = Owner::connect(config.maintenance.database.clone(), stop.clone()).await?;
    let floor: OffsetDateTime = owner
        .run("reading what is kept", async |client| {
            client.query_one(READ_WINDOW, &[]).await?.try_get(0)
        })
        .await?;
    // The day with the floor in it is still whole: it is dropped a day after the floor has left it.
    let kept_from = floor.replace_time(Time::MIDNIGHT);
    let midnight = |day: Date| day.midnight().assume_utc();
    let from = arguments.from.map_or(kept_from, midnight);
    let tomorrow = OffsetDateTime::now_utc().replace_time(Time::MIDNIGHT) + Duration::DAY;
    let to = arguments.to.map_or(tomorrow, midnight);
    let first = from.max(kept_from);
    if first >= to {
        return Err(OperatorError::Absent(format!(
            "nothing to compare from {} to {}: raw events are kept from {} on",
            from.date(),
            to.date(),
            kept_from.date()
        )));
    }
    let mut report = Report::new(arguments, from, to, kept_from);
    let mut reconciliation = Reconciliation {
        owner: &mut owner,
        config: &config.maintenance,
        stop,
    };
    let outcome = reconciliation
        .days(first, to, arguments.repair, &mut report)
        .await;
    if outcome.is_ok() && !arguments.no_ids {
        report.ids = compare::repeated_ids(&mut owner, first, to, arguments.limit).await?;
    }
    // Said as well when it was cut short: what was found was found.
    report.say()?;
    outcome?;
    Ok(report.ended())
}

struct Reconciliation<'a> {
    owner: &'a mut Owner,
    config: &'a MaintenanceConfig,
    stop: CancellationToken,
}

impl Reconciliation<'_> {
    async fn days(
        &mut self,
        first: OffsetDateTime,
        to: OffsetDateTime,
        repair: bool,
        report: &mut Report,
    ) -> Result<(), OperatorError> {
        // Weeks are held against their days: after all of them.
        let (weekly, daily): (Vec<Relation>, Vec<Relation>) = Relation::RUNGS
            .into_iter()
            .partition(|relation| *relation == Relation::WeeklyByKey);
        let mut day = first;
        while day < to {
            self.day(day, &daily, repair, report).await?;
            let next = day + Duration::DAY;
            if next == to || span(Relation::WeeklyByKey, day).1 == next {
                self.day(day, &weekly, repair, report).await?;
            }
            day = next;
        }
        Ok(())
    }

    async fn day(
        &mut self,
        day: OffsetDateTime,
        relations: &[Relation],
        repair: bool,
        report: &mut Report,
    ) -> Result<(), OperatorError> {
        let differences = self.compare(day, relations).await?;
        tracing::debug!(day = %day.date(), differences = differences.len(), "day compared");
        let left = if repair && !differences.is_empty() {
            tracing::info!(day = %day.date(), differences = differences.len(), "mending");
            // All of them, in their order: what is mended in a rung may be lacking in those above it.
            report.mended_rows += mend::day(self.config, day, relations, &self.stop).await?;
            self.compare(day, relations).await?.len()
        } else {
            0
        };
        report.add(differences, left);
        Ok(())
    }

    /// All differences of some rollups on a day, or in the week that it is of.
    async fn compare(
        &mut self,
        day: OffsetDateTime,
        relations: &[Relation],
    ) -> Result<Vec<Difference>, OperatorError> {
        let mut differences = Vec::new();
        for relation in relations.iter().copied() {
            let (start, end) = span(relation, day);
            differences.append(&mut compare::span(self.owner, relation, start, end).await?);
        }
        Ok(differences)
    }
}
