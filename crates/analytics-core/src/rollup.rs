//! Which relations answer a question exactly.
//!
//! A range is covered by the coarsest relation that fits into it; what is left at its two edges goes to
//! the next finer one, down to raw events. The parts never overlap and leave no gap, so their sums add
//! up to the sum over raw events (the property that the test below holds).

use time::{Duration, OffsetDateTime};

use crate::range::{BucketWidth, TimeRange, ceil_to, floor_to};

/// A relation of the reading contract, the same in both flavors of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `usage_events`: one row per event.
    Events,
    /// `usage_daily_by_user`: UTC day by user, key, model and status.
    DailyByUser,
    /// `usage_quarter_hourly`: quarter of an hour by model and status.
    QuarterHourly,
    /// `usage_hourly`: hour by model and status.
    Hourly,
    /// `usage_daily`: UTC day by model and status.
    Daily,
}

impl Relation {
    /// The relation's name in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "usage_events",
            Self::DailyByUser => "usage_daily_by_user",
            Self::QuarterHourly => "usage_quarter_hourly",
            Self::Hourly => "usage_hourly",
            Self::Daily => "usage_daily",
        }
    }

    /// The name of its time column.
    #[must_use]
    pub fn time_column(self) -> &'static str {
        match self {
            Self::Events => "time",
            Self::DailyByUser | Self::Daily => "day",
            Self::QuarterHourly => "bucket",
            Self::Hourly => "hour",
        }
    }

    /// How wide its buckets are; `None` for events, which are points.
    #[must_use]
    pub fn grain(self) -> Option<Duration> {
        match self {
            Self::Events => None,
            Self::DailyByUser | Self::Daily => Some(Duration::DAY),
            Self::QuarterHourly => Some(Duration::minutes(15)),
            Self::Hourly => Some(Duration::HOUR),
        }
    }
}

/// A part of a range and the relation that answers for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where to read.
    pub relation: Relation,
    /// Which part; its bounds are multiples of the relation's grain.
    pub range: TimeRange,
}

/// What decides where a question can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// How wide the answer's buckets are.
    pub width: BucketWidth,
    /// Whether users take part, as a filter or as the rows of the answer.
    pub users: bool,
    /// Whether it is about one organization. Only then may raw events fill the edges: over all
    /// organizations they would be a scan of everything.
    pub one_organization: bool,
    /// Raw events from here on are all still stored.
    pub raw_since: OffsetDateTime,
}

/// Why a question has no exact answer, and what could be asked instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    /// A system-wide question must begin and end with a bucket of its finest relation.
    #[error("{parameter} must be a multiple of {unit} for a question about the whole system; {nearest} is")]
    NotOnBoundary {
        /// `start_time` or `end_time`.
        parameter: &'static str,
        /// What it must be a multiple of.
        unit: &'static str,
        /// The nearest instant that is one.
        nearest: OffsetDateTime,
    },
    /// Users by the hour need raw events, which a system-wide question does not read.
    #[error("bucket_width 1h by user needs one organization; ask for 1d or all")]
    HourlyUsersOfSystem,
    /// The edge of the range, or all of it, needs raw events that are no longer kept.
    #[error(
        "{parameter} needs raw events from before {raw_since}, which are no longer kept; {nearest} can be answered"
    )]
    RawEventsGone {
        /// `start_time` or `end_time`.
        parameter: &'static str,
        /// Raw events are complete from here on.
        raw_since: OffsetDateTime,
        /// The nearest instant that needs none of them.
        nearest: OffsetDateTime,
    },
}

impl Unanswerable {
    /// The parameter to mend.
    #[must_use]
    pub fn parameter(&self) -> &'static str {
        match self {
            Self::NotOnBoundary { parameter, .. } | Self::RawEventsGone { parameter, .. } => parameter,
            Self::HourlyUsersOfSystem => "bucket_width",
        }
    }
}

