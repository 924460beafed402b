//! The broker: the only file that names amqprs, and where its rules are kept.
//!
//! A [`Session`] is one *generation*: connection, channels, receivers and what is unacknowledged live and
//! die together. Any sign of death cancels [`Session::death`], and the owner makes a new generation;
//! delivery tags never cross from one to the next.
//!
//! What amqprs 2.1.5 asks of its caller, from its source:
//! - no call has a deadline of its own, and a call that is cut short leaves its channel unusable: every
//!   call here runs under a deadline after which the session is dead;
//! - two synchronous calls at once on one channel mix up their answers: each channel has one owner, and
//!   the depth of the queue is asked on a channel of its own;
//! - a channel that the server closes or a consumer that it cancels says so only to a registered callback
//!   (callbacks run inside the reader, so they only send a signal);
//! - a panic in the reader leaves `is_open` true: the end of a receiver counts as death;
//! - its receivers are unbounded: prefetch is the only bound;
//! - strings over 255 bytes in short-string fields panic: names are checked by the configuration.

mod address;
mod properties;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use amqprs::callbacks::{ChannelCallback, ConnectionCallback};
use amqprs::channel::{
    BasicAckArguments, BasicCancelArguments, BasicConsumeArguments, BasicQosArguments, Channel,
    ConsumerMessage, ExchangeDeclareArguments, QueueBindArguments, QueueDeclareArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::security::SecurityCredentials;
use amqprs::tls::TlsAdaptor;
use amqprs::{Ack, BasicProperties, Cancel, Close, CloseChannel, FieldTable, FieldValue, Nack, Return};
use async_trait::async_trait;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use crate::operator::collect;

pub use address::{Address, AddressError, Files};
pub use properties::Properties;

/// How long one call may take. A broker that is alive answers within milliseconds.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// How long a consumer may take to begin: a quorum queue reads all that it delivers at once before it answers, which
/// may be gigabytes.
const CONSUME_DEADLINE: Duration = Duration::from_secs(30);
/// How long a goodbye may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// How often the broker may redeliver a message before it gives up on it. Redeliveries are normal here
/// (each lost connection is one for everything in flight), so it is far above what restarts cause; it ends
/// loops over messages that no client can read.
const DELIVERY_LIMIT: i64 = 100;
/// Memory that a delivery takes besides its body and headers, as it came and as an event.
const DELIVERY: usize = 512;
/// The largest frame that is accepted. What is nested in it is read by recursion: [`STACK`] carries it.
const LARGEST_FRAME: u32 = 1 << 20;
/// The stack that the library needs for the deepest nesting that fits into the largest frame.
pub const STACK: usize = 512 << 20;

/// Why a session could not be made or is no longer usable.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The library's or the broker's word.
    #[error("{action} failed: {source}")]
    Call {
        /// What was tried.
        action: &'static str,
        /// What came of it.
        source: amqprs::error::Error,
    },
    /// The broker closed the channel or the connection over it, and said why.
    #[error("{action} was refused: {words}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The broker's words.
        words: String,
    },
    /// There is nobody to ask.
    #[error("no host")]
    NoHost,
    /// Frames that could exhaust the stack.
    #[error("the broker's frame_max is {0}; set it to 1 to {LARGEST_FRAME} there (131072 is its default)")]
    FrameMax(u32),
    /// No answer in time.
    #[error("{action} had no answer within {} s", .deadline.as_secs())]
    Deadline {
        /// What was tried.
        action: &'static str,
        /// How long was waited.
        deadline: Duration,
    },
}

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct NotOpened {
    /// What failed.
    pub source: BrokerError,
    /// Whether a consumer was there by then, so that deliveries may have been lost with it.
    pub consuming: bool,
}

impl From<BrokerError> for NotOpened {
    fn from(source: BrokerError) -> Self {
        Self {
            source,
            consuming: false,
        }
    }
}

async fn call<T>(
    action: &'static str,
    deadline: Duration,
    call: impl Future<Output = Result<T, amqprs::error::Error>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(BrokerError::Call { action, source }),
        Err(_) => Err(BrokerError::Deadline { action, deadline }),
    }
}

