//! The harness of the end-to-end tests, the demo and the benchmarks: real servers, real binaries, and
//! events whose truth is known before they are sent.
//!
//! - [`servers`] starts private PostgreSQL and RabbitMQ instances from the distribution's packages;
//! - [`process`] runs the real binaries of the services;
//! - [`generator`] makes events, [`truth`] knows what must come of them, [`local`] by which local day,
//!   [`malformed`] makes messages that are none;
//! - [`proxy`] stands between a service and a server, and does what networks do;
//! - [`flow`] keeps them coming while something is done to the servers, [`watch`] asks the API meanwhile,
//!   and [`oracle`] tells whether all of it was stored once;
//! - [`publisher`] sends them, [`raw`] sends what no client library would, [`api`] asks for the answers and holds them against the truth, [`token`]
//!   says who asks.
//!
//! Nothing here imports the services' own decoding or arithmetic: what they are held against must not
//! share their mistakes.

pub mod api;
#[cfg(test)]
mod contract;
pub mod flow;
pub mod generator;
pub mod local;
pub mod malformed;
pub mod oracle;
pub mod orphans;
pub mod pid;
pub mod ports;
pub mod process;
pub mod progress;
pub mod proxy;
pub mod publisher;
pub mod raw;
pub mod servers;
pub mod token;
pub mod truth;
pub mod watch;
