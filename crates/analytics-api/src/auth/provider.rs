//! The keys of an identity provider, fetched from its JWKS URL. The only file that names reqwest.
//!
//! When they are read again is said by [`Schedule`]; one fetch at a time, whoever asks and however many
//! ask. While the provider is away the keys it gave last stay in use.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::{Client, Url, redirect};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::jwks::{JwksError, KeySet};
use super::schedule::Schedule;
use super::token::{TokenHeader, VerifyingKey};
use crate::metrics;

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
    /// Held while a fetch runs: who waits here finds that it has just been done.
    schedule: Mutex<Schedule>,
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
            schedule: Mutex::new(Schedule::default()),
        })
    }

    /// As if so much time had passed since the last fetch.
    #[cfg(test)]
    pub(super) async fn elapse(&self, time: Duration) {
        self.schedule.lock().await.elapse(time);
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
        let fetch = tokio::spawn(async move { provider.fetch_if(Schedule::due_for_unknown_key).await });
        // It goes on by itself: this caller is told within a second, the next one may find the key.
        if !matches!(timeout(CALLER_PATIENCE, fetch).await, Ok(Ok(()))) {
            return None;
        }
        self.current().and_then(|keys| keys.find(header))
    }

    pub(super) async fn keep_fresh(&self) {
        loop {
            let due = self.schedule.lock().await.due();
            if let Some(due) = due {
                sleep_until(due).await;
            }
            // Tokens with unknown keys may have caused a fetch since; then it is due later.
            self.fetch_if(Schedule::due).await;
        }
    }

    fn current(&self) -> Option<Arc<KeySet>> {
        // A poisoned lock still holds a whole `Option`: there is nothing to be half done.
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches unless that is due later.
    async fn fetch_if(&self, due: impl Fn(&Schedule) -> Option<Instant>) {
        let mut schedule = self.schedule.lock().await;
        let began = Instant::now();
        if due(&schedule).is_some_and(|due| due > began) {
            return;
        }
        let fetched = self.fetch().await;
        schedule.fetched(began, fetched.is_ok());
        match fetched {
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
