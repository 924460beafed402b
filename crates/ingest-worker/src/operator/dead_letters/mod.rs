//! Dead letters: looked at, replayed, exported.

mod by_organization;
mod export;
mod list;
mod replay;
mod selection;
mod show;

use analytics_core::event::{decode, decode_recomputing_total};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_util::sync::CancellationToken;

use self::selection::Selection;
use super::body::Body;
use super::owner::Owner;
use super::{Ended, OperatorError, moment};
use crate::config::OperatorConfig;

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List them, the newest first
    List {
        /// Which ones
        #[command(flatten)]
        selection: Selection,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..))]
        limit: i64,
        /// How many there are of each reason and field, instead of each
        #[arg(long, conflicts_with = "limit")]
        by_reason: bool,
        /// How many there are of each organization, model and reason, as far as the bodies can be read
        #[arg(long, conflicts_with_all = ["limit", "by_reason"])]
        by_organization: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one with its headers, its body, and what would become of it now
    Show {
        /// Its number
        id: i64,
        /// As JSON, as `export` writes it
        #[arg(long)]
        json: bool,
        /// The body alone, byte for byte
        #[arg(long, conflicts_with = "json")]
        body: bool,
    },
    /// Store those that are events by now; each counts once, however often it is replayed or delivered
    Replay {
        /// Which ones
        #[command(flatten)]
        which: Which,
        /// Say what would become of them, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Where total_tokens does not add up, store input_tokens + output_tokens instead
        #[arg(long)]
        recompute_total: bool,
    },
    /// Write them as NDJSON to standard output, no byte of a body lost; they stay where they are
    Export {
        /// Which ones
        #[command(flatten)]
        selection: Selection,
    },
}

/// Replaying all of them is said, not forgotten to be narrowed down.
#[derive(Debug, Args)]
pub struct Which {
    /// All of them
    #[arg(long, required_unless_present_any = ["reason", "since", "until", "id"], conflicts_with_all = ["reason", "since", "until", "id"])]
    all: bool,
    #[command(flatten)]
    selection: Selection,
}

/// Does it.
///
/// # Errors
/// If it could not be done.
pub async fn run(
    command: &Command,
    config: &OperatorConfig,
    stop: CancellationToken,
) -> Result<Ended, OperatorError> {
    let mut owner = Owner::connect(config.maintenance.database.clone(), stop.clone()).await?;
    match command {
        Command::List {
            selection,
            by_reason: true,
            json,
            ..
        } => list::by_reason(&mut owner, selection, *json).await,
        Command::List {
            selection,
            by_organization: true,
            json,
            ..
        } => by_organization::by_organization(&mut owner, selection, *json).await,
        Command::List {
            selection,
            limit,
            json,
            ..
        } => list::list(&mut owner, selection, *limit, *json).await,
        Command::Show { id, json, body } => show::show(&mut owner, *id, *json, *body).await,
        Command::Replay {
            which,
            dry_run,
            recompute_total,
        } => {
            let how = replay::How {
                dry_run: *dry_run,
                read: if *recompute_total {
                    decode_recomputing_total
                } else {
                    decode
                },
            };
            replay::replay(owner, &which.selection, how, config, stop).await
        }
        Command::Export { selection } => export::export(&mut owner, selection).await,
    }
}

/// A letter as it stands in the table.
struct Letter {
    id: i64,
    received_at: OffsetDateTime,
    queue: String,
    reason: String,
    field: Option<String>,
    detail: String,
    headers: Value,
    body: Vec<u8>,
}

impl Letter {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            received_at: row.try_get("received_at")?,
            queue: row.try_get("queue")?,
            reason: row.try_get("reason")?,
            field: row.try_get("field")?,
            detail: row.try_get("detail")?,
            headers: row.try_get("headers")?,
            body: row.try_get("body")?,
        })
    }

    /// As a line of NDJSON.
    fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            id: i64,
            received_at: String,
            queue: &'a str,
            reason: &'a str,
            field: Option<&'a str>,
            detail: &'a str,
            headers: &'a Value,
            #[serde(flatten)]
            body: Body<'a>,
        }
        let line = Line {
            id: self.id,
            received_at: moment::text(self.received_at),
            queue: &self.queue,
            reason: &self.reason,
            field: self.field.as_deref(),
            detail: &self.detail,
            headers: &self.headers,
            body: Body::from(&*self.body),
        };
        // Texts, numbers and JSON: none of them can fail to be written.
        serde_json::to_string(&line).unwrap_or_default()
    }
}
