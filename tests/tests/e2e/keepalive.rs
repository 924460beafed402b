//! A peer that vanishes without a word is noticed by TCP's keepalives, on both ends of every connection to the
//! database. Nobody can make such a peer without a network of his own, so the kernel is asked what it would do.
//! The connection to the broker has heartbeats instead (`crates/ingest-worker/tests/sessions.rs`).

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::generator::{Generator, Shape};
use e2e::process::Service;
use time::OffsetDateTime;

use crate::platform::{Flavor, Platform, setting, system_admin};

const PATIENCE: Duration = Duration::from_secs(30);
/// The kernel's numbers of a state and of a timer.
const ESTABLISHED: &str = "01";
const KEEPALIVE: &str = "02";

/// One end of a connection, as the kernel lists it.
#[derive(Debug)]
struct End {
    local: String,
    remote: String,
    inode: String,
    /// What happens next, and when.
    timer: String,
    due: Duration,
}

impl End {
    fn read(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, ESTABLISHED, _, timer, _, _, _, inode, ..] = fields[..] else {
            return None;
        };
        let (timer, ticks) = timer.split_once(':')?;
        Some(Self {
            local: local.to_owned(),
            remote: remote.to_owned(),
            inode: inode.to_owned(),
            timer: timer.to_owned(),
            // A hundred in a second, for everybody who reads this file.
            due: Duration::from_millis(u64::from_str_radix(ticks, 16).ok()? * 10),
        })
    }

    fn remote_port(&self) -> Option<u16> {
        u16::from_str_radix(self.remote.rsplit_once(':')?.1, 16).ok()
    }

    /// Another timer passes: data is on its way, and keepalives go on after it.
    fn will_ask_soon(&self) -> bool {
        self.timer == KEEPALIVE && self.due <= Duration::from_secs(30)
    }
}

fn established() -> Result<Vec<End>> {
    let table = fs::read_to_string("/proc/net/tcp").context("/proc/net/tcp")?;
    Ok(table.lines().filter_map(End::read).collect())
}

/// The sockets that a process holds.
fn sockets(service: &Service) -> Result<HashSet<String>> {
    let folder = format!("/proc/{}/fd", service.process().number());
    let files = fs::read_dir(folder)?.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    Ok(files
        .filter_map(|file| {
            let inode = file.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect())
}

fn port_of(url: &str) -> Result<u16> {
    reqwest::Url::parse(url)?.port().context("a URL without a port")
}

#[tokio::test]
async fn a_dead_link_to_the_database_is_noticed_on_both_ends() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let owner = platform.owner_url()?;
    let with_maintenance = [
        ("MAINTENANCE_ENABLED", "true"),
        ("MAINTENANCE_DATABASE_URL", &*owner),
    ];
    let worker = platform.worker(&with_maintenance).await?;
    let api = platform.api(&[]).await?;
    // Every lane has its connection, and a question has one besides the probes'.
    let end = OffsetDateTime::now_utc();
    let shape = Shape {
        seed: 91,
        organizations: 10,
        start: end - time::Duration::minutes(50),
        end,
    };
    let events: Vec<_> = Generator::new(&shape).take(200).collect();
    let publisher = platform.publisher().await?;
    publisher.publish(events.iter().map(|event| &event.body)).await?;
    platform.wait_stored(200, 0).await?;
    let admin = system_admin(&api)?;
    admin.get("system/usage", &[("period", "last_7d")]).await?;

    let database = port_of(&owner)?;
    let broker = port_of(&setting("E2E_RABBITMQ_URL")?)?;
    let mut seen = HashSet::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ends = established()?;
        let held = sockets(&worker)?;
        let to = |port| move |end: &&End| end.remote_port() == Some(port);
        let of_worker: Vec<&End> = ends.iter().filter(|end| held.contains(&end.inode)).collect();
        let held = sockets(&api)?;
        let of_api = ends
            .iter()
            .filter(|end| held.contains(&end.inode))
            .filter(to(database));
        let of_api: Vec<&End> = of_api.collect();
        ensure!(
            of_worker.iter().copied().any(|end| to(broker)(&end)),
            "the worker has no connection to the broker here"
        );
        let of_worker: Vec<&End> = of_worker.into_iter().filter(to(database)).collect();
        // Two lanes and the report; a question and the probes.
        let enough = of_worker.len() >= 3 && of_api.len() >= 2;
        let mut silent = Vec::new();
        for client in of_worker.iter().chain(&of_api) {
            let server = ends
                .iter()
                .find(|end| (&end.local, &end.remote) == (&client.remote, &client.local));
            for (side, end) in [("client", Some(*client)), ("server", server)] {
                let name = (side, client.inode.clone());
                if end.is_some_and(End::will_ask_soon) {
                    seen.insert(name);
                } else if !seen.contains(&name) {
                    silent.push(format!("{side} of {}: {end:?}", client.local));
                }
            }
        }
        if enough && silent.is_empty() {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{} and {} connections; without keepalives: {silent:#?}",
            of_worker.len(),
            of_api.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
