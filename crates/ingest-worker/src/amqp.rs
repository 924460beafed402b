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

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use amqprs::callbacks::{ChannelCallback, ConnectionCallback};
use amqprs::channel::{
    BasicAckArguments, BasicCancelArguments, BasicConsumeArguments, BasicQosArguments, Channel,
    ConsumerMessage, ExchangeDeclareArguments, QueueBindArguments, QueueDeclareArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::tls::TlsAdaptor;
use amqprs::{Ack, BasicProperties, Cancel, Close, CloseChannel, FieldTable, FieldValue, Nack, Return};
use analytics_runtime::tls::{self, TlsError};
use async_trait::async_trait;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

/// How long one call may take. A broker that is alive answers within milliseconds.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// How long a whole connection may take, TCP, TLS and AMQP.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// How long a goodbye may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// Seconds between heartbeats; after two missed ones the peer counts as dead. 0 and 1 misbehave in amqprs.
const HEARTBEAT_SECONDS: u16 = 10;
/// How often the broker may redeliver a message before it gives up on it. Redeliveries are normal here
/// (each lost connection is one for everything in flight), so it is far above what restarts cause; it ends
/// loops over messages that no client can read.
const DELIVERY_LIMIT: i64 = 100;

/// Where the broker is and who we are there.
#[derive(Clone)]
pub struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) vhost: String,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

/// Why an address cannot be used. Holds nothing of it: it has a password.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Not a URL.
    #[error("no valid URL: {0}")]
    Url(#[from] url::ParseError),
    /// Another scheme.
    #[error("must begin with amqp:// or amqps://")]
    Scheme,
    /// No host.
    #[error("has no host")]
    Host,
    /// A part that is no UTF-8, or too long for AMQP.
    #[error("user, password and vhost must be percent-encoded UTF-8 of at most 255 bytes")]
    Part,
    /// A path of several segments: a `/` inside a vhost is `%2f`.
    #[error("the vhost is one path segment; a / in it is %2f")]
    Vhost,
    /// The CA file.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Address {
    /// Reads `amqp://user:password@host:port/vhost` ([AMQP URI specification]): parts are
    /// percent-decoded; an empty path, or none, is the vhost `/`.
    ///
    /// [AMQP URI specification]: https://www.rabbitmq.com/docs/uri-spec
    ///
    /// # Errors
    /// If it is no such URL, or the CA file cannot be used.
    pub fn parse(text: &str, ca_file: Option<&str>) -> Result<Self, AddressError> {
        let url = url::Url::parse(text)?;
        let (default_port, secure) = match url.scheme() {
            "amqp" => (5672, false),
            "amqps" => (5671, true),
            _ => return Err(AddressError::Scheme),
        };
        let decode = |part: &str| {
            let part = percent_decode_str(part)
                .decode_utf8()
                .map_err(|_| AddressError::Part)?;
            if part.len() > 255 {
                Err(AddressError::Part)
            } else {
                Ok(part.into_owned())
            }
        };
        let path = url.path().strip_prefix('/').unwrap_or("");
        if path.contains('/') {
            return Err(AddressError::Vhost);
        }
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or(AddressError::Host)?;
        let or_guest = |part: &str| {
            if part.is_empty() {
                Ok("guest".to_owned())
            } else {
                decode(part)
            }
        };
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(default_port),
            user: or_guest(url.username())?,
            password: or_guest(url.password().unwrap_or(""))?,
            vhost: if path.is_empty() {
                "/".to_owned()
            } else {
                decode(path)?
            },
            tls: if secure {
                Some(Arc::new(tls::verifying_client(ca_file.map(Path::new))?))
            } else {
                None
            },
        })
    }
}

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
    /// Cancelled at the first sign that this generation is over.
    pub death: CancellationToken,
}

/// What one consumer receives, and its way to acknowledge.
pub struct Consumer {
    receiver: UnboundedReceiver<ConsumerMessage>,
    /// Its way to acknowledge, which others may hold as well.
    pub acker: Acker,
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
}