/// One generation: a connection, a channel per consumer, and one to ask about the queue.
pub struct Session {
    connection: Connection,
    control: Channel,
    queue: String,
    consumers: Vec<Channel>,
    consuming: Arc<Consuming>,
    /// Cancelled at the first sign that this generation is over.
    pub death: CancellationToken,
}

/// What one consumer receives, and its way to acknowledge.
pub struct Consumer {
    number: usize,
    queue: String,
    /// None before it begins.
    receiver: Option<UnboundedReceiver<ConsumerMessage>>,
    consuming: Arc<Consuming>,
    /// Its way to acknowledge, which others may hold as well.
    pub acker: Acker,
}

/// Whether consumers may still begin: one that begins while all are cancelled would never end.
#[derive(Default)]
struct Consuming {
    beginning: tokio::sync::Mutex<()>,
    over: CancellationToken,
}

/// Acknowledges deliveries of one channel.
#[derive(Clone)]
pub struct Acker {
    channel: Channel,
}

/// A message as it came.
#[derive(Debug)]
pub struct Delivery {
    /// Its number on its channel.
    pub tag: u64,
    /// Whether the broker delivered it before. A hint: a publisher's repeat does not show here.
    pub redelivered: bool,
    /// The message.
    pub body: Vec<u8>,
    /// Its properties and headers.
    pub properties: Properties,
    /// Bytes of memory that it takes, about.
    pub weight: usize,
}

/// What the broker said last; the library only says "channel closed".
#[derive(Clone, Default)]
struct LastWords(Arc<Mutex<Option<String>>>);

impl LastWords {
    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn explain(&self, error: BrokerError) -> BrokerError {
        match (error, self.take()) {
            (BrokerError::Call { action, .. }, Some(words)) => BrokerError::Refused { action, words },
            (error, _) => error,
        }
    }
}

/// Says what happened and cancels the generation, once there is one.
#[derive(Clone, Default)]
struct Obituary {
    death: Option<CancellationToken>,
    words: LastWords,
}

impl Obituary {
    fn died(&self, cause: &str) {
        if let Some(death) = &self.death {
            tracing::warn!(cause, "the broker ended the session");
            death.cancel();
        }
        *self.words.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause.to_owned());
    }
}

#[async_trait]
impl ConnectionCallback for Obituary {
    async fn close(&mut self, _: &Connection, close: Close) -> Result<(), amqprs::error::Error> {
        self.died(&close.to_string());
        Ok(())
    }
    async fn blocked(&mut self, _: &Connection, reason: String) {
        tracing::warn!(reason, "the broker blocks publishers");
    }
    async fn unblocked(&mut self, _: &Connection) {
        tracing::info!("the broker lets publishers go on");
    }
    async fn secret_updated(&mut self, _: &Connection) {}
}

#[async_trait]
impl ChannelCallback for Obituary {
    async fn close(&mut self, _: &Channel, close: CloseChannel) -> Result<(), amqprs::error::Error> {
        self.died(&close.to_string());
        Ok(())
    }
    async fn cancel(&mut self, _: &Channel, cancel: Cancel) -> Result<(), amqprs::error::Error> {
        self.died(&format!(
            "consumer {} was cancelled: its queue is gone",
            cancel.consumer_tag()
        ));
        Ok(())
    }
    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, amqprs::error::Error> {
        Ok(active)
    }
    async fn publish_ack(&mut self, _: &Channel, _: Ack) {}
    async fn publish_nack(&mut self, _: &Channel, _: Nack) {}
    async fn publish_return(&mut self, _: &Channel, _: Return, _: BasicProperties, _: Vec<u8>) {}
}

impl Session {
    /// Connects, makes sure that the queue is there, and makes a consumer for each of `prefetches`, each with a
    /// channel of its own and at most so many unacknowledged deliveries. One without a number begins later.
    ///
    /// # Errors
    /// If any step fails or takes too long.
    pub async fn open(
        address: &Address,
        queue: &str,
        prefetches: &[Option<u16>],
    ) -> Result<(Self, Vec<Consumer>), NotOpened> {
        let obituary = Obituary {
            death: Some(CancellationToken::new()),
            words: LastWords::default(),
        };
        Self::open_with(address, queue, prefetches, &obituary)
            .await
            .map_err(|NotOpened { source, consuming }| NotOpened {
                source: obituary.words.explain(source),
                consuming,
            })
    }

