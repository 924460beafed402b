//! Where the broker is: `RABBITMQ_URL`, by RabbitMQ's own rules ([URI], [query parameters]).
//!
//! [URI]: https://www.rabbitmq.com/docs/uri-spec
//! [query parameters]: https://www.rabbitmq.com/docs/uri-query-parameters

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use analytics_runtime::tls::{self, Identity, TlsError, Trust};
use percent_encoding::percent_decode_str;

/// How long a whole connection may take, TCP, TLS and AMQP, unless the URL says otherwise.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Seconds between heartbeats, unless the URL says otherwise; after two missed ones the peer counts as dead.
const HEARTBEAT_SECONDS: u16 = 10;

/// Where the broker is and who we are there.
#[derive(Clone)]
pub struct Address {
    /// Tried in turn.
    pub(crate) hosts: Vec<(String, u16)>,
    pub(crate) user: String,
    pub(crate) password: String,
    /// The certificate says who we are.
    pub(crate) is_external: bool,
    pub(crate) vhost: String,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    /// What the server's certificate must be for, if not for its host.
    pub(crate) server_name: Option<String>,
    pub(crate) heartbeat: u16,
    pub(crate) connection_timeout: Duration,
}

/// PEM files for `amqps://`.
#[derive(Debug, Default, Clone, Copy)]
pub struct Files<'a> {
    /// CAs that may sign the server's certificate; none: the system's.
    pub ca: Option<&'a str>,
    /// Our own certificate.
    pub certificate: Option<&'a str>,
    /// The key of it.
    pub key: Option<&'a str>,
}

