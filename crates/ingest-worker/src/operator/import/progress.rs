//! How far an import is: a bar on a terminal, lines in the log without one.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::Tally;

/// Between two lines in the log.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shown on standard error.
pub(super) struct Progress {
    bar: ProgressBar,
    total: Option<u64>,
    position: u64,
    last_line: Instant,
}

impl Progress {
    /// Of so many bytes, if that is known.
    pub(super) fn new(total: Option<u64>) -> Self {
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{wide_bar} {percent:>3} %  {msg}  {eta} left",
            ),
            None => (ProgressBar::new_spinner(), "{spinner} {bytes} read  {msg}"),
        };
        // The templates are literals of this file.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self {
            bar,
            total,
            position: 0,
            last_line: Instant::now(),
        }
    }

    /// Shows what is done; `position`: how many bytes of the files that is, if it is news.
    pub(super) fn show(&mut self, position: Option<u64>, tally: &Tally) {
        let Tally {
            stored,
            duplicates,
            rejected,
        } = *tally;
        self.position = position.unwrap_or(self.position);
        if !self.bar.is_hidden() {
            self.bar.set_position(self.position);
            self.bar.set_message(format!(
                "{stored} stored, {duplicates} duplicate, {rejected} rejected"
            ));
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let bytes = self.position;
            tracing::info!(stored, duplicates, rejected, bytes, of = self.total, "importing");
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