/// The segments that answer for `range`, in order of time.
///
/// # Errors
/// If no set of relations answers exactly.
pub fn cover(range: TimeRange, needs: &Needs) -> Result<Vec<Segment>, Unanswerable> {
    let relations: &[Relation] = match (needs.users, needs.width) {
        (true, BucketWidth::Hour) => &[Relation::Events],
        (true, _) => &[Relation::DailyByUser, Relation::Events],
        (false, BucketWidth::Hour) => &[Relation::Hourly, Relation::QuarterHourly, Relation::Events],
        (false, _) => &[
            Relation::Daily,
            Relation::Hourly,
            Relation::QuarterHourly,
            Relation::Events,
        ],
    };
    let mut segments = Vec::new();
    fill(range, relations, &mut segments);
    for segment in segments
        .iter()
        .filter(|segment| segment.relation == Relation::Events)
    {
        refuse_unreadable(&range, segment, relations, needs)?;
    }
    Ok(segments)
}

fn fill(range: TimeRange, relations: &[Relation], segments: &mut Vec<Segment>) {
    let Some((relation, finer)) = relations.split_first() else {
        return;
    };
    let (start, end) = match relation.grain() {
        None => (range.start(), range.end()),
        Some(grain) => (ceil_to(range.start(), grain), floor_to(range.end(), grain)),
    };
    let Some(inner) = TimeRange::part(start, end) else {
        return fill(range, finer, segments);
    };
    if let Some(before) = TimeRange::part(range.start(), start) {
        fill(before, finer, segments);
    }
    segments.push(Segment {
        relation: *relation,
        range: inner,
    });
    if let Some(after) = TimeRange::part(end, range.end()) {
        fill(after, finer, segments);
    }
}

