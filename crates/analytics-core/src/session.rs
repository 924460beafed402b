//! What a session can be told besides questions.

/// Ends the session that runs it, whatever its role. The server closes the connection when the session is
/// gone, which is the only way to know that it is.
pub const END: &str = "-- end_session\nSELECT pg_terminate_backend(pg_backend_pid())";

/// Does nothing, after everything that was sent before.
pub const NOTHING: &str = "-- nothing";
