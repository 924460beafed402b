//! A consumer: takes what has arrived, reads it, and hands each delivery to the lane of its organization.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use analytics_core::event::{Mended, decode};
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use uuid::Uuid;

use crate::amqp::{BrokerError, Consumer, Delivery};
use crate::batch::{Arrival, Message};
use crate::brake::Brake;
use crate::budget::{Budget, Share};
use crate::failpoint::{self, Point};
use crate::ledger::Ledger;
use crate::metrics;

/// Deliveries taken at a time. Reading a few hundred takes about a millisecond: long enough to be cheap,
/// short enough to let others run.
pub const CHUNK: usize = 256;

/// Where the first session of a process looks before it leaps: the first consumer takes one message, and the
/// others begin unless somebody was given that one before, who may have died of it, or it is large.
pub struct Gate {
    opened: watch::Sender<bool>,
    full: u32,
    prefetch: u16,
    redelivered: AtomicBool,
}

impl Gate {
    /// A closed one; each consumer behind it may hold `prefetch` deliveries, and all of them `full`.
    pub fn new(full: u32, prefetch: u16) -> Self {
        Self {
            opened: watch::Sender::new(false),
            full,
            prefetch,
            redelivered: AtomicBool::new(false),
        }
    }

    fn look(&self, first: &[Delivery], budget: &Budget) {
        if first.iter().any(|delivery| delivery.redelivered) {
            self.redelivered.store(true, Ordering::Relaxed);
        } else if !self.was_redelivered() && budget.fits(self.full) == self.full {
            self.opened.send_replace(true);
        }
    }

    /// Whether the others have begun.
    pub fn is_open(&self) -> bool {
        *self.opened.borrow()
    }

    /// Whether the first message was delivered before.
    pub fn was_redelivered(&self) -> bool {
        self.redelivered.load(Ordering::Relaxed)
    }
}

/// Which part of `deliveries` the consumer at `place` of so many may hold.
pub fn share(deliveries: u32, place: usize, consumers: usize) -> u16 {
    let (place, consumers) = (
        u32::try_from(place).unwrap_or(u32::MAX),
        u32::try_from(consumers).unwrap_or(u32::MAX).max(1),
    );
    let share = deliveries / consumers + u32::from(place < deliveries % consumers);
    u16::try_from(share).unwrap_or(u16::MAX)
}

/// A consumer, and what it needs.
pub struct Reader {
    /// Which one it is.
    pub number: usize,
    /// Its way to the broker.
    pub consumer: Consumer,
    /// What has arrived.
    pub ledger: Arc<Ledger>,
    /// Where events go.
    pub lanes: Vec<Sender<Vec<Arrival>>>,
    /// Pulled when too much is malformed.
    pub brake: Arc<Brake>,
    /// The memory of messages.
    pub budget: Arc<Budget>,
    /// What the consumers behind the first one wait for.
    pub gate: Option<Arc<Gate>>,
}

/// A delivery that has been taken and not yet read.
struct Taken {
    delivery: Delivery,
    read_at: Instant,
    share: Share,
}