/// Properties of a message, read only when somebody asks.
#[derive(Debug, Default)]
pub struct Properties(BasicProperties);

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
    /// Connects, makes sure that the queue is there, and starts `consumers` consumers, each with a
    /// channel of its own and at most `prefetch` unacknowledged deliveries.
    ///
    /// # Errors
    /// If any step fails or takes too long.
    pub async fn open(
        address: &Address,
        queue: &str,
        consumers: usize,
        prefetch: u16,
    ) -> Result<(Self, Vec<Consumer>), NotOpened> {
        let obituary = Obituary {
            death: Some(CancellationToken::new()),
            words: LastWords::default(),
        };
        Self::open_with(address, queue, consumers, prefetch, &obituary)
            .await
            .map_err(|NotOpened { source, consuming }| NotOpened {
                source: obituary.words.explain(source),
                consuming,
            })
    }

    async fn open_with(
        address: &Address,
        queue: &str,
        consumers: usize,
        prefetch: u16,
        obituary: &Obituary,
    ) -> Result<(Self, Vec<Consumer>), NotOpened> {
        let mut arguments =
            OpenConnectionArguments::new(&address.host, address.port, &address.user, &address.password);
        arguments
            .virtual_host(&address.vhost)
            .heartbeat(HEARTBEAT_SECONDS)
            .connection_name("ingest-worker");
        if let Some(tls) = &address.tls {
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
            arguments.tls_adaptor(TlsAdaptor::new(connector, address.host.clone()));
        }
        let connection = call("connecting", OPEN_DEADLINE, Connection::open(&arguments)).await?;
        let callback = connection.register_callback(obituary.clone());
        call("registering", CALL_DEADLINE, callback).await?;
        let control = ensure_queue(&connection, queue, &obituary.words).await?;
        let mut session = Self {
            connection,
            control,
            queue: queue.to_owned(),
            consumers: Vec::new(),
            death: obituary.death.clone().unwrap_or_default(),
        };
        let callback = session.control.register_callback(obituary.clone());
        call("registering", CALL_DEADLINE, callback).await?;
        let mut receivers = Vec::with_capacity(consumers);
        for number in 0..consumers {
            let consumer = session.consume(number, prefetch, obituary.clone()).await;
            // The answer to the first one may be lost over what it is delivered.
            receivers.push(consumer.map_err(|source| NotOpened {
                source,
                consuming: true,
            })?);
        }
        Ok((session, receivers))
    }

    async fn consume(
        &mut self,
        number: usize,
        prefetch: u16,
        callback: Obituary,
    ) -> Result<Consumer, BrokerError> {
        let channel = open_channel(&self.connection).await?;
        call("registering", CALL_DEADLINE, channel.register_callback(callback)).await?;
        let qos = BasicQosArguments::new(0, prefetch, false);
        call("setting the prefetch", CALL_DEADLINE, channel.basic_qos(qos)).await?;
        let consume = BasicConsumeArguments::new(&self.queue, &consumer_tag(number));
        let (_, receiver) = call("consuming", CALL_DEADLINE, channel.basic_consume_rx(consume)).await?;
        self.consumers.push(channel.clone());
        Ok(Consumer {
            receiver,
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
        let cancel = async {
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
    /// Waits for deliveries and takes all that have arrived, at most `limit`, onto the end of
    /// `deliveries`. Returns how many; 0: the consumer is over.
    pub async fn receive(&mut self, deliveries: &mut Vec<Delivery>, limit: usize) -> usize {
        let mut messages = Vec::new();
        let count = self.receiver.recv_many(&mut messages, limit).await;
        deliveries.extend(messages.into_iter().filter_map(delivery));
        count
    }

    /// Whether everything that has arrived has been taken.
    pub fn is_drained(&self) -> bool {
        self.receiver.is_empty()
    }
}

fn delivery(message: ConsumerMessage) -> Option<Delivery> {
    let deliver = message.deliver?;
    Some(Delivery {
        tag: deliver.delivery_tag(),
        redelivered: deliver.redelivered(),
        body: message.content.unwrap_or_default(),
        properties: Properties(message.basic_properties.unwrap_or_default()),
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

impl Properties {
    /// As JSON, for the table of dead letters. NUL, which `jsonb` cannot hold, becomes U+FFFD.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let properties = &self.0;
        let mut object = Map::new();
        let texts = [
            ("content_type", properties.content_type()),
            ("content_encoding", properties.content_encoding()),
            ("correlation_id", properties.correlation_id()),
            ("message_id", properties.message_id()),
            ("type", properties.message_type()),
            ("user_id", properties.user_id()),
            ("app_id", properties.app_id()),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                object.insert(name.to_owned(), without_nul(value));
            }
        }
        if let Some(timestamp) = properties.timestamp() {
            object.insert("timestamp".to_owned(), json!(timestamp));
        }
        if let Some(headers) = properties.headers() {
            object.insert("headers".to_owned(), table(headers));
        }
        Value::Object(object)
    }
}

fn without_nul(value: &str) -> Value {
    Value::String(value.replace('\0', "\u{fffd}"))
}

fn table(fields: &FieldTable) -> Value {
    let fields = fields.as_ref().iter();
    Value::Object(
        fields
            .map(|(name, value)| (name.to_string().replace('\0', "\u{fffd}"), field(value)))
            .collect(),
    )
}

fn field(value: &FieldValue) -> Value {
    match value {
        FieldValue::t(value) => json!(value),
        FieldValue::b(value) => json!(value),
        FieldValue::B(value) => json!(value),
        FieldValue::s(value) => json!(value),
        FieldValue::u(value) => json!(value),
        FieldValue::I(value) => json!(value),
        FieldValue::i(value) => json!(value),
        FieldValue::l(value) => json!(value),
        FieldValue::T(value) => json!(value),
        FieldValue::S(value) => without_nul(value.as_ref()),
        FieldValue::F(value) => table(value),
        FieldValue::V => Value::Null,
        // Floats, decimals, arrays and bytes: readable is enough.
        other => without_nul(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, AddressError> {
        tls::install_provider();
        Address::parse(url, None)
    }

    #[test]
    fn decodes_every_part() {
        let address = parse("amqp://us%2Fer:p%40ss@host:5673/v%2Fhost").unwrap();
        assert_eq!(
            (
                &*address.user,
                &*address.password,
                &*address.host,
                address.port,
                &*address.vhost
            ),
            ("us/er", "p@ss", "host", 5673, "v/host")
        );
        for root in ["amqp://h", "amqp://h/", "amqp://h/%2f", "amqp://h:5672/%2F"] {
            let address = parse(root).unwrap();
            assert_eq!(
                (&*address.vhost, &*address.user, address.port),
                ("/", "guest", 5672),
                "{root}"
            );
        }
        assert_eq!(parse("amqps://h").unwrap().port, 5671);
        assert_eq!(parse("amqp://[::1]:5672").unwrap().host, "::1");
    }

    #[test]
    fn refuses_what_it_cannot_use_without_repeating_it() {
        let long = format!("amqp://user:{}@host", "s3cret".repeat(50));
        for url in [
            "http://s3cret@h",
            "s3cret",
            "amqp://u:s3cret@/x",
            "amqp://u:s3cret@h/a/b",
            &long,
            "amqp://u:%ff@h",
        ] {
            let error = parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
    }

    #[test]
    fn properties_become_json_without_nul() {
        let mut headers = FieldTable::new();
        headers.insert("retry".try_into().unwrap(), FieldValue::I(3));
        headers.insert("who".try_into().unwrap(), text("a\0b"));
        let mut properties = BasicProperties::default();
        properties.with_message_id("m\0").with_headers(headers);
        assert_eq!(
            Properties(properties).to_json(),
            json!({"message_id": "m\u{fffd}", "headers": {"retry": 3, "who": "a\u{fffd}b"}})
        );
    }
}
