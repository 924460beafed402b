//! The handlers: extract, ask, shape.

pub(crate) mod answer;
pub(crate) mod probes;
pub(crate) mod ranking;
pub(crate) mod usage;
