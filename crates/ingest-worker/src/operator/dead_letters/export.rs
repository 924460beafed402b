//! `dead-letters export`

use super::selection::Selection;
use crate::operator::output::Output;
use crate::operator::owner::Owner;
use crate::operator::{Ended, OperatorError};

pub(super) async fn export(owner: &mut Owner, selection: &Selection) -> Result<Ended, OperatorError> {
    let extent = selection.extent(owner).await?;
    let mut output = Output::standard();
    let (mut after, mut exported) = (i64::MIN, 0_u64);
    loop {
        let page = selection.page(owner, extent, after).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for letter in &page {
            output.line(&letter.to_json())?;
            exported += 1;
        }
    }
    match exported {
        0 => selection.say_empty(),
        _ => tracing::info!(exported, "dead letters exported"),
    }
    Ok(Ended::Done)
}
