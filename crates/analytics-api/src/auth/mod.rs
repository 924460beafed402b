//! Who is asking, and what they may read.
//!
//! `Authorization: Bearer` → [`token`] proves the token with a key of [`keys`] → [`principal`] reads its
//! claims → [`permit`] holds them against the route that was matched. A handler receives a
//! [`permit::Permit`] or nothing: without one it cannot write a question that the database is asked.

mod jwks;
mod keys;
pub(crate) mod permit;
mod principal;
mod provider;
mod schedule;
#[cfg(test)]
pub(crate) mod test_tokens;
mod token;

pub use keys::KeysError;
pub(crate) use permit::{Permit, Permitted};
pub(crate) use token::TokenFault;

use actix_web::http::header::{AUTHORIZATION, HeaderMap};

use crate::config::JwtConfig;
use crate::error::ApiError;
use keys::Keys;
use principal::Principal;
use token::Rules;

/// Longer than any token this service reads; what is longer is not even decoded.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Proves tokens with the configured keys, by the configured rules.
pub(crate) struct Authenticator {
    keys: Keys,
    rules: Rules,
}

impl Authenticator {
    pub(crate) fn new(config: &JwtConfig) -> Result<Self, KeysError> {
        Ok(Self {
            keys: Keys::load(&config.keys)?,
            rules: Rules::new(config),
        })
    }

    /// Keeps keys that come from a provider up to date, for as long as it is polled.
    pub(crate) async fn keep_keys_fresh(&self) {
        self.keys.keep_fresh().await;
    }

    /// As if so much time had passed since keys were fetched.
    #[cfg(test)]
    async fn elapse(&self, time: std::time::Duration) {
        self.keys.elapse(time).await;
    }

    /// Whether there is a key to prove tokens with.
    pub(crate) fn has_keys(&self) -> bool {
        self.keys.any()
    }

    async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, ApiError> {
        let token = bearer(headers).map_err(ApiError::Unauthenticated)?;
        let header = token::read_header(token).map_err(ApiError::Unauthenticated)?;
        let key = self.keys.find(&header).await?;
        let claims = token::prove(token, &header, &key, &self.rules).map_err(ApiError::Unauthenticated)?;
        Principal::from_claims(&claims).ok_or(ApiError::Forbidden)
    }
}

/// The token of the one `Authorization` header. Two headers are refused: who is to say which one counts.
fn bearer(headers: &HeaderMap) -> Result<&str, TokenFault> {
    let mut values = headers.get_all(AUTHORIZATION);
    let value = values.next().ok_or(TokenFault::Missing)?;
    if values.next().is_some() {
        return Err(TokenFault::Malformed);
    }
    let value = value.to_str().map_err(|_| TokenFault::Malformed)?;
    let (scheme, token) = value.split_once(' ').ok_or(TokenFault::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(TokenFault::Missing);
    }
    let token = token.trim();
    if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return Err(TokenFault::Malformed);
    }
    Ok(token)
}

#[cfg(test)]
mod hostile_tokens;
