//! Asks a question that a caller may ask, of the relations that can answer it.

use actix_web::HttpRequest;
use analytics_core::query::freshness::Freshness;
use analytics_core::query::usage::{Answer, AnswerError, Ask, Next};
use analytics_core::rollup::Kept;

use crate::App;
use crate::auth::{Permit, Permitted};
use crate::error::ApiError;
use crate::middleware::connection::hung_up;
use crate::params::{self, Asked, page};

/// A question and its answer.
pub(crate) struct Told {
    pub(crate) ask: Permitted<Ask>,
    pub(crate) answer: Answer,
    pub(crate) freshness: Freshness,
    pub(crate) next_page: Option<String>,
}

/// What is kept is told with an answer, and is hardly ever another than with the answer before. If it makes another
/// plan, that is asked; it can only move on by then, and it moves by minutes.
const MOST_TRIES: usize = 3;

/// Asks, under the name of a statement.
pub(crate) async fn ask(
    app: &App,
    name: &'static str,
    permit: &Permit,
    request: &HttpRequest,
    mut asked: Asked,
) -> Result<Told, ApiError> {
    let by_period = asked.by_period;
    let page = asked.page.take();
    let spelling = std::mem::take(&mut asked.spelling);
    let ask = permit.ask(name, asked)?;
    if let Some(page) = page {
        page.check(request.path(), &spelling, &ask.question)?;
    }
    let refused = |why| params::unanswerable(&why, by_period);
    let mut kept = app.database.kept();
    let mut plan = match ask.plan(kept) {
        Ok(plan) => plan,
        // A refusal is to name what is kept now, which an answer tells.
        Err(_) => {
            kept = Kept::EVERYTHING;
            ask.plan(kept).map_err(refused)?
        }
    };
    for _ in 0..MOST_TRIES {
        let read = tokio::select! {
            read = app.database.ask(&plan) => read?,
            () = hung_up(request) => return Err(ApiError::TooSlow),
        };
        if read.freshness.kept != kept {
            kept = read.freshness.kept;
            let again = ask.plan(kept).map_err(refused)?;
            if *again != *plan {
                plan = again;
                continue;
            }
        }
        let answer = ask.answer(&read.rows).map_err(|error| match error {
            AnswerError::TooManyRows => params::too_many_rows(&ask),
            AnswerError::Row(error) => error.into(),
        })?;
        let cursor = |position| page::next(request.path(), &spelling, &ask.question, position);
        drop(plan);
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
