//! One connection through the proxy: two directions that follow the rules, and orders that end them.

use std::future::pending;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

use super::{Direction, Order, Rules, Shared, Snap, Traffic, count, reset};

/// Bytes that are read at a time.
const CHUNK: usize = 16 * 1024;
/// Chunks that may be on their way in one direction: with them the proxy holds at most 1 MiB of it.
const IN_FLIGHT: usize = 64;

/// What one connection's two directions share.
#[derive(Default)]
struct Caught {
    /// A trap waits for the server's answer.
    answer: AtomicBool,
    /// A trap has silenced the connection.
    silent: AtomicBool,
}

/// Why a direction ended.
#[derive(PartialEq, Eq)]
enum Ended {
    InOrder,
    Caught,
}

enum Piece {
    Bytes(Vec<u8>),
    End,
}

type Pieces = mpsc::Sender<(Instant, Piece)>;

pub(super) async fn serve(
    mut client: TcpStream,
    shared: Arc<Shared>,
    mut orders: broadcast::Receiver<Order>,
) {
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.server)).await else {
        // Nobody listens there: this is what the client would have been told.
        reset(client);
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let caught = Caught::default();
    let order = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let (up, up_pieces) = mpsc::channel(IN_FLIGHT);
        let (down, down_pieces) = mpsc::channel(IN_FLIGHT);
        let upward = Way {
            shared: &shared,
            caught: &caught,
            is_up: true,
        };
        let downward = Way {
            shared: &shared,
            caught: &caught,
            is_up: false,
        };
        let to_server = upward.carry(client_reads, up, server_writes, up_pieces);
        let to_client = downward.carry(server_reads, down.clone(), client_writes, down_pieces);
        let both = async {
            tokio::pin!(to_server, to_client);
            let (mut up_open, mut down_open) = (true, true);
            while up_open || down_open {
                let ended = tokio::select! {
                    ended = &mut to_server, if up_open => { up_open = false; ended }
                    ended = &mut to_client, if down_open => { down_open = false; ended }
                };
                if ended == Ended::Caught {
                    return Order::Reset;
                }
            }
            Order::Close
        };
        tokio::pin!(both);
        loop {
            tokio::select! {
                end = &mut both => break end,
                order = orders.recv() => match order {
                    Ok(Order::Inject(bytes)) => {
                        let _ = down.send((Instant::now(), Piece::Bytes(bytes))).await;
                    }
                    Ok(order) => {
                        count(&shared.counters.cut, 1);
                        break order;
                    }
                    Err(_) => break Order::Close,
                },
            }
        }
    };
    match order {
        Order::Reset => {
            reset(client);
            reset(server);
        }
        Order::HalfOpen => {
            drop(server);
            // Any later order ends it.
            let _ = orders.recv().await;
        }
        Order::Close | Order::Inject(_) => {}
    }
}

/// One direction of one connection.
struct Way<'a> {
    shared: &'a Shared,
    caught: &'a Caught,
    is_up: bool,
}

