//! As much of AMQP 0-9-1 as it takes to fetch messages that a client library cannot.
//!
//! What the broker gives up on is above all what ends a client's connection: amqprs (like others) reads
//! every header as UTF-8 and dies of one that is not, and the message is back in its queue. Here a frame
//! is bytes; only what is shown of them is text. [Specification]; the tables' types are RabbitMQ's.
//!
//! [Specification]: https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf

use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

use super::properties;
use crate::amqp::Address;

/// How long an answer may take. A broker that is alive answers within milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);
/// A larger frame is none: what answers is no broker.
const LARGEST_FRAME: u32 = 16 * 1024 * 1024;
/// The largest body that RabbitMQ takes; room is made in advance for no more.
const LARGEST_BODY: usize = 512 << 20;
const CHANNEL: u16 = 1;
const FRAME_END: u8 = 0xce;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

type Method = (u16, u16);
const START: Method = (10, 10);
const START_OK: Method = (10, 11);
const TUNE: Method = (10, 30);
const TUNE_OK: Method = (10, 31);
const OPEN: Method = (10, 40);
const OPEN_OK: Method = (10, 41);
const CLOSE: Method = (10, 50);
const CLOSE_OK: Method = (10, 51);
const CHANNEL_OPEN: Method = (20, 10);
const CHANNEL_OPEN_OK: Method = (20, 11);
const CHANNEL_CLOSE: Method = (20, 40);
const GET: Method = (60, 70);
const GET_OK: Method = (60, 71);
const GET_EMPTY: Method = (60, 72);
const ACK: Method = (60, 80);

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The network's word.
    #[error("the connection to the broker: {0}")]
    Io(#[from] std::io::Error),
    /// Nothing came in time.
    #[error("the broker had no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    /// The broker's word.
    #[error("the broker refused: {text} ({code})")]
    Closed {
        /// AMQP's code.
        code: u16,
        /// Its words.
        text: String,
    },
    /// Bytes that AMQP does not have at that place.
    #[error("the broker's answer is no AMQP 0-9-1: {0}")]
    Protocol(&'static str),
}

impl WireError {
    /// Whether it ends by itself; a queue that is not there, a password that is wrong, or a certificate that is
    /// not to be trusted, does not.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Io(error) => !is_refused_by_tls(error),
            Self::Deadline => true,
            Self::Closed { code, .. } => !matches!(code, 402..=406 | 530),
            Self::Protocol(_) => false,
        }
    }
}

/// Whether the peer has no certificate that we trust, or speaks no TLS.
fn is_refused_by_tls(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(
        inner,
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::InvalidMessage(_))
    )
}

/// A message that was fetched and not yet acknowledged.
pub(super) struct Fetched {
    pub(super) tag: u64,
    pub(super) body: Vec<u8>,
    pub(super) properties: serde_json::Value,
}

