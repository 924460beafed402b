//! The SQL that writes: events by COPY, the path around duplicates, dead letters, and the worker's own
//! report.
