//! A span of time: half-open, never empty, in whole microseconds.

use time::{Duration, OffsetDateTime, UtcOffset};

/// The earliest instant that can be asked for: 2000-01-01T00:00:00Z, in unix seconds.
pub const EARLIEST_UNIX_SECONDS: i64 = 946_684_800;
/// The first instant that is too late to ask for: 2100-01-01T00:00:00Z, in unix seconds.
pub const LATEST_UNIX_SECONDS: i64 = 4_102_444_800;

/// A half-open span of time: `start` belongs to it, `end` does not. Never empty; whole microseconds,
/// because that is what the database keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    start: OffsetDateTime,
    end: OffsetDateTime,
}

/// Why two instants are not a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The end is not after the start.
    #[error("end_time must be after start_time")]
    Empty,
    /// An instant before 2000 or after 2100.
    #[error("must lie between 2000-01-01T00:00:00Z and 2100-01-01T00:00:00Z")]
    OutOfBounds,
}

impl TimeRange {
    /// The span from `start` to just before `end`; fractions of a microsecond are cut off.
    ///
    /// # Errors
    /// If the end is not after the start, or one of them is before 2000 or after 2100.
    pub fn new(start: OffsetDateTime, end: OffsetDateTime) -> Result<Self, RangeError> {
        let (start, end) = (whole_microseconds(start), whole_microseconds(end));
        let bounds = EARLIEST_UNIX_SECONDS..=LATEST_UNIX_SECONDS;
        if !bounds.contains(&start.unix_timestamp()) || !bounds.contains(&end.unix_timestamp()) {
            return Err(RangeError::OutOfBounds);
        }
        if end <= start {
            return Err(RangeError::Empty);
        }
        Ok(Self { start, end })
    }

    /// For parts of a range that is valid already.
    pub(crate) fn part(start: OffsetDateTime, end: OffsetDateTime) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// The first instant of the range.
    #[must_use]
    pub fn start(&self) -> OffsetDateTime {
        self.start
    }

    /// The first instant after the range.
    #[must_use]
    pub fn end(&self) -> OffsetDateTime {
        self.end
    }

    /// How long it is.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.end - self.start
    }
}

fn whole_microseconds(instant: OffsetDateTime) -> OffsetDateTime {
    let instant = instant.to_offset(UtcOffset::UTC);
    instant - Duration::nanoseconds(i64::from(instant.nanosecond() % 1000))
}

/// The last multiple of `step`, of whole seconds, since 2000-01-03T00:00:00Z, a Monday, that is not after `instant`.
#[must_use]
pub fn floor_to(instant: OffsetDateTime, step: Duration) -> OffsetDateTime {
    const ORIGIN: i64 = time::macros::datetime!(2000-01-03 00:00 UTC).unix_timestamp();
    let over = (instant.unix_timestamp() - ORIGIN).rem_euclid(step.whole_seconds());
    let fraction = Duration::nanoseconds(i64::from(instant.nanosecond()));
    instant.to_offset(UtcOffset::UTC) - fraction - Duration::seconds(over)
}

/// The first multiple of `step` since then that is not before `instant`.
#[must_use]
pub fn ceil_to(instant: OffsetDateTime, step: Duration) -> OffsetDateTime {
    let floor = floor_to(instant, step);
    if floor == instant { floor } else { floor + step }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn multiples_are_counted_from_a_monday() {
        let instant = datetime!(2024-03-31 23:30:05.123_456_789 UTC);
        let floor = |step| floor_to(instant.to_offset(time::macros::offset!(+5:45)), step);
        assert_eq!(floor(Duration::MINUTE), datetime!(2024-03-31 23:30 UTC));
        assert_eq!(floor(Duration::WEEK), datetime!(2024-03-25 0:00 UTC));
        assert_eq!(ceil_to(instant, Duration::WEEK), datetime!(2024-04-01 0:00 UTC));
        assert_eq!(
            ceil_to(instant, Duration::SECOND),
            datetime!(2024-03-31 23:30:06 UTC)
        );
        // Before the one that they are counted from, too.
        let before = datetime!(1970-01-01 0:00:00.5 UTC);
        assert_eq!(floor_to(before, Duration::WEEK), datetime!(1969-12-29 0:00 UTC));
        let monday = datetime!(2024-03-25 0:00 UTC);
        assert_eq!(
            (floor_to(monday, Duration::WEEK), ceil_to(monday, Duration::WEEK)),
            (monday, monday)
        );
    }

    #[test]
    fn ranges_are_never_empty_and_cut_to_microseconds() {
        let start = datetime!(2024-03-31 23:30:05.123_456_789 UTC);
        assert_eq!(TimeRange::new(start, start), Err(RangeError::Empty));
        assert_eq!(
            TimeRange::new(start, start + Duration::nanoseconds(100)),
            Err(RangeError::Empty)
        );
        let range = TimeRange::new(start, start + Duration::SECOND).unwrap();
        assert_eq!(range.start.nanosecond(), 123_456_000);
        assert_eq!(
            TimeRange::new(datetime!(1999-12-31 0:00 UTC), start),
            Err(RangeError::OutOfBounds)
        );
    }
}
