//! A broker that plays a script: enough of AMQP 0-9-1 to open a session, and then whatever a real one does
//! on a bad day.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
const END: u8 = 0xce;

/// A method by its class and number.
pub(crate) type Method = (u16, u16);
pub(crate) const CHANNEL_OPEN: Method = (20, 10);
pub(crate) const CONSUME: Method = (60, 20);
pub(crate) const CANCEL: Method = (60, 30);
pub(crate) const ACK: Method = (60, 80);
pub(crate) const CHANNEL_CLOSE: Method = (20, 40);

/// What happens once the first consumer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Bytes that are no frame: by their header, an endless one.
    Garbage,
    /// A frame that does not end where it should.
    WrongEnd,
    /// The connection ends without a word.
    HangUp,
    /// The server's half ends, the client's stays.
    HalfClose,
    /// A delivery on a channel that nobody opened.
    UnknownChannel,
    /// The channel is closed, as after a consumer time-out.
    CloseChannel,
    /// The consumer is cancelled, as when its queue is deleted.
    CancelConsumer,
    /// The connection is closed in order, as by an operator.
    CloseConnection,
    /// No more answers and no more heartbeats.
    Silence,
    /// Deliveries 1, 2 and 3.
    Deliver,
    /// Messages are ready, and none is delivered: the consumer is forgotten.
    Forget,
    /// No answer to this method, ever, from the start.
    Ignore(Method),
    /// Not even a greeting.
    BlackHole,
}

/// The running script.
pub(crate) struct Broker {
    pub(crate) port: u16,
    /// Acknowledgements: tag, and whether for all up to it.
    pub(crate) acks: Arc<Mutex<Vec<(u64, bool)>>>,
    /// Seconds between heartbeats that the client has chosen.
    pub(crate) heartbeat: Arc<AtomicU16>,
    script: JoinHandle<()>,
}

impl Broker {
    pub(crate) async fn play(act: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acks = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&acks);
        let heartbeat = Arc::default();
        let chosen = Arc::clone(&heartbeat);
        let script = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            // The client may hang up at any point.
            let player = Player {
                stream,
                act,
                noted,
                chosen,
            };
            let _ = player.play().await;
        });
        Self {
            port,
            acks,
            heartbeat,
            script,
        }
    }

    /// Returns once the client is gone, or has said goodbye.
    pub(crate) async fn ended(self) {
        self.script.await.unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.port)
    }
}

struct Player {
    stream: TcpStream,
    act: Act,
    noted: Arc<Mutex<Vec<(u64, bool)>>>,
    chosen: Arc<AtomicU16>,
}

struct Frame {
    kind: u8,
    channel: u16,
    payload: Vec<u8>,
}

