//! `dead-letters list --by-organization`: whose money is missing, as far as the bodies tell.

use std::collections::BTreeMap;

use analytics_core::event::{Payer, payer};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::selection::Selection;
use crate::operator::output::{Output, printable, table};
use crate::operator::owner::Owner;
use crate::operator::{Ended, OperatorError, moment};

struct Group {
    count: u64,
    first: OffsetDateTime,
    last: OffsetDateTime,
}

/// Read page by page: the table has no column for what can only sometimes be read.
pub(super) async fn by_organization(
    owner: &mut Owner,
    selection: &Selection,
    json: bool,
) -> Result<Ended, OperatorError> {
    let extent = selection.extent(owner).await?;
    let mut groups: BTreeMap<(Option<String>, Option<String>, String), Group> = BTreeMap::new();
    let mut after = i64::MIN;
    loop {
        let page = selection.page(owner, extent, after).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for letter in page {
            let Payer { org_id, model } = payer(&letter.body);
            let at = letter.received_at;
            groups
                .entry((org_id.map(|id| id.to_string()), model, letter.reason))
                .and_modify(|group| {
                    group.count += 1;
                    group.first = group.first.min(at);
                    group.last = group.last.max(at);
                })
                .or_insert(Group {
                    count: 1,
                    first: at,
                    last: at,
                });
        }
    }
    if groups.is_empty() {
        selection.say_empty();
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
    let mut output = Output::standard();
    if json {
        let organizations: Vec<Value> = groups
            .iter()
            .map(|((org_id, model, reason), group)| {
                json!({
                    "org_id": org_id,
                    "model": model,
                    "reason": reason,
                    "count": group.count,
                    "first_received_at": moment::text(group.first),
                    "last_received_at": moment::text(group.last),
                })
            })
            .collect();
        output.line(&json!({ "organizations": organizations }).to_string())?;
    } else if !groups.is_empty() {
        let mut table = table([
            "organization",
            "model",
            "reason",
            "count",
            "first received",
            "last received",
        ]);
        for ((org_id, model, reason), group) in &groups {
            table.add_row([
                org_id.as_deref().unwrap_or("cannot be read").to_owned(),
                model.as_deref().map(printable).unwrap_or_default(),
                printable(reason),
                group.count.to_string(),
                moment::text(group.first),
                moment::text(group.last),
            ]);
        }
        output.line(&table.to_string())?;
    }
    Ok(Ended::Done)
}
