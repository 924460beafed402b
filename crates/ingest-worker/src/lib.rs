//! The path of a usage event from the queue to a committed row:
//! [`amqp`] receives it, a [`consumer`] reads it, a [`lane`] collects a [`batch`], the [`sink`] commits it,
//! and the lane acknowledges. `docs/architecture.md` numbers the steps and says what happens when the
//! process dies at each.

pub mod amqp;
pub mod backoff;
pub mod batch;
pub mod brake;
pub mod budget;
pub mod caution;
pub mod config;
pub mod consumer;
pub mod failpoint;
pub mod generation;
pub mod lane;
pub mod ledger;
pub mod maintenance;
pub mod metrics;
pub mod migrate;
pub mod operator;
pub mod probes;
pub mod progress;
pub mod report;
pub mod room;
pub mod sink;
pub mod sqlstate;
pub mod status;
pub mod worker;
