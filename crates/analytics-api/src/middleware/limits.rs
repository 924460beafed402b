//! Refuses what is larger than any question needs to be, before it is looked at.

use actix_web::Error;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use actix_web::middleware::Next;

use crate::error::ApiError;

/// A hundred models of the longest name would be more; a hundred users are less than 5 kB.
const MAX_TARGET_BYTES: usize = 16 * 1024;
/// A token, a few cookies, what proxies add.
const MAX_HEADER_BYTES: usize = 32 * 1024;

pub(crate) async fn limits(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    match check(&request) {
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
    let announced = headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    if announced || headers.contains_key(TRANSFER_ENCODING) {
        return Err(ApiError::BodyTooLarge);
    }
    Ok(())
}
