//! Asks a question that a caller may ask, of the relations that can answer it.

use actix_web::HttpRequest;
use analytics_core::query::freshness::Freshness;
use analytics_core::query::usage::{Answer, AnswerError, Ask, Next};
use analytics_core::rollup::Kept;

use crate::App;
use crate::auth::Permit;
use crate::error::ApiError;
use crate::params::{self, Asked, page};

/// A question and its answer.
pub(crate) struct Told {
    pub(crate) ask: Ask,
    pub(crate) answer: Answer,
    pub(crate) freshness: Freshness,
    pub(crate) next_page: Option<String>,
}

/// What is kept is told with an answer. If what it tells makes another plan of it, that is asked; it can only
/// move on by then, and it moves by minutes.
const MOST_TRIES: usize = 3;

/// Asks, under the name of a statement.
pub(crate) async fn ask(
    app: &App,
    name: &'static str,
    permit: &Permit,
    request: &HttpRequest,
    asked: Asked,
) -> Result<Told, ApiError> {
    let question = permit.question(asked.buckets.range(), asked.filter)?;
    if let Some(page) = &asked.page {
        page.check(request.path(), &asked.spelling, &question)?;
    }
    let ask = Ask {
        name,
        question,
        buckets: asked.buckets,
        group_by: asked.group_by,
        rows: asked.rows,
        latency: asked.latency,
        before: asked.before,
    };
    let refused = |why| params::unanswerable(&why, asked.by_period);
    let mut statement = ask.statement(Kept::EVERYTHING).map_err(refused)?;
    for _ in 0..MOST_TRIES {
        let read = app.database.ask(&statement).await?;
        let again = ask.statement(read.freshness.kept).map_err(refused)?;
        if (&again.sql, &again.params) != (&statement.sql, &statement.params) {
            statement = again;
            continue;
        }
        let answer = ask.answer(&read.rows).map_err(|error| match error {
            AnswerError::TooManyRows => params::too_many_rows(&ask),
            AnswerError::Row(error) => error.into(),
        })?;
        let cursor = |position| page::next(request.path(), &asked.spelling, &ask.question, position);
        return Ok(Told {
            next_page: answer.next.as_ref().map(|next| match next {
                Next::Bucket(place) => cursor(page::Position::Bucket(*place)),
                Next::After(key) => cursor(page::Position::After(key.clone())),
            }),
            answer,
            freshness: read.freshness,
            ask,
        });
    }
    tracing::error!(query = name, "what is kept moved on with every try");
    Err(ApiError::Internal)
}