/// Why an address cannot be used. Holds nothing of it but names of parameters: it has a password.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Not a URL.
    #[error("no valid URL: {0}")]
    Url(#[from] url::ParseError),
    /// Another scheme.
    #[error("must begin with amqp:// or amqps://")]
    Scheme,
    /// No host.
    #[error("has no host")]
    Host,
    /// One of several hosts is none.
    #[error("one of its hosts is no host:port")]
    Hosts,
    /// A part that is no UTF-8, or too long for AMQP.
    #[error("user, password and vhost must be percent-encoded UTF-8 of at most 255 bytes")]
    Part,
    /// A path of several segments: a `/` inside a vhost is `%2f`.
    #[error("the vhost is one path segment; a / in it is %2f")]
    Vhost,
    /// A parameter that is not known, or not supported.
    #[error(
        "the parameter {0} is not known: there are cacertfile, certfile, keyfile, verify, server_name_indication, \
         auth_mechanism, heartbeat and connection_timeout"
    )]
    Parameter(String),
    /// A value that a parameter cannot have.
    #[error("the parameter {name} must be {must_be}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What its value can be.
        must_be: &'static str,
    },
    /// A parameter or setting of TLS without TLS.
    #[error("{0} is for amqps:// only")]
    WithoutTls(&'static str),
    /// A file that two places name.
    #[error("{0} is set, and the URL names such a file as well")]
    Twice(&'static str),
    /// Only one of two files.
    #[error("a client certificate needs both its file and its key's")]
    HalfIdentity,
    /// A login by certificate without one.
    #[error("auth_mechanism=external needs amqps:// and a client certificate")]
    External,
    /// A file.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What the query of a URL says.
#[derive(Default)]
struct Query {
    ca: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
    verify: bool,
    server_name: Option<String>,
    is_external: bool,
    heartbeat: Option<u16>,
    connection_timeout: Option<u64>,
}

impl Address {
    /// Reads `amqp://user:password@host:port,host:port/vhost?parameter=value`: parts are percent-decoded; an empty
    /// path, or none, is the vhost `/`.
    ///
    /// # Errors
    /// If it is no such URL, or a file cannot be used.
    pub fn parse(text: &str, files: Files<'_>) -> Result<Self, AddressError> {
        let (first, more) = split_hosts(text)?;
        let url = url::Url::parse(&first)?;
        let (default_port, secure) = match url.scheme() {
            "amqp" => (5672, false),
            "amqps" => (5671, true),
            _ => return Err(AddressError::Scheme),
        };
        let path = url.path().strip_prefix('/').unwrap_or("");
        if path.contains('/') {
            return Err(AddressError::Vhost);
        }
        let mut hosts = vec![host_of(&url, default_port)?];
        for host in more {
            let url = url::Url::parse(&format!("amqp://{host}")).map_err(|_| AddressError::Hosts)?;
            hosts.push(host_of(&url, default_port).map_err(|_| AddressError::Hosts)?);
        }
        let query = Query::read(&url)?;
        let or_guest = |part: &str| match part {
            "" => Ok("guest".to_owned()),
            part => decode(part),
        };
        let tls = tls(secure, &query, files)?;
        if query.is_external && (!secure || files.certificate.or(query.certificate.as_deref()).is_none()) {
            return Err(AddressError::External);
        }
        Ok(Self {
            hosts,
            user: or_guest(url.username())?,
            password: or_guest(url.password().unwrap_or(""))?,
            is_external: query.is_external,
            vhost: if path.is_empty() {
                "/".to_owned()
            } else {
                decode(path)?
            },
            tls,
            server_name: query.server_name,
            heartbeat: query.heartbeat.unwrap_or(HEARTBEAT_SECONDS),
            connection_timeout: query
                .connection_timeout
                .map_or(CONNECTION_TIMEOUT, Duration::from_millis),
        })
    }
}

/// The URL with its first host alone, and the other hosts.
fn split_hosts(text: &str) -> Result<(String, Vec<&str>), AddressError> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(AddressError::Scheme);
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(end);
    let (login, hosts) = match authority.rfind('@') {
        Some(at) => authority.split_at(at + 1),
        None => ("", authority),
    };
    let mut hosts = hosts.split(',');
    let first = hosts.next().unwrap_or_default();
    Ok((format!("{scheme}://{login}{first}{after}"), hosts.collect()))
}

fn host_of(url: &url::Url, default_port: u16) -> Result<(String, u16), AddressError> {
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or(AddressError::Host)?;
    let host = host.trim_matches(['[', ']']).to_owned();
    Ok((host, url.port().unwrap_or(default_port)))
}

fn decode(part: &str) -> Result<String, AddressError> {
    let part = percent_decode_str(part)
        .decode_utf8()
        .map_err(|_| AddressError::Part)?;
    if part.len() > 255 {
        return Err(AddressError::Part);
    }
    Ok(part.into_owned())
}

impl Query {
    fn read(url: &url::Url) -> Result<Self, AddressError> {
        let mut query = Self::default();
        for (name, value) in url.query_pairs() {
            let wrong = |name, must_be| AddressError::Value { name, must_be };
            match &*name {
                "cacertfile" => query.ca = Some(value.into_owned()),
                "certfile" => query.certificate = Some(value.into_owned()),
                "keyfile" => query.key = Some(value.into_owned()),
                "verify" if value == "verify_peer" => query.verify = true,
                "verify" => return Err(wrong("verify", "verify_peer: the server is always checked")),
                "server_name_indication" => query.server_name = Some(value.into_owned()),
                "auth_mechanism" if value.eq_ignore_ascii_case("external") => query.is_external = true,
                "auth_mechanism" if value.eq_ignore_ascii_case("plain") => query.is_external = false,
                "auth_mechanism" => return Err(wrong("auth_mechanism", "plain or external")),
                // The client misbehaves with 0 and 1.
                "heartbeat" => {
                    let must_be = "2 to 600 seconds";
                    let seconds = within(&value, 2, 600).ok_or(wrong("heartbeat", must_be))?;
                    query.heartbeat = Some(seconds);
                }
                "connection_timeout" => {
                    let must_be = "100 to 60000 milliseconds";
                    let wait = within(&value, 100, 60_000).ok_or(wrong("connection_timeout", must_be))?;
                    query.connection_timeout = Some(wait);
                }
                name => return Err(AddressError::Parameter(name.chars().take(40).collect())),
            }
        }
        Ok(query)
    }
}

fn within<T: FromStr + PartialOrd>(value: &str, least: T, most: T) -> Option<T> {
    value
        .parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
}

fn tls(
    secure: bool,
    query: &Query,
    files: Files<'_>,
) -> Result<Option<Arc<rustls::ClientConfig>>, AddressError> {
    let ca = one_of("RABBITMQ_CA_FILE", files.ca, query.ca.as_deref())?;
    let certificate = one_of(
        "RABBITMQ_CERT_FILE",
        files.certificate,
        query.certificate.as_deref(),
    )?;
    let key = one_of("RABBITMQ_KEY_FILE", files.key, query.key.as_deref())?;
    if !secure {
        let without = [
            // A setting may be there for another URL; what stands in this one is meant.
            ("cacertfile", query.ca.is_some()),
            ("certfile", query.certificate.is_some()),
            ("keyfile", query.key.is_some()),
            ("verify", query.verify),
            ("server_name_indication", query.server_name.is_some()),
        ];
        return match without.into_iter().find(|(_, is_there)| *is_there) {
            Some((name, _)) => Err(AddressError::WithoutTls(name)),
            None => Ok(None),
        };
    }
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(AddressError::HalfIdentity),
    };
    let identity = identity
        .map(|(certificate, key)| Identity::read(&certificate, &key))
        .transpose()?;
    let client = tls::client(Trust::ChainAndName, ca.as_deref(), identity)?;
    Ok(Some(Arc::new(client)))
}

