//! What a reconciliation says.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::Arguments;
use super::compare::{Difference, RepeatedIds, Sums};
use crate::operator::output::{Output, table};
use crate::operator::{Ended, OperatorError, moment};

/// What was found.
pub(super) struct Report {
    from: OffsetDateTime,
    to: OffsetDateTime,
    kept_from: OffsetDateTime,
    repair: bool,
    json: bool,
    limit: usize,
    /// The first of them.
    shown: Vec<Difference>,
    found: usize,
    /// Differences that are still there after the repair.
    left: usize,
    pub(super) mended_rows: u64,
    pub(super) ids: RepeatedIds,
}

impl Report {
    pub(super) fn new(
        arguments: &Arguments,
        from: OffsetDateTime,
        to: OffsetDateTime,
        kept_from: OffsetDateTime,
    ) -> Self {
        Self {
            from,
            to,
            kept_from,
            repair: arguments.repair,
            json: arguments.json,
            limit: arguments.limit,
            shown: Vec::new(),
            found: 0,
            left: 0,
            mended_rows: 0,
            ids: RepeatedIds::default(),
        }
    }

    /// Adds what was found on a day, and how many are left of it after the repair.
    pub(super) fn add(&mut self, found: Vec<Difference>, left: usize) {
        self.found += found.len();
        self.left += left;
        let room = self.limit.saturating_sub(self.shown.len());
        self.shown.extend(found.into_iter().take(room));
    }

    pub(super) fn ended(&self) -> Ended {
        let differs = if self.repair { self.left } else { self.found };
        if differs == 0 && self.ids.count == 0 {
            Ended::Done
        } else {
            Ended::Left
        }
    }

    pub(super) fn say(&self) -> Result<(), OperatorError> {
        let mut output = Output::standard();
        if self.json {
            return output.line(&self.to_json().to_string());
        }
        if self.from < self.kept_from {
            output.line(&format!(
                "not compared: {} until {}, as raw events are kept from then on",
                self.from.date(),
                self.kept_from.date()
            ))?;
        }
        if !self.shown.is_empty() {
            output.line(&self.table())?;
        }
        if self.found > self.shown.len() {
            output.line(&format!("and {} more", self.found - self.shown.len()))?;
        }
        output.line(&format!("differences: {}", self.found))?;
        if self.repair {
            output.line(&format!("rows mended: {}", self.mended_rows))?;
            output.line(&format!("differences left: {}", self.left))?;
        }
        if !self.ids.rows.is_empty() {
            let mut table = table(["event id", "organization", "time"]);
            for (event_id, org_id, time) in &self.ids.rows {
                table.add_row([event_id.to_string(), org_id.to_string(), moment::text(*time)]);
            }
            output.line(&table.to_string())?;
        }
        output.line(&format!(
            "event ids with two times or organizations: {}",
            self.ids.count
        ))
    }

    fn table(&self) -> String {
        let mut table = table([
            "rollup",
            "bucket",
            "organization",
            "rows missing, surplus, other",
            "requests raw / rollup",
            "tokens raw / rollup",
            "cost raw / rollup",
        ]);
        for difference in &self.shown {
            let Difference { raw, kept, .. } = difference;
            table.add_row([
                difference.relation.name().to_owned(),
                moment::text(difference.bucket),
                difference
                    .org_id
                    .map_or_else(|| "all".to_owned(), |id| id.to_string()),
                format!(
                    "{}, {}, {}",
                    difference.missing, difference.surplus, difference.other
                ),
                format!("{} / {}", raw.requests, kept.requests),
                format!("{} / {}", raw.tokens, kept.tokens),
                format!("{} / {}", raw.cost, kept.cost),
            ]);
        }
        table.to_string()
    }

    fn to_json(&self) -> Value {
        let sums = |sums: &Sums| json!({"requests": sums.requests, "tokens": sums.tokens, "cost": sums.cost});
        let differences: Vec<Value> = self
            .shown
            .iter()
            .map(|difference| {
                json!({
                    "rollup": difference.relation.name(),
                    "bucket": moment::text(difference.bucket),
                    "org_id": difference.org_id,
                    "rows": {
                        "missing": difference.missing,
                        "surplus": difference.surplus,
                        "other": difference.other,
                    },
                    "raw": sums(&difference.raw),
                    "kept": sums(&difference.kept),
                })
            })
            .collect();
        let ids: Vec<Value> = self
            .ids
            .rows
            .iter()
            .map(|(event_id, org_id, time)| {
                json!({"event_id": event_id, "org_id": org_id, "time": moment::text(*time)})
            })
            .collect();
        let mut report = json!({
            "from": moment::text(self.from),
            "to": moment::text(self.to),
            "raw_kept_from": moment::text(self.kept_from),
            "differences": self.found,
            "shown": differences,
            "repeated_event_ids": self.ids.count,
            "repeated_events": ids,
        });
        if self.repair {
            report["rows_mended"] = self.mended_rows.into();
            report["differences_left"] = self.left.into();
        }
        report
    }
}
