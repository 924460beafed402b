//! The fault matrix: whatever dies when, an event counts exactly once. Each test has servers that it may
//! stop, freeze, kill and starve, real workers that reach them through a proxy, events that keep coming, and
//! an API that is asked all the time; then one oracle looks at everything ([`scene::Scene::verdict`]).
//!
//! The quick part runs in `make test`; `make test-faults` runs all of it. Moments are random: each test
//! prints its seed, and `FAULT_SEED` sets it.

#![expect(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod ground;
mod proof;
mod scene;
mod verdict;

mod backup;
mod broker;
mod controls;
mod data;
mod database;
mod disk;
mod hazards;
mod network;
mod soak;
mod worker;

/// Makes tests of functions for each flavor. The timescaledb one passes without a server of that kind:
/// `make test` says loudly that it was not tested. `make test` runs what stands first in both flavors, and
/// what stands after `once:` in the postgres flavor; `make test-faults` runs everything in both.
#[macro_export]
macro_rules! in_both_flavors {
    ($($quick:ident),* $(,)? ; once: $($once:ident),* $(,)? ; slow: $($slow:ident),* $(,)?) => {
        mod postgres {
            $($crate::fault_test!($quick, Postgres, );)*
            $($crate::fault_test!($once, Postgres, );)*
            $($crate::fault_test!($slow, Postgres, #[ignore = "make test-faults runs it"]);)*
        }
        mod timescaledb {
            $($crate::fault_test!($quick, TimescaleDb, );)*
            $($crate::fault_test!($once, TimescaleDb, #[ignore = "make test-faults runs it"]);)*
            $($crate::fault_test!($slow, TimescaleDb, #[ignore = "make test-faults runs it"]);)*
        }
    };
}

/// One test.
#[macro_export]
macro_rules! fault_test {
    ($test:ident, $flavor:ident, $(#[$attribute:meta])?) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $(#[$attribute])?
        async fn $test() -> anyhow::Result<()> {
            let flavor = $crate::ground::Flavor::$flavor;
            match flavor.is_here() {
                true => super::$test(flavor).await,
                false => Ok(()),
            }
        }
    };
}