    async fn open_with(
        address: &Address,
        queue: &str,
        prefetches: &[Option<u16>],
        obituary: &Obituary,
    ) -> Result<(Self, Vec<Consumer>), NotOpened> {
        let connection = connect(address).await?;
        let callback = connection.register_callback(obituary.clone());
        call("registering", CALL_DEADLINE, callback).await?;
        let control = ensure_queue(&connection, queue, &obituary.words).await?;
        let mut session = Self {
            connection,
            control,
            queue: queue.to_owned(),
            consumers: Vec::new(),
            consuming: Arc::default(),
            death: obituary.death.clone().unwrap_or_default(),
        };
        let callback = session.control.register_callback(obituary.clone());
        call("registering", CALL_DEADLINE, callback).await?;
        let mut consumers = Vec::with_capacity(prefetches.len());
        for prefetch in prefetches {
            let mut consumer = session.consumer(obituary.clone()).await?;
            if let Some(prefetch) = prefetch {
                // The answer to the first one may be lost over what it is delivered.
                consumer.begin(*prefetch).await.map_err(|source| NotOpened {
                    source,
                    consuming: true,
                })?;
            }
            consumers.push(consumer);
        }
        Ok((session, consumers))
    }

    async fn consumer(&mut self, callback: Obituary) -> Result<Consumer, BrokerError> {
        let channel = open_channel(&self.connection).await?;
        call("registering", CALL_DEADLINE, channel.register_callback(callback)).await?;
        let number = self.consumers.len();
        self.consumers.push(channel.clone());
        Ok(Consumer {
            number,
            queue: self.queue.clone(),
            receiver: None,
            consuming: Arc::clone(&self.consuming),
            acker: Acker { channel },
        })
    }

    /// Messages of the queue that are ready, that is neither delivered nor acknowledged. Exact, unlike
    /// what the management tools say of a quorum queue.
    ///
    /// # Errors
    /// If the broker does not answer; the session is dead then.
    pub async fn ready_messages(&self) -> Result<u32, BrokerError> {
        let result = call(
            "asking for the queue",
            CALL_DEADLINE,
            self.control.queue_declare(passive(&self.queue)),
        );
        match result.await {
            Ok(answer) => Ok(answer.map_or(0, |(_, ready, _)| ready)),
            Err(error) => {
                self.death.cancel();
                Err(error)
            }
        }
    }

    /// Asks the broker to deliver nothing more. What has arrived stays to be received; then the
    /// receivers end.
    pub async fn stop_consuming(&self) {
        self.consuming.over.cancel();
        let cancel = async {
            let _nobody_begins = self.consuming.beginning.lock().await;
            for (number, channel) in self.consumers.iter().enumerate() {
                let consumer = BasicCancelArguments::new(&consumer_tag(number));
                channel.basic_cancel(consumer).await?;
            }
            Ok(())
        };
        if let Err(error) = call("cancelling the consumers", CLOSE_DEADLINE, cancel).await {
            tracing::warn!(%error, "the consumers could not be cancelled");
            self.death.cancel();
        }
    }

    /// Says goodbye, so that the broker has read every acknowledgement before the connection ends, and has
    /// taken back what was not acknowledged. False if it did not answer, or the session was dead before.
    pub async fn close(self) -> bool {
        if self.death.is_cancelled() {
            // Dropped, a connection tells the broker that it is closed. Asked to close, it waits for the
            // library's reader: after that one's panic nothing would reach the broker, and the library's
            // writer would keep the connection alive for ever, with all that it holds.
            return false;
        }
        let Self {
            connection,
            control,
            consumers,
            ..
        } = self;
        let channels = consumers.into_iter().chain([control]);
        let goodbye = async {
            for channel in channels {
                channel.close().await?;
            }
            connection.close().await
        };
        let closed = call("closing", CLOSE_DEADLINE, goodbye).await;
        if let Err(error) = &closed {
            tracing::debug!(%error, "the connection was not closed in order");
        }
        closed.is_ok()
    }
}

