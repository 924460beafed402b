//! What a session can be told besides questions.

/// Ends the session that runs it, whatever its role. The server closes the connection when the session is
/// gone, which is the only way to know that it is.
pub const END: &str = "-- end_session\nSELECT pg_terminate_backend(pg_backend_pid())";

/// Does nothing, after everything that was sent before.
pub const NOTHING: &str = "-- nothing";

/// What a server may be asked to be, as by libpq's `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerRole {
    /// It takes writes by default.
    ReadWrite,
    /// It takes none by default.
    ReadOnly,
    /// It is not in recovery.
    Primary,
    /// It is.
    Standby,
}

/// What a session begins with: it fails unless the server is of this role, and then sets these parameters. To be sent
/// as one piece.
#[must_use]
pub fn begin(role: Option<ServerRole>, settings: &[(String, String)]) -> String {
    let mut sql = "-- begin_session\n".to_owned();
    if let Some(role) = role {
        let (is_another, name) = match role {
            ServerRole::ReadWrite => ("current_setting('transaction_read_only') = 'on'", "read-write"),
            ServerRole::ReadOnly => ("current_setting('transaction_read_only') = 'off'", "read-only"),
            ServerRole::Primary => ("pg_is_in_recovery()", "a primary"),
            ServerRole::Standby => ("NOT pg_is_in_recovery()", "a standby"),
        };
        // Of the class of errors that pass: a failover changes it.
        sql.push_str(&format!(
            "DO $$ BEGIN IF {is_another} THEN RAISE EXCEPTION 'this server is not {name}, which \
             target_session_attrs asks for' USING ERRCODE = 'cannot_connect_now'; END IF; END $$;\n"
        ));
    }
    for (name, value) in settings {
        sql.push_str(&format!("SET {name} = '{}';\n", value.replace('\'', "''")));
    }
    sql
}
