//! Every way a request can fail, and the one table that says what each looks like on the wire.
//!
//! A handler returns an [`ApiError`]; the body (RFC 9457 `application/problem+json`) is written in one
//! place, [`crate::middleware::problems`], because only there the request's id is known.

use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use analytics_core::query::RowError;
use serde::Serialize;

use crate::auth::TokenFault;
use crate::media::Media;

/// After how many seconds a client may try again when a server behind this one was away.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");
/// The same, when this instance alone had too much to do.
const RETRY_SOON: HeaderValue = HeaderValue::from_static("1");
/// How many parameters a problem names. A query string has room for thousands that are wrong.
const MAX_FAULTS: usize = 20;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No token, or one that does not prove who is asking.
    #[error("{0}")]
    Unauthenticated(TokenFault),
    /// A good token that may not read this; says nothing about what exists.
    #[error("This token may not read this.")]
    Forbidden,
    /// Parameters that cannot be understood or answered, all of them at once.
    #[error("{}", name_them(.0))]
    BadParameters(Vec<ParameterFault>),
    /// The query string is not one.
    #[error("The query string is malformed: {0}.")]
    MalformedQuery(&'static str),
    /// Nothing is served under this path.
    #[error("There is nothing under this path.")]
    NotFound,
    /// The path exists, for other methods.
    #[error("This path does not answer to this method; see the Allow header.")]
    MethodNotAllowed,
    /// The caller takes none of what this route answers in.
    #[error("This path answers in none of the types that the Accept header takes; it answers in {}.", names(.0))]
    NotAcceptable(&'static [Media]),
    /// The caller takes neither a compressed nor a plain body.
    #[error(
        "This API answers in none of the encodings that the Accept-Encoding header takes; it answers in identity and gzip."
    )]
    EncodingNotAcceptable,
    /// A request with a body, where none is read.
    #[error("This API reads no request body.")]
    BodyTooLarge,
    /// A path and query longer than any question needs.
    #[error("The request target is longer than {0} bytes.")]
    TargetTooLong(usize),
    /// More header bytes than any client of this API needs.
    #[error("The request headers are larger than {0} bytes.")]
    HeadersTooLarge(usize),
    /// More questions of this caller than it may ask.
    #[error("This caller may ask {per_second} questions a second, and {burst} at once.")]
    TooManyRequests {
        /// The rate.
        per_second: u32,
        /// What it may ask at once after a silence.
        burst: u32,
        /// When the next one will be let in.
        retry_after_seconds: u64,
    },
    /// As many questions as this instance answers at once.
    #[error("This instance is answering {0} questions already, and answers no more at once.")]
    Busy(usize),
    /// A server that this one depends on cannot be reached, or not in time.
    #[error("{0} cannot be reached at the moment.")]
    Unavailable(Dependency),
    /// The question takes longer than a question may.
    #[error("The question took longer than it may; ask for a shorter time range.")]
    TooSlow,
    /// A request that the HTTP layer refused.
    #[error("The request is malformed.")]
    BadRequest,
    /// A fault of ours; the log has the rest, under the request's id.
    #[error("The request failed for a reason of the server's own.")]
    Internal,
}

/// What an answer depends on besides this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dependency {
    /// PostgreSQL.
    Database,
    /// A database whose schema this version cannot read.
    Schema,
    /// The provider of the keys that tokens are signed with.
    SigningKeys,
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Database => "The database",
            Self::Schema => "A database with the schema that this version needs",
            Self::SigningKeys => "The provider of the token signing keys",
        })
    }
}

/// One parameter that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ParameterFault {
    /// The parameter's name, as it was sent.
    pub(crate) parameter: String,
    /// What is wrong with it.
    pub(crate) detail: String,
    /// What would be right: the values, or a description of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) allowed: Vec<String>,
}

/// The body of every error, RFC 9457.
#[derive(Debug, Serialize)]
pub(crate) struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[ParameterFault]>::is_empty")]
    errors: &'a [ParameterFault],
}

impl ApiError {
    /// The status table: status, last part of the problem's type, title.
    fn row(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadParameters(_) => (StatusCode::BAD_REQUEST, "invalid-parameter", "Invalid parameter"),
            Self::MalformedQuery(_) => (
                StatusCode::BAD_REQUEST,
                "malformed-query",
                "Malformed query string",
            ),
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", "Bad request"),
            Self::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "unauthenticated", "Not authenticated"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "Forbidden"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "Method not allowed",
            ),
            Self::NotAcceptable(_) | Self::EncodingNotAcceptable => {
                (StatusCode::NOT_ACCEPTABLE, "not-acceptable", "Not acceptable")
            }
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "Body too large"),
            Self::TargetTooLong(_) => (
                StatusCode::URI_TOO_LONG,
                "target-too-long",
                "Request target too long",
            ),
            Self::HeadersTooLarge(_) => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers-too-large",
                "Request headers too large",
            ),
            Self::TooManyRequests { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-requests",
                "Too many requests",
            ),
            Self::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "busy", "Busy"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable"),
            Self::TooSlow => (StatusCode::GATEWAY_TIMEOUT, "too-slow", "Question took too long"),
        }
    }

    /// What a bare status of the HTTP layer means, where no error of ours made it.
    pub(crate) fn from_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::NOT_ACCEPTABLE => Self::EncodingNotAcceptable,
            status if status.is_client_error() => Self::BadRequest,
            _ => Self::Internal,
        }
    }

    /// The body, for the request with this id.
    pub(crate) fn problem<'a>(&'a self, request_id: &'a str) -> Problem<'a> {
        let (status, slug, title) = self.row();
        Problem {
            kind: format!("urn:usage-analytics:problem:{slug}"),
            title,
            status: status.as_u16(),
            detail: self.to_string(),
            request_id,
            errors: if let Self::BadParameters(faults) = self {
                named(faults).0
            } else {
                &[]
            },
        }
    }
}