/// A connection with one channel.
pub(super) struct Connection {
    stream: BufStream<Box<dyn Stream>>,
    /// Answers that are still to come.
    asked: usize,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

struct Frame {
    kind: u8,
    payload: Vec<u8>,
}

impl Connection {
    /// Connects to the first host that takes it, logs in, and opens the channel.
    pub(super) async fn open(address: &Address) -> Result<Self, WireError> {
        let mut refused = WireError::Protocol("there is no host");
        for (host, port) in &address.hosts {
            match Self::open_at(address, host, *port).await {
                Ok(connection) => return Ok(connection),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// The same with one host.
    pub(super) async fn open_at(address: &Address, host: &str, port: u16) -> Result<Self, WireError> {
        in_time(async {
            let tcp = TcpStream::connect((host, port)).await?;
            let stream: Box<dyn Stream> = match &address.tls {
                None => Box::new(tcp),
                Some(tls) => {
                    let name = address.server_name.clone().unwrap_or_else(|| host.to_owned());
                    let name = ServerName::try_from(name)
                        .map_err(|_| WireError::Protocol("a host that no certificate can name"))?;
                    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::clone(tls));
                    Box::new(connector.connect(name, tcp).await?)
                }
            };
            let mut connection = Self {
                stream: BufStream::new(stream),
                asked: 0,
            };
            connection.log_in(address).await?;
            Ok(connection)
        })
        .await
    }

    async fn log_in(&mut self, address: &Address) -> Result<(), WireError> {
        self.stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        self.stream.flush().await?;
        self.expect(START).await?;
        let mut start = Vec::new();
        // One capability: a refused login is to be said, not only a closed socket.
        let mut capabilities = Vec::new();
        short(&mut capabilities, "authentication_failure_close");
        capabilities.extend(b"t\x01");
        let mut client = Vec::new();
        short(&mut client, "capabilities");
        client.push(b'F');
        long(&mut client, &capabilities);
        long(&mut start, &client);
        let (mechanism, login) = if address.is_external {
            ("EXTERNAL", String::new())
        } else {
            ("PLAIN", format!("\0{}\0{}", address.user, address.password))
        };
        short(&mut start, mechanism);
        long(&mut start, login.as_bytes());
        short(&mut start, "en_US");
        self.send(0, START_OK, &start).await?;
        self.stream.flush().await?;
        let tune = self.expect(TUNE).await?;
        let mut limits = tune.get(..6).ok_or(WireError::Protocol("a short tune"))?.to_vec();
        // No heartbeat: between two batches nobody listens, and every wait has a deadline.
        limits.extend(0_u16.to_be_bytes());
        self.send(0, TUNE_OK, &limits).await?;
        let mut open = Vec::new();
        short(&mut open, &address.vhost);
        open.extend([0, 0]);
        self.send(0, OPEN, &open).await?;
        self.stream.flush().await?;
        self.expect(OPEN_OK).await?;
        self.send(CHANNEL, CHANNEL_OPEN, &[0]).await?;
        self.stream.flush().await?;
        self.expect(CHANNEL_OPEN_OK).await?;
        Ok(())
    }

    /// Fetches messages until it has `count` of them or `bytes`; none only if the queue has no more. What was asked
    /// for beyond that waits at the broker for the next call.
    pub(super) async fn fetch(
        &mut self,
        queue: &str,
        count: usize,
        bytes: usize,
    ) -> Result<Vec<Fetched>, WireError> {
        if self.asked == 0 {
            let mut get = vec![0, 0];
            short(&mut get, queue);
            get.push(0);
            // Asked for together: an answer each, in order.
            for _ in 0..count {
                self.send(CHANNEL, GET, &get).await?;
            }
            in_time(async { Ok(self.stream.flush().await?) }).await?;
            self.asked = count;
        }
        let (mut fetched, mut held): (Vec<Fetched>, usize) = (Vec::new(), 0);
        while self.asked > 0 && held < bytes {
            let answer = in_time(self.fetched()).await?;
            self.asked -= 1;
            held += answer.as_ref().map_or(0, |message| message.body.len());
            fetched.extend(answer);
        }
        Ok(fetched)
    }

    async fn fetched(&mut self) -> Result<Option<Fetched>, WireError> {
        let (method, arguments) = self.method().await?;
        match method {
            GET_EMPTY => return Ok(None),
            GET_OK => {}
            _ => return Err(WireError::Protocol("another answer to a get")),
        }
        let tag = number(&arguments, 0)?;
        let header = self.frame().await?;
        if header.kind != HEADER {
            return Err(WireError::Protocol("no header after a get"));
        }
        let size = usize::try_from(number(&header.payload, 4)?)
            .map_err(|_| WireError::Protocol("a body beyond all memory"))?;
        let properties = properties::read(header.payload.get(12..).unwrap_or_default());
        let mut body = Vec::with_capacity(size.min(LARGEST_BODY));
        while body.len() < size {
            let part = self.frame().await?;
            if part.kind != BODY {
                return Err(WireError::Protocol("no body after a header"));
            }
            body.extend(part.payload);
        }
        Ok(Some(Fetched {
            tag,
            body,
            properties,
        }))
    }

    /// Acknowledges every message up to `tag`. There is no answer to it; [`Self::close`] waits until it is
    /// read.
    pub(super) async fn ack_through(&mut self, tag: u64) -> Result<(), WireError> {
        let mut ack = tag.to_be_bytes().to_vec();
        ack.push(1);
        in_time(async {
            self.send(CHANNEL, ACK, &ack).await?;
            Ok(self.stream.flush().await?)
        })
        .await
    }

    /// Says goodbye: everything that was sent before has been read then.
    pub(super) async fn close(mut self) -> Result<(), WireError> {
        in_time(async {
            let mut close = 200_u16.to_be_bytes().to_vec();
            short(&mut close, "done");
            close.extend([0; 4]);
            self.send(0, CLOSE, &close).await?;
            self.stream.flush().await?;
            self.expect(CLOSE_OK).await?;
            Ok(())
        })
        .await
    }

    async fn send(&mut self, channel: u16, method: Method, arguments: &[u8]) -> Result<(), WireError> {
        let mut frame = vec![METHOD];
        frame.extend(channel.to_be_bytes());
        let length =
            u32::try_from(arguments.len() + 4).map_err(|_| WireError::Protocol("arguments too long"))?;
        frame.extend(length.to_be_bytes());
        frame.extend(method.0.to_be_bytes());
        frame.extend(method.1.to_be_bytes());
        frame.extend(arguments);
        frame.push(FRAME_END);
        Ok(self.stream.write_all(&frame).await?)
    }

    async fn expect(&mut self, expected: Method) -> Result<Vec<u8>, WireError> {
        let (method, arguments) = self.method().await?;
        if method == expected {
            return Ok(arguments);
        }
        Err(WireError::Protocol("another method than the one that is due"))
    }

    /// The next method, and its arguments.
    async fn method(&mut self) -> Result<(Method, Vec<u8>), WireError> {
        let mut frame = self.frame().await?;
        if frame.kind != METHOD || frame.payload.len() < 4 {
            return Err(WireError::Protocol("no method where one is due"));
        }
        let arguments = frame.payload.split_off(4);
        let [class, class_low, id, id_low] = [0, 1, 2, 3].map(|place| frame.payload[place]);
        let method = (
            u16::from_be_bytes([class, class_low]),
            u16::from_be_bytes([id, id_low]),
        );
        if matches!(method, CLOSE | CHANNEL_CLOSE) {
            let code = arguments
                .get(..2)
                .map_or(0, |code| u16::from_be_bytes([code[0], code[1]]));
            let text = arguments.get(3..3 + usize::from(*arguments.get(2).unwrap_or(&0)));
            return Err(WireError::Closed {
                code,
                text: String::from_utf8_lossy(text.unwrap_or_default()).into_owned(),
            });
        }
        Ok((method, arguments))
    }

    async fn frame(&mut self) -> Result<Frame, WireError> {
        loop {
            let kind = self.stream.read_u8().await?;
            let _channel = self.stream.read_u16().await?;
            let length = self.stream.read_u32().await?;
            if kind == b'A' || length > LARGEST_FRAME {
                return Err(WireError::Protocol("another protocol, or another version"));
            }
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await?;
            if self.stream.read_u8().await? != FRAME_END {
                return Err(WireError::Protocol("a frame without its end"));
            }
            if kind != HEARTBEAT {
                return Ok(Frame { kind, payload });
            }
        }
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, WireError>>) -> Result<T, WireError> {
    tokio::time::timeout(DEADLINE, call)
        .await
        .map_err(|_| WireError::Deadline)?
}

fn number(bytes: &[u8], place: usize) -> Result<u64, WireError> {
    bytes
        .get(place..place + 8)
        .and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)))
        .ok_or(WireError::Protocol("an answer that is too short"))
}

/// A short string; what is put in has at most 255 bytes by the checks of the settings.
fn short(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    bytes.extend(&text.as_bytes()[..text.len().min(255)]);
}

fn long(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(text);
}