impl Way<'_> {
    /// Until the end of the stream has been passed on, or the connection is to be reset.
    async fn carry(
        &self,
        reads: ReadHalf<'_>,
        pieces: Pieces,
        writes: WriteHalf<'_>,
        waiting: mpsc::Receiver<(Instant, Piece)>,
    ) -> Ended {
        let caught = async {
            match self.read(reads, pieces).await {
                Ended::Caught => Ended::Caught,
                // What was read must still be written.
                Ended::InOrder => pending().await,
            }
        };
        tokio::select! {
            ended = self.write(writes, waiting) => ended,
            ended = caught => ended,
        }
    }

    fn direction(&self, rules: &Rules) -> Direction {
        if self.is_up {
            rules.to_server
        } else {
            rules.to_client
        }
    }

    /// Waits while nothing passes, and returns the rules that then hold.
    async fn passage(&self, rules: &mut watch::Receiver<Rules>, holds_a_piece: bool) -> Direction {
        let mut waited = false;
        loop {
            let now = self.direction(&rules.borrow_and_update());
            let silent = self.caught.silent.load(Ordering::Relaxed);
            if now.traffic != Traffic::Hold && !silent {
                return now;
            }
            if holds_a_piece && !waited {
                count(&self.shared.counters.held, 1);
                waited = true;
            }
            if silent || rules.changed().await.is_err() {
                // Silent until an order ends it.
                pending::<()>().await;
            }
        }
    }

    async fn read(&self, mut reads: ReadHalf<'_>, pieces: Pieces) -> Ended {
        let mut rules = self.shared.rules.subscribe();
        let mut buffer = vec![0; CHUNK];
        loop {
            let direction = self.passage(&mut rules, false).await;
            let read = reads.read(&mut buffer).await.unwrap_or(0);
            let piece = match &buffer[..read] {
                [] => Piece::End,
                bytes => {
                    if self.is_caught(bytes) {
                        return Ended::Caught;
                    }
                    Piece::Bytes(bytes.to_vec())
                }
            };
            let is_end = matches!(piece, Piece::End);
            if pieces
                .send((Instant::now() + direction.delay, piece))
                .await
                .is_err()
                || is_end
            {
                return Ended::InOrder;
            }
        }
    }

    /// Whether a trap resets the connection because of these bytes.
    fn is_caught(&self, bytes: &[u8]) -> bool {
        let counters = &self.shared.counters;
        if !self.is_up {
            // The answer that a trap waits for.
            return self.caught.answer.load(Ordering::Relaxed);
        }
        let mut snap = None;
        self.shared.rules.send_if_modified(|rules| {
            if let Some(trap) = &mut rules.trap
                && trap.times > 0
                && bytes.windows(trap.request.len()).any(|part| part == trap.request)
            {
                trap.times -= 1;
                snap = Some(trap.snap);
            }
            false
        });
        if snap.is_some() {
            count(&counters.sprung, 1);
        }
        match snap {
            None => false,
            Some(Snap::BeforeRequest) => true,
            Some(Snap::BeforeAnswer) => {
                self.caught.answer.store(true, Ordering::Relaxed);
                false
            }
            Some(Snap::Silence) => {
                self.caught.silent.store(true, Ordering::Relaxed);
                false
            }
        }
    }

    async fn write(&self, mut writes: WriteHalf<'_>, mut waiting: mpsc::Receiver<(Instant, Piece)>) -> Ended {
        let mut rules = self.shared.rules.subscribe();
        let counters = &self.shared.counters;
        let arrived = if self.is_up {
            &counters.bytes_to_server
        } else {
            &counters.bytes_to_client
        };
        loop {
            let ending = async {
                // A direction that is to end does so without a further byte.
                let _ = rules
                    .wait_for(|rules| self.direction(rules).traffic == Traffic::End)
                    .await;
            };
            let (due, piece) = tokio::select! {
                piece = waiting.recv() => match piece {
                    Some(piece) => piece,
                    None => return Ended::InOrder,
                },
                () = ending => (Instant::now(), Piece::End),
            };
            tokio::time::sleep_until(due).await;
            // The silenced request itself still arrives: the server must be left in the middle of it.
            let direction = if self.is_up && self.caught.silent.load(Ordering::Relaxed) {
                Direction::default()
            } else {
                self.passage(&mut rules, true).await
            };
            let bytes = match piece {
                Piece::Bytes(bytes) if direction.traffic != Traffic::End => bytes,
                _ => {
                    let _ = writes.shutdown().await;
                    return Ended::InOrder;
                }
            };
            if direction.traffic == Traffic::Discard {
                count(&counters.bytes_discarded, bytes.len());
                continue;
            }
            if let Some(per_second) = direction.bytes_per_second {
                let share = bytes.len() as f64 / f64::from(per_second.max(1));
                tokio::time::sleep(Duration::from_secs_f64(share)).await;
            }
            if writes.write_all(&bytes).await.is_err() {
                return Ended::InOrder;
            }
            count(arrived, bytes.len());
        }
    }
}
