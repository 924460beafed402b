//! Answers questions about usage over HTTP, from read-only sessions.
//!
//! # The path of a request
//! Around every handler are the [`middleware`](self)s: the request gets its id, is logged and measured by
//! its route, and whatever fails gets a problem body. `routes` names every path and who may read it;
//! `auth` proves the bearer token and gives the handler a permit; `params` reads the query string; the
//! permit writes the question, `analytics_core` its SQL, `db` asks it, and `handlers::answer` shapes what
//! came back. A handler that has no permit has nothing that `db` would ask. The page in `dashboard` asks like
//! any other client: it has no way of its own to the numbers.
//!
//! # The application is a value
//! [`Application::bind`] takes a port (0 takes any) and tells its address; [`Application::run`] serves until
//! `shutdown` completes. The binary and the tests start the same value.

mod admission;
mod auth;
pub mod config;
mod dashboard;
mod db;
mod error;
mod handlers;
mod media;
pub mod metrics;
mod middleware;
mod params;
pub mod routes;
mod server;

pub use auth::KeysError;
pub use server::{Application, StartError};

use std::sync::atomic::{AtomicBool, Ordering};

use analytics_runtime::metrics_endpoint::MetricsEndpoint;

use admission::Admission;
use auth::Authenticator;
use config::Config;
use db::Database;

/// What every handler shares.
pub(crate) struct App {
    authenticator: Authenticator,
    admission: Admission,
    database: Database,
    metrics: MetricsEndpoint,
    delayed_seconds: f64,
    dashboard: bool,
    shutting_down: AtomicBool,
}

impl App {
    fn new(config: &Config, metrics: MetricsEndpoint) -> Result<Self, StartError> {
        Ok(Self {
            authenticator: Authenticator::new(&config.jwt)?,
            admission: Admission::new(config.rate_per_second, config.in_flight_limit),
            database: Database::new(&config.database, config.pool_size)?,
            metrics,
            delayed_seconds: config.delayed_seconds,
            dashboard: config.dashboard,
            shutting_down: AtomicBool::new(false),
        })
    }

    fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Relaxed)
    }
}
