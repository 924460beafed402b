//! Every metric of this service: its name, its unit and its labels. None has an organization or a user as
//! a label, nor anything else that a caller chooses.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::auth::TokenFault;

/// Histogram, seconds; `method`, `route` (its pattern), `status`.
const HTTP_REQUEST_DURATION: &str = "usage_analytics_api_http_request_duration_seconds";
/// Histogram, seconds; `outcome`: `ok`, `timeout` or `error`.
const POOL_WAIT: &str = "usage_analytics_api_database_pool_wait_seconds";
/// Histogram, seconds; `query` (the statement's name), `outcome`: `ok`, `timeout` or `error`.
const QUERY_DURATION: &str = "usage_analytics_api_database_query_duration_seconds";
/// Gauge; `state`: `open` or `idle`.
const POOL_CONNECTIONS: &str = "usage_analytics_api_database_pool_connections";
/// Counter; `outcome`: `ok` or `timeout`.
const SESSIONS_ENDED: &str = "usage_analytics_api_database_sessions_ended_total";
/// Counter; `reason`.
const TOKENS_REFUSED: &str = "usage_analytics_api_tokens_refused_total";
/// Counter; `reason`: `rate` or `in_flight`.
const QUESTIONS_REFUSED: &str = "usage_analytics_api_questions_refused_total";
/// Gauge.
const QUESTIONS_IN_FLIGHT: &str = "usage_analytics_api_questions_in_flight";
/// Counter; `outcome`: `ok` or `error`.
const JWKS_FETCHES: &str = "usage_analytics_api_jwks_fetches_total";

/// All names, for the tests that hold alerts and dashboards against them.
pub const NAMES: [&str; 9] = [
    HTTP_REQUEST_DURATION,
    POOL_WAIT,
    QUERY_DURATION,
    POOL_CONNECTIONS,
    SESSIONS_ENDED,
    TOKENS_REFUSED,
    QUESTIONS_REFUSED,
    QUESTIONS_IN_FLIGHT,
    JWKS_FETCHES,
];

/// Says what each metric means, where `/metrics` prints it.
pub(crate) fn describe() {
    describe_histogram!(
        HTTP_REQUEST_DURATION,
        Unit::Seconds,
        "Time from a request to its answer."
    );
    describe_histogram!(
        POOL_WAIT,
        Unit::Seconds,
        "Time until a database connection was at hand."
    );
    describe_histogram!(
        QUERY_DURATION,
        Unit::Seconds,
        "Time from a statement to its last row."
    );
    describe_gauge!(POOL_CONNECTIONS, Unit::Count, "Connections to the database.");
    describe_counter!(
        SESSIONS_ENDED,
        Unit::Count,
        "Sessions ended because nobody waited for their answer any more."
    );
    describe_counter!(
        TOKENS_REFUSED,
        Unit::Count,
        "Requests whose bearer token proved nothing."
    );
    describe_counter!(
        QUESTIONS_REFUSED,
        Unit::Count,
        "Questions of proven callers that were too many."
    );
    describe_gauge!(
        QUESTIONS_IN_FLIGHT,
        Unit::Count,
        "Questions that are being answered."
    );
    describe_counter!(
        JWKS_FETCHES,
        Unit::Count,
        "Attempts to fetch the signing keys of JWT_JWKS_URL."
    );
}

/// A method as a label: any other word is the caller's.
pub(crate) fn method_label(method: &str) -> &'static str {
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}

/// A request was answered.
pub(crate) fn answered(method: &'static str, route: &str, status: u16, took: Duration) {
    histogram!(
        HTTP_REQUEST_DURATION,
        "method" => method,
        "route" => route.to_owned(),
        "status" => status.to_string()
    )
    .record(took);
}

/// A connection came from the pool, or did not.
pub(crate) fn pool_waited(outcome: &'static str, took: Duration) {
    histogram!(POOL_WAIT, "outcome" => outcome).record(took);
}

/// A statement ran.
pub(crate) fn queried(query: &'static str, outcome: &'static str, took: Duration) {
    histogram!(QUERY_DURATION, "query" => query, "outcome" => outcome).record(took);
}

/// How many connections the pool holds.
pub(crate) fn pool_holds(open: usize, idle: usize) {
    // Pools are far smaller than what a double counts exactly.
    let gauges = [("open", open), ("idle", idle)];
    for (state, count) in gauges {
        gauge!(POOL_CONNECTIONS, "state" => state).set(u32::try_from(count).map_or(f64::NAN, f64::from));
    }
}

/// A session whose answer nobody waited for was ended, or could not be.
pub(crate) fn session_ended(outcome: &'static str) {
    counter!(SESSIONS_ENDED, "outcome" => outcome).increment(1);
}

/// A token was refused.
pub(crate) fn token_refused(fault: TokenFault) {
    counter!(TOKENS_REFUSED, "reason" => fault.label()).increment(1);
}

/// A question was one too many.
pub(crate) fn question_refused(reason: &'static str) {
    counter!(QUESTIONS_REFUSED, "reason" => reason).increment(1);
}

/// How many questions are being answered.
pub(crate) fn in_flight(questions: usize) {
    gauge!(QUESTIONS_IN_FLIGHT).set(u32::try_from(questions).map_or(f64::NAN, f64::from));
}

/// The signing keys were fetched, or not.
pub(crate) fn jwks_fetched(outcome: &'static str) {
    counter!(JWKS_FETCHES, "outcome" => outcome).increment(1);
}
