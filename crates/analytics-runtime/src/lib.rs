//! What both services need to run and neither should have its own version of: [`settings`] read once,
//! [`logging`], the [`listener`], the [`metrics_endpoint`], [`postgres`] over TLS, the [`schema`] check at start, the
//! [`shutdown`] signal, and the [`version`].

pub mod listener;
pub mod logging;
pub mod metrics_endpoint;
pub mod postgres;
pub mod schema;
pub mod settings;
pub mod shutdown;
pub mod tls;
pub mod version;
