//! `dead-letters show`

use analytics_core::event::decode;

use super::Letter;
use super::selection::Selection;
use crate::operator::output::{Output, printable};
use crate::operator::owner::Owner;
use crate::operator::{Ended, OperatorError, moment};

pub(super) async fn show(owner: &mut Owner, id: i64, json: bool, body: bool) -> Result<Ended, OperatorError> {
    let selection = Selection {
        id: vec![id],
        ..Selection::default()
    };
    let extent = selection.extent(owner).await?;
    let Some(letter) = selection.page(owner, extent, i64::MIN).await?.pop() else {
        return Err(OperatorError::Absent(format!("there is no dead letter {id}")));
    };
    let mut output = Output::standard();
    if json {
        output.line(&letter.to_json())?;
    } else if body {
        output.bytes(&letter.body)?;
    } else {
        describe(&letter, &mut output)?;
    }
    Ok(Ended::Done)
}

fn describe(letter: &Letter, output: &mut Output) -> Result<(), OperatorError> {
    let now = match decode(&letter.body) {
        Ok(event) => format!(
            "an event of {} at {}: replay it, if its time is accepted",
            event.org_id,
            moment::text(event.time)
        ),
        Err(malformed) => format!("still none: {malformed}"),
    };
    let body = match std::str::from_utf8(&letter.body) {
        Ok(text) => printable(text),
        Err(_) => printable(&String::from_utf8_lossy(&letter.body)),
    };
    for (name, value) in [
        ("id", letter.id.to_string()),
        ("received", moment::text(letter.received_at)),
        ("queue", printable(&letter.queue)),
        ("reason", printable(&letter.reason)),
        (
            "field",
            letter.field.as_deref().map(printable).unwrap_or_default(),
        ),
        ("detail", printable(&letter.detail)),
        ("headers", printable(&letter.headers.to_string())),
        ("now", printable(&now)),
        ("bytes", letter.body.len().to_string()),
        ("body", body),
    ] {
        output.line(&format!("{name:<9} {value}"))?;
    }
    Ok(())
}
