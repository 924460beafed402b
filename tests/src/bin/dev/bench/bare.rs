//! The yardstick: what a consumer reaches that only decodes and acknowledges.

use std::time::{Duration, Instant};

use amqprs::channel::{
    BasicAckArguments, BasicConsumeArguments, BasicQosArguments, Channel, ConsumerMessage,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{CONSUMERS, PREFETCH};

/// One acknowledgement for so many messages.
const ACK_EVERY: usize = 1_000;

/// Empties a queue of exactly `events` messages; returns how long that took.
pub(crate) async fn drain(port: u16, queue: &str, events: usize) -> Result<Duration> {
    let arguments = OpenConnectionArguments::new("127.0.0.1", port, "guest", "guest");
    let connection = Connection::open(&arguments).await?;
    let mut channels = Vec::with_capacity(CONSUMERS);
    for _ in 0..CONSUMERS {
        let channel = connection.open_channel(None).await?;
        channel
            .basic_qos(BasicQosArguments::new(0, PREFETCH, false))
            .await?;
        channels.push(channel);
    }
    let began = Instant::now();
    let (count, mut counted) = mpsc::unbounded_channel();
    let mut consumers = JoinSet::new();
    for (number, channel) in channels.into_iter().enumerate() {
        let consume = BasicConsumeArguments::new(queue, &format!("bare-{number}"));
        let (_, deliveries) = channel.basic_consume_rx(consume).await?;
        consumers.spawn(consume_all(channel, deliveries, count.clone()));
    }
    drop(count);
    let mut seen = 0;
    while seen < events {
        seen += counted
            .recv()
            .await
            .context("the consumers ended before the queue was empty")?;
    }
    let took = began.elapsed();
    connection.close().await?;
    while let Some(ended) = consumers.join_next().await {
        ended??;
    }
    Ok(took)
}

async fn consume_all(
    channel: Channel,
    mut deliveries: mpsc::UnboundedReceiver<ConsumerMessage>,
    count: mpsc::UnboundedSender<usize>,
) -> Result<()> {
    let mut arrived = Vec::with_capacity(ACK_EVERY);
    while deliveries.recv_many(&mut arrived, ACK_EVERY).await > 0 {
        let mut last = None;
        let decoded = arrived.len();
        for message in arrived.drain(..) {
            let body = message.content.context("a delivery without a body")?;
            if let Err(error) = analytics_core::event::decode(&body) {
                bail!("a generated event did not decode: {error}");
            }
            last = message.deliver.map(|deliver| deliver.delivery_tag());
        }
        if let Some(tag) = last {
            channel.basic_ack(BasicAckArguments::new(tag, true)).await?;
        }
        // The other end is gone once everything was counted.
        let _ = count.send(decoded);
    }
    Ok(())
}
