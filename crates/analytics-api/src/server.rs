//! The application as a value: bound to a port, served until it is told to stop.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App as ActixApp, HttpServer};
use analytics_runtime::metrics_endpoint::MetricsEndpoint;
use tracing::{info, warn};

use crate::auth::KeysError;
use crate::config::Config;
use crate::db::Unready;
use crate::middleware::{limits::limits, observe::observe, problems::problems, request_id::request_id};
use crate::{App, metrics, routes};

/// Longer than any question may take, shorter than Kubernetes' grace period of 30 s less our delay.
const DRAIN_SECONDS: u64 = 15;
/// A client that sends its headers slower than this holds a connection for nothing.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port.
    #[error("cannot listen on port {port}")]
    Listen {
        /// The port that was asked for.
        port: u16,
        /// Why not.
        source: std::io::Error,
    },
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The pool.
    #[error("cannot make a connection pool")]
    Pool(#[from] deadpool_postgres::BuildError),
}

/// The service, listening.
pub struct Application {
    app: Data<App>,
    server: Server,
    address: SocketAddr,
    shutdown_delay: Duration,
}

impl Application {
    /// Binds the configured port. Connections wait from here on; they are served by [`Self::run`].
    ///
    /// # Errors
    /// If the port is taken, or there are no usable keys.
    pub fn bind(config: &Config, metrics_endpoint: MetricsEndpoint) -> Result<Self, StartError> {
        let cannot_listen = |source| StartError::Listen {
            port: config.port,
            source,
        };
        metrics::describe();
        let app = Data::new(App::new(config, metrics_endpoint)?);
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, config.port)).map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let shared = app.clone();
        let server = HttpServer::new(move || application(shared.clone()))
            .client_request_timeout(HEADER_TIMEOUT)
            .shutdown_timeout(DRAIN_SECONDS)
            .disable_signals()
            .listen(listener)
            .map_err(cannot_listen)?
            .run();
        Ok(Self {
            app,
            server,
            address,
            shutdown_delay: config.shutdown_delay,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes; then says so on `/ready` for a while, so that nobody is sent here
    /// any more, answers what has been asked, and returns.
    ///
    /// # Errors
    /// If the server fails by itself.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> std::io::Result<()> {
        let Self {
            app,
            mut server,
            address,
            shutdown_delay,
        } = self;
        let handle = server.handle();
        let shared = app.clone();
        let beside = tokio::spawn(async move {
            tokio::join!(log_readiness(&shared), shared.authenticator.keep_keys_fresh())
        });
        info!(%address, "listening");
        tokio::select! {
            ended = &mut server => return ended,
            () = shutdown => {}
        }
        app.shutting_down.store(true, Ordering::Relaxed);
        info!(
            delay_seconds = shutdown_delay.as_secs(),
            "not ready any more, stopping soon"
        );
        let stop = async {
            tokio::time::sleep(shutdown_delay).await;
            handle.stop(true).await;
        };
        let (ended, ()) = tokio::join!(server, stop);
        beside.abort();
        info!("stopped");
        ended
    }
}

/// Everything around the handlers; each `wrap` lies outside of the ones before it.
fn application(
    app: Data<App>,
) -> ActixApp<
    impl actix_web::dev::ServiceFactory<
        actix_web::dev::ServiceRequest,
        Config = (),
        Response = actix_web::dev::ServiceResponse<impl actix_web::body::MessageBody>,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    ActixApp::new()
        .app_data(app)
        .configure(routes::configure)
        .wrap(from_fn(limits))
        .wrap(from_fn(problems))
        .wrap(from_fn(observe))
        .wrap(from_fn(request_id))
}

/// Says once, at start, what `/ready` will say: a wrong schema is to be seen in the log of a rollout. The
/// service serves all the same, because what is missing may come.
async fn log_readiness(app: &App) {
    match app.database.ready().await {
        Ok(()) => info!("the database is there, with the schema that this build needs"),
        Err(Unready::Database) => warn!("the database cannot be reached yet; /ready says so until it can"),
        Err(Unready::Schema(why)) => warn!(why, "not ready"),
    }
}

#[cfg(test)]
mod contract_parameters;
#[cfg(test)]
mod identity_matrix;
#[cfg(test)]
mod refusals;
#[cfg(test)]
pub(crate) mod without_database;
