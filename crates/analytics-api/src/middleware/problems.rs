//! Where an error becomes a body: RFC 9457 problem+json with the request's id, whoever made the error:
//! a handler, an extractor, or actix-web itself (no such route, no such method).

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _};

use super::request_id::RequestId;
use crate::error::ApiError;

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

pub(crate) async fn problems(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let response = next.call(request).await?.map_into_boxed_body();
    let status = response.status();
    let failed = status.is_client_error() || status.is_server_error();
    let of_ours = response.response().error().and_then(Error::as_error::<ApiError>);
    // A handler that wrote a body of its own, as /ready does, meant it.
    let has_body = response.headers().contains_key(CONTENT_TYPE) && response.response().error().is_none();
    if !failed || has_body {
        return Ok(response);
    }
    let bare = ApiError::from_status(status);
    let body = {
        let extensions = response.request().extensions();
        let request_id = extensions.get::<RequestId>().map_or("", RequestId::as_str);
        serde_json::to_vec(&of_ours.unwrap_or(&bare).problem(request_id))?
    };
    let mut response = response.map_body(|_, _| BoxBody::new(body));
    response.headers_mut().insert(CONTENT_TYPE, PROBLEM_JSON);
    Ok(response)
}
