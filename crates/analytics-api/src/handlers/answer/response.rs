//! An answer as a response: in the type that the caller takes, with what caches and the next request need.
//!
//! An answer may be kept by its caller alone, and asked for again with its `ETag`: as long as the data is the
//! same, that is a 304, and how fresh it is stands in headers, which a 304 has as well.

use std::hash::{DefaultHasher, Hasher as _};

use actix_web::http::header::{CACHE_CONTROL, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, VARY};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use serde::Serialize;
use time::format_description::well_known::Rfc3339;

use super::freshness::{Freshness, State};
use super::{Answer, csv};
use crate::error::ApiError;
use crate::media::{self, Media};
use crate::params::organization::HEADER;
use crate::routes;

/// To be kept by the caller, and never used without asking.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
/// What the answer depends on besides the address.
const DEPENDS_ON: HeaderValue = HeaderValue::from_static("accept, accept-encoding, authorization");
/// The same, where a header may name the organization.
const COMPATIBLE_DEPENDS_ON: HeaderValue =
    HeaderValue::from_static("accept, accept-encoding, authorization, openai-organization");
const CSV: &str = "text/csv; charset=utf-8; header=present";
/// What JSON says in its body, for CSV and for a 304.
const NEXT_PAGE: HeaderName = HeaderName::from_static("x-next-page");
const COUNTED_THROUGH: HeaderName = HeaderName::from_static("x-counted-through");
const FRESHNESS: HeaderName = HeaderName::from_static("x-freshness");

/// The response to a question.
pub(crate) fn respond(request: &HttpRequest, answer: Answer) -> Result<HttpResponse, ApiError> {
    let offered = routes::offered(request.match_pattern().as_deref().unwrap_or_default());
    let media = media::negotiate(request.headers(), offered)?;
    let lasting = Lasting {
        object: answer.object,
        range: &answer.range,
        totals: &answer.totals,
        comparison: answer.comparison.as_ref(),
        data: &answer.data,
        next_page: answer.next_page.as_deref(),
        state: answer.freshness.state,
    };
    let tag = tag(request, media, &lasting)?;
    let mut response = head(
        request,
        &tag,
        DEPENDS_ON,
        &answer.freshness,
        answer.next_page.as_deref(),
    );
    Ok(match media {
        _ if response.is_known => response.builder.finish(),
        Media::Json => response.builder.json(&answer),
        Media::Csv => response.builder.content_type(CSV).body(csv::body(answer)),
    })
}

/// The response of a page in OpenAI's shape, which has no place for how fresh it is.
pub(crate) fn respond_page(
    request: &HttpRequest,
    page: &impl Serialize,
    next_page: Option<&str>,
    freshness: &Freshness,
) -> Result<HttpResponse, ApiError> {
    // The address does not name the organization where the header does.
    let organization = request.headers().get(HEADER).map(HeaderValue::as_bytes);
    let tag = tag(request, Media::Json, &(organization, page))?;
    let mut response = head(request, &tag, COMPATIBLE_DEPENDS_ON, freshness, next_page);
    Ok(match response.is_known {
        true => response.builder.finish(),
        false => response.builder.json(page),
    })
}

/// Status and headers of a response.
struct Head {
    builder: HttpResponseBuilder,
    /// Whether the caller has the body.
    is_known: bool,
}

fn head(
    request: &HttpRequest,
    tag: &str,
    depends_on: HeaderValue,
    freshness: &Freshness,
    next_page: Option<&str>,
) -> Head {
    let is_known = knows(request, tag);
    let mut builder = if is_known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    builder
        .insert_header((ETAG, tag))
        .insert_header((CACHE_CONTROL, PRIVATE))
        .insert_header((VARY, depends_on))
        .insert_header((FRESHNESS, freshness.state.name()));
    if let Some(through) = freshness.counted_through
        && let Ok(through) = through.format(&Rfc3339)
    {
        builder.insert_header((COUNTED_THROUGH, through));
    }
    if let Some(page) = next_page {
        builder.insert_header((NEXT_PAGE, page));
    }
    Head { builder, is_known }
}

/// What makes an answer another one: all of it but its age, and what is only drawn from that.
#[derive(Serialize)]
struct Lasting<'a> {
    object: &'static str,
    range: &'a super::Range,
    totals: &'a super::Figures,
    comparison: Option<&'a super::Comparison>,
    data: &'a super::Data,
    next_page: Option<&'a str>,
    state: State,
}

