//! The database's address and how a connection to it is made.

mod hosts;
mod parameters;

use std::error::Error;
use std::time::Duration;

use analytics_core::session::{self, ServerRole};
use tokio::task::JoinHandle;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::tls::{self, Identity, TlsError, Trust};
use parameters::Parameters;

/// What the server is asked to do about a client that vanished without a word: it notices within half a minute,
/// as the client does. Its own default is more than two hours, in which it keeps the session, and its locks.
const SERVER_KEEPALIVES: [(&str, &str); 3] = [
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];
/// What PostgreSQL's programs and libraries call the protocol, for `sslnegotiation=direct`.
const ALPN: &[u8] = b"postgresql";

/// How TLS is made for a connection.
pub type TlsConnector = MakeRustlsConnect;

/// Why a database URL cannot be used. Holds nothing of the URL: it has a password.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Neither a URL nor PostgreSQL's `key=value` form.
    #[error("no valid PostgreSQL URL: {}", explain(.0))]
    Url(#[source] tokio_postgres::Error),
    /// A quote that does not end, or the like.
    #[error("no valid PostgreSQL connection string")]
    Malformed,
    /// A parameter that nobody knows. Not named: it may be a piece of a password that was not escaped.
    #[error("it has a parameter that PostgreSQL does not know")]
    Unknown,
    /// A parameter of PostgreSQL's that is not offered.
    #[error("{0} is not supported here")]
    Unsupported(&'static str),
    /// A parameter that has another value than it may have.
    #[error("{0} must be {1}")]
    Value(&'static str, &'static str),
    /// Parameters that do not go together.
    #[error("{0}")]
    Together(&'static str),
    /// A file of certificates, or of a key.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Which server a session is for, of several or of one that changes, as in libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Any,
    Only(ServerRole),
    /// A standby if one can be reached, and any server otherwise.
    PreferStandby,
}

/// A database, and how to reach it: `postgres://user:password@host:port/database`, or PostgreSQL's `key=value` form.
///
/// `sslmode` is `disable`, `prefer` (the default: TLS where the server offers it; `allow` is taken for it), `require`
/// (TLS; the certificate's chain is checked where there is an `sslrootcert`), `verify-ca` (its chain) or `verify-full`
/// (its chain and its name). `sslrootcert` is a PEM file, or `system`. `sslcert` and `sslkey` prove who connects.
#[derive(Clone)]
pub struct Database {
    config: Config,
    tls: TlsConnector,
    target: Option<Target>,
    settings: Vec<(String, String)>,
    /// Whether the connection string sets these.
    is_named: bool,
    is_timed: bool,
}

impl Database {
    /// Reads a connection string.
    ///
    /// # Errors
    /// If it is not valid, asks for what is not offered, or names a file that cannot be used.
    pub fn parse(text: &str) -> Result<Self, DatabaseUrlError> {
        let Parameters { plain, own } = Parameters::read(text)?;
        let mut config: Config = plain.parse().map_err(DatabaseUrlError::Url)?;
        let (ssl_mode, mut client) = tls_client(&own)?;
        config.ssl_mode(ssl_mode);
        if config.get_ssl_negotiation() == SslNegotiation::Direct {
            client.alpn_protocols.push(ALPN.to_vec());
        }
        let is_timed = own.contains_key("connect_timeout");
        if !is_timed {
            config.connect_timeout(Duration::from_secs(5));
        }
        // A server that vanished without a word is noticed within half a minute.
        let number = |name| own.number(name);
        config.keepalives_idle(Duration::from_secs(number("keepalives_idle")?.unwrap_or(10)));
        config.keepalives_interval(Duration::from_secs(number("keepalives_interval")?.unwrap_or(5)));
        let retries = number("keepalives_count")?.or(number("keepalives_retries")?);
        config.keepalives_retries(retries.and_then(|n| u32::try_from(n).ok()).unwrap_or(3));
        if let Some(milliseconds) = number("tcp_user_timeout")? {
            config.tcp_user_timeout(Duration::from_millis(milliseconds));
        }
        let given = config.get_options().unwrap_or_default().to_owned();
        let settings = SERVER_KEEPALIVES
            .iter()
            .filter(|(name, _)| !given.contains(name))
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Ok(Self {
            target: own.get("target_session_attrs").map(Target::read).transpose()?,
            is_named: config.get_application_name().is_some(),
            is_timed,
            tls: MakeRustlsConnect::new(client),
            config,
            settings,
        })
    }

    /// Names the session, unless the connection string does, and sets server parameters for it, after those of the
    /// connection string.
    #[must_use]
    pub fn session(mut self, application_name: &str, parameters: &[(&str, &str)]) -> Self {
        if !self.is_named {
            self.config.application_name(application_name);
        }
        let parameters = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.settings.extend(parameters);
        self
    }

    /// For sessions that write: of several hosts, only the one that takes writes is of use, unless the connection
    /// string asks for another one.
    #[must_use]
    pub fn writing(mut self) -> Self {
        if self
            .config
            .get_hosts()
            .len()
            .max(self.config.get_hostaddrs().len())
            > 1
        {
            self.target = self.target.or(Some(Target::Only(ServerRole::ReadWrite)));
        }
        self
    }

    /// Bounds how long one address may take to answer, unless the connection string does.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        if !self.is_timed {
            self.config.connect_timeout(timeout);
        }
        self
    }

    /// For a pool.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// For a pool.
    #[must_use]
    pub fn tls(&self) -> TlsConnector {
        self.tls.clone()
    }

    /// Opens a connection and drives it on a task of its own, which ends with the client.
    ///
    /// # Errors
    /// If no server can be reached, or none is the one that is asked for.
    pub async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        Ok(self.connect_driven().await?.0)
    }

    /// The same, with the task.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_driven(&self) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        match self.target.unwrap_or(Target::Any) {
            Target::Any => self.first_of(None).await,
            Target::Only(role) => self.first_of(Some(role)).await,
            Target::PreferStandby => match self.first_of(Some(ServerRole::Standby)).await {
                Ok(opened) => Ok(opened),
                Err(_) => self.first_of(None).await,
            },
        }
    }

    /// The first address, in the order in which they are given, that has a server of this role.
    async fn first_of(
        &self,
        role: Option<ServerRole>,
    ) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let begin = session::begin(role, &self.settings);
        let mut addresses = hosts::each(&self.config).await.into_iter();
        // There is one at least: of what names no host, the library says so.
        let mut opened = open(
            addresses.next().as_ref().unwrap_or(&self.config),
            &self.tls,
            &begin,
        )
        .await;
        for address in addresses {
            let Err(before) = opened else { break };
            opened = open(&address, &self.tls, &begin).await.map_err(|error| {
                // What a server says tells more than that another one does not answer.
                if before.as_db_error().is_some() && error.as_db_error().is_none() {
                    before
                } else {
                    error
                }
            });
        }
        opened
    }
}

