//! What the services expect of the database they find.

/// The newest migration in `migrations/` (a test in the crate that applies them keeps this true). A
/// service starts on this version only: an older schema may lack what it reads, a newer one may have
/// changed it.
pub const VERSION: i32 = 4;

/// Reads the version that a database has, from the table that the migrations keep.
pub const READ_VERSION: &str = "-- schema_version\nSELECT max(version) FROM refinery_schema_history";

/// Which flavor of the schema a database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// Hypertables and columnstore of TimescaleDB's Community edition.
    TimescaleDb,
    /// Plain PostgreSQL 15 or newer: partitions.
    Postgres,
}

impl Flavor {
    /// The name in settings, messages and the table `schema_flavor`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TimescaleDb => "timescaledb",
            Self::Postgres => "postgres",
        }
    }

    /// The flavor of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::TimescaleDb, Self::Postgres]
            .into_iter()
            .find(|flavor| flavor.name() == name)
    }
}
