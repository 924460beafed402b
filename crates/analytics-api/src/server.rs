//! The application as a value: bound to a port, served until it is told to stop.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::{Compress, from_fn};
use actix_web::web::Data;
use actix_web::{App as ActixApp, HttpServer};
use analytics_runtime::listener::listen;
use analytics_runtime::metrics_endpoint::MetricsEndpoint;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::auth::KeysError;
use crate::config::Config;
use crate::db::Unready;
use crate::middleware::{
    connection, limits::limits, observe::observe, problems::problems, request_id::request_id,
};
use crate::routes::{self, Part};
use crate::{App, dashboard, metrics};

/// Longer than any question may take, shorter than Kubernetes' grace period of 30 s less our delay.
const DRAIN_SECONDS: u64 = 15;
/// A client that sends its headers slower than this holds a connection for nothing.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a database that is away is looked for at start.
const FIRST_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port.
    #[error("cannot listen on port {port}: {source}")]
    Listen {
        /// The port that was asked for.
        port: u16,
        /// Why not.
        source: std::io::Error,
    },
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The server, after it was bound.
    #[error("the server failed")]
    Server(#[source] std::io::Error),
    /// The database is there, with a schema that this build cannot read.
    #[error("{0}")]
    Schema(String),
    /// The pool.
    #[error("cannot make a connection pool")]
    Pool(#[from] deadpool_postgres::BuildError),
}

/// The service, listening.
pub struct Application {
    app: Data<App>,
    server: Server,
    /// Of the probes and the metrics, where they have a port of their own.
    admin: Option<Server>,
    address: SocketAddr,
    shutdown_delay: Duration,
}

impl Application {
    /// Binds the configured ports. Connections wait from here on; they are served by [`Self::run`].
    ///
    /// # Errors
    /// If a port is taken, or there are no usable keys.
    pub fn bind(config: &Config, metrics_endpoint: MetricsEndpoint) -> Result<Self, StartError> {
        metrics::describe();
        let app = Data::new(App::new(config, metrics_endpoint)?);
        let part = match config.admin_port {
            None => Part::Whole,
            Some(_) => Part::Public,
        };
        let (server, address) = serve(&app, part, config.bind_address, config.port)?;
        let admin = config
            .admin_port
            .map(|port| serve(&app, Part::Admin, config.bind_address, port))
            .transpose()?;
        if let Some((_, address)) = &admin {
            info!(%address, "probes and metrics are served");
        }
        Ok(Self {
            app,
            server,
            admin: admin.map(|(server, _)| server),
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
    /// If the server fails by itself, or the database turns out to have another schema than this build's.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
        let Self {
            app,
            mut server,
            admin,
            address,
            shutdown_delay,
        } = self;
        let handle = server.handle();
        // It answers until the process ends: a probe that gets no answer says less than a "no".
        let admin_handle = admin.as_ref().map(Server::handle);
        let mut admin = tokio::spawn(async move {
            match admin {
                Some(server) => server.await,
                None => std::future::pending().await,
            }
        });
        let shared = app.clone();
        let beside = tokio::spawn(async move {
            tokio::join!(
                shared.authenticator.keep_keys_fresh(),
                shared.admission.forget_callers(),
                shared.database.keep_looking()
            )
        });
        info!(%address, "listening");
        tokio::select! {
            ended = &mut server => return ended.map_err(StartError::Server),
            ended = &mut admin => {
                let (_, ()) = tokio::join!(server, handle.stop(false));
                let ended = ended.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                return ended.map_err(StartError::Server);
            }
            why = wrong_schema(&app) => {
                let (_, ()) = tokio::join!(server, handle.stop(false));
                return Err(StartError::Schema(why));
            }
            () = shutdown => {}
        }
        app.shutting_down.store(true, Ordering::Relaxed);
        info!(
            delay_seconds = shutdown_delay.as_secs(),
            "not ready any more, stopping soon"
        );
        let stop = async {
            sleep(shutdown_delay).await;
            handle.stop(true).await;
        };
        let (ended, ()) = tokio::join!(server, stop);
        beside.abort();
        if let Some(handle) = admin_handle {
            handle.stop(false).await;
        }
        info!("stopped");
        ended.map_err(StartError::Server)
    }
}

/// A server of a part of the table, listening on a port, and where that is.
fn serve(
    app: &Data<App>,
    part: Part,
    bind_address: Option<IpAddr>,
    port: u16,
) -> Result<(Server, SocketAddr), StartError> {
    let cannot_listen = |source| StartError::Listen { port, source };
    let listener = listen(bind_address, port).map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let shared = app.clone();
    let mut server = HttpServer::new(move || application(shared.clone(), part))
        .client_request_timeout(HEADER_TIMEOUT)
        .on_connect(connection::remember)
        .shutdown_timeout(DRAIN_SECONDS)
        .disable_signals();
    if part == Part::Admin {
        server = server.workers(1);
    }
    let server = server.listen(listener).map_err(cannot_listen)?.run();
    Ok((server, address))
}

/// Everything around the handlers; each `wrap` lies outside of the ones before it.
fn application(
    app: Data<App>,
    part: Part,
) -> ActixApp<
    impl actix_web::dev::ServiceFactory<
        actix_web::dev::ServiceRequest,
        Config = (),
        Response = actix_web::dev::ServiceResponse<impl actix_web::body::MessageBody>,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    let pages = if app.dashboard && part != Part::Admin {
        dashboard::configure
    } else {
        dashboard::configure_none
    };
    ActixApp::new()
        .app_data(app)
        .configure(|service| routes::configure(part, service))
        .configure(pages)
        .wrap(Compress::default())
        .wrap(from_fn(limits))
        .wrap(from_fn(connection::connection))
        .wrap(from_fn(problems))
        .wrap(from_fn(observe))
        .wrap(from_fn(request_id))
}

/// Looks at the database until it is reached for the first time, which may take as long as it will.
/// Completes only if its schema is not the one of this build: that stops the start, so that a rollout
/// stops as well. Later, `/ready` looks at it.
async fn wrong_schema(app: &App) -> String {
    let mut said = false;
    loop {
        match app.database.look().await {
            Ok(()) => {
                info!("the database is there, with the schema that this build needs");
                return std::future::pending().await;
            }
            Err(Unready::Schema(why)) => return why,
            Err(Unready::Database) if said => {}
            Err(Unready::Database) => {
                warn!("the database cannot be reached yet; /ready says so until it can");
                said = true;
            }
        }
        sleep(FIRST_LOOK_INTERVAL).await;
    }
}

#[cfg(test)]
mod contract_parameters;
#[cfg(test)]
mod dashboard_pages;
#[cfg(test)]
mod identity_matrix;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod too_many;
#[cfg(test)]
pub(crate) mod without_database;
