//! `import`: events from files, one a line, through the worker's own decoder and sink.
//!
//! Every event is recognised by its key, so an import may be cut short anywhere and run again, and may
//! bring in what has come by the queue already. Lines are read ahead and written in order of time: late
//! events then go into one old partition or chunk after the other, and not into all of them in each
//! transaction.

mod lines;
mod progress;
mod rejected;
mod window;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use self::lines::Part;
use self::progress::Progress;
use self::rejected::{Reject, Rejected};
use self::window::Window;
use super::output::Output;
use super::writer::Writer;
use super::{Ended, OperatorError, owner};
use crate::config::OperatorConfig;

/// How long lines wait for more to be written with: a pipe may have pauses.
const PATIENCE: Duration = Duration::from_secs(1);

/// What to import.
#[derive(Debug, Args)]
pub struct Arguments {
    /// NDJSON, plain or compressed by gzip or zstd; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where rejected lines go, with their numbers and reasons; replaced if it exists [default:
    /// import-rejected-TIME.ndjson]
    #[arg(long, value_name = "FILE")]
    rejected: Option<PathBuf>,
}

/// What an import has done so far.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    stored: u64,
    duplicates: u64,
    rejected: u64,
}

/// Imports.
///
/// # Errors
/// If a file cannot be read or written, or it was asked to stop; what was done by then is done.
pub async fn run(
    arguments: &Arguments,
    config: &OperatorConfig,
    stop: CancellationToken,
) -> Result<Ended, OperatorError> {
    let (sources, bytes) = lines::examine(&arguments.files)?;
    let rejected = Rejected::create(arguments.rejected.clone())?;
    owner::check_schema(config.writer.clone(), &stop).await?;
    let parts = lines::read(sources)?;
    let mut import = Import {
        writer: Writer::new(config, stop.clone()),
        batch_size: config.batch_size,
        rejected,
        tally: Tally::default(),
        progress: Progress::new(bytes),
    };
    let outcome = import.all(parts, &stop).await;
    // Said as well when it was cut short: that much is done.
    let Import {
        tally,
        rejected,
        progress,
        ..
    } = import;
    progress.finish();
    let mut output = Output::standard();
    output.line(&format!("stored: {}", tally.stored))?;
    output.line(&format!("duplicate: {}", tally.duplicates))?;
    output.line(&format!("rejected: {}", tally.rejected))?;
    if let Some(file) = rejected.finish()? {
        output.line(&format!("rejected lines are in {file}"))?;
    }
    outcome?;
    Ok(match tally.rejected {
        0 => Ended::Done,
        _ => Ended::Left,
    })
}

struct Import {
    writer: Writer,
    batch_size: usize,
    rejected: Rejected,
    tally: Tally,
    progress: Progress,
}

impl Import {
    async fn all(
        &mut self,
        mut parts: Receiver<Result<Part, OperatorError>>,
        stop: &CancellationToken,
    ) -> Result<(), OperatorError> {
        loop {
            let mut window = Window::default();
            let filled = stop
                .run_until_cancelled(fill(&mut window, &mut parts))
                .await
                .ok_or(OperatorError::Stopped)?;
            self.write(window).await?;
            if filled? == Source::Exhausted {
                return Ok(());
            }
        }
    }

    async fn write(&mut self, window: Window) -> Result<(), OperatorError> {
        let position = window.position();
        let sorted = window.sorted(self.batch_size);
        let mut rejects = sorted.rejects;
        for piece in sorted.pieces {
            let settled = self.writer.write(piece).await?;
            self.tally.stored += settled.stored;
            self.tally.duplicates += settled.duplicates;
            rejects.extend(settled.refused.into_iter().filter_map(|refused| {
                let place = sorted.places.get(usize::try_from(refused.number).ok()?)?;
                Some(Reject {
                    place: place.clone(),
                    malformed: refused.malformed,
                    body: Some(refused.body),
                })
            }));
            self.progress.show(None, &self.tally);
        }
        self.tally.rejected += u64::try_from(rejects.len()).unwrap_or(0);
        self.rejected.write(rejects)?;
        self.progress.show(Some(position), &self.tally);
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Source {
    HasMore,
    Exhausted,
}

/// Takes lines until the window is full, nothing more comes for the moment, or at all.
async fn fill(
    window: &mut Window,
    parts: &mut Receiver<Result<Part, OperatorError>>,
) -> Result<Source, OperatorError> {
    while !window.is_full() {
        let next = if window.is_empty() {
            parts.recv().await
        } else {
            match tokio::time::timeout(PATIENCE, parts.recv()).await {
                Ok(next) => next,
                Err(_) => return Ok(Source::HasMore),
            }
        };
        match next {
            None => return Ok(Source::Exhausted),
            Some(part) => window.add(part?),
        }
    }
    Ok(Source::HasMore)
}
