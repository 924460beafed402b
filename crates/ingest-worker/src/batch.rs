//! A batch: deliveries of several consumers, read, and on their way to one commit.

use std::collections::BTreeMap;
use std::time::Instant;

use analytics_core::event::{Malformed, UsageEvent};

use crate::amqp::Properties;

/// A delivery that has been read.
#[derive(Debug)]
pub struct Arrival {
    /// Which consumer received it.
    pub consumer: usize,
    /// Its number on that consumer's channel.
    pub tag: u64,
    /// When it was read.
    pub read_at: Instant,
    /// The event, or why it is none.
    pub outcome: Result<UsageEvent, Malformed>,
    /// The message itself: it is kept until the commit, since the database may refuse the row.
    pub message: Message,
}

/// A message as it came, for the table of dead letters.
#[derive(Debug)]
pub struct Message {
    /// Byte for byte.
    pub body: Vec<u8>,
    /// Properties and headers.
    pub properties: Properties,
}

/// An event with the message it was read from.
#[derive(Debug)]
pub struct Row {
    /// What will be stored.
    pub event: UsageEvent,
    /// What it was read from.
    pub message: Message,
}

/// A message that is no event, and why.
#[derive(Debug)]
pub struct DeadLetter {
    /// The message.
    pub message: Message,
    /// Why.
    pub malformed: Malformed,
}

/// Deliveries that are resolved together.
#[derive(Debug, Default)]
pub struct Batch {
    /// Events to store.
    pub rows: Vec<Row>,
    /// Messages to keep as dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// The highest tag of each consumer.
    last_tags: BTreeMap<usize, u64>,
    oldest: Option<Instant>,
}

impl Batch {
    /// Adds a delivery.
    pub fn push(&mut self, arrival: Arrival) {
        let Arrival {
            consumer,
            tag,
            read_at,
            outcome,
            message,
        } = arrival;
        let last = self.last_tags.entry(consumer).or_default();
        *last = tag.max(*last);
        self.oldest = Some(self.oldest.map_or(read_at, |oldest| oldest.min(read_at)));
        match outcome {
            Ok(event) => self.rows.push(Row { event, message }),
            Err(malformed) => self.dead_letters.push(DeadLetter { message, malformed }),
        }
    }

    /// Deliveries in it.
    pub fn len(&self) -> usize {
        self.rows.len() + self.dead_letters.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When its oldest delivery was read.
    pub fn oldest(&self) -> Option<Instant> {
        self.oldest
    }

    /// What to acknowledge once everything in it is resolved: per consumer, all through this tag. One
    /// lane takes all deliveries of a consumer in order and one batch after the other, so nothing below
    /// is unresolved.
    pub fn last_tags(&self) -> impl Iterator<Item = (usize, u64)> {
        self.last_tags.iter().map(|(consumer, tag)| (*consumer, *tag))
    }

    /// Puts the rows into the order of the unique key and takes out events that are in it twice.
    /// Returns how many those were. Of equal keys the one that came first stays.
    pub fn sort_and_deduplicate(&mut self) -> usize {
        let before = self.rows.len();
        self.rows.sort_by_key(|row| row.event.key());
        self.rows
            .dedup_by(|later, first| later.event.key() == first.event.key());
        before - self.rows.len()
    }
}
