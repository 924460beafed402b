//! An independent AMQP client: publishes events as the platform's router does, and looks at queues.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};

use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, PublisherConfirm};

/// How many messages may wait for the broker's confirmation at a time.
const UNCONFIRMED: usize = 2_000;
const PERSISTENT: u8 = 2;

/// A queue name that no other test has.
pub fn unique_queue(purpose: &str) -> String {
    format!("{purpose}-{}", uuid::Uuid::new_v4().simple())
}

/// A connection that publishes to one queue, through the default exchange.
#[derive(Debug)]
pub struct Publisher {
    connection: Connection,
    channel: Channel,
    queue: String,
}

impl Publisher {
    /// Connects; the queue may come to exist later.
    pub async fn connect(url: &str, queue: &str) -> Result<Self> {
        let properties = ConnectionProperties::default().with_connection_name("e2e-publisher".into());
        let connection = Connection::connect(url, properties)
            .await
            .context("connecting to RabbitMQ")?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self {
            connection,
            channel,
            queue: queue.to_owned(),
        })
    }

    /// The queue it publishes to.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// Publishes every body, and returns how many once the broker has confirmed them all. A message that
    /// reaches no queue is an error.
    pub async fn publish<B: AsRef<[u8]>>(&self, bodies: impl IntoIterator<Item = B>) -> Result<usize> {
        // Side by side: each waits until it is written, by another thread.
        let mut unconfirmed = FuturesOrdered::new();
        let mut published = 0;
        for body in bodies {
            if unconfirmed.len() >= UNCONFIRMED {
                unconfirmed.next().await.transpose()?;
            }
            unconfirmed.push_back(self.confirm(body));
            published += 1;
        }
        while unconfirmed.next().await.transpose()?.is_some() {}
        Ok(published)
    }

    async fn confirm<B: AsRef<[u8]>>(&self, body: B) -> Result<()> {
        self.publish_with(body.as_ref(), BasicProperties::default()).await
    }

    /// Publishes one body with properties of one's own, its delivery mode apart, and waits until it is
    /// confirmed.
    pub async fn publish_with(&self, body: &[u8], properties: BasicProperties) -> Result<()> {
        confirmed(self.send(body, properties).await?).await
    }

    async fn send(&self, body: &[u8], properties: BasicProperties) -> Result<PublisherConfirm> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = properties
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into());
        Ok(self
            .channel
            .basic_publish("".into(), self.queue.as_str().into(), options, body, properties)
            .await?)
    }

    /// Closes the connection in order.
    pub async fn close(self) -> Result<()> {
        Ok(self.connection.close(200, "done".into()).await?)
    }
}

async fn confirmed(confirm: PublisherConfirm) -> Result<()> {
    let confirmation = confirm.await?;
    if !confirmation.is_ack() {
        bail!("the broker refused a message");
    }
    if confirmation.take_message().is_some() {
        bail!("a message reached no queue");
    }
    Ok(())
}

/// Looks at queues and changes them. Each call has a channel of its own, because the broker closes the
/// channel of a call it refuses.
#[derive(Debug)]
pub struct Queues {
    connection: Connection,
}

impl Queues {
    /// Connects.
    pub async fn connect(url: &str) -> Result<Self> {
        let properties = ConnectionProperties::default().with_connection_name("e2e-queues".into());
        let connection = Connection::connect(url, properties)
            .await
            .context("connecting to RabbitMQ")?;
        Ok(Self { connection })
    }

    /// How many messages of a queue are ready, which leaves out the unacknowledged; none when there is no
    /// such queue. Right after a broker's start a quorum queue says 0 until it has a leader.
    pub async fn ready(&self, queue: &str) -> Result<Option<u32>> {
        Ok(self.waiting(queue).await?.map(|(ready, _)| ready))
    }

    /// The same, and how many consumers wait for more.
    pub async fn waiting(&self, queue: &str) -> Result<Option<(u32, u32)>> {
        let channel = self.connection.create_channel().await?;
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        match channel
            .queue_declare(queue.into(), passive, FieldTable::default())
            .await
        {
            Ok(queue) => {
                let waiting = (queue.message_count(), queue.consumer_count());
                channel.close(200, "done".into()).await?;
                Ok(Some(waiting))
            }
            // The channel is gone: the queue does not exist. With the connection gone we know nothing.
            Err(error) if self.connection.status().connected() => {
                let not_found = error.to_string().contains("NOT_FOUND");
                if not_found { Ok(None) } else { Err(error.into()) }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until exactly so many messages of a queue are ready.
    pub async fn wait_ready(&self, queue: &str, count: u32, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let ready = self.ready(queue).await?;
            if ready == Some(count) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{ready:?} messages are ready in {queue} after {patience:?}, not {count}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Declares a durable quorum queue with further arguments.
    pub async fn declare_quorum(&self, queue: &str, arguments: &[(&str, AMQPValue)]) -> Result<()> {
        let mut table = FieldTable::default();
        table.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        self.declare(queue, table).await
    }

    /// Declares a durable classic queue.
    pub async fn declare_classic(&self, queue: &str) -> Result<()> {
        self.declare(queue, FieldTable::default()).await
    }

    async fn declare(&self, queue: &str, arguments: FieldTable) -> Result<()> {
        let channel = self.connection.create_channel().await?;
        channel
            .queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments)
            .await?;
        Ok(channel.close(200, "done".into()).await?)
    }

    /// Removes a queue with everything in it; one that does not exist is no error.
    pub async fn delete(&self, queue: &str) -> Result<()> {
        let channel = self.connection.create_channel().await?;
        channel
            .queue_delete(queue.into(), QueueDeleteOptions::default())
            .await?;
        Ok(channel.close(200, "done".into()).await?)
    }

    /// Drops every ready message of a queue, and returns how many they were.
    pub async fn purge(&self, queue: &str) -> Result<u32> {
        let channel = self.connection.create_channel().await?;
        let purged = channel
            .queue_purge(queue.into(), QueuePurgeOptions::default())
            .await?;
        channel.close(200, "done".into()).await?;
        Ok(purged)
    }
}