async fn open(
    config: &Config,
    tls: &TlsConnector,
    begin: &str,
) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
    let (client, connection) = config.connect(tls.clone()).await?;
    let driving = tokio::spawn(async move {
        // What ends a connection is told to whoever waits on it.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "database connection ended");
        }
    });
    client.batch_execute(begin).await?;
    Ok((client, driving))
}

impl Target {
    fn read(name: &str) -> Result<Self, DatabaseUrlError> {
        Ok(match name {
            "any" => Self::Any,
            "read-write" => Self::Only(ServerRole::ReadWrite),
            "read-only" => Self::Only(ServerRole::ReadOnly),
            "primary" => Self::Only(ServerRole::Primary),
            "standby" => Self::Only(ServerRole::Standby),
            "prefer-standby" => Self::PreferStandby,
            _ => {
                return Err(DatabaseUrlError::Value(
                    "target_session_attrs",
                    "any, read-write, read-only, primary, standby or prefer-standby",
                ));
            }
        })
    }
}

/// How TLS is made: never weaker than it is asked for.
fn tls_client(own: &parameters::Own) -> Result<(SslMode, rustls::ClientConfig), DatabaseUrlError> {
    let root = own.get("sslrootcert");
    let system = root == Some("system");
    let file = root.filter(|_| !system);
    let default = if system { "verify-full" } else { "prefer" };
    let (mode, trust) = match own.get("sslmode").unwrap_or(default) {
        "verify-full" => (SslMode::Require, Trust::ChainAndName),
        _ if system => {
            return Err(DatabaseUrlError::Together(
                "sslrootcert=system needs sslmode=verify-full",
            ));
        }
        "disable" => (SslMode::Disable, Trust::Anybody),
        "allow" | "prefer" => (SslMode::Prefer, Trust::Anybody),
        "require" if file.is_none() => (SslMode::Require, Trust::Anybody),
        "require" => (SslMode::Require, Trust::Chain),
        "verify-ca" if file.is_none() => {
            return Err(DatabaseUrlError::Together(
                "sslmode=verify-ca needs sslrootcert=FILE",
            ));
        }
        "verify-ca" => (SslMode::Require, Trust::Chain),
        _ => {
            return Err(DatabaseUrlError::Value(
                "sslmode",
                "disable, allow, prefer, require, verify-ca or verify-full",
            ));
        }
    };
    let identity = match (own.get("sslcert"), own.get("sslkey")) {
        (Some(certificate), Some(key)) => Some(Identity::read(certificate.as_ref(), key.as_ref())?),
        (None, None) => None,
        _ => return Err(DatabaseUrlError::Together("sslcert and sslkey go together")),
    };
    Ok((mode, tls::client(trust, file.map(AsRef::as_ref), identity)?))
}

/// The database's own words, which the library leaves out of its messages, or what kept it from saying
/// any. Without DETAIL, which holds values.
#[must_use]
pub fn explain(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} ({})", db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
