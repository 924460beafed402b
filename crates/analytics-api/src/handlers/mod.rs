//! The handlers: extract, ask, shape.

pub(crate) mod answer;
mod ask;
pub(crate) mod list;
pub(crate) mod openai;
pub(crate) mod probes;
pub(crate) mod usage;
