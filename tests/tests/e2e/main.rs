//! The services on real servers: what was published equals what is stored equals what the API answers, to
//! the token and the last decimal. `make test` starts the servers and says where they are.

#![expect(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod abandoned;
mod admin_port;
mod answers;
mod batches;
mod closing;
mod collect;
mod columnstore;
mod compatible;
mod connections;
mod contracts;
mod dashboard;
mod dead_letters;
mod decoder;
mod failover;
mod failpoints;
mod formats;
mod freshness;
mod grafana;
mod import;
mod keepalive;
mod main_path;
mod maintenance;
mod migrations;
mod observability;
mod operation;
mod operator;
mod outages;
mod plans;
mod platform;
mod producers;
mod questions;
mod reconcile;
mod refused;
mod rollups;
mod settings;
mod setup;
mod supervision;
mod tls;
mod token_details;
mod version;

/// Makes a test of a function for each flavor. The timescaledb one passes without a server of that kind:
/// `make test` says loudly that it was not tested.
#[macro_export]
macro_rules! in_both_flavors {
    ($($test:ident),+ $(,)?) => {
        mod postgres {
            $(#[tokio::test]
            async fn $test() -> anyhow::Result<()> {
                super::$test($crate::platform::Flavor::Postgres).await
            })+
        }
        mod timescaledb {
            $(#[tokio::test]
            async fn $test() -> anyhow::Result<()> {
                match $crate::platform::Flavor::TimescaleDb.is_here() {
                    true => super::$test($crate::platform::Flavor::TimescaleDb).await,
                    false => Ok(()),
                }
            })+
        }
    };
}
