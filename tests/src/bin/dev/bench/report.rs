//! The benchmark's result: a table for people, JSON for what compares runs.

use std::fs;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use e2e::servers::NICENESS_ASIDE;
use serde::Serialize;

use super::latency::Latency;
use super::median;
use super::questions::{BASE, LIVE_FACTOR, Question, Questions};

const MEMORY_TARGET_MIB: f64 = 120.0 * 1e6 / 1_048_576.0;
const LATENCY_TARGET_MS: f64 = 1_000.0;

type OfRound = fn(&Round) -> f64;
const CPU_PER_EVENT: [(&str, OfRound); 4] = [
    ("worker", |round| round.worker_cpu_us),
    ("broker", |round| round.broker_cpu_us),
    ("broker under the bare consumer", |round| round.bare_broker_cpu_us),
    ("PostgreSQL", |round| round.postgres_cpu_us),
];

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

/// All of one flavor that was asked for.
#[derive(Debug, Serialize)]
pub(crate) struct FlavorResult {
    pub(crate) flavor: &'static str,
    pub(crate) ingest: Option<Ingest>,
    pub(crate) questions: Questions,
}

/// Of one flavor, how events go in.
#[derive(Debug, Serialize)]
pub(crate) struct Ingest {
    pub(crate) rounds: Vec<Round>,
    pub(crate) latency: Latency,
}

impl Ingest {
    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(&self.rounds, of)
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
    let mut met = write_ingest(results)?;
    for result in results {
        met &= write_questions(result)?;
    }
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

/// Prints how events go in; tells whether every target was met.
fn write_ingest(results: &[FlavorResult]) -> Result<bool> {
    let measured: Vec<(&str, &Ingest)> = results
        .iter()
        .filter_map(|result| Some((result.flavor, result.ingest.as_ref()?)))
        .collect();
    if measured.is_empty() {
        return Ok(true);
    }
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(
        ["median of rounds", "target"]
            .into_iter()
            .chain(measured.iter().map(|(flavor, _)| *flavor)),
    );
    let mut met = true;
    let mut row = |what: &str, target: &str, cell: &dyn Fn(&str, &Ingest) -> (String, bool)| {
        let mut cells = vec![what.to_owned(), target.to_owned()];
        for (flavor, ingest) in &measured {
            let (text, good) = cell(flavor, ingest);
            met &= good;
            cells.push(if good { text } else { format!("MISSED {text}") });
        }
        table.add_row(cells);
    };
    row("bare consumer, events/s", "", &|_, r| {
        (format!("{:.0}", r.median(Round::bare_per_second)), true)
    });
    row("ingest-worker, events/s", "", &|_, r| {
        (format!("{:.0}", r.median(|x| x.worker_per_second)), true)
    });
    row("ratio", "0.60 / 0.45", &|flavor, r| {
        let target = if flavor == "timescaledb" { 0.6 } else { 0.45 };
        let ratio = r.median(Round::ratio);
        (format!("{ratio:.2}"), ratio >= target)
    });
    row("worker, peak memory, MiB", "< 114 (120 MB)", &|_, r| {
        let peak = r.rounds.iter().map(|x| x.worker_peak_mib).fold(0.0, f64::max);
        (format!("{peak:.0}"), peak < MEMORY_TARGET_MIB)
    });
    for (what, of) in CPU_PER_EVENT {
        row(&format!("CPU per event, {what}, µs"), "", &|_, r| {
            (format!("{:.1}", r.median(of)), true)
        });
    }
    row("publish to answer at 1,000/s, p50, ms", "", &|_, r| {
        (format!("{:.0}", r.latency.p50_ms), true)
    });
    row("publish to answer at 1,000/s, p99, ms", "< 1000", &|_, r| {
        let p99 = r.latency.p99_ms;
        (format!("{p99:.0}"), p99 < LATENCY_TARGET_MS)
    });
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(std::io::stdout(), "{table}")?;
    Ok(met)
}

/// Prints what the questions cost in one flavor; tells whether all are within their targets.
fn write_questions(result: &FlavorResult) -> Result<bool> {
    if result.questions.asked.is_empty() {
        return Ok(true);
    }
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        format!("{}, ms", result.flavor),
        "target p99".to_owned(),
        "idle p50".to_owned(),
        "p99".to_owned(),
        "live p50".to_owned(),
        "p99".to_owned(),
        "idle again p50".to_owned(),
        "p99".to_owned(),
        format!("live / idle ({LIVE_FACTOR})"),
        "of counting".to_owned(),
        "rounds".to_owned(),
        "idle p50 / B".to_owned(),
    ]);
    let base = result
        .questions
        .asked
        .iter()
        .find(|question| question.name == BASE);
    let base = base.map_or(f64::NAN, |question| question.idle.p50_ms);
    for question in &result.questions.asked {
        let missed = if question.is_good() { "" } else { "MISSED " };
        let mut row = vec![
            format!("{missed}{}", question.name),
            format!("{:.0}", question.target_ms),
        ];
        for spread in [question.idle, question.live, question.idle_again] {
            row.push(format!("{:.1}", spread.p50_ms));
            row.push(format!("{:.1}", spread.p99_ms));
        }
        row.push(format!("{:.2}", question.live_factor));
        row.push(format!("{:.2}", question.counting_factor));
        row.push(question.rounds.to_string());
        row.push(format!("{:.1}", question.idle.p50_ms / base));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let questions = &result.questions;
    writeln!(
        std::io::stdout(),
        "live: {}; one in a hundred is late; answers are {:.1} s old at p99; they keep {:.2} cores busy when nobody \
         asks; their broker and publisher run at nice {NICENESS_ASIDE}; B is {BASE}\n{table}",
        questions.arrived,
        questions.age_p99_seconds,
        questions.cores_busy_live
    )?;
    Ok(questions.arrived.is_enough() && questions.asked.iter().all(Question::is_good))
}
