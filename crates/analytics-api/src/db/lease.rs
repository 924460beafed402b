//! A connection on loan, and what becomes of one whose answers nobody waits for any more.
//!
//! The server does not notice by itself that a caller gave up: it would work on until the statement
//! timeout, in a session that the pool counts no more. So the place in the pool stays taken until the
//! session is gone: what runs is cancelled, the session ends itself, and when the server has closed the
//! connection, the pool may open another one.

use std::time::Duration;

use analytics_core::session;
use analytics_runtime::postgres::TlsConnector;
use deadpool_postgres::{ClientWrapper, Object};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::metrics;

/// A cancellation may come before the statement that it is meant for.
const CANCEL_AGAIN: Duration = Duration::from_millis(100);
/// By then the server has given up by itself, or leads nowhere.
const END_TIMEOUT: Duration = Duration::from_millis(5_500);

/// A connection whose session ends when it is dropped, unless it is given back.
pub(super) struct Lease {
    object: Option<Object>,
    runtime: Handle,
    tls: TlsConnector,
}

impl Lease {
    pub(super) fn new(object: Object, runtime: Handle, tls: TlsConnector) -> Self {
        Self {
            object: Some(object),
            runtime,
            tls,
        }
    }

    /// Everything that was sent has been answered: the pool may have it again.
    pub(super) fn give_back(mut self) {
        drop(self.object.take());
    }
}

impl std::ops::Deref for Lease {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        self.object
            .as_ref()
            .expect("a lease is empty only while it is being given back or dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(object) = self.object.take() else { return };
        if object.is_closed() {
            drop(Object::take(object));
            return;
        }
        let tls = self.tls.clone();
        self.runtime.spawn(async move {
            let ended = timeout(END_TIMEOUT, end(&object, tls)).await;
            metrics::session_ended(if ended.is_ok() { "ok" } else { "timeout" });
            drop(Object::take(object));
        });
    }
}

/// Completes when the server has closed the connection.
async fn end(client: &Client, tls: TlsConnector) {
    let token = client.cancel_token();
    let cancelling = async {
        loop {
            // If it cannot be sent, the session ends by the statement timeout.
            let _ = token.cancel_query(tls.clone()).await;
            sleep(CANCEL_AGAIN).await;
        }
    };
    let ending = async {
        // Waits behind what runs; a cancellation may meet this statement instead.
        while let Err(error) = client.simple_query(session::END).await
            && error.code() == Some(&SqlState::QUERY_CANCELED)
        {}
    };
    tokio::select! {
        () = ending => {}
        () = cancelling => {}
    }
    // The session has had its last word; the connection is closed when the server is done with it.
    let _ = client.simple_query(session::NOTHING).await;
}
