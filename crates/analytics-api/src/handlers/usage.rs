//! Usage over time, of an organization or of the whole system: the permit says of which.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use analytics_core::query;
use time::OffsetDateTime;

use super::answer::{self, Answer, Bucket};
use crate::auth::Permit;
use crate::error::ApiError;
use crate::{App, params};

/// `GET …/usage`
pub(crate) async fn usage(
    permit: Permit,
    request: HttpRequest,
    app: Data<App>,
) -> Result<HttpResponse, ApiError> {
    let now = OffsetDateTime::now_utc();
    let asked = params::usage(request.query_string(), now)?;
    let question = permit.question(asked.range, asked.filter)?;
    let statement = query::usage::statement(&question, asked.width, asked.limit, OffsetDateTime::UNIX_EPOCH)?;
    let read = app.database.ask(&statement).await?;
    // What raw events are still stored is known now: refuses what needed older ones.
    query::usage::statement(&question, asked.width, asked.limit, read.freshness.raw_since)?;
    let answer = query::usage::answer(&read.rows, &question, asked.width, asked.limit)?;
    Ok(answer::respond(&Answer {
        object: "usage",
        range: answer::Range::new(question.range, asked.width),
        currency: answer::CURRENCY,
        totals: answer.totals,
        data: answer.buckets.iter().map(Bucket::from).collect(),
        has_more: answer.has_more,
        next_page: None,
        freshness: answer::Freshness::new(read.freshness, &answer.totals, app.delayed_seconds),
    }))
}
