//! What is true about usage, in one place: the event and how it is read ([`event`]), what it costs
//! ([`cost`]), which span of time a question is about ([`range`]) and where its buckets begin ([`calendar`]),
//! which rollup answers it exactly ([`rollup`]), and the SQL that asks and works ([`query`], [`ingest`],
//! [`dead_letters`], [`maintenance`]).
//!
//! Nothing here waits, reads a clock, opens a connection or looks at the environment: *core says what
//! is true, the services say when.* A moment that matters ("now") is always an argument.

pub mod calendar;
pub mod cost;
pub mod dead_letters;
pub mod event;
pub mod ingest;
pub mod latency;
pub mod maintenance;
pub mod number;
pub mod query;
pub mod range;
pub mod reconcile;
pub mod rollup;
pub mod schema;
pub mod session;
