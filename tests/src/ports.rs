//! Free TCP ports on the loopback interface.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

/// Below the range the kernel takes for outgoing connections (from 32768): a server that is down for a
/// moment must find its own port free when it comes back.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A port that was free a moment ago and that this process does not hand out twice.
pub fn free() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..COUNT {
        let mut step = NEXT.fetch_add(1, Ordering::Relaxed);
        if step == 0 {
            // Processes that pick at the same time begin at different places.
            step = u16::try_from(RandomState::new().hash_one(std::process::id()) % u64::from(COUNT))?;
            NEXT.store(step + 1, Ordering::Relaxed);
        }
        let port = FIRST + step % COUNT;
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
