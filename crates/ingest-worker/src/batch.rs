//! A batch: deliveries of several consumers, read, and on their way to one commit.

use std::collections::BTreeMap;
use std::time::Instant;

use analytics_core::event::{Malformed, UsageEvent};

use crate::amqp::Properties;
use crate::budget::Share;

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
    /// The message itself: it is kept until the commit, since the database may refuse the row. Boxed: an
    /// arrival moves several times on its way.
    pub message: Box<Message>,
}

/// A message as it came, for the table of dead letters.
#[derive(Debug, Default)]
pub struct Message {
    /// Byte for byte.
    pub body: Vec<u8>,
    /// Properties and headers.
    pub properties: Properties,
    /// What it takes of the worker's memory; nothing in a command.
    pub share: Option<Share>,
    /// Which one it is, for whoever asked to have it handed back; nothing to the worker.
    pub number: u64,
}

/// An event with the message it was read from.
#[derive(Debug)]
pub struct Row {
    /// What will be stored.
    pub event: UsageEvent,
    /// What it was read from.
    pub message: Box<Message>,
}

/// A message that is no event, and why.
#[derive(Debug)]
pub struct DeadLetter {
    /// The message.
    pub message: Box<Message>,
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
    tags: BTreeMap<usize, Vec<u64>>,
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
        self.tags.entry(consumer).or_default().push(tag);
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

    /// Takes out what is resolved once everything in the batch is: the tags, by consumer.
    pub fn take_tags(&mut self) -> BTreeMap<usize, Vec<u64>> {
        std::mem::take(&mut self.tags)
    }
}

/// Puts rows into the order of the unique key, and takes out all but the first of those that have one key.
pub fn take_repeated(rows: &mut Vec<Row>) -> Vec<Row> {
    // The key is compared about twenty times per row, and made from its parts each time.
    rows.sort_by_cached_key(|row| row.event.key());
    if rows
        .windows(2)
        .all(|pair| pair[0].event.key() != pair[1].event.key())
    {
        return Vec::new();
    }
    let mut last = None;
    rows.extract_if(.., |row| last.replace(row.event.key()) == Some(row.event.key()))
        .collect()
}