/// Weak, as it is the same for every encoding. Of the address too, and with it of the organization: the same
/// numbers of two organizations are two answers.
fn tag(request: &HttpRequest, media: Media, lasting: &impl Serialize) -> Result<String, ApiError> {
    let asked = (request.path(), request.query_string(), media.name());
    let text = serde_json::to_vec(&(asked, lasting)).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written");
        ApiError::Internal
    })?;
    let mut digest = DefaultHasher::new();
    digest.write(&text);
    Ok(format!("W/\"{:016x}\"", digest.finish()))
}

/// Whether the caller has the answer of this tag.
pub(crate) fn knows(request: &HttpRequest, tag: &str) -> bool {
    let strong = |tag: &'_ str| tag.trim().trim_start_matches("W/").to_owned();
    let mut known = request.headers().get_all(IF_NONE_MATCH);
    known.any(|value| {
        value.to_str().is_ok_and(|value| {
            value
                .split(',')
                .any(|known| known.trim() == "*" || strong(known) == strong(tag))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{compared_by_model, over_time};
    use super::*;
    use actix_web::test::TestRequest;
    use time::Duration;

    fn answered(uri: &str, accept: &str, known: &str, answer: Answer) -> HttpResponse {
        let request = TestRequest::get()
            .uri(uri)
            .insert_header(("Accept", accept))
            .insert_header(("If-None-Match", known))
            .to_http_request();
        respond(&request, answer).unwrap()
    }

    fn header(response: &HttpResponse, name: &str) -> String {
        response.headers().get(name).unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_tag_is_of_the_data_and_not_of_its_age() {
        let tag = |uri: &str, accept: &str, answer| header(&answered(uri, accept, "", answer), "etag");
        let first = tag("/a", "*/*", over_time());
        assert!(first.starts_with("W/\""), "{first}");
        assert_eq!(tag("/a", "*/*", over_time()), first);
        let mut older = over_time();
        older.freshness.age_seconds = Some(2.5);
        older.freshness.counted_through = older.freshness.counted_through.map(|at| at + Duration::SECOND);
        older.projection = Some(None);
        assert_eq!(tag("/a", "*/*", older), first);

        let mut delayed = over_time();
        delayed.freshness.state = State::Delayed;
        let mut paged = over_time();
        paged.next_page = Some("page".to_owned());
        for other in [
            tag("/b", "*/*", over_time()),
            tag("/a?limit=1", "*/*", over_time()),
            tag("/a", "text/csv", over_time()),
            tag("/a", "*/*", compared_by_model("gpt")),
            tag("/a", "*/*", compared_by_model("gpt-2")),
            tag("/a", "*/*", delayed),
            tag("/a", "*/*", paged),
        ] {
            assert_ne!(other, first);
        }
    }

    #[test]
    fn what_the_caller_has_is_not_sent_again() {
        let first = answered("/a", "*/*", "", over_time());
        assert_eq!(first.status(), 200);
        let tag = header(&first, "etag");
        for known in [
            tag.clone(),
            tag.trim_start_matches("W/").to_owned(),
            format!("\"x\", {tag}"),
            "*".to_owned(),
        ] {
            let again = answered("/a", "*/*", &known, over_time());
            assert_eq!(again.status(), 304, "{known}");
            for name in [
                "etag",
                "cache-control",
                "vary",
                "x-freshness",
                "x-counted-through",
            ] {
                assert_eq!(header(&again, name), header(&first, name), "{name}");
            }
        }
        for other in ["", "\"x\"", "W/\"\"", &tag[..tag.len() - 2]] {
            assert_eq!(answered("/a", "*/*", other, over_time()).status(), 200, "{other}");
        }
    }

    #[test]
    fn an_answer_is_the_callers_alone() {
        for accept in ["application/json", "text/csv"] {
            let response = answered("/a", accept, "", over_time());
            assert_eq!(header(&response, "cache-control"), "private, no-cache");
            assert_eq!(
                header(&response, "vary"),
                "accept, accept-encoding, authorization"
            );
            assert!(header(&response, "content-type").starts_with(accept));
        }
    }

    #[test]
    fn an_answer_depends_on_the_organization_that_a_header_names() {
        let answered = |organization: &str, known: &str| {
            let request = TestRequest::get()
                .uri("/v1/organization/costs")
                .insert_header((HEADER, organization))
                .insert_header(("If-None-Match", known))
                .to_http_request();
            respond_page(&request, &"page", None, &over_time().freshness).unwrap()
        };
        let one = answered("one", "");
        assert_eq!(
            header(&one, "vary"),
            "accept, accept-encoding, authorization, openai-organization"
        );
        let tag = header(&one, "etag");
        let again = answered("one", &tag);
        assert_eq!(again.status(), 304);
        assert_eq!(header(&again, "vary"), header(&one, "vary"));
        assert_eq!(
            answered("other", &tag).status(),
            200,
            "the same data of two organizations are two answers"
        );
    }
}
