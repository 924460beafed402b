//! Refuses what is larger than any question needs to be, before it is looked at.

use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use crate::error::ApiError;

/// A hundred models of the longest name would be more; a hundred users are less than 5 kB.
const MAX_TARGET_BYTES: usize = 16 * 1024;
/// A token, a few cookies, what proxies add.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// The end of an empty body comes with the head, or soon after.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn limits(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let checked = match check(&request) {
        Ok(()) => reads_no_body(&mut request).await,
        refused => refused,
    };
    match checked {
        Ok(()) => Ok(next.call(request).await?.map_into_boxed_body()),
        Err(error) => Ok(request.error_response(error)),
    }
}

fn check(request: &ServiceRequest) -> Result<(), ApiError> {
    if request.path().len() + request.query_string().len() > MAX_TARGET_BYTES {
        return Err(ApiError::TargetTooLong(MAX_TARGET_BYTES));
    }
    let headers = request.headers();
    if headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum::<usize>()
        > MAX_HEADER_BYTES
    {
        return Err(ApiError::HeadersTooLarge(MAX_HEADER_BYTES));
    }
    if headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0") {
        return Err(ApiError::BodyTooLarge);
    }
    Ok(())
}

/// Some gateways send every request in chunks: a body without a byte is none.
async fn reads_no_body(request: &mut ServiceRequest) -> Result<(), ApiError> {
    if !request.headers().contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    let mut body = request.take_payload();
    let first_byte = async {
        while let Some(chunk) = body.next().await {
            if !chunk.map_err(|_| ApiError::BadRequest)?.is_empty() {
                return Err(ApiError::BodyTooLarge);
            }
        }
        Ok(())
    };
    timeout(BODY_TIMEOUT, first_byte)
        .await
        .unwrap_or(Err(ApiError::BadRequest))
}
