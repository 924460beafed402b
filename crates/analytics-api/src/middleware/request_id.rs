//! The id of a request: the caller's, if it is a sane one, else a new one; and the trace it belongs to. Every
//! response says both, and so does every line of the log.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _};
use tracing::{Instrument as _, error_span};
use uuid::Uuid;

use super::trace_context::{self, TraceContext};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// What fits into a log line, and into the platform's `request_id` columns.
const MAX_BYTES: usize = 100;

/// The id of a request, in its extensions.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(String);

impl RequestId {
    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn of(request: &ServiceRequest) -> Self {
        let given = request
            .headers()
            .get(&HEADER)
            .and_then(|value| value.to_str().ok());
        match given.filter(|id| is_sane(id)) {
            Some(id) => Self(id.to_owned()),
            None => Self(Uuid::new_v4().to_string()),
        }
    }
}

/// Letters, digits and a few separators: nothing that could forge a line of a log.
fn is_sane(id: &str) -> bool {
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    !id.is_empty() && id.len() <= MAX_BYTES && id.bytes().all(sane)
}

pub(crate) async fn request_id(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let id = RequestId::of(&request);
    request.extensions_mut().insert(id.clone());
    // At the highest level, so that whatever is logged inside says whose request it was.
    let trace = TraceContext::of(request.headers());
    let span = error_span!(
        "request",
        request_id = id.as_str(),
        trace_id = trace.trace_id,
        span_id = trace.span_id
    );
    let mut response = next.call(request).instrument(span).await?;
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(HEADER, value);
    }
    if let Some(value) = trace.header() {
        response.headers_mut().insert(trace_context::HEADER, value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sane_id_is_taken_over() {
        for id in ["a", "01J9Z-x_y.z:1", &"a".repeat(100)] {
            assert!(is_sane(id), "{id}");
        }
        for id in ["", "a b", "a\"b", "a\nb", "ä", &"a".repeat(101)] {
            assert!(!is_sane(id), "{id}");
        }
    }
}
