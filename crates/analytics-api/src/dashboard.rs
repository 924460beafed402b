//! The dashboard: the page that `web/` builds, embedded in this binary if it was there at build time. The only
//! file that names rust-embed.
//!
//! The page is no part of the contract, and may nothing that another client may not: it asks with the token of
//! whoever looks at it.

use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::web::{self, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::error::ApiError;
use crate::handlers::answer::knows;

#[derive(RustEmbed)]
#[folder = "../../web/dist"]
struct Files;

/// Nothing but the page's own files and this service's answers.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
/// Asked for again each time, with its tag.
const AGAIN: HeaderValue = HeaderValue::from_static("no-cache");
/// Their names have a hash of what is in them.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const HTML: &str = "text/html; charset=utf-8";
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const NOT_BUILT: &str = "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>LLM usage</title></head>\n\
    <body>\n<h1>The dashboard was not built</h1>\n<p>This service was built without its dashboard, as there was no \
    Node 20. Run <code>make web</code> and build it again. The API is complete: see \
    <a href=\"/api/v1/openapi.yaml\">its contract</a>.</p>\n</body>\n</html>\n";

/// Registers the page and its files.
pub(crate) fn configure(service: &mut ServiceConfig) {
    service
        .service(web::resource("/").route(web::get().to(page)))
        .service(web::resource("/assets/{file}").route(web::get().to(asset)));
}

/// Registers nothing.
pub(crate) fn configure_none(_: &mut ServiceConfig) {}

async fn page(request: HttpRequest) -> HttpResponse {
    match Files::get("index.html") {
        Some(file) => answer(&request, &file, HTML, AGAIN),
        None => guarded(&mut HttpResponse::Ok())
            .content_type(HTML)
            .insert_header((header::CACHE_CONTROL, AGAIN))
            .body(NOT_BUILT),
    }
}

async fn asset(request: HttpRequest, file: Path<String>) -> Result<HttpResponse, ApiError> {
    let path = format!("assets/{file}");
    let embedded = Files::get(&path).ok_or(ApiError::NotFound)?;
    let mut response = match Files::get(&format!("{path}.gz")).filter(|_| takes_gzip(&request)) {
        // Once, at build time and as small as it gets: what is compressed while it is sent is a third larger.
        Some(small) => {
            let mut response = answer(&request, &small, media(&file), FOR_EVER);
            let encoding = HeaderValue::from_static("gzip");
            response.headers_mut().insert(header::CONTENT_ENCODING, encoding);
            response
        }
        None => answer(&request, &embedded, media(&file), FOR_EVER),
    };
    let vary = HeaderValue::from_static("accept-encoding");
    response.headers_mut().insert(header::VARY, vary);
    Ok(response)
}

fn answer(
    request: &HttpRequest,
    file: &EmbeddedFile,
    media: &'static str,
    cache: HeaderValue,
) -> HttpResponse {
    let digest = file.metadata.sha256_hash();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    // A weak one: the body may be compressed on its way.
    let tag = format!("W/\"{:016x}\"", u64::from_be_bytes([a, b, c, d, e, f, g, h]));
    let is_known = knows(request, &tag);
    let mut response = if is_known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    guarded(&mut response)
        .insert_header((header::ETAG, tag))
        .insert_header((header::CACHE_CONTROL, cache));
    match is_known {
        true => response.finish(),
        false => response.content_type(media).body(file.data.to_vec()),
    }
}

/// Whether a body in gzip is understood, as browsers say it: without a weight of zero.
fn takes_gzip(request: &HttpRequest) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT_ENCODING);
    accepted.filter_map(|value| value.to_str().ok()).any(|value| {
        value
            .split(',')
            .any(|one| one.trim().eq_ignore_ascii_case("gzip"))
    })
}

/// What no page may do that comes from here.
fn guarded(response: &mut HttpResponseBuilder) -> &mut HttpResponseBuilder {
    response
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((OPENER_POLICY, "same-origin"))
}

/// Of the kinds of files that Vite writes.
fn media(file: &str) -> &'static str {
    match file.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
