//! `collect`: brings in what the broker gave up on, from the queue's dead-letter queue.
//!
//! Each message goes through the worker's decoder: an event is stored, and counts once; anything else
//! becomes a dead letter, with the broker's reason. Both are committed before the broker may forget the
//! messages, so whatever ends a run, they are there or they come again, and are recognised.

mod properties;
mod wire;

use analytics_core::event::{Malformed, decode};
use analytics_core::ingest::INSERT_DEAD_LETTERS;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::wire::{Connection, Fetched, WireError};
use super::output::Output;
use super::owner::Owner;
use super::writer::{Entry, Writer};
use super::{Ended, OperatorError};
use crate::amqp::Address;
use crate::backoff::Backoff;
use crate::config::OperatorConfig;

/// Messages that are fetched, committed and acknowledged together.
const TOGETHER: usize = 200;
/// Bytes of bodies that end a fetch: with what the database's client makes of them it is a few times as much.
const BYTES_TOGETHER: usize = 16 << 20;

#[derive(Default)]
struct Tally {
    stored: u64,
    duplicates: u64,
    dead_letters: u64,
}

/// Collects until the queue is empty.
///
/// # Errors
/// If it could not be done; what was committed by then is acknowledged, or comes again and is recognised.
pub async fn run(
    broker: &Address,
    config: &OperatorConfig,
    stop: CancellationToken,
) -> Result<Ended, OperatorError> {
    // The writer's rights are enough: it may insert both.
    let mut letters = Owner::connect(config.writer.clone(), stop.clone()).await?;
    let mut collection = Collection {
        queue: format!("{}.dead-letter", config.queue),
        writer: Writer::new(config, stop.clone()),
        letters: &mut letters,
        tally: Tally::default(),
    };
    let mut backoff = Backoff::default();
    let outcome = loop {
        let before = collection.tally.messages();
        let fault = match stop.run_until_cancelled(Connection::open(broker)).await {
            None => break Err(OperatorError::Stopped),
            Some(Ok(connection)) => match collection.all(connection, &stop).await {
                Err(Fault::Wire(error)) => error,
                Err(Fault::Command(error)) => break Err(error),
                Ok(()) => break Ok(()),
            },
            Some(Err(error)) => error,
        };
        if !fault.passes() {
            break Err(OperatorError::Absent(format!(
                "collecting from {}: {fault}",
                collection.queue
            )));
        }
        if collection.tally.messages() > before {
            backoff.reset();
        }
        let wait = backoff.next_wait();
        tracing::warn!(error = %fault, wait_ms = wait.as_millis(), "collecting failed; trying again");
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            break Err(OperatorError::Stopped);
        }
    };
    // Said as well when it was cut short: that much is done.
    let Collection { queue, tally, .. } = collection;
    if outcome.is_ok() && tally.messages() == 0 {
        tracing::info!("{queue} is empty");
    }
    let mut output = Output::standard();
    output.line(&format!("stored: {}", tally.stored))?;
    output.line(&format!("duplicate: {}", tally.duplicates))?;
    output.line(&format!("dead letters: {}", tally.dead_letters))?;
    outcome.map(|()| Ended::Done)
}

/// Why a host of the broker refuses this login, in its own words, if it does.
pub(crate) async fn refusal(address: &Address, host: &str, port: u16) -> Option<String> {
    match Connection::open_at(address, host, port).await {
        Err(error @ WireError::Closed { .. }) => Some(error.to_string()),
        _ => None,
    }
}

enum Fault {
    Wire(WireError),
    Command(OperatorError),
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<OperatorError> for Fault {
    fn from(error: OperatorError) -> Self {
        Self::Command(error)
    }
}

struct Collection<'a> {
    queue: String,
    writer: Writer,
    letters: &'a mut Owner,
    tally: Tally,
}

impl Collection<'_> {
    async fn all(&mut self, mut connection: Connection, stop: &CancellationToken) -> Result<(), Fault> {
        loop {
            let fetched = stop
                .run_until_cancelled(connection.fetch(&self.queue, TOGETHER, BYTES_TOGETHER))
                .await
                .ok_or(OperatorError::Stopped)??;
            let Some(last) = fetched.last().map(|message| message.tag) else {
                return Ok(connection.close().await?);
            };
            // Without an acknowledgement the broker puts them back when the connection ends.
            self.settle(fetched).await?;
            connection.ack_through(last).await?;
        }
    }

    async fn settle(&mut self, fetched: Vec<Fetched>) -> Result<(), OperatorError> {
        let (mut entries, mut headers, mut letters) = (Vec::new(), Vec::new(), Vec::new());
        for Fetched { body, properties, .. } in fetched {
            match decode(&body) {
                Ok(event) => {
                    entries.push(Entry {
                        number: headers.len() as u64,
                        event,
                        body,
                    });
                    headers.push(properties);
                }
                Err(malformed) => letters.push((body, properties, malformed)),
            }
        }
        let settled = self.writer.write(entries).await?;
        for refused in settled.refused {
            let properties = usize::try_from(refused.number)
                .ok()
                .and_then(|number| headers.get_mut(number))
                .map_or(Value::Null, Value::take);
            letters.push((refused.body, properties, refused.malformed));
        }
        self.keep(&letters).await?;
        self.tally.stored += settled.stored;
        self.tally.duplicates += settled.duplicates;
        self.tally.dead_letters += u64::try_from(letters.len()).unwrap_or(0);
        Ok(())
    }

    /// A statement's parameters are in memory three times: a large letter goes alone.
    async fn keep(&mut self, letters: &[(Vec<u8>, Value, Malformed)]) -> Result<(), OperatorError> {
        let is_large = |letter: &(Vec<u8>, Value, Malformed)| letter.0.len() > BYTES_TOGETHER / TOGETHER;
        for part in letters.chunk_by(|one, next| !is_large(one) && !is_large(next)) {
            self.keep_together(part).await?;
        }
        Ok(())
    }

    async fn keep_together(&mut self, letters: &[(Vec<u8>, Value, Malformed)]) -> Result<(), OperatorError> {
        let queue = &self.queue;
        let bodies: Vec<&[u8]> = letters.iter().map(|(body, ..)| &**body).collect();
        let headers: Vec<&Value> = letters.iter().map(|(_, properties, _)| properties).collect();
        let reasons: Vec<&str> = letters.iter().map(|(.., why)| why.reason.code()).collect();
        let fields: Vec<Option<&str>> = letters.iter().map(|(.., why)| why.field).collect();
        let details: Vec<String> = letters
            .iter()
            .map(|(_, properties, why)| format!("{}; {}", why.detail, why_given_up(properties)))
            .collect();
        self.letters
            .run("keeping dead letters", async |client| {
                client
                    .execute(
                        INSERT_DEAD_LETTERS,
                        &[queue, &bodies, &headers, &reasons, &fields, &details],
                    )
                    .await
            })
            .await
            .map(drop)
    }
}

impl Tally {
    fn messages(&self) -> u64 {
        self.stored + self.duplicates + self.dead_letters
    }
}

/// The broker's own words, from the header that it adds: the newest of them comes first.
fn why_given_up(properties: &Value) -> String {
    let death = &properties["headers"]["x-death"][0];
    match death["reason"].as_str() {
        Some(reason) => format!("the broker gave up on it: {reason}"),
        None => "the broker gave up on it without a reason".to_owned(),
    }
}