impl Reader {
    /// Runs until the consumer is over (cancelled and drained, or dead) or a lane is.
    pub async fn run(mut self) {
        match self.pass_gate().await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "a consumer could not begin");
                return;
            }
        }
        let lanes = std::mem::take(&mut self.lanes);
        let (mut taken, mut parts) = (VecDeque::new(), VecDeque::new());
        let (mut drained_at, mut is_over) = (Instant::now(), false);
        while !(is_over && taken.is_empty() && parts.is_empty()) {
            if parts.is_empty() {
                parts = self.read(&mut taken, lanes.len());
            }
            // What has arrived is taken while the lanes are busy as well: what nobody took is in nobody's budget.
            tokio::select! {
                count = self.take(&mut taken, &mut drained_at), if !is_over => is_over = count == 0,
                handed_over = hand_over(&lanes, &mut parts), if !parts.is_empty() => if !handed_over {
                    return;
                },
            }
        }
    }

    /// False if it is never to begin.
    async fn pass_gate(&mut self) -> Result<bool, BrokerError> {
        let Some(gate) = self.gate.as_ref().filter(|_| self.number > 0) else {
            return Ok(true);
        };
        let mut opened = gate.opened.subscribe();
        let over = self.consumer.over();
        match over.run_until_cancelled(opened.wait_for(|opened| *opened)).await {
            Some(Ok(_)) => {}
            _ => return Ok(false),
        }
        self.consumer.begin(gate.prefetch).await.map(|()| true)
    }

    /// Takes what has arrived; 0: there is nothing more to come. Nothing is lost when it is cut short.
    async fn take(&mut self, taken: &mut VecDeque<Taken>, drained_at: &mut Instant) -> usize {
        let was_drained = self.consumer.is_drained();
        let mut deliveries = Vec::new();
        let count = self.consumer.receive(&mut deliveries, CHUNK).await;
        // What was waiting already may have arrived at any time since the last look; what ended a wait
        // has arrived now.
        let read_at = Instant::now();
        let arrived_after = if was_drained { read_at } else { *drained_at };
        if self.consumer.is_drained() {
            *drained_at = read_at;
        }
        if let Some(last) = deliveries.last() {
            self.ledger.arrived(last.tag, arrived_after);
        }
        if failpoint::loses(Point::HandOver) {
            return count;
        }
        let redelivered = deliveries.iter().filter(|delivery| delivery.redelivered).count();
        ::metrics::counter!(metrics::REDELIVERED).increment(redelivered as u64);
        let held = deliveries
            .iter()
            .map(|delivery| self.budget.hold(delivery.weight));
        let held: Vec<Share> = held.collect();
        if let Some(gate) = self.gate.as_ref().filter(|_| self.number == 0 && count > 0) {
            gate.look(&deliveries, &self.budget);
        }
        taken.extend(deliveries.into_iter().zip(held).map(|(delivery, share)| Taken {
            delivery,
            read_at,
            share,
        }));
        count
    }

    /// Reads the next ones, and sorts them by lane.
    fn read(&self, taken: &mut VecDeque<Taken>, lanes: usize) -> VecDeque<(usize, Vec<Arrival>)> {
        let mut parts: Vec<Vec<Arrival>> = (0..lanes).map(|_| Vec::new()).collect();
        let (read, mut malformed) = (taken.len().min(CHUNK), 0);
        for Taken {
            delivery,
            read_at,
            share,
        } in taken.drain(..read)
        {
            let outcome = decode(&delivery.body);
            let lane = match &outcome {
                Ok(event) => {
                    count_mended(event.mended);
                    lane_of(event.org_id, lanes)
                }
                Err(_) => {
                    malformed += 1;
                    self.number % lanes
                }
            };
            parts[lane].push(Arrival {
                consumer: self.number,
                tag: delivery.tag,
                read_at,
                outcome,
                message: Box::new(Message {
                    body: delivery.body,
                    properties: delivery.properties,
                    share: Some(share),
                    number: 0,
                }),
            });
        }
        ::metrics::counter!(metrics::READ).increment(read as u64);
        self.brake.count(read as u64, malformed);
        parts
            .into_iter()
            .enumerate()
            .filter(|(_, part)| !part.is_empty())
            .collect()
    }
}

fn count_mended(mended: Mended) {
    for (field, is_mended) in [
        ("error_message", mended.error_message),
        ("request_id", mended.request_id),
    ] {
        if is_mended {
            ::metrics::counter!(metrics::MENDED, "field" => field).increment(1);
        }
    }
}

/// Hands the next part over once its lane has room; false if the lane is over.
async fn hand_over(lanes: &[Sender<Vec<Arrival>>], parts: &mut VecDeque<(usize, Vec<Arrival>)>) -> bool {
    let Some((lane, _)) = parts.front() else {
        return true;
    };
    let Ok(room) = lanes[*lane].reserve().await else {
        return false;
    };
    if let Some((_, part)) = parts.pop_front() {
        room.send(part);
    }
    true
}

/// One lane writes all events of an organization: then no two lanes of a process ever wait for each
/// other's row locks in the rollups, and a batch has more events per group.
fn lane_of(org_id: Uuid, lanes: usize) -> usize {
    let (high, low) = org_id.as_u64_pair();
    // Fibonacci hashing: ids made by hand differ in few bits.
    let mixed = (high ^ low.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    usize::try_from(mixed).unwrap_or(0) % lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_all_of_it() {
        let shares = |deliveries, consumers: usize| -> Vec<u16> {
            (0..consumers)
                .map(|place| share(deliveries, place, consumers))
                .collect()
        };
        assert_eq!(shares(50_000, 5), [10_000; 5]);
        assert_eq!(shares(7, 3), [3, 2, 2]);
        assert_eq!(shares(2, 4), [1, 1, 0, 0]);
    }

    #[test]
    fn organizations_spread_over_the_lanes() {
        for lanes in [1, 2, 3, 8] {
            let mut counts = vec![0; lanes];
            for number in 0..8_000_u128 {
                counts[lane_of(Uuid::from_u128(number), lanes)] += 1;
            }
            assert!(
                counts.iter().all(|count| *count > 8_000 / lanes * 8 / 10),
                "{counts:?}"
            );
        }
    }
}
