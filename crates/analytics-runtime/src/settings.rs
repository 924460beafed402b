//! Settings: read once at start, from the environment and an optional TOML file, every key declared.
//!
//! The environment wins over the file named by `CONFIG_FILE`. A key of the file that no service knows
//! stops the start, and so does a value that does not parse; the message names the key and what it may
//! be. Values never appear in a message: some are secrets. A secret may also stand in a file of its own, which
//! the key with `_FILE` behind it names.
//!
//! One line break at a value's end is not part of it: files of secrets end with one. Other white space around a
//! value is refused, as nobody sees it. A variable whose name is nearly a key's is warned about.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use config::{Config, Environment, File, FileFormat};

/// A setting that a service knows.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in the environment; in the file as well, there in either case.
    pub name: &'static str,
    /// What it is when it is not set; `None`: then there is none.
    pub default: Option<&'static str>,
    /// What it means, with its unit and range.
    pub help: &'static str,
}

/// Keys that both services know.
pub const SHARED_KEYS: &[Key] = &[
    Key {
        name: "LOG_LEVEL",
        default: Some("info"),
        help: "error, warn, info, debug, trace, or a filter such as info,ingest_worker=debug",
    },
    Key {
        name: "LOG_FORMAT",
        default: Some("json"),
        help: "json (one object a line) or text",
    },
    Key {
        name: "CONFIG_FILE",
        default: None,
        help: "path of a TOML file with any of these keys; the environment wins over it",
    },
    Key {
        name: "BIND_ADDRESS",
        default: None,
        help: "IP address to listen on, such as 127.0.0.1 or ::1; without it, all of the host's",
    },
];

/// The keys whose values are secrets, in either service, and the keys that name a file with the value instead.
const SECRET_FILES: &[(&str, &str)] = &[
    ("DATABASE_URL", "DATABASE_URL_FILE"),
    ("MAINTENANCE_DATABASE_URL", "MAINTENANCE_DATABASE_URL_FILE"),
    ("RABBITMQ_URL", "RABBITMQ_URL_FILE"),
    ("JWT_SECRET", "JWT_SECRET_FILE"),
];

/// The values of the declared keys.
#[derive(Clone)]
pub struct Settings {
    keys: Vec<Key>,
    values: BTreeMap<&'static str, String>,
    near_misses: Vec<NearMiss>,
}

