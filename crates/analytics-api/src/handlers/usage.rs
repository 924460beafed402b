//! Usage over time, of an organization or of the whole system: the permit says of which.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use analytics_core::query::usage::{Ask, MOST_ROWS, Row, Rows};
use analytics_core::query::{Dimension, Measures};
use time::OffsetDateTime;

use super::answer::comparison::Comparison;
use super::answer::figures::Line;
use super::answer::freshness::{BucketState, Freshness};
use super::answer::projection::Projection;
use super::answer::{self, Answer, Bucket, Data as Shown};
use super::ask::{Told, ask};
use crate::auth::Permit;
use crate::error::ApiError;
use crate::{App, params};

/// `GET …/usage`, under the name of a statement, by any of these dimensions.
pub(crate) async fn usage(
    name: &'static str,
    dimensions: &'static [Dimension],
    permit: Permit,
    request: HttpRequest,
    app: Data<App>,
) -> Result<HttpResponse, ApiError> {
    let now = OffsetDateTime::now_utc();
    let asked = params::usage(request.query_string(), now, dimensions)?;
    let told = ask(&app, name, &permit, &request, asked).await?;
    let Told {
        ask,
        answer,
        freshness,
        next_page,
    } = &told;
    let projection = Projection::new(
        &ask.buckets,
        &answer.totals,
        freshness.counted_through,
        freshness.now,
    );
    let answer = Answer {
        object: "usage",
        group_by: ask.group_by.iter().map(|dimension| dimension.name()).collect(),
        range: answer::Range::of(&ask.buckets),
        currency: answer::CURRENCY,
        totals: (&answer.totals).into(),
        comparison: comparison(&told),
        projection: Some(projection),
        data: Shown::Buckets(buckets(&told)?),
        has_more: next_page.is_some(),
        next_page: next_page.clone(),
        freshness: Freshness::new(freshness, &answer.totals, app.delayed_seconds),
    };
    answer::respond(&request, answer)
}

/// The range before, if it was asked for.
pub(super) fn comparison(told: &Told) -> Option<Comparison> {
    let (buckets, before) = told.ask.before.as_ref().zip(told.answer.before.as_ref())?;
    Some(Comparison::new(buckets, &told.answer.totals, before))
}

/// The buckets of the page, with the rows of each.
pub(super) fn buckets(told: &Told) -> Result<Vec<Bucket>, ApiError> {
    let rows = filled(&told.ask, &told.answer.rows, &told.answer.totals)?;
    let mut buckets: Vec<Bucket> = Vec::new();
    for (place, rows) in rows {
        let range = told.ask.buckets.at(place);
        buckets.push(Bucket {
            start_time: range.start(),
            end_time: range.end(),
            state: BucketState::of(&range, &told.freshness),
            results: rows
                .iter()
                .map(|row| Line::new(&told.ask.group_by, row))
                .collect(),
        });
    }
    Ok(buckets)
}

/// Rows by the place of their bucket; with every bucket of the page and every group of it in each, if that was
/// asked for.
fn filled(ask: &Ask, rows: &[Row], totals: &Measures) -> Result<Vec<(usize, Vec<Row>)>, ApiError> {
    let mut buckets: Vec<(usize, Vec<Row>)> = Vec::new();
    for row in rows {
        match buckets.last_mut() {
            Some((place, rows)) if *place == row.bucket => rows.push(row.clone()),
            _ => buckets.push((row.bucket, vec![row.clone()])),
        }
    }
    let Rows::Buckets {
        from,
        limit,
        filled: true,
        ..
    } = ask.rows
    else {
        return Ok(buckets);
    };
    let mut groups: Vec<Option<Vec<String>>> = Vec::new();
    if ask.group_by.is_empty() {
        groups.push(Some(Vec::new()));
    }
    let mut seen = std::collections::HashSet::new();
    for row in rows {
        if !ask.group_by.is_empty() && seen.insert(&row.keys) {
            groups.push(row.keys.clone());
        }
    }
    let places = from..from.saturating_add(limit).min(ask.buckets.starts().len());
    if groups.len().saturating_mul(places.len()) > MOST_ROWS {
        return Err(params::too_many_rows(ask));
    }
    let mut there = buckets.into_iter().peekable();
    Ok(places
        .map(|place| {
            let mut rows = there
                .next_if(|(there, _)| *there == place)
                .map(|(_, rows)| rows)
                .unwrap_or_default();
            let known: std::collections::HashSet<_> = rows.iter().map(|row| row.keys.clone()).collect();
            let missing = groups.iter().filter(|keys| !known.contains(*keys));
            let missing: Vec<Row> = missing
                .map(|keys| Row {
                    bucket: place,
                    keys: keys.clone(),
                    measures: totals.none(),
                    before: None,
                })
                .collect();
            rows.extend(missing);
            // Groups without usage go before the rest of all groups.
            rows.sort_by_key(|row| row.keys.is_none());
            (place, rows)
        })
        .collect())
}