/// Tries the hosts in turn.
async fn connect(address: &Address) -> Result<Connection, BrokerError> {
    let mut refused = None;
    for (host, port) in &address.hosts {
        match connect_to(address, host, *port).await {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                if address.hosts.len() > 1 {
                    tracing::warn!(host, port, %error, "not this one of the broker's hosts");
                }
                refused = Some(error);
            }
        }
    }
    Err(refused.unwrap_or(BrokerError::NoHost))
}

async fn connect_to(address: &Address, host: &str, port: u16) -> Result<Connection, BrokerError> {
    let mut arguments = OpenConnectionArguments::new(host, port, &address.user, &address.password);
    arguments
        .virtual_host(&address.vhost)
        .heartbeat(address.heartbeat)
        .connection_name("ingest-worker");
    if address.is_external {
        arguments.credentials(SecurityCredentials::new_external());
    }
    if let Some(tls) = &address.tls {
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
        let name = address.server_name.clone().unwrap_or_else(|| host.to_owned());
        arguments.tls_adaptor(TlsAdaptor::new(connector, name));
    }
    let opened = call(
        "connecting",
        address.connection_timeout,
        Connection::open(&arguments),
    )
    .await;
    let connection = match opened {
        Ok(connection) => connection,
        // The library cannot say that it would hear a refused login: to it, the broker only hangs up.
        Err(error @ BrokerError::Call { .. }) => {
            return Err(match collect::refusal(address, host, port).await {
                Some(words) => BrokerError::Refused {
                    action: "logging in",
                    words,
                },
                None => error,
            });
        }
        Err(error) => return Err(error),
    };
    // The library takes what the broker offers; 0 is no limit.
    match connection.frame_max() {
        1..=LARGEST_FRAME => Ok(connection),
        frame_max => Err(BrokerError::FrameMax(frame_max)),
    }
}

fn consumer_tag(number: usize) -> String {
    format!("ingest-worker-{number}")
}

async fn open_channel(connection: &Connection) -> Result<Channel, BrokerError> {
    call("opening a channel", CALL_DEADLINE, connection.open_channel(None)).await
}

fn passive(queue: &str) -> QueueDeclareArguments {
    QueueDeclareArguments::new(queue).passive(true).finish()
}

/// Takes the queue as it is; where there is none, declares it with what a broker of this service should
/// have, and where its messages go that the broker itself gives up on.
async fn ensure_queue(
    connection: &Connection,
    queue: &str,
    words: &LastWords,
) -> Result<Channel, BrokerError> {
    // A channel that is closed here is no session's death.
    let listening = async || {
        let channel = open_channel(connection).await?;
        let callback = Obituary {
            death: None,
            words: words.clone(),
        };
        call("registering", CALL_DEADLINE, channel.register_callback(callback)).await?;
        Ok::<_, BrokerError>(channel)
    };
    let channel = listening().await?;
    let found = call(
        "looking for the queue",
        CALL_DEADLINE,
        channel.queue_declare(passive(queue)),
    )
    .await;
    match found {
        Ok(_) => return Ok(channel),
        Err(error @ BrokerError::Deadline { .. }) => return Err(error),
        // The broker answers a passive declare of what is not there by closing the channel.
        Err(error) => match words.explain(error) {
            BrokerError::Refused { words, .. } if connection.is_open() && words.contains("NOT_FOUND") => {
                tracing::info!(queue, "no such queue yet: declaring it");
            }
            error => return Err(error),
        },
    }
    let channel = listening().await?;
    let exchange = format!("{queue}.dead-letter");
    let fanout = ExchangeDeclareArguments::new(&exchange, "fanout")
        .durable(true)
        .finish();
    call(
        "declaring the dead-letter exchange",
        CALL_DEADLINE,
        channel.exchange_declare(fanout),
    )
    .await?;
    let dead_letters = quorum(&exchange, FieldTable::new());
    call(
        "declaring the dead-letter queue",
        CALL_DEADLINE,
        channel.queue_declare(dead_letters),
    )
    .await?;
    let binding = QueueBindArguments::new(&exchange, &exchange, "");
    call(
        "binding the dead-letter queue",
        CALL_DEADLINE,
        channel.queue_bind(binding),
    )
    .await?;
    let mut arguments = FieldTable::new();
    insert(&mut arguments, "x-delivery-limit", FieldValue::l(DELIVERY_LIMIT));
    insert(&mut arguments, "x-dead-letter-exchange", text(&exchange));
    // A letter leaves the queue only when the dead-letter queue has confirmed it; needs reject-publish.
    insert(&mut arguments, "x-dead-letter-strategy", text("at-least-once"));
    insert(&mut arguments, "x-overflow", text("reject-publish"));
    call(
        "declaring the queue",
        CALL_DEADLINE,
        channel.queue_declare(quorum(queue, arguments)),
    )
    .await?;
    Ok(channel)
}