/// A variable that is no key, and whose name is nearly that of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    /// The variable's name.
    pub name: String,
    /// The key that may be meant.
    pub key: &'static str,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A key without a default is not set.
    #[error("{name} must be set: {help}")]
    Missing {
        /// The key.
        name: &'static str,
        /// What it means.
        help: &'static str,
    },
    /// A value that is not what the key takes.
    #[error("{name} is not valid ({problem}); it is: {help}")]
    Invalid {
        /// The key.
        name: &'static str,
        /// What is wrong with it; holds nothing of the value.
        problem: String,
        /// What it may be.
        help: &'static str,
    },
    /// The file has a key that this service does not know.
    #[error("CONFIG_FILE has the unknown key {name:?}; known are: {known}")]
    Unknown {
        /// The key in the file.
        name: String,
        /// All keys.
        known: String,
    },
    /// A secret is given directly and by a file.
    #[error("{name} and {name}_FILE are both set: only one of them can be meant")]
    Twice {
        /// The key of the secret.
        name: &'static str,
    },
    /// The file of a secret cannot be used.
    #[error("{name}_FILE names a file that cannot be used: {problem}")]
    SecretFile {
        /// The key of the secret.
        name: &'static str,
        /// What is wrong with the file; holds nothing of what is in it.
        problem: String,
    },
    /// The file cannot be read or is no TOML.
    #[error("CONFIG_FILE cannot be read: {0}")]
    File(String),
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets.
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Settings {
    /// Reads `keys` and the shared ones from the environment and the file that it names.
    ///
    /// # Errors
    /// If the file cannot be read or has a key that is not declared.
    pub fn load(keys: &[Key]) -> Result<Self, SettingsError> {
        let mut variables = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => variables.push((name, value)),
                Err(_) => {
                    if let Some(key) = keys.iter().chain(SHARED_KEYS).find(|key| key.name == name) {
                        return Err(key.invalid("it is no UTF-8"));
                    }
                }
            }
        }
        Self::from_map(keys, variables)
    }

    /// The same from given variables in place of the environment.
    ///
    /// # Errors
    /// If the file cannot be read or has a key that is not declared.
    pub fn from_map(
        keys: &[Key],
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let keys: Vec<Key> = keys.iter().chain(SHARED_KEYS).copied().collect();
        let names: Vec<(&'static str, Key)> = keys.iter().flat_map(names_of).collect();
        let mut near_misses = Vec::new();
        // Unfiltered, `config` would take in every variable of the environment.
        let mut environment: HashMap<String, String> = HashMap::new();
        for (name, value) in variables {
            match names.iter().find(|(known, _)| *known == name) {
                Some((_, key)) => {
                    let value = key.without_line_break(&value)?;
                    if !value.is_empty() {
                        environment.insert(name, value.to_owned());
                    }
                }
                None => near_misses.extend(near_miss(&keys, name)),
            }
        }
        let mut builder = Config::builder();
        if let Some(path) = environment.get("CONFIG_FILE") {
            builder = builder.add_source(File::new(path, FileFormat::Toml));
        }
        let merged: BTreeMap<String, String> = builder
            .add_source(Environment::default().source(Some(environment)))
            .build()
            .and_then(Config::try_deserialize)
            .map_err(|error| SettingsError::File(first_line(&error)))?;
        let mut values = BTreeMap::new();
        for (name, value) in merged {
            let Some((known, key)) = names.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)) else {
                let known: Vec<&str> = names.iter().map(|(known, _)| *known).collect();
                let known = known.join(", ");
                return Err(SettingsError::Unknown { name, known });
            };
            values.insert(*known, key.without_line_break(&value)?.to_owned());
        }
        for (name, file) in SECRET_FILES {
            let Some(path) = values.remove(file) else { continue };
            let Some(key) = keys.iter().find(|key| key.name == *name) else {
                continue;
            };
            if values.insert(key.name, secret(key, &path)?).is_some() {
                return Err(SettingsError::Twice { name });
            }
        }
        Ok(Self {
            keys,
            values,
            near_misses,
        })
    }

    /// The variables that may have been meant for keys.
    #[must_use]
    pub fn near_misses(&self) -> &[NearMiss] {
        &self.near_misses
    }

    fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The text of a key: what is set, or its default.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values
            .get(name)
            .map(String::as_str)
            .or_else(|| self.key(name).and_then(|key| key.default))
    }

    /// The value of a key that may be unset and has no default.
    ///
    /// # Errors
    /// If the value does not parse.
    pub fn optional<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<Option<T>, SettingsError> {
        self.text(name)
            .map(|text| {
                text.parse()
                    .map_err(|error: T::Err| self.invalid(name, error.to_string()))
            })
            .transpose()
    }

    /// The value of a key, set or by default.
    ///
    /// # Errors
    /// If there is none, or it does not parse.
    pub fn required<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<T, SettingsError> {
        self.optional(name)?.ok_or_else(|| match self.key(name) {
            Some(key) => SettingsError::Missing {
                name: key.name,
                help: key.help,
            },
            None => self.invalid(name, "this service declares no such key".to_owned()),
        })
    }

    /// The value of a key that has a smallest and a largest value.
    ///
    /// # Errors
    /// If there is none, it does not parse, or it is outside.
    pub fn within<T>(&self, name: &str, range: std::ops::RangeInclusive<T>) -> Result<T, SettingsError>
    where
        T: FromStr<Err: fmt::Display> + PartialOrd + fmt::Display,
    {
        let value = self.required(name)?;
        if range.contains(&value) {
            return Ok(value);
        }
        Err(self.invalid(name, format!("must be {} to {}", range.start(), range.end())))
    }

    /// The error for a value that parses but cannot be used.
    #[must_use]
    pub fn invalid(&self, name: &str, problem: impl Into<String>) -> SettingsError {
        let (name, help) = self
            .key(name)
            .map_or(("?", "undeclared"), |key| (key.name, key.help));
        SettingsError::Invalid {
            name,
            problem: problem.into(),
            help,
        }
    }
}

/// The names that a key may be given by.
fn names_of(key: &Key) -> impl Iterator<Item = (&'static str, Key)> + use<> {
    let key = *key;
    let file = SECRET_FILES.iter().find(|(secret, _)| *secret == key.name);
    std::iter::once(key.name)
        .chain(file.map(|(_, file)| *file))
        .map(move |name| (name, key))
}

