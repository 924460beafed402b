//! Usage and costs of an organization in the shape of OpenAI's organization usage API, so that tools which read
//! that can read this: the same questions, read-only.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use analytics_core::query::Dimension;
use analytics_core::query::usage::{Row, Rows};
use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::answer::{self, freshness::Freshness};
use super::ask::{Told, ask};
use crate::auth::Permit;
use crate::error::ApiError;
use crate::{App, params};

/// A page of buckets.
#[derive(Serialize)]
struct Page<T> {
    object: &'static str,
    data: Vec<Bucket<T>>,
    has_more: bool,
    next_page: Option<String>,
}

/// A bucket; without usage it has no results.
#[derive(Serialize)]
struct Bucket<T> {
    object: &'static str,
    /// Unix seconds.
    start_time: i64,
    end_time: i64,
    results: Vec<T>,
}

/// What is not told apart here is null.
#[derive(Serialize)]
struct Completions {
    object: &'static str,
    input_tokens: i64,
    input_cached_tokens: i64,
    output_tokens: i64,
    num_model_requests: i64,
    project_id: Option<String>,
    user_id: Option<String>,
    api_key_id: Option<String>,
    model: Option<String>,
    batch: Option<bool>,
    service_tier: Option<String>,
}

#[derive(Serialize)]
struct Costs {
    object: &'static str,
    amount: Amount,
    line_item: Option<String>,
    project_id: Option<String>,
    api_key_id: Option<String>,
}

#[derive(Serialize)]
struct Amount {
    /// A JSON number with all of its decimals.
    value: Box<RawValue>,
    currency: &'static str,
}

/// `GET /v1/organization/usage/completions`
pub(crate) async fn completions(
    permit: Permit,
    request: HttpRequest,
    app: Data<App>,
) -> Result<HttpResponse, ApiError> {
    let asked = params::openai::completions(request.query_string(), OffsetDateTime::now_utc())?;
    let told = ask(&app, "openai_completions", &permit, &request, asked).await?;
    page(&request, app.delayed_seconds, &told, |row| {
        Ok(Completions {
            object: "organization.usage.completions.result",
            input_tokens: row.measures.input_tokens,
            input_cached_tokens: row.measures.tokens.map_or(0, |tokens| tokens.cached_input),
            output_tokens: row.measures.output_tokens,
            num_model_requests: row.measures.requests,
            project_id: None,
            user_id: value(&told, row, Dimension::User),
            api_key_id: value(&told, row, Dimension::ApiKey),
            model: value(&told, row, Dimension::Model),
            batch: None,
            service_tier: None,
        })
    })
}

/// `GET /v1/organization/costs`
pub(crate) async fn costs(
    permit: Permit,
    request: HttpRequest,
    app: Data<App>,
) -> Result<HttpResponse, ApiError> {
    let asked = params::openai::costs(request.query_string(), OffsetDateTime::now_utc())?;
    let told = ask(&app, "openai_costs", &permit, &request, asked).await?;
    page(&request, app.delayed_seconds, &told, |row| {
        let value_in_dollars = RawValue::from_string(row.measures.cost.to_string());
        Ok(Costs {
            object: "organization.costs.result",
            amount: Amount {
                // A decimal is a JSON number.
                value: value_in_dollars.map_err(|_| ApiError::Internal)?,
                currency: "usd",
            },
            line_item: value(&told, row, Dimension::Model),
            project_id: None,
            api_key_id: value(&told, row, Dimension::ApiKey),
        })
    })
}

/// All buckets of the page, also those without usage.
fn page<T: Serialize>(
    request: &HttpRequest,
    delayed_seconds: f64,
    told: &Told,
    result: impl Fn(&Row) -> Result<T, ApiError>,
) -> Result<HttpResponse, ApiError> {
    let starts = told.ask.buckets.starts().len();
    let places = match told.ask.rows {
        Rows::Buckets { from, limit, .. } => from..from.saturating_add(limit).min(starts),
        Rows::Ranked { .. } | Rows::ById { .. } => 0..0,
    };
    let mut data: Vec<Bucket<T>> = Vec::with_capacity(places.len());
    for place in places.clone() {
        let range = told.ask.buckets.at(place);
        data.push(Bucket {
            object: "bucket",
            start_time: range.start().unix_timestamp(),
            end_time: range.end().unix_timestamp(),
            results: Vec::new(),
        });
    }
    for row in &told.answer.rows {
        if let Some(bucket) = row
            .bucket
            .checked_sub(places.start)
            .and_then(|at| data.get_mut(at))
        {
            bucket.results.push(result(row)?);
        }
    }
    let page = Page {
        object: "page",
        data,
        has_more: told.next_page.is_some(),
        next_page: told.next_page.clone(),
    };
    let freshness = Freshness::new(&told.freshness, &told.answer.totals, delayed_seconds);
    answer::respond_page(request, &page, told.next_page.as_deref(), &freshness)
}

/// A group's value of a dimension, if it was grouped by it.
fn value(told: &Told, row: &Row, dimension: Dimension) -> Option<String> {
    let place = told.ask.group_by.iter().position(|by| *by == dimension)?;
    row.keys.as_ref()?.get(place).cloned()
}
