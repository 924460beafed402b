//! A consumer: takes what has arrived, reads it, and hands each delivery to the lane of its organization.

use std::sync::Arc;
use std::time::Instant;

use analytics_core::event::decode;
use tokio::sync::mpsc::Sender;
use uuid::Uuid;

use crate::amqp::Consumer;
use crate::batch::{Arrival, Message};
use crate::brake::Brake;
use crate::failpoint::{self, Point};
use crate::ledger::Ledger;
use crate::metrics;

/// Deliveries taken at a time. Reading a few hundred takes about a millisecond: long enough to be cheap,
/// short enough to let others run.
pub const CHUNK: usize = 256;

/// Runs until the consumer is over (cancelled and drained, or dead) or a lane is.
pub async fn run(
    number: usize,
    mut consumer: Consumer,
    ledger: Arc<Ledger>,
    lanes: Vec<Sender<Vec<Arrival>>>,
    brake: Arc<Brake>,
) {
    let mut deliveries = Vec::with_capacity(CHUNK);
    let mut drained_at = Instant::now();
    loop {
        let was_drained = consumer.is_drained();
        if consumer.receive(&mut deliveries, CHUNK).await == 0 {
            return;
        }
        // What was waiting already may have arrived at any time since the last look; what ended a wait
        // has arrived now.
        let read_at = Instant::now();
        let arrived_after = if was_drained { read_at } else { drained_at };
        if consumer.is_drained() {
            drained_at = read_at;
        }
        if let Some(last) = deliveries.last() {
            ledger.arrived(last.tag, arrived_after);
        }
        if failpoint::loses(Point::HandOver) {
            deliveries.clear();
            continue;
        }
        let mut parts: Vec<Vec<Arrival>> = lanes.iter().map(|_| Vec::new()).collect();
        let (read, mut malformed) = (deliveries.len() as u64, 0);
        for delivery in deliveries.drain(..) {
            if delivery.redelivered {
                ::metrics::counter!(metrics::REDELIVERED).increment(1);
            }
            let outcome = decode(&delivery.body);
            let lane = match &outcome {
                Ok(event) => lane_of(event.org_id, lanes.len()),
                Err(_) => {
                    malformed += 1;
                    number % lanes.len()
                }
            };
            parts[lane].push(Arrival {
                consumer: number,
                tag: delivery.tag,
                read_at,
                outcome,
                message: Box::new(Message {
                    body: delivery.body,
                    properties: delivery.properties,
                    number: 0,
                }),
            });
        }
        brake.count(read, malformed);
        for (lane, part) in lanes.iter().zip(parts) {
            if !part.is_empty() && lane.send(part).await.is_err() {
                return;
            }
        }
    }
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