/// The secret in a file. Editors and `kubectl` end a file with a newline, which is not part of it.
fn secret(key: &Key, path: &str) -> Result<String, SettingsError> {
    let unusable = |problem: String| SettingsError::SecretFile {
        name: key.name,
        problem,
    };
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    match key.without_line_break(&text)? {
        "" => Err(unusable("it is empty".to_owned())),
        secret => Ok(secret.to_owned()),
    }
}

impl Key {
    /// A value without the one line break that it may end with.
    fn without_line_break<'a>(&self, value: &'a str) -> Result<&'a str, SettingsError> {
        let value = value.strip_suffix('\n').unwrap_or(value);
        let value = value.strip_suffix('\r').unwrap_or(value);
        if value.trim() != value {
            return Err(self.invalid("it begins or ends with white space"));
        }
        if value.chars().any(char::is_control) {
            return Err(self.invalid("it holds a line break or another control character"));
        }
        Ok(value)
    }

    fn invalid(&self, problem: &str) -> SettingsError {
        SettingsError::Invalid {
            name: self.name,
            problem: problem.to_owned(),
            help: self.help,
        }
    }
}

/// The key that a variable may be meant for. A short name is near to many others.
fn near_miss(keys: &[Key], name: String) -> Option<NearMiss> {
    let upper = name.to_uppercase();
    let near = |key: &&Key| {
        let most = if key.name.len() < 8 { 1 } else { 2 };
        strsim::osa_distance(key.name, &upper) <= most
    };
    let key = keys.iter().find(near)?.name;
    Some(NearMiss { name, key })
}

