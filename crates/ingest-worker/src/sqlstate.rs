//! Passing or permanent: what an error of the database means for a batch.
//!
//! | SQLSTATE | meaning | then |
//! |---|---|---|
//! | 23505 | an event is stored already | the way around duplicates |
//! | 22xxx | a value that its type cannot hold | data |
//! | 23502, 23514 with a constraint's name | a row that a check refuses | data |
//! | 0A000, 54000 | NaN in a cast, an index entry too large | data |
//! | 23514 without a constraint's name | a partition is missing | passing, once maintenance has made it |
//! | everything else, and everything without a SQLSTATE | connections, locks, resources, the unknown | passing |
//!
//! Data is narrowed down to the row; passing is tried again for ever. What is not known counts as passing:
//! a good event that waits can still be stored, one that was thrown out cannot.

use tokio_postgres::error::SqlState;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Some event of the batch is stored already.
    Duplicate,
    /// Some row of the batch cannot be stored, ever.
    Data,
    /// A partition is missing: make it, then try again.
    MissingPartition,
    /// Try again.
    Passing,
}

/// Judges an error of a statement.
pub fn judge(error: &tokio_postgres::Error) -> Verdict {
    match error.as_db_error() {
        Some(error) => judge_code(error.code(), error.constraint()),
        None => Verdict::Passing,
    }
}

fn judge_code(code: &SqlState, constraint: Option<&str>) -> Verdict {
    match code.code() {
        "23505" => Verdict::Duplicate,
        "23514" if constraint.is_none() => Verdict::MissingPartition,
        "23514" | "23502" | "0A000" | "54000" => Verdict::Data,
        code if code.starts_with("22") => Verdict::Data,
        _ => Verdict::Passing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_above() {
        let cases = [
            ("23505", Some("usage_events_key"), Verdict::Duplicate),
            ("22003", None, Verdict::Data),
            ("22P02", None, Verdict::Data),
            ("22021", None, Verdict::Data),
            ("23502", None, Verdict::Data),
            ("23514", Some("usage_events_cost_in_range"), Verdict::Data),
            ("0A000", None, Verdict::Data),
            ("54000", None, Verdict::Data),
            ("23514", None, Verdict::MissingPartition),
        ];
        for (code, constraint, verdict) in cases {
            assert_eq!(
                judge_code(&SqlState::from_code(code), constraint),
                verdict,
                "{code}"
            );
        }
        let passing = [
            "08006", "40001", "40P01", "53100", "53300", "53400", "55P03", "57014", "57P01", "25006",
            "28P01", "42P01", "42501", "XX000", "ZZZZZ",
        ];
        for code in passing {
            assert_eq!(
                judge_code(&SqlState::from_code(code), None),
                Verdict::Passing,
                "{code}"
            );
        }
    }
}
