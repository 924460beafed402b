//! A question that has no exact answer, in the words of its parameters.

use analytics_core::query::usage::{Ask, MOST_ROWS, Refused};
use analytics_core::rollup::{Mend, Unanswerable, Why};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::given::fault;
use crate::error::{ApiError, ParameterFault};

/// Why a question is refused, and what can be asked instead. `by_period`: the range was given by its name.
pub(crate) fn unanswerable(refused: &Refused, by_period: bool) -> ApiError {
    ApiError::BadParameters(match refused {
        Refused::Range(why) => faults(why, by_period),
        Refused::Before(Unanswerable { why, .. }) => vec![fault(
            "compare",
            &format!("needs the range before this one, which {}", reason(*why)),
            &["a later range, or one that begins with a UTC day"],
        )],
    })
}

/// Why an answer is refused that has been read.
pub(crate) fn too_many_rows(ask: &Ask) -> ApiError {
    let parameter = if ask.group_by.is_empty() {
        "limit"
    } else {
        "group_by"
    };
    ApiError::BadParameters(vec![fault(
        parameter,
        &format!("gives more than {MOST_ROWS} rows, the most that one answer may have"),
        &["a smaller limit", "top", "fewer columns in group_by"],
    )])
}

fn faults(Unanswerable { why, mend }: &Unanswerable, by_period: bool) -> Vec<ParameterFault> {
    let reason = reason(*why);
    let mut faults: Vec<ParameterFault> = Vec::new();
    let mut edges = Vec::new();
    for change in mend {
        let (parameter, allowed) = match change {
            Mend::Start(instant) => ("start_time", written(*instant)),
            Mend::End(instant) => ("end_time", written(*instant)),
            Mend::Width(width) => ("bucket_width", width.name().to_owned()),
            Mend::Utc => ("time_zone", "UTC".to_owned()),
        };
        if by_period && matches!(change, Mend::Start(_) | Mend::End(_)) {
            edges.push(format!("{parameter}={allowed}"));
        } else {
            faults.push(fault(parameter, &reason, &[&allowed]));
        }
    }
    if !edges.is_empty() {
        let edges: Vec<&str> = edges.iter().map(String::as_str).collect();
        faults.insert(0, fault("period", &reason, &edges));
    }
    if faults.is_empty() {
        let parameter = if by_period { "period" } else { "start_time" };
        faults.push(fault(parameter, &reason, &["a later range"]));
    }
    faults
}

/// To be read after a parameter's name.
fn reason(why: Why) -> String {
    match why {
        Why::OffTheGrain => {
            "must be a multiple of a quarter of an hour in a question about the whole system".to_owned()
        }
        Why::RawEventsGone(since) => format!(
            "needs events of a finer time than a UTC day from before {}, which are no longer kept",
            written(since)
        ),
        Why::RollupsGone(since) => format!(
            "reaches back before {}, and usage from before is no longer kept",
            written(since)
        ),
    }
}

fn written(instant: OffsetDateTime) -> String {
    instant.format(&Rfc3339).unwrap_or_default()
}
