//! A TCP proxy that does to connections what networks do: delay, throttle, silence, loss, a direction that
//! ends, resets, garbage, and answers that never arrive.
//!
//! [`Rules`] hold for all connections, the open ones too, until others are set; an order ([`Proxy::reset`]
//! and the like) reaches every connection that is open at that moment. Everything is counted, so that a
//! test can tell that its fault has happened.

mod connection;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

/// What becomes of the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traffic {
    /// They arrive.
    #[default]
    Pass,
    /// They wait: nothing is read or written, and nobody is told. A black hole, in both directions.
    Hold,
    /// They are read and thrown away. What comes later makes no sense without them: reset the connections
    /// before letting anything pass again.
    Discard,
    /// The receiver is told that no more will come, as by a half-closed connection.
    End,
}

/// One direction's rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direction {
    /// What becomes of the bytes.
    pub traffic: Traffic,
    /// How long each byte takes.
    pub delay: Duration,
    /// How many pass in a second.
    pub bytes_per_second: Option<u32>,
}

/// What a [`Trap`] does when it springs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snap {
    /// Resets the connection; the server never sees the request.
    BeforeRequest,
    /// The server gets the request and answers; the answer is thrown away and the connection reset.
    BeforeAnswer,
    /// The server gets the request; from then on nothing passes on this connection, in either direction.
    Silence,
}

/// Waits for a request and springs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Bytes of the request.
    pub request: &'static [u8],
    /// What then.
    pub snap: Snap,
    /// How often, at most; each time another connection is caught.
    pub times: u64,
}

/// What holds for all connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// From the client.
    pub to_server: Direction,
    /// From the server.
    pub to_client: Direction,
    /// New connections are reset at once.
    pub refuse: bool,
    /// Springs on a request.
    pub trap: Option<Trap>,
}

impl Rules {
    /// A black hole: connections are accepted and stay open, and nothing passes.
    pub fn black_hole() -> Self {
        Self::both(Direction {
            traffic: Traffic::Hold,
            ..Direction::default()
        })
    }

    /// A far server: every round trip takes so much longer.
    pub fn round_trip(time: Duration) -> Self {
        Self::both(Direction {
            delay: time / 2,
            ..Direction::default()
        })
    }

    /// A thin line.
    pub fn throttle(bytes_per_second: u32) -> Self {
        Self::both(Direction {
            bytes_per_second: Some(bytes_per_second),
            ..Direction::default()
        })
    }

    /// The same in both directions.
    pub fn both(direction: Direction) -> Self {
        Self {
            to_server: direction,
            to_client: direction,
            ..Self::default()
        }
    }

    /// Connections that end in one direction: the server says no more, and still listens.
    pub fn end_to_clients() -> Self {
        let to_client = Direction {
            traffic: Traffic::End,
            ..Direction::default()
        };
        Self {
            to_client,
            ..Self::default()
        }
    }

    /// Catches requests with these bytes.
    pub fn trap(request: &'static [u8], snap: Snap, times: u64) -> Self {
        Self {
            trap: Some(Trap { request, snap, times }),
            ..Self::default()
        }
    }
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that clients made.
    pub accepted: u64,
    /// Connections that were cut by a rule or an order: refused, reset, closed or left half open.
    pub cut: u64,
    /// Bytes that arrived at the server.
    pub bytes_to_server: u64,
    /// Bytes that arrived at clients.
    pub bytes_to_client: u64,
    /// Bytes that were thrown away.
    pub bytes_discarded: u64,
    /// Pieces that had to wait because of [`Traffic::Hold`].
    pub held: u64,
    /// How often a trap has sprung.
    pub sprung: u64,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    cut: AtomicU64,
    bytes_to_server: AtomicU64,
    bytes_to_client: AtomicU64,
    bytes_discarded: AtomicU64,
    held: AtomicU64,
    sprung: AtomicU64,
}

fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

#[derive(Clone, Debug)]
enum Order {
    Reset,
    Close,
    HalfOpen,
    Inject(Vec<u8>),
}

struct Shared {
    server: u16,
    rules: watch::Sender<Rules>,
    orders: broadcast::Sender<Order>,
    counters: Counters,
}

/// A running proxy in front of a server on 127.0.0.1. Dropping it closes its connections.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        let _ = self.shared.orders.send(Order::Close);
    }
}

impl Proxy {
    /// Starts one in front of the server on this port; the server may come and go.
    pub async fn start(server: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("opening a port for a proxy")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            server,
            rules: watch::Sender::default(),
            orders: broadcast::Sender::new(64),
            counters: Counters::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            port,
            shared,
            accepting,
        })
    }

    /// Where clients connect, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same URL, with the proxy's port instead of the server's.
    pub fn url(&self, url: &str) -> Result<String> {
        let mut url = reqwest::Url::parse(url)?;
        url.set_port(Some(self.port))
            .ok()
            .context("a URL without a port")?;
        Ok(url.to_string())
    }

    /// What holds from now on.
    pub fn set(&self, rules: Rules) {
        self.shared.rules.send_replace(rules);
    }

    /// Everything passes again. Connections that were cut stay cut.
    pub fn heal(&self) {
        self.set(Rules::default());
    }

    /// Resets every connection, towards both sides.
    pub fn reset(&self) {
        self.order(Order::Reset);
    }

    /// Closes every connection in order, towards both sides.
    pub fn close(&self) {
        self.order(Order::Close);
    }

    /// Leaves clients with connections whose other end is gone, as after a server's power failure: the
    /// server's side is closed, the clients are told nothing. Until [`Self::reset`] or [`Self::close`].
    pub fn half_open(&self) {
        self.order(Order::HalfOpen);
    }

    /// Puts bytes of one's own between those of the server, on every connection.
    pub fn inject_to_clients(&self, bytes: &[u8]) {
        self.order(Order::Inject(bytes.to_vec()));
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            accepted: read(&counters.accepted),
            cut: read(&counters.cut),
            bytes_to_server: read(&counters.bytes_to_server),
            bytes_to_client: read(&counters.bytes_to_client),
            bytes_discarded: read(&counters.bytes_discarded),
            held: read(&counters.held),
            sprung: read(&counters.sprung),
        }
    }

    fn order(&self, order: Order) {
        // Without a connection there is nobody to hear it.
        let _ = self.shared.orders.send(order);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        count(&shared.counters.accepted, 1);
        // From here on it hears orders.
        let orders = shared.orders.subscribe();
        if shared.rules.borrow().refuse {
            count(&shared.counters.cut, 1);
            reset(client);
        } else {
            tokio::spawn(connection::serve(client, Arc::clone(&shared), orders));
        }
    }
}

/// Dropped with pending bytes given up, a socket sends RST instead of FIN.
fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
    drop(stream);
}

#[cfg(test)]
mod tests;
