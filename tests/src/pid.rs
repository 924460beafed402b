//! A running process, known by more than its number.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process that can't be confused with a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pid: i32,
    /// Clock ticks since boot, from the kernel: with the number it names a process for good.
    started: u64,
}

/// What `/proc/<pid>/stat` says that we need.
struct Stat {
    state: char,
    parent: i32,
    /// Its own, and that of its children which have ended.
    cpu_ticks: u64,
    started: u64,
}

/// Clock ticks per second of `/proc`: a constant of the kernel's interface on every Linux that Rust knows.
const TICKS_PER_SECOND: u64 = 100;

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may hold anything, spaces and parentheses too.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |i: usize| fields.get(i)?.parse::<u64>().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            cpu_ticks: (11..=14).map(number).sum::<Option<u64>>()?,
            started: number(19)?,
        })
    }
}

impl ProcessId {
    /// The process of this number, if one runs.
    pub fn find(pid: i32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        (!matches!(stat.state, 'Z' | 'X')).then_some(Self {
            pid,
            started: stat.started,
        })
    }

    /// A child of this number that nobody has waited for. It may have ended.
    pub fn of_child(pid: i32) -> Option<Self> {
        let started = Stat::read(pid)?.started;
        Some(Self { pid, started })
    }

    /// This process.
    pub fn current() -> Option<Self> {
        Self::find(Pid::this().as_raw())
    }

    /// Its number.
    pub fn number(self) -> i32 {
        self.pid
    }

    /// Whether it still runs. A zombie does not.
    pub fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    /// Sends a signal; false when the process is gone or not ours.
    pub fn signal(self, signal: Signal) -> bool {
        self.is_alive() && kill(Pid::from_raw(self.pid), signal).is_ok()
    }

    /// Waits until it is gone; false when it still runs after `patience`.
    pub async fn wait_gone(self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// This process and everything below it.
    pub fn tree(self) -> Vec<Self> {
        if !self.is_alive() {
            return Vec::new();
        }
        let all: Vec<(Self, i32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| {
                let stat = Stat::read(pid)?;
                Some((
                    Self {
                        pid,
                        started: stat.started,
                    },
                    stat.parent,
                ))
            })
            .collect();
        let mut tree = vec![self];
        let mut next = 0;
        while let Some(parent) = tree.get(next).map(|p| p.pid) {
            tree.extend(all.iter().filter(|(_, p)| *p == parent).map(|(child, _)| *child));
            next += 1;
        }
        tree
    }

    /// CPU time that it and everything below it has used so far.
    pub fn tree_cpu(self) -> Duration {
        let ticks: u64 = self
            .tree()
            .iter()
            .filter_map(|p| Stat::read(p.pid))
            .map(|s| s.cpu_ticks)
            .sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }

    /// Resident memory now.
    pub fn rss_bytes(self) -> Option<u64> {
        self.status_kib("VmRSS:").map(|kib| kib * 1024)
    }

    /// The most memory it has had resident since it began.
    pub fn peak_rss_bytes(self) -> Option<u64> {
        self.status_kib("VmHWM:").map(|kib| kib * 1024)
    }

    fn status_kib(self, field: &str) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix(field))?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    }
}