fn short(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

fn long(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

impl Player {
    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) -> io::Result<()> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&[kind], &channel.to_be_bytes()[..], &size, payload, &[END]].concat();
        self.stream.write_all(&frame).await
    }

    async fn send(&mut self, channel: u16, (class, method): Method, arguments: &[u8]) -> io::Result<()> {
        let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
        self.frame(METHOD, channel, &payload).await
    }

    async fn receive(&mut self) -> io::Result<Frame> {
        let kind = self.stream.read_u8().await?;
        let channel = self.stream.read_u16().await?;
        let size = self.stream.read_u32().await?;
        let mut payload = vec![0; usize::try_from(size).unwrap()];
        self.stream.read_exact(&mut payload).await?;
        self.stream.read_u8().await?;
        Ok(Frame {
            kind,
            channel,
            payload,
        })
    }

    async fn deliver(&mut self, channel: u16, tag: u64) -> io::Result<()> {
        let arguments = [
            short("ingest-worker-0"),
            tag.to_be_bytes().to_vec(),
            vec![0],
            short(""),
            short("q"),
        ];
        self.send(channel, (60, 60), &arguments.concat()).await?;
        let header = [&[0, 60, 0, 0][..], &2_u64.to_be_bytes(), &[0, 0]].concat();
        self.frame(HEADER, channel, &header).await?;
        self.frame(BODY, channel, b"{}").await
    }

    async fn play(mut self) -> io::Result<()> {
        if self.act == Act::BlackHole {
            std::future::pending::<()>().await;
        }
        let mut greeting = [0; 8];
        self.stream.read_exact(&mut greeting).await?;
        let start = [vec![0, 9, 0, 0, 0, 0], long("PLAIN"), long("en_US")].concat();
        self.send(0, (10, 10), &start).await?;
        self.receive().await?;
        // channel_max, frame_max, and RabbitMQ's default heartbeat
        self.send(0, (10, 30), &[0, 0, 0, 2, 0, 0, 0, 60]).await?;
        let tuned = self.receive().await?.payload;
        self.chosen
            .store(u16::from_be_bytes([tuned[10], tuned[11]]), Ordering::Relaxed);
        self.receive().await?;
        self.send(0, (10, 41), &short("")).await?;
        let mut consumers = 0;
        loop {
            let frame = self.receive().await?;
            if frame.kind == HEARTBEAT {
                self.frame(HEARTBEAT, 0, &[]).await?;
                continue;
            }
            let number = |at: usize| u16::from_be_bytes([frame.payload[at], frame.payload[at + 1]]);
            let method = (number(0), number(2));
            if self.act == Act::Ignore(method) {
                continue;
            }
            let channel = frame.channel;
            match method {
                CHANNEL_OPEN => self.send(channel, (20, 11), &long("")).await?,
                (50, 10) => {
                    let ready = u8::from(self.act == Act::Forget);
                    let answer = [short("q"), vec![0, 0, 0, ready], vec![0; 4]].concat();
                    self.send(channel, (50, 11), &answer).await?;
                }
                (60, 10) => self.send(channel, (60, 11), &[]).await?,
                CONSUME => {
                    let tag = format!("ingest-worker-{consumers}");
                    self.send(channel, (60, 21), &short(&tag)).await?;
                    consumers += 1;
                    if consumers == 1 {
                        self.act(channel).await?;
                    }
                }
                CANCEL => {
                    let tag = frame.payload[5..5 + usize::from(frame.payload[4])].to_vec();
                    let answer = short(&String::from_utf8(tag).unwrap());
                    self.send(channel, (60, 31), &answer).await?;
                }
                ACK => {
                    let tag = u64::from_be_bytes(frame.payload[4..12].try_into().unwrap());
                    self.noted.lock().unwrap().push((tag, frame.payload[12] == 1));
                }
                CHANNEL_CLOSE => self.send(channel, (20, 41), &[]).await?,
                (10, 50) => return self.send(0, (10, 51), &[]).await,
                // The client confirms what it was told.
                (20, 41) | (60, 31) => {}
                (10, 51) => return Ok(()),
                other => panic!("the script has no answer to {other:?}"),
            }
        }
    }

    async fn act(&mut self, channel: u16) -> io::Result<()> {
        // The client has its session by then.
        tokio::time::sleep(Duration::from_millis(100)).await;
        match self.act {
            Act::Ignore(_) | Act::BlackHole | Act::Forget => Ok(()),
            Act::Garbage => self.stream.write_all(&[0xff; 64]).await,
            Act::WrongEnd => {
                self.stream
                    .write_all(&[METHOD, 0, 0, 0, 0, 0, 4, 0, 10, 0, 50, 0])
                    .await
            }
            Act::HangUp => Err(io::ErrorKind::ConnectionAborted.into()),
            Act::HalfClose => self.stream.shutdown().await,
            Act::UnknownChannel => self.deliver(99, 1).await,
            Act::CloseChannel => {
                let arguments = [vec![1, 0x96], short("PRECONDITION_FAILED - timeout"), vec![0; 4]].concat();
                self.send(channel, CHANNEL_CLOSE, &arguments).await
            }
            Act::CancelConsumer => {
                let arguments = [short("ingest-worker-0"), vec![1]].concat();
                self.send(channel, CANCEL, &arguments).await
            }
            Act::CloseConnection => {
                let arguments = [vec![1, 0x40], short("CONNECTION_FORCED"), vec![0; 4]].concat();
                self.send(0, (10, 50), &arguments).await
            }
            Act::Silence => {
                tokio::time::sleep(Duration::from_secs(600)).await;
                Ok(())
            }
            Act::Deliver => {
                for tag in 1..=3 {
                    self.deliver(channel, tag).await?;
                }
                Ok(())
            }
        }
    }
}
