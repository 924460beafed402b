//! Who or what used most, of an organization or of the whole system: the permit says of which.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use analytics_core::query::{self, Dimension};
use analytics_core::range::BucketWidth;
use time::OffsetDateTime;

use super::answer::{self, Answer, Line};
use crate::auth::Permit;
use crate::error::ApiError;
use crate::{App, params};

/// `GET …/users`, `…/models`, `…/orgs`
pub(crate) async fn ranking(
    dimension: Dimension,
    permit: Permit,
    request: HttpRequest,
    app: Data<App>,
) -> Result<HttpResponse, ApiError> {
    let now = OffsetDateTime::now_utc();
    let asked = params::ranking(request.query_string(), now)?;
    let question = permit.question(asked.range, asked.filter)?;
    let statement = query::ranking::statement(&question, dimension, asked.limit, OffsetDateTime::UNIX_EPOCH)?;
    let read = app.database.ask(&statement).await?;
    // What raw events are still stored is known now: refuses what needed older ones.
    query::ranking::statement(&question, dimension, asked.limit, read.freshness.raw_since)?;
    let answer = query::ranking::answer(&read.rows, asked.limit)?;
    Ok(answer::respond(&Answer {
        object: object(dimension),
        range: answer::Range::new(question.range, BucketWidth::All),
        currency: answer::CURRENCY,
        totals: answer.totals,
        data: answer
            .rows
            .into_iter()
            .map(|(key, measures)| Line::new(dimension, key, measures))
            .collect(),
        has_more: answer.has_more,
        next_page: None,
        freshness: answer::Freshness::new(read.freshness, &answer.totals, app.delayed_seconds),
    }))
}

fn object(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::User => "users",
        Dimension::Model => "models",
        Dimension::Organization => "orgs",
    }
}
