//! The keys of an identity provider, fetched from its JWKS URL. The only file that names reqwest.
//!
//! They are read again every ten minutes, so that a key that was withdrawn goes, and when a token names a
//! key that is not there, so that a new one comes at once; that at most once in 30 seconds, whoever asks
//! and however many ask. While the provider is away the keys it gave last stay in use.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::{Client, Url, redirect};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::jwks::{JwksError, KeySet};
use super::token::{TokenHeader, VerifyingKey};
use crate::metrics;

/// The least time between two fetches that tokens with unknown keys can cause.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(30);
const REFRESH_INTERVAL: Duration = Duration::from_secs(600);
/// Until there are keys, nobody can be let in: try again soon.
const FIRST_KEYS_INTERVAL: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// A caller is told within a second that the provider is away.
const CALLER_PATIENCE: Duration = Duration::from_millis(900);
/// A key takes half a kilobyte.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// The provider, and the keys it gave last.
pub(super) struct Provider {
    url: Url,
    client: Client,
    keys: RwLock<Option<Arc<KeySet>>>,
    /// When the last fetch began. Held while one runs: who waits here finds that it has just been done.
    last_fetch: Mutex<Option<Instant>>,
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("its answer is larger than {MAX_DOCUMENT_BYTES} bytes")]
    TooLarge,
    #[error("{0}")]
    Keys(#[from] JwksError),
}

impl Provider {
    pub(super) fn new(url: Url) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(FETCH_TIMEOUT)
            // The configured address is the one that is trusted, not where it may point.
            .redirect(redirect::Policy::none())
            // A connection belongs to the runtime that opened it, and requests come from several.
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self {
            url,
            client,
            keys: RwLock::new(None),
            last_fetch: Mutex::new(None),
        })
    }

    pub(super) fn has_keys(&self) -> bool {
        self.current().is_some()
    }

    /// The key that a token names, fetched if it is not there and may be.
    pub(super) async fn find(self: &Arc<Self>, header: &TokenHeader) -> Option<VerifyingKey> {
        if let Some(key) = self.current().and_then(|keys| keys.find(header)) {
            return Some(key);
        }
        let provider = Arc::clone(self);
        // Spawned, because a client that hangs up must not cut the fetch off for those who wait for it.
        let fetch = tokio::spawn(async move { provider.fetch_unless_within(UNKNOWN_KEY_INTERVAL).await });
        // It goes on by itself: this caller is told within a second, the next one may find the key.
        if !matches!(timeout(CALLER_PATIENCE, fetch).await, Ok(Ok(()))) {
            return None;
        }
        self.current().and_then(|keys| keys.find(header))
    }

    pub(super) async fn keep_fresh(&self) {
        loop {
            let interval = if self.has_keys() {
                REFRESH_INTERVAL
            } else {
                FIRST_KEYS_INTERVAL
            };
            self.fetch_unless_within(interval).await;
            sleep(if self.has_keys() {
                REFRESH_INTERVAL
            } else {
                FIRST_KEYS_INTERVAL
            })
            .await;
        }
    }

    fn current(&self) -> Option<Arc<KeySet>> {
        // A poisoned lock still holds a whole `Option`: there is nothing to be half done.
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn fetch_unless_within(&self, interval: Duration) {
        let mut last_fetch = self.last_fetch.lock().await;
        if last_fetch.is_some_and(|at| at.elapsed() < interval) {
            return;
        }
        *last_fetch = Some(Instant::now());
        match self.fetch().await {
            Ok(keys) => {
                info!(host = self.url.host_str(), "signing keys fetched");
                metrics::jwks_fetched("ok");
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
            }
            Err(error) => {
                warn!(host = self.url.host_str(), %error, "signing keys not fetched; the ones at hand stay in use");
                metrics::jwks_fetched("error");
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let mut response = self
            .client
            .get(self.url.clone())
            .send()
            .await
            .map_err(reqwest::Error::without_url)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if document.len() + chunk.len() > MAX_DOCUMENT_BYTES {
                return Err(FetchError::TooLarge);
            }
            document.extend_from_slice(&chunk);
        }
        Ok(KeySet::parse(&document)?)
    }
}
