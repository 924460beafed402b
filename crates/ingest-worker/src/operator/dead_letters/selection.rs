//! Which dead letters a command is about, and how they are read: page by page, in order of arrival.

use analytics_core::dead_letters::{COUNT, PAGE};
use clap::Args;
use time::OffsetDateTime;
use tokio_postgres::types::ToSql;

use super::Letter;
use crate::operator::owner::Owner;
use crate::operator::{OperatorError, moment};

/// Letters in a page.
const PAGE_LETTERS: i64 = 1_000;
/// Bytes of bodies in a page, but for the last letter's.
const PAGE_BYTES: i64 = 16 * 1024 * 1024;

/// All conditions hold that are given; without one it is every letter.
#[derive(Debug, Clone, Default, Args)]
pub struct Selection {
    /// With this reason; may be repeated
    #[arg(long, value_name = "REASON")]
    pub reason: Vec<String>,
    /// Received from then on: a day (UTC) or an RFC 3339 time
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    pub since: Option<OffsetDateTime>,
    /// Received before then
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    pub until: Option<OffsetDateTime>,
    /// With this number; may be repeated
    #[arg(long, value_name = "NUMBER")]
    pub id: Vec<i64>,
}

/// The conditions as a statement takes them.
pub(super) struct Parameters {
    reasons: Option<Vec<String>>,
    since: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
    ids: Option<Vec<i64>>,
}

impl Parameters {
    /// `$1` to `$4`, and `more` after them.
    pub(super) fn with<'a>(&'a self, more: &[&'a (dyn ToSql + Sync)]) -> Vec<&'a (dyn ToSql + Sync)> {
        let own: [&(dyn ToSql + Sync); 4] = [&self.reasons, &self.since, &self.until, &self.ids];
        [&own, more].concat()
    }
}

/// How much a selection is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) letters: i64,
    pub(super) bytes: i64,
    last: i64,
}

impl Selection {
    pub(super) fn parameters(&self) -> Parameters {
        Parameters {
            reasons: (!self.reason.is_empty()).then(|| self.reason.clone()),
            since: self.since,
            until: self.until,
            ids: (!self.id.is_empty()).then(|| self.id.clone()),
        }
    }

    /// What it selects now.
    pub(super) async fn extent(&self, owner: &mut Owner) -> Result<Extent, OperatorError> {
        let parameters = self.parameters();
        owner
            .run("counting dead letters", async |client| {
                let row = client.query_one(COUNT, &parameters.with(&[])).await?;
                Ok(Extent {
                    letters: row.try_get(0)?,
                    bytes: row.try_get(1)?,
                    last: row.try_get(2)?,
                })
            })
            .await
    }

    /// The letters of `extent` after `after`: a page of them, none when there are no more.
    pub(super) async fn page(
        &self,
        owner: &mut Owner,
        extent: Extent,
        after: i64,
    ) -> Result<Vec<Letter>, OperatorError> {
        let parameters = self.parameters();
        owner
            .run("reading dead letters", async |client| {
                let parameters = parameters.with(&[&after, &extent.last, &PAGE_LETTERS, &PAGE_BYTES]);
                client
                    .query(PAGE, &parameters)
                    .await?
                    .iter()
                    .map(Letter::read)
                    .collect()
            })
            .await
    }

    /// Said when nothing is selected.
    pub(super) fn say_empty(&self) {
        if self.parameters().is_everything() {
            tracing::info!("there are no dead letters");
        } else {
            tracing::info!("no dead letter matches this selection");
        }
    }
}

impl Parameters {
    fn is_everything(&self) -> bool {
        self.reasons.is_none() && self.since.is_none() && self.until.is_none() && self.ids.is_none()
    }
}