fn one_of(
    setting: &'static str,
    file: Option<&str>,
    parameter: Option<&str>,
) -> Result<Option<PathBuf>, AddressError> {
    match (file, parameter) {
        (Some(_), Some(_)) => Err(AddressError::Twice(setting)),
        (file, parameter) => Ok(file.or(parameter).map(|file| Path::new(file).to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, AddressError> {
        tls::install_provider();
        Address::parse(url, Files::default())
    }

    fn refusal(url: &str) -> String {
        parse(url)
            .err()
            .unwrap_or_else(|| panic!("{url} was taken"))
            .to_string()
    }

    #[test]
    fn decodes_every_part() {
        let address = parse("amqp://us%2Fer:p%40ss@host:5673/v%2Fhost").unwrap();
        assert_eq!((&*address.user, &*address.password), ("us/er", "p@ss"));
        assert_eq!(address.hosts, [("host".to_owned(), 5673)]);
        assert_eq!(address.vhost, "v/host");
        for root in ["amqp://h", "amqp://h/", "amqp://h/%2f", "amqp://h:5672/%2F"] {
            let address = parse(root).unwrap();
            assert_eq!((&*address.vhost, &*address.user), ("/", "guest"), "{root}");
            assert_eq!(address.hosts, [("h".to_owned(), 5672)], "{root}");
        }
        assert_eq!(parse("amqps://h").unwrap().hosts[0].1, 5671);
        assert_eq!(parse("amqp://[::1]:5672").unwrap().hosts[0].0, "::1");
    }

    #[test]
    fn several_hosts_are_one_broker() {
        let address = parse("amqp://u:p%40@one:1,[::1],three:3/v?heartbeat=30").unwrap();
        let hosts = [("one", 1), ("::1", 5672), ("three", 3)].map(|(host, port)| (host.to_owned(), port));
        assert_eq!(address.hosts, hosts);
        assert_eq!((&*address.password, &*address.vhost), ("p@", "v"));
        for wrong in ["amqp://one,/v", "amqp://one,two:x", "amqp://u@one,:3"] {
            assert_eq!(refusal(wrong), AddressError::Hosts.to_string(), "{wrong}");
        }
    }

    #[test]
    fn parameters_are_honoured_or_refused_by_name() {
        let url =
            "amqps://h?heartbeat=30&connection_timeout=2500&server_name_indication=mq&verify=verify_peer";
        let address = parse(url).unwrap();
        assert_eq!(
            (address.heartbeat, address.connection_timeout.as_millis()),
            (30, 2_500)
        );
        assert_eq!(address.server_name.as_deref(), Some("mq"));
        for (parameter, named) in [
            ("bogus=1", "bogus"),
            ("channel_max=3", "channel_max"),
            ("heartbeat=1", "heartbeat"),
            ("heartbeat=x", "heartbeat"),
            ("connection_timeout=0", "connection_timeout"),
            ("verify=verify_none", "verify"),
            ("auth_mechanism=scram", "auth_mechanism"),
            ("auth_mechanism=external", "auth_mechanism"),
            ("certfile=x", "certificate"),
            ("cacertfile=/nowhere", "/nowhere"),
        ] {
            let words = refusal(&format!("amqps://h/?{parameter}"));
            assert!(words.contains(named), "{parameter}: {words}");
        }
        let words = refusal("amqp://h/?cacertfile=x");
        assert!(words.contains("cacertfile") && words.contains("amqps"), "{words}");
    }

    #[test]
    fn refuses_what_it_cannot_use_without_repeating_it() {
        let long = format!("amqp://user:{}@host", "s3cret".repeat(50));
        for url in [
            "http://s3cret@h",
            "s3cret",
            "amqp://u:s3cret@/x",
            "amqp://u:s3cret@h/a/b",
            "amqp://u:s3cret@h?heartbeat=s3cret",
            "amqp://u:s3cret@h,x:s3cret",
            &long,
            "amqp://u:%ff@h",
        ] {
            let error = parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
