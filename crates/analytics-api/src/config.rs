//! What can be set, with its default, and the rules between keys.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use analytics_runtime::postgres::Database;
use analytics_runtime::settings::{Key, Settings, SettingsError};
use reqwest::Url;

/// Every key of this service besides the shared ones.
pub const KEYS: &[Key] = &[
    Key {
        name: "PORT",
        default: Some("8080"),
        help: "TCP port of the API; 0 takes any free one",
    },
    Key {
        name: "ADMIN_PORT",
        default: None,
        help: "TCP port that has /health, /ready and /metrics in place of PORT; 0 takes any free one",
    },
    Key {
        name: "DATABASE_URL",
        default: None,
        help: "postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=path; a role that \
               may SELECT is enough",
    },
    Key {
        name: "DATABASE_POOL_SIZE",
        default: Some("10"),
        help: "sessions for questions, 1 to 500; the probes have one more",
    },
    Key {
        name: "JWT_SECRET",
        default: None,
        help: "key of HS256 tokens, at least 32 bytes; or JWT_JWKS_FILE, or JWT_JWKS_URL",
    },
    Key {
        name: "JWT_JWKS_FILE",
        default: None,
        help: "path of a JSON Web Key Set with keys of RS256, ES256 or EdDSA tokens; read once, at start",
    },
    Key {
        name: "JWT_JWKS_URL",
        default: None,
        help: "http(s) address of such a set; read again every 10 minutes, and when a token names an unknown key",
    },
    Key {
        name: "JWT_ISSUER",
        default: None,
        help: "the `iss` that tokens must have, when set",
    },
    Key {
        name: "JWT_AUDIENCE",
        default: None,
        help: "the `aud` that tokens must have, when set; when not, a token that names an audience is refused",
    },
    Key {
        name: "JWT_LEEWAY_SECONDS",
        default: Some("30"),
        help: "how far the clocks of this service and the token's issuer may differ, 0 to 300",
    },
    Key {
        name: "RATE_LIMIT_PER_SECOND",
        default: Some("100"),
        help: "questions of one caller a second, twice as many in a burst, 0 to 1000000; 0 switches it off",
    },
    Key {
        name: "IN_FLIGHT_LIMIT",
        default: Some("256"),
        help: "questions that are being answered at once, 1 to 100000; a 503 above",
    },
    Key {
        name: "FRESHNESS_DELAYED_SECONDS",
        default: Some("60"),
        help: "from which age on an answer calls itself delayed, in seconds, 1 to 86400",
    },
    Key {
        name: "DASHBOARD_ENABLED",
        default: Some("true"),
        help: "whether the dashboard is served at /; true or false",
    },
    Key {
        name: "SHUTDOWN_DELAY_SECONDS",
        default: Some("5"),
        help: "how long /ready says no before the server stops, so that load balancers notice; 0 to 300",
    },
];

/// What the service runs with.
#[derive(Clone)]
pub struct Config {
    /// Where to listen; 0 takes any free port.
    pub port: u16,
    /// Where the probes and the metrics are; `None`: on `port`.
    pub admin_port: Option<u16>,
    /// The address to listen on; without one, all of the host's.
    pub bind_address: Option<IpAddr>,
    /// The database.
    pub database: Database,
    /// Connections to it.
    pub pool_size: usize,
    /// How tokens are proven.
    pub jwt: JwtConfig,
    /// Questions of one caller a second; 0 for any number.
    pub rate_per_second: u32,
    /// Questions that are being answered at once.
    pub in_flight_limit: usize,
    /// From which age on an answer is delayed.
    pub delayed_seconds: f64,
    /// Whether the dashboard is served.
    pub dashboard: bool,
    /// How long readiness is false before the server stops.
    pub shutdown_delay: Duration,
}

/// How tokens are proven.
#[derive(Debug, Clone)]
pub struct JwtConfig {
    /// Where keys come from.
    pub keys: KeySource,
    /// The issuer that tokens must name.
    pub issuer: Option<String>,
    /// The audience that tokens must name.
    pub audience: Option<String>,
    /// How far clocks may differ.
    pub leeway_seconds: u64,
}

/// Where keys come from, exactly one of these.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// HS256 with this secret.
    Secret(Secret),
    /// RS256, ES256 or EdDSA with the keys in this file.
    File(PathBuf),
    /// RS256, ES256 or EdDSA with the keys at this address.
    Url(Url),
}

/// A secret that is never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// RFC 7518, section 3.2: a key as long as the hash, at least.
    const MIN_BYTES: usize = 32;

    /// The secret's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// If a value is missing or not valid, or there is not exactly one source of keys.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        let url: String = settings.required("DATABASE_URL")?;
        let port = settings.required("PORT")?;
        let admin_port = settings.optional("ADMIN_PORT")?;
        if port != 0 && admin_port == Some(port) {
            return Err(settings.invalid("ADMIN_PORT", "it is the same as PORT"));
        }
        Ok(Self {
            port,
            admin_port,
            bind_address: settings.optional("BIND_ADDRESS")?,
            database: Database::parse(&url)
                .map_err(|error| settings.invalid("DATABASE_URL", error.to_string()))?,
            pool_size: settings.within("DATABASE_POOL_SIZE", 1..=500)?,
            jwt: JwtConfig::from_settings(settings)?,
            rate_per_second: settings.within("RATE_LIMIT_PER_SECOND", 0..=1_000_000)?,
            in_flight_limit: settings.within("IN_FLIGHT_LIMIT", 1..=100_000)?,
            delayed_seconds: settings.within("FRESHNESS_DELAYED_SECONDS", 1.0..=86_400.0)?,
            dashboard: settings.required("DASHBOARD_ENABLED")?,
            shutdown_delay: Duration::from_secs(settings.within("SHUTDOWN_DELAY_SECONDS", 0..=300)?),
        })
    }
}