fn quorum(queue: &str, mut arguments: FieldTable) -> QueueDeclareArguments {
    insert(&mut arguments, "x-queue-type", text("quorum"));
    QueueDeclareArguments::durable_client_named(queue)
        .arguments(arguments)
        .finish()
}

fn insert(arguments: &mut FieldTable, name: &str, value: FieldValue) {
    // Conversion fails over 255 bytes only; these names are literals above.
    if let Ok(name) = name.try_into() {
        arguments.insert(name, value);
    }
}

fn text(value: &str) -> FieldValue {
    // Conversion fails over 4 GiB only.
    value.to_owned().try_into().map_or(FieldValue::V, FieldValue::S)
}

impl Consumer {
    /// Lets it receive, at most `prefetch` unacknowledged deliveries. Once all are cancelled, nothing comes.
    ///
    /// # Errors
    /// If the broker refuses or does not answer.
    pub async fn begin(&mut self, prefetch: u16) -> Result<(), BrokerError> {
        let _alone = self.consuming.beginning.lock().await;
        if self.consuming.over.is_cancelled() {
            return Ok(());
        }
        let channel = &self.acker.channel;
        let qos = BasicQosArguments::new(0, prefetch, false);
        call("setting the prefetch", CALL_DEADLINE, channel.basic_qos(qos)).await?;
        let consume = BasicConsumeArguments::new(&self.queue, &consumer_tag(self.number));
        let (_, receiver) = call("consuming", CONSUME_DEADLINE, channel.basic_consume_rx(consume)).await?;
        self.receiver = Some(receiver);
        Ok(())
    }

    /// Cancelled when no consumer of the session may begin any more.
    pub fn over(&self) -> CancellationToken {
        self.consuming.over.clone()
    }

    /// Waits for deliveries and takes all that have arrived, at most `limit`, onto the end of
    /// `deliveries`. Returns how many; 0: the consumer is over, or has not begun. Nothing is lost when the wait is
    /// cut short.
    pub async fn receive(&mut self, deliveries: &mut Vec<Delivery>, limit: usize) -> usize {
        let Some(receiver) = &mut self.receiver else {
            return 0;
        };
        let mut messages = Vec::new();
        let count = receiver.recv_many(&mut messages, limit).await;
        deliveries.extend(messages.into_iter().filter_map(delivery));
        count
    }

    /// Whether everything that has arrived has been taken.
    pub fn is_drained(&self) -> bool {
        self.receiver.as_ref().is_none_or(UnboundedReceiver::is_empty)
    }
}

fn delivery(message: ConsumerMessage) -> Option<Delivery> {
    let deliver = message.deliver?;
    let body = message.content.unwrap_or_default();
    let (properties, headers) = Properties::keep(message.basic_properties.unwrap_or_default());
    Some(Delivery {
        tag: deliver.delivery_tag(),
        redelivered: deliver.redelivered(),
        // The library's buffer grows by doubling: up to half of it is empty.
        weight: DELIVERY + body.capacity() + headers,
        body,
        properties,
    })
}

impl Acker {
    /// Acknowledges every delivery of the channel up to `tag`.
    ///
    /// # Errors
    /// If the channel is gone: the deliveries will come again, and be recognised.
    pub async fn ack_through(&self, tag: u64) -> Result<(), BrokerError> {
        let ack = self.channel.basic_ack(BasicAckArguments::new(tag, true));
        call("acknowledging", CALL_DEADLINE, ack).await
    }
}
