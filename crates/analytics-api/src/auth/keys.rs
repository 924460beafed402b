//! Where the keys come from: exactly one of a secret, a file and a provider.

use std::path::PathBuf;
use std::sync::Arc;

use super::jwks::{JwksError, KeySet};
use super::provider::Provider;
use super::token::{TokenFault, TokenHeader, VerifyingKey};
use crate::config::KeySource;
use crate::error::{ApiError, Dependency};

/// Why there are no keys to start with.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error("JWT_JWKS_FILE: cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file's content gives no keys.
    #[error("JWT_JWKS_FILE: {path}: {source}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The HTTP client for the provider cannot be built.
    #[error("JWT_JWKS_URL: {0}")]
    Client(Box<dyn std::error::Error + Send + Sync>),
}

/// The configured keys.
pub(super) enum Keys {
    Secret(VerifyingKey),
    File(KeySet),
    Provider(Arc<Provider>),
}

impl Keys {
    pub(super) fn load(source: &KeySource) -> Result<Self, KeysError> {
        Ok(match source {
            KeySource::Secret(secret) => Self::Secret(VerifyingKey::secret(secret.bytes())),
            KeySource::File(path) => Self::File(read_file(path)?),
            KeySource::Url(url) => {
                let provider = Provider::new(url.clone()).map_err(|error| KeysError::Client(error.into()))?;
                Self::Provider(Arc::new(provider))
            }
        })
    }

    /// The key that a token says it was signed with.
    pub(super) async fn find(&self, header: &TokenHeader) -> Result<VerifyingKey, ApiError> {
        let found = match self {
            Self::Secret(key) => Some(key.clone()),
            Self::File(set) => set.find(header),
            Self::Provider(provider) => {
                let found = provider.find(header).await;
                if found.is_none() && !provider.has_keys() {
                    return Err(ApiError::Unavailable(Dependency::SigningKeys));
                }
                found
            }
        };
        found.ok_or(ApiError::Unauthenticated(TokenFault::UnknownKey))
    }

    #[cfg(test)]
    pub(super) async fn elapse(&self, time: std::time::Duration) {
        match self {
            Self::Secret(_) | Self::File(_) => {}
            Self::Provider(provider) => provider.elapse(time).await,
        }
    }

    pub(super) fn any(&self) -> bool {
        match self {
            Self::Secret(_) | Self::File(_) => true,
            Self::Provider(provider) => provider.has_keys(),
        }
    }

    pub(super) async fn keep_fresh(&self) {
        match self {
            Self::Secret(_) | Self::File(_) => std::future::pending().await,
            Self::Provider(provider) => provider.keep_fresh().await,
        }
    }
}

fn read_file(path: &PathBuf) -> Result<KeySet, KeysError> {
    let document = std::fs::read(path).map_err(|source| KeysError::Unreadable {
        path: path.clone(),
        source,
    })?;
    KeySet::parse(&document).map_err(|error: JwksError| KeysError::Unusable {
        path: path.clone(),
        source: error.into(),
    })
}
