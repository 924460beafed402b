//! A consumer: takes what has arrived, reads it, and hands it to its lane in order.

use std::sync::Arc;
use std::time::Instant;

use analytics_core::event::decode;
use tokio::sync::mpsc::Sender;

use crate::amqp::Consumer;
use crate::batch::{Arrival, Message};
use crate::held::Held;
use crate::metrics;

/// Deliveries taken at a time. Reading a few hundred takes about a millisecond: long enough to be cheap,
/// short enough to let others run.
const CHUNK: usize = 256;

/// Runs until the consumer is over (cancelled and drained, or dead) or the lane is.
pub async fn run(number: usize, mut consumer: Consumer, held: Arc<Held>, lane: Sender<Arrival>) {
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
            held.arrived(last.tag, arrived_after);
        }
        for delivery in deliveries.drain(..) {
            if delivery.redelivered {
                ::metrics::counter!(metrics::REDELIVERED).increment(1);
            }
            let arrival = Arrival {
                consumer: number,
                tag: delivery.tag,
                read_at,
                outcome: decode(&delivery.body),
                message: Message {
                    body: delivery.body,
                    properties: delivery.properties,
                },
            };
            if lane.send(arrival).await.is_err() {
                return;
            }
        }
    }
}
