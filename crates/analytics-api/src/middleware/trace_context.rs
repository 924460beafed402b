//! W3C Trace Context: which trace a request belongs to, and the span that this service is in it.
//!
//! A `traceparent` that is not one starts a new trace, as the recommendation has it.

use std::fmt;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

pub(super) const HEADER: HeaderName = HeaderName::from_static("traceparent");
/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const VERSION_0_BYTES: usize = 55;

/// The trace of a request, with this service's span in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TraceContext {
    pub(super) trace_id: String,
    pub(super) span_id: String,
    flags: String,
}

impl TraceContext {
    /// The caller's trace, or a new one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(HEADER);
        let only = values.next().filter(|_| values.next().is_none());
        let (trace_id, flags) = only
            .and_then(|value| parse(value.to_str().ok()?))
            .unwrap_or_else(|| (Uuid::new_v4().simple().to_string(), "00".to_owned()));
        let mut span_id = Uuid::new_v4().simple().to_string();
        // The second half: the first one has the version in it, this one two bits that never are zero.
        span_id.drain(..16);
        Self {
            trace_id,
            span_id,
            flags,
        }
    }

    /// What the response says.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.to_string()).ok()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{}", self.trace_id, self.span_id, self.flags)
    }
}

/// Trace id and flags of a header.
fn parse(text: &str) -> Option<(String, String)> {
    let hex = |part: &str, digits: usize| {
        part.len() == digits
            && part
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let mut parts = text.split('-');
    let (version, trace_id, parent_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if !hex(version, 2) || version == "ff" || (version == "00" && text.len() != VERSION_0_BYTES) {
        return None;
    }
    if !hex(trace_id, 32) || zero(trace_id) || !hex(parent_id, 16) || zero(parent_id) || !hex(flags, 2) {
        return None;
    }
    // Of the flags this version knows one: whether the caller records the trace.
    let recorded = flags.bytes().next_back().is_some_and(|digit| {
        let value = char::from(digit).to_digit(16).unwrap_or(0);
        value & 1 == 1
    });
    let flags = if recorded { "01" } else { "00" };
    Some((trace_id.to_owned(), flags.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn of(values: &[&str]) -> TraceContext {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_str(value).unwrap());
        }
        TraceContext::of(&headers)
    }

    #[test]
    fn a_trace_goes_on_in_a_span_of_its_own() {
        for (given, flags) in [("01", "01"), ("00", "00"), ("03", "01"), ("fe", "00")] {
            let context = of(&[&format!("00-{TRACE}-b7ad6b7169203331-{given}")]);
            assert_eq!(
                (context.trace_id.as_str(), context.flags.as_str()),
                (TRACE, flags)
            );
            assert_ne!(context.span_id, "b7ad6b7169203331");
            assert_eq!(context.to_string().len(), VERSION_0_BYTES);
            assert!(parse(&context.to_string()).is_some(), "{context}");
        }
        let later = of(&[&format!("cc-{TRACE}-b7ad6b7169203331-01-what-comes-later")]);
        assert_eq!(later.trace_id, TRACE);
    }

    #[test]
    fn what_is_no_trace_starts_a_new_one() {
        let good = format!("00-{TRACE}-b7ad6b7169203331-01");
        for values in [
            &[][..],
            &[""],
            &["00"],
            &[&good, &good],
            &[&good.to_uppercase()],
            &[&format!("{good}-more")],
            &[&format!("ff-{TRACE}-b7ad6b7169203331-01")],
            &[&format!("00-{}-b7ad6b7169203331-01", "0".repeat(32))],
            &[&format!("00-{TRACE}-{}-01", "0".repeat(16))],
            &[&format!("00-{TRACE}-b7ad6b716920333-001")],
            &[&format!("00-{TRACE}x-b7ad6b7169203331-01")],
        ] {
            let context = of(values);
            assert_ne!(context.trace_id, TRACE, "{values:?}");
            assert!(parse(&context.to_string()).is_some(), "{context}");
            assert_ne!(of(values), context, "each is new");
        }
    }
}
