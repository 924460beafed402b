//! The parameters of a connection string, in both of PostgreSQL's spellings: a URL, or `key=value` pairs. Those that
//! tokio-postgres reads as libpq does are left to it.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use super::DatabaseUrlError;

/// Left to the library.
const PASSED: [&str; 13] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "keepalives",
    "channel_binding",
    "load_balance_hosts",
];
/// Read here: the library does not know them, or means something else by them.
const OWN: [&str; 10] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "target_session_attrs",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "keepalives_retries",
    "tcp_user_timeout",
];
/// What some of the others may ask for, as it is so in any case.
const HARMLESS: [(&str, &str); 7] = [
    ("client_encoding", "utf8"),
    ("client_encoding", "UTF8"),
    ("gssencmode", "disable"),
    ("gssencmode", "prefer"),
    ("sslcompression", "0"),
    ("sslsni", "1"),
    ("replication", "false"),
];
/// All others of libpq.
const UNSUPPORTED: [&str; 23] = [
    "client_encoding",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "passfile",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
    "sslsni",
];

/// A connection string, sorted.
pub(super) struct Parameters {
    /// For the library.
    pub(super) plain: String,
    /// Read here.
    pub(super) own: Own,
}

/// Parameters that are read here, and `connect_timeout`, if it is given.
#[derive(Default)]
pub(super) struct Own(BTreeMap<&'static str, String>);

impl Own {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn contains_key(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A number that is given and is not 0, which is the system's default in libpq.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, DatabaseUrlError> {
        let number = self.get(name).map(|text| text.parse::<u64>());
        let number = number
            .transpose()
            .map_err(|_| DatabaseUrlError::Value(name, "a whole number"))?;
        Ok(number.filter(|number| *number > 0))
    }
}

impl Parameters {
    pub(super) fn read(text: &str) -> Result<Self, DatabaseUrlError> {
        let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
        if is_url {
            Self::of_url(text)
        } else {
            Self::of_pairs(text)
        }
    }

    fn of_url(url: &str) -> Result<Self, DatabaseUrlError> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut own = Own::default();
        let mut rest = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            if own.leaves(name, value)? {
                rest.push(parameter);
            }
        }
        let plain = match rest.is_empty() {
            true => base.to_owned(),
            false => format!("{base}?{}", rest.join("&")),
        };
        Ok(Self { plain, own })
    }

    fn of_pairs(text: &str) -> Result<Self, DatabaseUrlError> {
        let mut own = Own::default();
        let mut plain = String::new();
        for (name, value) in pairs(text).ok_or(DatabaseUrlError::Malformed)? {
            if own.leaves(&name, value.clone())? {
                let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
                plain.push_str(&format!("{name}='{escaped}' "));
            }
        }
        Ok(Self { plain, own })
    }
}

impl Own {
    /// Takes a parameter, or leaves it to the library, or refuses it.
    fn leaves(&mut self, name: &str, value: String) -> Result<bool, DatabaseUrlError> {
        // As in JDBC, which libpq understands as well.
        let (name, value) = match (name, value.as_str()) {
            ("ssl", "true") => ("sslmode", "require".to_owned()),
            _ => (name, value),
        };
        if name == "connect_timeout" {
            self.0.insert("connect_timeout", value);
            return Ok(true);
        }
        if PASSED.contains(&name) {
            return Ok(true);
        }
        if let Some(own) = OWN.iter().find(|own| **own == name) {
            self.0.insert(own, value);
            return Ok(false);
        }
        if HARMLESS.contains(&(name, value.as_str())) {
            return Ok(false);
        }
        let unsupported = UNSUPPORTED.iter().find(|known| **known == name);
        Err(unsupported.map_or(DatabaseUrlError::Unknown, |name| {
            DatabaseUrlError::Unsupported(name)
        }))
    }
}

/// `key = value` pairs, by libpq's rules: values may be in single quotes, a backslash escapes.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = value(after.trim_start())?;
        pairs.push((name.trim().to_owned(), value));
        rest = after.trim_start();
    }
    Some(pairs)
}

/// A value, and what comes after it.
fn value(text: &str) -> Option<(String, &str)> {
    let (quoted, text) = match text.strip_prefix('\'') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            '\'' if quoted => return Some((value, &text[at + 1..])),
            character if !quoted && character.is_whitespace() => return Some((value, &text[at..])),
            character => value.push(character),
        }
    }
    (!quoted).then_some((value, ""))
}