impl From<RowError> for ApiError {
    fn from(error: RowError) -> Self {
        tracing::error!(%error, "a row is not what its statement promises");
        Self::Internal
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.row().0
    }

    /// Status and headers alone; `middleware::problems` writes the body.
    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponseBuilder::new(self.status_code());
        match self {
            Self::Unauthenticated(fault) => {
                response.insert_header((header::WWW_AUTHENTICATE, challenge(*fault)));
            }
            Self::Unavailable(_) => {
                response.insert_header((header::RETRY_AFTER, RETRY_AFTER));
            }
            Self::Busy(_) => {
                response.insert_header((header::RETRY_AFTER, RETRY_SOON));
            }
            Self::TooManyRequests {
                retry_after_seconds, ..
            } => {
                response.insert_header((header::RETRY_AFTER, retry_after_seconds.to_string()));
            }
            _ => {}
        }
        response.finish()
    }
}

/// RFC 6750, section 3: a request that brought no token is not told that its token is bad.
fn challenge(fault: TokenFault) -> HeaderValue {
    HeaderValue::from_static(match fault {
        TokenFault::Missing => r#"Bearer realm="usage-analytics""#,
        TokenFault::Expired => {
            r#"Bearer realm="usage-analytics", error="invalid_token", error_description="the token has expired""#
        }
        _ => r#"Bearer realm="usage-analytics", error="invalid_token""#,
    })
}

fn names(offered: &[Media]) -> String {
    let names: Vec<&str> = offered.iter().map(|media| media.name()).collect();
    names.join(" and ")
}

fn name_them(faults: &[ParameterFault]) -> String {
    let (named, others) = named(faults);
    let mut sentences: Vec<String> = named
        .iter()
        .map(|fault| format!("`{}` {}.", fault.parameter, fault.detail))
        .collect();
    if others > 0 {
        sentences.push(format!("{others} more are not listed here."));
    }
    sentences.join(" ")
}

/// The faults that are named, and how many others there are.
fn named(faults: &[ParameterFault]) -> (&[ParameterFault], usize) {
    let (named, others) = faults.split_at(faults.len().min(MAX_FAULTS));
    (named, others.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_each_parameter_and_what_is_allowed() {
        let error = ApiError::BadParameters(vec![ParameterFault {
            parameter: "limit".into(),
            detail: "must be a whole number from 1 to 1000".into(),
            allowed: vec!["1 to 1000".into()],
        }]);
        let body = serde_json::to_value(error.problem("r-1")).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "urn:usage-analytics:problem:invalid-parameter",
                "title": "Invalid parameter",
                "status": 400,
                "detail": "`limit` must be a whole number from 1 to 1000.",
                "request_id": "r-1",
                "errors": [{
                    "parameter": "limit",
                    "detail": "must be a whole number from 1 to 1000",
                    "allowed": ["1 to 1000"],
                }],
            })
        );
    }

    #[test]
    fn a_problem_is_not_larger_than_its_cause_calls_for() {
        let fault = ParameterFault {
            parameter: "a".repeat(64),
            detail: "is not a parameter of this request".into(),
            allowed: vec!["start_time".into(); 20],
        };
        let error = ApiError::BadParameters(vec![fault; 8_000]);
        let body = serde_json::to_value(error.problem("r-1")).unwrap();
        assert_eq!(body["errors"].as_array().unwrap().len(), MAX_FAULTS);
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.ends_with("7980 more are not listed here."), "{detail}");
        assert!(body.to_string().len() < 16_384);
    }

    #[test]
    fn a_request_without_a_token_is_not_told_that_its_token_is_bad() {
        let of = |fault| {
            let response = ApiError::Unauthenticated(fault).error_response();
            response
                .headers()
                .get(header::WWW_AUTHENTICATE)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(of(TokenFault::Missing), r#"Bearer realm="usage-analytics""#);
        assert!(of(TokenFault::BadSignature).contains(r#"error="invalid_token""#));
    }

    #[test]
    fn unavailable_says_when_to_come_back() {
        let response = ApiError::Unavailable(Dependency::Database).error_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers().get(header::RETRY_AFTER).unwrap(), "5");
    }
}
