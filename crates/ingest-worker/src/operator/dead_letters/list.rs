//! `dead-letters list`

use analytics_core::dead_letters::{COUNT_BY_REASON, LIST};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::selection::Selection;
use crate::operator::output::{Output, printable, table};
use crate::operator::owner::Owner;
use crate::operator::{Ended, OperatorError, moment};

struct Line {
    id: i64,
    received_at: OffsetDateTime,
    queue: String,
    reason: String,
    field: Option<String>,
    detail: String,
    bytes: i32,
}

pub(super) async fn list(
    owner: &mut Owner,
    selection: &Selection,
    limit: i64,
    json: bool,
) -> Result<Ended, OperatorError> {
    let parameters = selection.parameters();
    let extent = selection.extent(owner).await?;
    let lines: Vec<Line> = owner
        .run("listing dead letters", async |client| {
            let rows = client.query(LIST, &parameters.with(&[&limit])).await?;
            rows.iter()
                .map(|row| {
                    Ok(Line {
                        id: row.try_get("id")?,
                        received_at: row.try_get("received_at")?,
                        queue: row.try_get("queue")?,
                        reason: row.try_get("reason")?,
                        field: row.try_get("field")?,
                        detail: row.try_get("detail")?,
                        bytes: row.try_get("bytes")?,
                    })
                })
                .collect()
        })
        .await?;
    if lines.is_empty() {
        selection.say_empty();
    }
    let mut output = Output::standard();
    if json {
        let letters: Vec<Value> = lines.iter().map(Line::to_json).collect();
        output.line(
            &json!({"matching": extent.letters, "bytes": extent.bytes, "dead_letters": letters}).to_string(),
        )?;
        return Ok(Ended::Done);
    }
    if lines.is_empty() {
        return Ok(Ended::Done);
    }
    let mut table = table(["id", "received", "reason", "field", "bytes", "queue", "detail"]);
    for line in &lines {
        table.add_row([
            line.id.to_string(),
            moment::text(line.received_at),
            printable(&line.reason),
            line.field.as_deref().map(printable).unwrap_or_default(),
            line.bytes.to_string(),
            printable(&line.queue),
            printable(&line.detail),
        ]);
    }
    output.line(&table.to_string())?;
    let shown = lines.len();
    output.line(&format!("{shown} of {} dead letters", extent.letters))?;
    Ok(Ended::Done)
}

impl Line {
    fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "received_at": moment::text(self.received_at),
            "queue": self.queue,
            "reason": self.reason,
            "field": self.field,
            "detail": self.detail,
            "bytes": self.bytes,
        })
    }
}

pub(super) async fn by_reason(
    owner: &mut Owner,
    selection: &Selection,
    json: bool,
) -> Result<Ended, OperatorError> {
    type Group = (String, Option<String>, i64, OffsetDateTime, OffsetDateTime);
    let parameters = selection.parameters();
    let groups: Vec<Group> = owner
        .run("counting dead letters", async |client| {
            let rows = client.query(COUNT_BY_REASON, &parameters.with(&[])).await?;
            rows.iter()
                .map(|row| {
                    Ok((
                        row.try_get(0)?,
                        row.try_get(1)?,
                        row.try_get(2)?,
                        row.try_get(3)?,
                        row.try_get(4)?,
                    ))
                })
                .collect()
        })
        .await?;
    if groups.is_empty() {
        selection.say_empty();
    }
    let mut output = Output::standard();
    if json {
        let reasons: Vec<Value> = groups
            .iter()
            .map(|(reason, field, count, first, last)| {
                json!({
                    "reason": reason,
                    "field": field,
                    "count": count,
                    "first_received_at": moment::text(*first),
                    "last_received_at": moment::text(*last),
                })
            })
            .collect();
        output.line(&json!({ "reasons": reasons }).to_string())?;
    } else if !groups.is_empty() {
        let mut table = table(["reason", "field", "count", "first received", "last received"]);
        for (reason, field, count, first, last) in &groups {
            table.add_row([
                printable(reason),
                field.as_deref().map(printable).unwrap_or_default(),
                count.to_string(),
                moment::text(*first),
                moment::text(*last),
            ]);
        }
        output.line(&table.to_string())?;
    }
    Ok(Ended::Done)
}
