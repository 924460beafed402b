//! Passing or permanent: what an error of the database means for a batch.
//! The table is docs/decisions/passing-or-permanent.md. Data is narrowed down to the row; passing is tried
//! again for ever. What is not known counts as passing: a good event that waits can still be stored, one that
//! was thrown out cannot.

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
    fn the_documented_table() {
        let page = include_str!("../../../docs/decisions/passing-or-permanent.md");
        let mut lines = 0;
        for line in page.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let verdict = match cells[3] {
                "duplicate" => Verdict::Duplicate,
                "data" => Verdict::Data,
                "missing partition" => Verdict::MissingPartition,
                "passing" => Verdict::Passing,
                other => panic!("{other} is no verdict"),
            };
            let code = cells[0].trim_matches('`');
            let constraints: &[_] = match cells[1] {
                "yes" => &[Some("usage_events_cost_in_range")],
                "no" => &[None],
                _ => &[None, Some("anything")],
            };
            for constraint in constraints {
                for subclass in ["000", "001", "P01", "P04"] {
                    let code = SqlState::from_code(&code.replace("xxx", subclass));
                    assert_eq!(judge_code(&code, *constraint), verdict, "{line}");
                }
            }
            lines += 1;
        }
        assert!(lines > 15, "the table was not found");
    }
}