impl JwtConfig {
    fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self {
            keys: KeySource::from_settings(settings)?,
            issuer: settings.optional("JWT_ISSUER")?,
            audience: settings.optional("JWT_AUDIENCE")?,
            leeway_seconds: settings.within("JWT_LEEWAY_SECONDS", 0..=300)?,
        })
    }
}

impl KeySource {
    fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        let secret: Option<String> = settings.optional("JWT_SECRET")?;
        let file: Option<PathBuf> = settings.optional("JWT_JWKS_FILE")?;
        let url: Option<Url> = settings.optional("JWT_JWKS_URL")?;
        match (secret, file, url) {
            (Some(secret), None, None) => {
                if secret.len() < Secret::MIN_BYTES {
                    return Err(settings.invalid("JWT_SECRET", "it has fewer than 32 bytes"));
                }
                Ok(Self::Secret(Secret(secret)))
            }
            (None, Some(path), None) => Ok(Self::File(path)),
            (None, None, Some(url)) if matches!(url.scheme(), "http" | "https") => Ok(Self::Url(url)),
            (None, None, Some(_)) => {
                Err(settings.invalid("JWT_JWKS_URL", "it is neither an http nor an https address"))
            }
            (None, None, None) => Err(settings.invalid(
                "JWT_SECRET",
                "no key is configured: exactly one of JWT_SECRET, JWT_JWKS_FILE and JWT_JWKS_URL must be set",
            )),
            _ => Err(settings.invalid(
                "JWT_SECRET",
                "exactly one of JWT_SECRET, JWT_JWKS_FILE and JWT_JWKS_URL must be set, not several",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn load(variables: &[(&str, &str)]) -> Result<Config, SettingsError> {
        analytics_runtime::tls::install_provider();
        let database = ("DATABASE_URL", "postgres://reader@127.0.0.1:1/usage");
        let variables = variables.iter().chain([&database]);
        let variables = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::from_settings(&Settings::from_map(KEYS, variables)?)
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let config = load(&[("JWT_SECRET", SECRET)]).unwrap();
        assert_eq!((config.port, config.pool_size), (8080, 10));
        assert_eq!(config.admin_port, None);
        assert_eq!((config.rate_per_second, config.in_flight_limit), (100, 256));
        assert_eq!((config.jwt.leeway_seconds, config.jwt.issuer), (30, None));
        assert!(config.dashboard);
        assert_eq!(
            (config.delayed_seconds, config.shutdown_delay),
            (60.0, Duration::from_secs(5))
        );
    }

    #[test]
    fn the_admin_port_is_another_one() {
        let admin_port = |port: &str| load(&[("JWT_SECRET", SECRET), ("ADMIN_PORT", port)]);
        assert_eq!(admin_port("9090").unwrap().admin_port, Some(9090));
        for port in ["8080", "70000", "http"] {
            let message = admin_port(port).err().unwrap().to_string();
            assert!(message.starts_with("ADMIN_PORT is not valid"), "{message}");
        }
    }

    #[test]
    fn exactly_one_source_of_keys() {
        let refused = |variables: &[(&str, &str)]| load(variables).err().unwrap().to_string();
        for variables in [
            &[][..],
            &[("JWT_SECRET", "")],
            &[("JWT_SECRET", SECRET), ("JWT_JWKS_FILE", "keys.json")],
            &[
                ("JWT_SECRET", SECRET),
                ("JWT_JWKS_URL", "https://idp.example/keys"),
            ],
            &[
                ("JWT_JWKS_FILE", "keys.json"),
                ("JWT_JWKS_URL", "https://idp.example/keys"),
            ],
        ] {
            let message = refused(variables);
            for key in ["JWT_SECRET", "JWT_JWKS_FILE", "JWT_JWKS_URL"] {
                assert!(message.contains(key), "{variables:?}: {message}");
            }
        }
        assert!(refused(&[("JWT_SECRET", &SECRET[1..])]).contains("32 bytes"));
        assert!(refused(&[("JWT_JWKS_URL", "ftp://idp.example/keys")]).contains("JWT_JWKS_URL"));
        assert!(load(&[("JWT_JWKS_URL", "https://idp.example/keys")]).is_ok());
        assert!(load(&[("JWT_JWKS_FILE", "keys.json")]).is_ok());
    }

    #[test]
    fn the_dashboard_is_on_or_off() {
        let dashboard = |value| load(&[("JWT_SECRET", SECRET), ("DASHBOARD_ENABLED", value)]);
        assert!(!dashboard("false").unwrap().dashboard);
        let refused = dashboard("maybe").err().unwrap().to_string();
        assert!(refused.contains("DASHBOARD_ENABLED"), "{refused}");
    }

    #[test]
    fn no_secret_is_printed() {
        let config = load(&[("JWT_SECRET", SECRET)]).unwrap();
        assert!(!format!("{:?}", config.jwt).contains(SECRET));
        let short = load(&[("JWT_SECRET", "s3cret")]).err().unwrap();
        assert!(!format!("{short:?} {short}").contains("s3cret"));
    }
}
