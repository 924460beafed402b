//! The benchmark's result: a table for people, JSON for what compares runs.

use std::fs;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::latency::Latency;

const MEMORY_TARGET_MIB: f64 = 120.0 * 1e6 / 1_048_576.0;
const LATENCY_TARGET_MS: f64 = 1_000.0;

/// One round of the worker, and the bare consumer's rates right before and right after it.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) bare_before: f64,
    pub(crate) bare_after: f64,
    pub(crate) bare_broker_cpu_us: f64,
    pub(crate) worker_per_second: f64,
    pub(crate) worker_peak_mib: f64,
    pub(crate) worker_cpu_us: f64,
    pub(crate) broker_cpu_us: f64,
    pub(crate) postgres_cpu_us: f64,
}

impl Round {
    pub(crate) fn ratio(&self) -> f64 {
        self.worker_per_second / self.bare_per_second()
    }

    fn bare_per_second(&self) -> f64 {
        f64::midpoint(self.bare_before, self.bare_after)
    }
}

/// All of one flavor.
#[derive(Debug, Serialize)]
pub(crate) struct FlavorResult {
    pub(crate) flavor: &'static str,
    pub(crate) rounds: Vec<Round>,
    pub(crate) latency: Latency,
}

impl FlavorResult {
    fn ratio_target(&self) -> f64 {
        if self.flavor == "timescaledb" { 0.6 } else { 0.45 }
    }

    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        let mut values: Vec<f64> = self.rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

#[derive(Serialize)]
struct Report<'a> {
    events: usize,
    cores: usize,
    flavors: &'a [FlavorResult],
    targets_met: bool,
}

/// Prints and writes the results. The exit code says whether every target was met.
pub(crate) fn write(events: usize, results: &[FlavorResult]) -> Result<ExitCode> {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(
        ["median of rounds".to_owned(), "target".to_owned()]
            .into_iter()
            .chain(results.iter().map(|result| result.flavor.to_owned())),
    );
    let mut met = true;
    let mut row = |what: &str, target: &str, cell: &dyn Fn(&FlavorResult) -> (String, bool)| {
        let mut cells = vec![what.to_owned(), target.to_owned()];
        for result in results {
            let (text, good) = cell(result);
            met &= good;
            cells.push(if good { text } else { format!("MISSED {text}") });
        }
        table.add_row(cells);
    };
    row("bare consumer, events/s", "", &|r| {
        (format!("{:.0}", r.median(Round::bare_per_second)), true)
    });
    row("ingest-worker, events/s", "", &|r| {
        (format!("{:.0}", r.median(|x| x.worker_per_second)), true)
    });
    row("ratio", "0.60 / 0.45", &|r| {
        let ratio = r.median(Round::ratio);
        (format!("{ratio:.2}"), ratio >= r.ratio_target())
    });
    row("worker, peak memory, MiB", "< 114 (120 MB)", &|r| {
        let peak = r.rounds.iter().map(|x| x.worker_peak_mib).fold(0.0, f64::max);
        (format!("{peak:.0}"), peak < MEMORY_TARGET_MIB)
    });
    row("CPU per event, worker, µs", "", &|r| {
        (format!("{:.1}", r.median(|x| x.worker_cpu_us)), true)
    });
    row("CPU per event, broker, µs", "", &|r| {
        (format!("{:.1}", r.median(|x| x.broker_cpu_us)), true)
    });
    row("CPU per event, broker under the bare consumer, µs", "", &|r| {
        (format!("{:.1}", r.median(|x| x.bare_broker_cpu_us)), true)
    });
    row("CPU per event, PostgreSQL, µs", "", &|r| {
        (format!("{:.1}", r.median(|x| x.postgres_cpu_us)), true)
    });
    row("publish to answer at 1,000/s, p50, ms", "", &|r| {
        (format!("{:.0}", r.latency.p50_ms), true)
    });
    row("publish to answer at 1,000/s, p99, ms", "< 1000", &|r| {
        (
            format!("{:.0}", r.latency.p99_ms),
            r.latency.p99_ms < LATENCY_TARGET_MS,
        )
    });
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(std::io::stdout(), "{table}")?;

    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let report = Report {
        events,
        cores,
        flavors: results,
        targets_met: met,
    };
    let executable = std::env::current_exe()?;
    let target = executable
        .ancestors()
        .nth(2)
        .context("the executable lies in a target folder")?;
    let file = target.join("bench.json");
    fs::write(&file, serde_json::to_vec_pretty(&report)?)?;
    writeln!(std::io::stdout(), "written to {}", file.display())?;
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
