//! Free TCP ports on the loopback interface.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};

/// Below the range the kernel takes for outgoing connections (from 32768): a server that is down for a
/// moment must find its own port free when it comes back.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A port that was free a moment ago and that this process does not hand out twice.
pub fn free() -> Result<u16> {
    // Processes that pick at the same time begin at different places.
    static START: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    for _ in 0..COUNT {
        let place = START.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % u64::from(COUNT);
        let port = FIRST + u16::try_from(place)?;
        if is_free(port) {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}

/// Whether a server could listen on this port now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
