//! Answers as tables for a terminal.

use std::fmt::Display;

use anyhow::{Context, Result};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use e2e::api;
use e2e::truth::Measures;
use serde_json::Value;

const COLUMNS: [&str; 6] = [
    "requests",
    "errors",
    "input tokens",
    "output tokens",
    "total tokens",
    "cost, USD",
];

/// The first `limit` rows of an answer, and its totals.
pub(crate) fn ranking(title: &str, answer: &Value, key: &str, limit: usize) -> Result<Table> {
    let mut table = table(title);
    let data = answer["data"].as_array().context("an answer without data")?;
    for row in data.iter().take(limit) {
        let id = row[key]
            .as_str()
            .with_context(|| format!("a row without {key}"))?;
        add(&mut table, id, &api::measures(row)?);
    }
    if data.len() > limit {
        table.add_row([format!("… {} more", data.len() - limit)]);
    }
    add(&mut table, "all together", &api::measures(&answer["totals"])?);
    Ok(table)
}

/// The last `limit` buckets of an answer, and its totals.
pub(crate) fn days(title: &str, answer: &Value, limit: usize) -> Result<Table> {
    let mut table = table(title);
    let buckets = api::buckets(answer)?;
    let earlier = buckets.len().saturating_sub(limit);
    if earlier > 0 {
        table.add_row([format!("… {earlier} days before")]);
    }
    for (start, measures) in buckets.into_iter().skip(earlier) {
        add(
            &mut table,
            &format!("{}, {}", start.date(), start.weekday()),
            &measures,
        );
    }
    add(&mut table, "all together", &api::measures(&answer["totals"])?);
    Ok(table)
}

fn table(title: &str) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let header = [title].into_iter().chain(COLUMNS).map(Cell::new);
    table.set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn add(table: &mut Table, name: &str, measures: &Measures) {
    table.add_row([
        name.to_owned(),
        thousands(measures.requests),
        thousands(measures.errors),
        thousands(measures.input_tokens),
        thousands(measures.output_tokens),
        thousands(measures.total_tokens),
        measures.cost(),
    ]);
}

/// A whole number with its digits in groups of three.
pub(crate) fn thousands(number: impl Display) -> String {
    let text = number.to_string();
    let (sign, digits) = text
        .strip_prefix('-')
        .map_or(("", text.as_str()), |digits| ("-", digits));
    let mut grouped = sign.to_owned();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
