//! Who or what used how much, of an organization or of the whole system: the permit says of which.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use analytics_core::query::Dimension;
use time::OffsetDateTime;

use super::answer::figures::Line;
use super::answer::freshness::Freshness;
use super::answer::{self, Answer, Data as Shown};
use super::ask::ask;
use super::usage::comparison;
use crate::auth::Permit;
use crate::error::ApiError;
use crate::{App, params};

/// `GET …/users`, `…/keys`, `…/models`, `…/orgs`, under the name of a statement.
pub(crate) async fn list(
    name: &'static str,
    dimension: Dimension,
    permit: Permit,
    request: HttpRequest,
    app: Data<App>,
) -> Result<HttpResponse, ApiError> {
    let now = OffsetDateTime::now_utc();
    let asked = params::list(request.query_string(), now, dimension)?;
    let told = ask(&app, name, &permit, &request, asked).await?;
    let answer = &told.answer;
    let answer = Answer {
        object: object(dimension),
        group_by: vec![dimension.name()],
        range: answer::Range::of(&told.ask.buckets),
        currency: answer::CURRENCY,
        totals: (&answer.totals).into(),
        comparison: comparison(&told),
        projection: None,
        data: Shown::Lines(
            answer
                .rows
                .iter()
                .map(|row| Line::new(&told.ask.group_by, row))
                .collect(),
        ),
        has_more: told.next_page.is_some(),
        next_page: told.next_page.clone(),
        freshness: Freshness::new(&told.freshness, &answer.totals, app.delayed_seconds),
    };
    answer::respond(&request, answer)
}

fn object(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::User => "users",
        Dimension::ApiKey => "keys",
        Dimension::Model => "models",
        Dimension::Status => "statuses",
        Dimension::Organization => "orgs",
    }
}