/// What is wrong and where, without the lines of the file that the parser shows below: one may be a secret.
fn first_line(error: &config::ConfigError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &[Key] = &[
        Key {
            name: "PORT",
            default: Some("8080"),
            help: "TCP port",
        },
        Key {
            name: "DATABASE_URL",
            default: None,
            help: "postgres://user:password@host/database",
        },
    ];

    fn load(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::from_map(
            KEYS,
            variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        )
    }

    #[test]
    fn environment_over_file_over_default() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("settings.toml");
        std::fs::write(&file, "port = 1\nDATABASE_URL = \"postgres://file\"\n").unwrap();
        let file = file.to_str().unwrap();
        let settings = load(&[("CONFIG_FILE", file), ("PORT", "2"), ("PATH", "/bin")]).unwrap();
        assert_eq!(settings.required::<u16>("PORT").unwrap(), 2);
        assert_eq!(settings.text("DATABASE_URL"), Some("postgres://file"));
        assert_eq!(load(&[]).unwrap().required::<u16>("PORT").unwrap(), 8080);
    }

    #[test]
    fn a_line_break_at_the_end_is_no_part_of_a_value() {
        for (given, value) in [
            ("postgres://a\n", "postgres://a"),
            ("postgres://a\r\n", "postgres://a"),
            ("host=a dbname=b", "host=a dbname=b"),
        ] {
            assert_eq!(
                load(&[("DATABASE_URL", given)]).unwrap().text("DATABASE_URL"),
                Some(value)
            );
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("settings.toml");
            std::fs::write(&file, format!("DATABASE_URL = {given:?}\n")).unwrap();
            let settings = load(&[("CONFIG_FILE", file.to_str().unwrap())]).unwrap();
            assert_eq!(settings.text("DATABASE_URL"), Some(value));
        }
        assert_eq!(
            load(&[("DATABASE_URL", "\n")]).unwrap().text("DATABASE_URL"),
            None
        );
        for refused in [
            "s3cret\n\n",
            " s3cret",
            "s3cret ",
            "s3cret \n",
            "\ts3cret",
            "s3\ncret",
            " ",
        ] {
            let error = load(&[("DATABASE_URL", refused)]).unwrap_err().to_string();
            assert!(
                error.starts_with("DATABASE_URL") && !error.contains("s3"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_near_miss_is_told() {
        let misses = |name: &str| load(&[(name, "1")]).unwrap().near_misses().to_vec();
        for name in [
            "DATABSE_URL",
            "DATABASE_ULR",
            "database_url",
            "DATABASE_URI",
            "PROT",
            "LOG_LEVL",
        ] {
            let near = misses(name);
            assert_eq!(near.first().map(|near| near.name.as_str()), Some(name), "{name}");
        }
        assert_eq!(misses("DATABASE_URI")[0].key, "DATABASE_URL");
        for name in ["PATH", "HOME", "PORT", "HOSTNAME", "DATABASE_POOL_SIZE", "PGPORT"] {
            assert_eq!(misses(name), [], "{name}");
        }
    }

    #[test]
    fn errors_name_the_key_and_not_the_value() {
        let error = load(&[("PORT", "s3cret")])
            .unwrap()
            .required::<u16>("PORT")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("PORT") && error.contains("TCP port") && !error.contains("s3cret"),
            "{error}"
        );
        let error = load(&[])
            .unwrap()
            .required::<String>("DATABASE_URL")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("DATABASE_URL must be set"), "{error}");
        let error = load(&[("PORT", "0")])
            .unwrap()
            .within::<u16>("PORT", 1..=9)
            .unwrap_err()
            .to_string();
        assert!(error.contains("must be 1 to 9"), "{error}");
    }

    #[test]
    fn a_file_that_does_not_parse_is_not_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("settings.toml");
        std::fs::write(&file, "PORT = 1\nDATABASE_URL = \"postgres://u:s3cret@h\n").unwrap();
        let error = load(&[("CONFIG_FILE", file.to_str().unwrap())])
            .unwrap_err()
            .to_string();
        assert!(!error.contains("s3cret") && error.len() > 30, "{error}");
    }

    #[test]
    fn a_secret_may_stand_in_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("url");
        let path = path.to_str().unwrap();
        for (written, read) in [
            ("postgres://a", "postgres://a"),
            ("postgres://a\n", "postgres://a"),
            ("postgres://a\r\n", "postgres://a"),
        ] {
            std::fs::write(path, written).unwrap();
            let settings = load(&[("DATABASE_URL_FILE", path)]).unwrap();
            assert_eq!(settings.text("DATABASE_URL"), Some(read), "{written:?}");
        }
        std::fs::write(path, "postgres://a\n\n").unwrap();
        let message = load(&[("DATABASE_URL_FILE", path)]).unwrap_err().to_string();
        assert!(message.starts_with("DATABASE_URL "), "{message}");
        // A file named by the file, in whichever case.
        std::fs::write(path, "postgres://a\n").unwrap();
        let file = directory.path().join("settings.toml");
        std::fs::write(&file, format!("database_url_file = {path:?}\n")).unwrap();
        let settings = load(&[("CONFIG_FILE", file.to_str().unwrap())]).unwrap();
        assert_eq!(settings.text("DATABASE_URL"), Some("postgres://a"));
    }

    #[test]
    fn a_file_of_a_secret_that_cannot_be_used_stops_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("url");
        let path = path.to_str().unwrap();
        let refused = |variables: &[(&str, &str)]| load(variables).unwrap_err().to_string();
        let missing = refused(&[("DATABASE_URL_FILE", path)]);
        assert!(missing.starts_with("DATABASE_URL_FILE "), "{missing}");
        for unusable in [&b""[..], b"\n", b"s3cret\xff"] {
            std::fs::write(path, unusable).unwrap();
            let message = refused(&[("DATABASE_URL_FILE", path)]);
            assert!(message.starts_with("DATABASE_URL_FILE "), "{message}");
            assert!(!message.contains("s3cret"), "{message}");
        }
        std::fs::write(path, "postgres://a").unwrap();
        let twice = refused(&[("DATABASE_URL_FILE", path), ("DATABASE_URL", "postgres://b")]);
        assert!(
            twice.contains("DATABASE_URL and DATABASE_URL_FILE are both set"),
            "{twice}"
        );
        // What is no secret has no such twin.
        let file = directory.path().join("settings.toml");
        std::fs::write(&file, format!("PORT_FILE = {path:?}\n")).unwrap();
        let unknown = refused(&[("CONFIG_FILE", file.to_str().unwrap())]);
        assert!(unknown.to_lowercase().contains("port_file"), "{unknown}");
    }

    #[test]
    fn unknown_keys_of_the_file_stop_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("settings.toml");
        std::fs::write(&file, "prot = 1\n").unwrap();
        let error = load(&[("CONFIG_FILE", file.to_str().unwrap())])
            .unwrap_err()
            .to_string();
        assert!(error.contains("prot") && error.contains("PORT"), "{error}");
        assert!(load(&[("CONFIG_FILE", "/nonexistent.toml")]).is_err());
    }
}
