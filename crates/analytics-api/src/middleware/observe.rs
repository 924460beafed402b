//! One line in the log and one measurement for every request. By the route's pattern, never its path or
//! query: those are the caller's words, and may name a person.

use std::time::Instant;

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use tracing::{debug, info};

use crate::metrics;
use crate::routes::{self, Readers};

/// The route of a request that none matched.
const UNMATCHED: &str = "unmatched";

pub(crate) async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let began = Instant::now();
    let response = next.call(request).await?;
    let took = began.elapsed();
    let route = response
        .request()
        .match_pattern()
        .unwrap_or_else(|| UNMATCHED.to_owned());
    let method = metrics::method_label(response.request().method().as_str());
    let status = response.status().as_u16();
    metrics::answered(method, &route, status, took);
    let duration_ms = took.as_secs_f64() * 1000.0;
    if routes::readers(&route) == Some(Readers::Everybody) {
        debug!(method, route, status, duration_ms, "probe answered");
    } else {
        info!(method, route, status, duration_ms, "request answered");
    }
    Ok(response)
}
