//! The database's address and how a connection to it is made.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::tls::{self, TlsError};

/// What the server is asked to do about a client that vanished without a word: it notices within half a minute,
/// as the client does. Its own default is more than two hours, in which it keeps the session, and its locks.
const SERVER_KEEPALIVES: &str =
    "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3";

/// How TLS is made for a connection.
pub type TlsConnector = MakeRustlsConnect;

/// Why a database URL cannot be used. Holds nothing of the URL: it has a password.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Not a URL, or a parameter that is not known.
    #[error("no valid PostgreSQL URL: {0}")]
    Url(#[source] tokio_postgres::Error),
    /// A mode that is not offered.
    #[error("sslmode must be disable, prefer, require or verify-full")]
    SslMode,
    /// The CA file.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A database, and how to reach it: `postgres://user:password@host:port/database`.
///
/// `sslmode` is `disable`, `prefer` (the default: TLS where the server offers it), `require` (TLS, but
/// the certificate is not checked) or `verify-full` (checked against `sslrootcert`, a PEM file, or the
/// system's CAs). With `sslrootcert`, `require` checks as well.
#[derive(Clone)]
pub struct Database {
    config: Config,
    tls: TlsConnector,
}

impl Database {
    /// Reads a URL, or PostgreSQL's `key=value` form (which has no TLS parameters here).
    ///
    /// # Errors
    /// If it is not valid, or its CA file cannot be used.
    pub fn parse(url: &str) -> Result<Self, DatabaseUrlError> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut ssl_mode = "prefer".to_owned();
        let mut ca_file = None;
        let mut rest = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let decoded = || percent_decode_str(value).decode_utf8_lossy().into_owned();
            match name {
                "sslmode" => ssl_mode = decoded(),
                "sslrootcert" => ca_file = Some(PathBuf::from(decoded())),
                _ => rest.push(parameter),
            }
        }
        let plain = if rest.is_empty() {
            base.to_owned()
        } else {
            format!("{base}?{}", rest.join("&"))
        };
        let mut config: Config = plain.parse().map_err(DatabaseUrlError::Url)?;
        let (mode, verify) = match ssl_mode.as_str() {
            "disable" => (SslMode::Disable, false),
            "prefer" => (SslMode::Prefer, false),
            "require" => (SslMode::Require, ca_file.is_some()),
            "verify-full" => (SslMode::Require, true),
            _ => return Err(DatabaseUrlError::SslMode),
        };
        config.ssl_mode(mode);
        // A server that vanished without a word is noticed within half a minute.
        config.keepalives(true).keepalives_idle(Duration::from_secs(10));
        config
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3);
        let options = config.get_options().unwrap_or_default();
        let options = format!("{options} {SERVER_KEEPALIVES}");
        config.options(options.trim());
        config.connect_timeout(Duration::from_secs(5));
        let client = if verify {
            tls::verifying_client(ca_file.as_deref())?
        } else {
            tls::unverifying_client()?
        };
        Ok(Self {
            config,
            tls: MakeRustlsConnect::new(client),
        })
    }

    /// Names the session and sets server parameters for it, after those of the URL.
    #[must_use]
    pub fn session(mut self, application_name: &str, parameters: &[(&str, &str)]) -> Self {
        self.config.application_name(application_name);
        let mut options = self.config.get_options().unwrap_or_default().to_owned();
        for (name, value) in parameters {
            options.push_str(&format!(" -c {name}={value}"));
        }
        self.config.options(&options);
        self
    }

    /// Bounds how long one address may take to answer.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout(timeout);
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
    /// If the server cannot be reached or refuses.
    pub async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "database connection ended");
            }
        });
        Ok(client)
    }
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
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Database, DatabaseUrlError> {
        tls::install_provider();
        Database::parse(url)
    }

    #[test]
    fn takes_out_the_tls_parameters_and_leaves_the_rest() {
        let database =
            parse("postgres://u:p%40ss@db:5433/usage?sslmode=verify-full&application_name=x").unwrap();
        assert_eq!(database.config.get_password(), Some(&b"p@ss"[..]));
        assert_eq!(database.config.get_ssl_mode(), SslMode::Require);
        assert_eq!(database.config.get_application_name(), Some("x"));
        assert_eq!(
            parse("postgres://db/usage").unwrap().config.get_ssl_mode(),
            SslMode::Prefer
        );
    }

    #[test]
    fn refuses_what_it_does_not_know_without_repeating_it() {
        for url in [
            "postgres://u:s3cret@db/usage?sslmode=verify-ca",
            "postgres://u:s3cret@db/usage?nonsense=1",
        ] {
            let error = parse(url).err().unwrap();
            assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        }
        assert!(matches!(
            parse("postgres://db/x?sslmode=verify-full&sslrootcert=%2Fnonexistent.pem"),
            Err(DatabaseUrlError::Tls(TlsError::Read { .. }))
        ));
    }

    #[test]
    fn adds_session_parameters_to_those_of_the_url() {
        let keepalives = SERVER_KEEPALIVES;
        let database = parse("postgres://db/x?options=-c%20work_mem%3D8MB")
            .unwrap()
            .session("worker", &[("synchronous_commit", "on")]);
        assert_eq!(
            database.config.get_options(),
            Some(&*format!("-c work_mem=8MB {keepalives} -c synchronous_commit=on"))
        );
        assert_eq!(database.config.get_application_name(), Some("worker"));
    }
}
