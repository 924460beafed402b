//! `dead-letters replay`: the letters that are events by now go through the worker's decoder and sink, and
//! are forgotten once they are stored.
//!
//! First the events are committed, then their letters deleted. Whatever ends the run in between, and
//! whoever else is at the same letters: an event that is stored is recognised by its key and counts once,
//! and a letter that is gone already is no error. A letter that still cannot be an event stays, with the
//! newest reason.

use std::collections::{BTreeMap, HashSet};

use analytics_core::dead_letters::{DELETE, STORED_KEYS, UPDATE_REASONS};
use analytics_core::event::{Malformed, Reason, UsageEvent};
use analytics_core::ingest::READ_WINDOW;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Letter;
use super::selection::Selection;
use crate::config::OperatorConfig;
use crate::operator::output::Output;
use crate::operator::owner::Owner;
use crate::operator::writer::{Entry, Writer};
use crate::operator::{Ended, OperatorError};
use crate::sink::outside_window;

/// How letters are replayed.
#[derive(Clone, Copy)]
pub(super) struct How {
    /// Only say what would become of them.
    pub(super) dry_run: bool,
    /// How a body is read.
    pub(super) read: fn(&[u8]) -> Result<UsageEvent, Malformed>,
}

/// What a run did, or would do.
#[derive(Default)]
struct Tally {
    stored: u64,
    duplicates: u64,
    /// Letters that stay, by their newest reason.
    stay: BTreeMap<&'static str, u64>,
}

/// A letter that stays, and why.
type Stays = Vec<(i64, Malformed)>;
/// Letters that are events, and those that stay.
type Sorted = (Vec<(Letter, UsageEvent)>, Stays);

pub(super) async fn replay(
    mut owner: Owner,
    selection: &Selection,
    How { dry_run, read }: How,
    config: &OperatorConfig,
    stop: CancellationToken,
) -> Result<Ended, OperatorError> {
    let extent = selection.extent(&mut owner).await?;
    if extent.letters == 0 {
        selection.say_empty();
        return Ok(Ended::Done);
    }
    let mut writer = Writer::new(config, stop);
    let mut tally = Tally::default();
    let mut after = i64::MIN;
    let done = loop {
        let page = match selection.page(&mut owner, extent, after).await {
            Ok(page) => page,
            Err(error) => break Err(error),
        };
        let Some(last) = page.last() else { break Ok(()) };
        after = last.id;
        let page = sort(page, read);
        let step = if dry_run {
            foresee(&mut owner, page, &mut tally).await
        } else {
            settle(&mut owner, &mut writer, page, &mut tally).await
        };
        if let Err(error) = step {
            break Err(error);
        }
        tracing::info!(
            stored = tally.stored,
            duplicates = tally.duplicates,
            stay = tally.stay.values().sum::<u64>(),
            of = extent.letters,
            dry_run,
            "dead letters replayed so far"
        );
    };
    // Said as well when it was cut short: that much is done.
    tally.say(dry_run)?;
    done?;
    Ok(if tally.stay.is_empty() {
        Ended::Done
    } else {
        Ended::Left
    })
}

/// Which letters are events, and which stay.
fn sort(page: Vec<Letter>, read: fn(&[u8]) -> Result<UsageEvent, Malformed>) -> Sorted {
    let (mut events, mut stays) = (Vec::with_capacity(page.len()), Stays::new());
    for letter in page {
        match read(&letter.body) {
            Ok(event) => events.push((letter, event)),
            Err(malformed) => stays.push((letter.id, malformed)),
        }
    }
    (events, stays)
}

async fn settle(
    owner: &mut Owner,
    writer: &mut Writer,
    (events, mut stays): Sorted,
    tally: &mut Tally,
) -> Result<(), OperatorError> {
    let ids: Vec<i64> = events.iter().map(|(letter, _)| letter.id).collect();
    let entries = events
        .into_iter()
        .zip(0..)
        .map(|((letter, event), number)| Entry {
            number,
            event,
            body: letter.body,
        })
        .collect();
    let settled = writer.write(entries).await?;
    let mut gone: Vec<Option<i64>> = ids.into_iter().map(Some).collect();
    for refused in settled.refused {
        let place = usize::try_from(refused.number)
            .ok()
            .and_then(|number| gone.get_mut(number));
        stays.extend(place.and_then(Option::take).map(|id| (id, refused.malformed)));
    }
    tally.stored += settled.stored;
    tally.duplicates += settled.duplicates;
    tally.add_stays(&stays);
    let gone: Vec<i64> = gone.into_iter().flatten().collect();
    owner
        .run("deleting replayed dead letters", async |client| {
            client.execute(DELETE, &[&gone]).await
        })
        .await?;
    let ids: Vec<i64> = stays.iter().map(|(id, _)| *id).collect();
    let reasons: Vec<&str> = stays.iter().map(|(_, why)| why.reason.code()).collect();
    let fields: Vec<Option<&str>> = stays.iter().map(|(_, why)| why.field).collect();
    let details: Vec<&str> = stays.iter().map(|(_, why)| &*why.detail).collect();
    owner
        .run("noting why dead letters stay", async |client| {
            client
                .execute(UPDATE_REASONS, &[&ids, &reasons, &fields, &details])
                .await
        })
        .await?;
    Ok(())
}

/// What [`settle`] would do, as far as it can be told without writing: a row that only the database would
/// refuse is counted as stored.
async fn foresee(
    owner: &mut Owner,
    (events, mut stays): Sorted,
    tally: &mut Tally,
) -> Result<(), OperatorError> {
    let organizations: Vec<Uuid> = events.iter().map(|(_, event)| event.org_id).collect();
    let times: Vec<OffsetDateTime> = events.iter().map(|(_, event)| event.time).collect();
    let ids: Vec<Uuid> = events.iter().map(|(_, event)| event.event_id).collect();
    let ((floor, ceiling), mut known): ((OffsetDateTime, OffsetDateTime), HashSet<_>) = owner
        .run("looking for stored events", async |client| {
            let window = client.query_one(READ_WINDOW, &[]).await?;
            let rows = client.query(STORED_KEYS, &[&organizations, &times, &ids]).await?;
            let known = rows
                .iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
                .collect::<Result<_, tokio_postgres::Error>>()?;
            Ok(((window.try_get(0)?, window.try_get(1)?), known))
        })
        .await?;
    for (letter, event) in events {
        if let Some(malformed) = outside_window(event.time, floor, ceiling) {
            stays.push((letter.id, malformed));
        } else if letter.reason == Reason::RefusedByDatabase.code() {
            // The database's rules may have changed; only a replay can tell.
            tally.stored += 1;
        } else if known.insert(event.key()) {
            tally.stored += 1;
        } else {
            tally.duplicates += 1;
        }
    }
    tally.add_stays(&stays);
    Ok(())
}

impl Tally {
    fn add_stays(&mut self, stays: &Stays) {
        for (_, malformed) in stays {
            *self.stay.entry(malformed.reason.code()).or_default() += 1;
        }
    }

    fn say(&self, dry_run: bool) -> Result<(), OperatorError> {
        let mut output = Output::standard();
        let would = if dry_run { "would be " } else { "" };
        output.line(&format!("{would}stored: {}", self.stored))?;
        output.line(&format!(
            "{would}recognised as stored before: {}",
            self.duplicates
        ))?;
        output.line(&format!("still no events: {}", self.stay.values().sum::<u64>()))?;
        for (reason, count) in &self.stay {
            output.line(&format!("  {reason}: {count}"))?;
        }
        Ok(())
    }
}