fn refuse_unreadable(
    range: &TimeRange,
    edge: &Segment,
    relations: &[Relation],
    needs: &Needs,
) -> Result<(), Unanswerable> {
    // The finest rollup of the question: what its ends must be multiples of, to need no raw events.
    let grain = relations.iter().rev().find_map(|relation| relation.grain());
    let at_the_start = edge.range.start() == range.start()
        && grain.is_none_or(|grain| ceil_to(range.start(), grain) != range.start());
    let (parameter, instant) = if at_the_start {
        ("start_time", range.start())
    } else {
        ("end_time", range.end())
    };
    // Outwards, so that the range that is suggested is never empty.
    let nearest = |grain| {
        if at_the_start {
            floor_to(instant, grain)
        } else {
            ceil_to(instant, grain)
        }
    };
    if !needs.one_organization {
        let Some(grain) = grain else {
            return Err(Unanswerable::HourlyUsersOfSystem);
        };
        let unit = if grain == Duration::DAY {
            "a UTC day"
        } else {
            "a quarter of an hour"
        };
        return Err(Unanswerable::NotOnBoundary {
            parameter,
            unit,
            nearest: nearest(grain),
        });
    }
    if edge.range.start() < needs.raw_since {
        return Err(Unanswerable::RawEventsGone {
            parameter,
            raw_since: needs.raw_since,
            nearest: grain.map_or(needs.raw_since, nearest),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::macros::datetime;

    const LONG_AGO: OffsetDateTime = datetime!(2000-01-01 0:00 UTC);

    fn needs(width: BucketWidth, users: bool) -> Needs {
        Needs {
            width,
            users,
            one_organization: true,
            raw_since: LONG_AGO,
        }
    }

    fn range(start: OffsetDateTime, end: OffsetDateTime) -> TimeRange {
        TimeRange::new(start, end).unwrap()
    }

    #[test]
    fn a_month_is_one_read_of_the_daily_rollup() {
        let month = range(datetime!(2026-11-01 0:00 UTC), datetime!(2026-12-01 0:00 UTC));
        let segments = cover(month, &needs(BucketWidth::Day, false)).unwrap();
        assert_eq!(
            segments,
            [Segment {
                relation: Relation::Daily,
                range: month
            }]
        );
        let segments = cover(month, &needs(BucketWidth::All, true)).unwrap();
        assert_eq!(
            segments,
            [Segment {
                relation: Relation::DailyByUser,
                range: month
            }]
        );
    }

    #[test]
    fn edges_go_to_finer_relations() {
        let odd = range(datetime!(2026-11-01 22:40 UTC), datetime!(2026-11-03 0:50:01 UTC));
        let relations: Vec<_> = cover(odd, &needs(BucketWidth::Day, false))
            .unwrap()
            .iter()
            .map(|segment| (segment.relation, segment.range.start()))
            .collect();
        assert_eq!(
            relations,
            [
                (Relation::Events, datetime!(2026-11-01 22:40 UTC)),
                (Relation::QuarterHourly, datetime!(2026-11-01 22:45 UTC)),
                (Relation::Hourly, datetime!(2026-11-01 23:00 UTC)),
                (Relation::Daily, datetime!(2026-11-02 0:00 UTC)),
                (Relation::QuarterHourly, datetime!(2026-11-03 0:00 UTC)),
                (Relation::Events, datetime!(2026-11-03 0:45 UTC)),
            ]
        );
    }

    #[test]
    fn the_system_is_never_read_from_raw_events() {
        let system = |width, users| Needs {
            one_organization: false,
            ..needs(width, users)
        };
        let odd_end = range(datetime!(2026-11-01 0:00 UTC), datetime!(2026-11-03 0:50 UTC));
        assert_eq!(
            cover(odd_end, &system(BucketWidth::Day, false)),
            Err(Unanswerable::NotOnBoundary {
                parameter: "end_time",
                unit: "a quarter of an hour",
                nearest: datetime!(2026-11-03 1:00 UTC)
            })
        );
        let odd_start = range(datetime!(2026-11-01 6:00 UTC), datetime!(2026-11-03 0:00 UTC));
        assert_eq!(
            cover(odd_start, &system(BucketWidth::All, true))
                .unwrap_err()
                .parameter(),
            "start_time"
        );
        assert_eq!(
            cover(odd_start, &system(BucketWidth::Hour, true)),
            Err(Unanswerable::HourlyUsersOfSystem)
        );
        assert!(cover(odd_start, &system(BucketWidth::Hour, false)).is_ok());
    }

    #[test]
    fn what_is_gone_is_refused_with_what_is_left() {
        let old = Needs {
            raw_since: datetime!(2026-10-01 0:00 UTC),
            ..needs(BucketWidth::All, true)
        };
        let from_six = range(datetime!(2026-09-01 6:00 UTC), datetime!(2026-11-01 0:00 UTC));
        assert_eq!(
            cover(from_six, &old),
            Err(Unanswerable::RawEventsGone {
                parameter: "start_time",
                raw_since: datetime!(2026-10-01 0:00 UTC),
                nearest: datetime!(2026-09-01 0:00 UTC)
            })
        );
        let whole_days = range(datetime!(2026-09-01 0:00 UTC), datetime!(2026-11-01 6:00 UTC));
        assert!(cover(whole_days, &old).is_ok());
    }

    proptest! {
        #[test]
        fn segments_partition_the_range_on_their_grain(
            start in 0_i64..400_000_000,
            length in 1_i64..10_000_000,
            coarse in prop::sample::select(vec![1_i64, 60, 900, 3600, 86_400]),
            users in any::<bool>(),
            width in prop::sample::select(vec![BucketWidth::Hour, BucketWidth::Day, BucketWidth::All]),
        ) {
            let start = datetime!(2020-01-01 0:00 UTC) + Duration::seconds(start / coarse * coarse);
            let end = start + Duration::seconds((length / coarse).max(1) * coarse);
            let asked = range(start, end);
            let segments = cover(asked, &needs(width, users)).unwrap();
            let mut reached = start;
            for segment in &segments {
                prop_assert_eq!(segment.range.start(), reached);
                reached = segment.range.end();
                if let Some(grain) = segment.relation.grain() {
                    prop_assert_eq!(floor_to(segment.range.start(), grain), segment.range.start());
                    prop_assert_eq!(floor_to(segment.range.end(), grain), segment.range.end());
                }
            }
            prop_assert_eq!(reached, end);
            prop_assert!(segments.len() <= 7);
        }
    }
}
