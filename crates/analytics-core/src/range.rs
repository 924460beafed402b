//! Which span of time a question is about, and how it is cut into buckets. All in UTC.

use time::{Duration, OffsetDateTime, Time, UtcOffset};

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
}

/// How wide the buckets of an answer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketWidth {
    /// One hour.
    Hour,
    /// One UTC day.
    Day,
    /// The whole range is one bucket.
    All,
}

impl BucketWidth {
    /// The bucket that begins at `bucket_start`, cut to the range that was asked for.
    #[must_use]
    pub fn bucket(self, bucket_start: OffsetDateTime, range: &TimeRange) -> TimeRange {
        let end = match self {
            Self::Hour => bucket_start + Duration::HOUR,
            Self::Day => bucket_start + Duration::DAY,
            Self::All => range.end,
        };
        TimeRange {
            start: bucket_start.max(range.start),
            end: end.min(range.end),
        }
    }
}

/// A range by its name, relative to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// The running calendar month, to its end.
    ThisMonth,
    /// The calendar month before the running one.
    LastMonth,
    /// From the full hour 24 hours ago to the end of the running hour.
    Last24h,
    /// Seven whole days, today included.
    Last7d,
    /// Thirty whole days, today included.
    Last30d,
}

impl Period {
    /// The range that the name means at the instant `now`.
    ///
    /// # Errors
    /// If `now` is not between 2000 and 2100.
    pub fn range(self, now: OffsetDateTime) -> Result<TimeRange, RangeError> {
        let now = now.to_offset(UtcOffset::UTC);
        let today = now.replace_time(Time::MIDNIGHT);
        let month = today - Duration::days(i64::from(today.day()) - 1);
        let tomorrow = today + Duration::DAY;
        let hour = floor_to(now, Duration::HOUR);
        let (start, end) = match self {
            Self::ThisMonth => (month, next_month(month)),
            Self::LastMonth => {
                let last_day = month - Duration::DAY;
                (last_day - Duration::days(i64::from(last_day.day()) - 1), month)
            }
            Self::Last24h => (hour - Duration::DAY, hour + Duration::HOUR),
            Self::Last7d => (tomorrow - Duration::days(7), tomorrow),
            Self::Last30d => (tomorrow - Duration::days(30), tomorrow),
        };
        TimeRange::new(start, end)
    }
}

fn next_month(first_of_month: OffsetDateTime) -> OffsetDateTime {
    let some_day_of_it = first_of_month + Duration::days(31);
    some_day_of_it - Duration::days(i64::from(some_day_of_it.day()) - 1)
}

fn whole_microseconds(instant: OffsetDateTime) -> OffsetDateTime {
    let instant = instant.to_offset(UtcOffset::UTC);
    instant - Duration::nanoseconds(i64::from(instant.nanosecond() % 1000))
}

/// The last multiple of `step` since 2000-01-01T00:00:00Z that is not after `instant`.
#[must_use]
pub fn floor_to(instant: OffsetDateTime, step: Duration) -> OffsetDateTime {
    let origin = time::macros::datetime!(2000-01-01 00:00 UTC);
    let since = (instant - origin).whole_nanoseconds();
    let over = since.rem_euclid(step.whole_nanoseconds());
    // `over` is less than a day of nanoseconds, which fits.
    instant.to_offset(UtcOffset::UTC) - Duration::nanoseconds(i64::try_from(over).unwrap_or(0))
}

/// The first multiple of `step` since 2000-01-01T00:00:00Z that is not before `instant`.
#[must_use]
pub fn ceil_to(instant: OffsetDateTime, step: Duration) -> OffsetDateTime {
    let floor = floor_to(instant, step);
    if floor == instant { floor } else { floor + step }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn range(period: Period, now: OffsetDateTime) -> (OffsetDateTime, OffsetDateTime) {
        let range = period.range(now).unwrap();
        (range.start, range.end)
    }

    #[test]
    fn periods_are_whole_months_days_and_hours() {
        let now = datetime!(2024-03-31 23:30:05.25 UTC);
        assert_eq!(
            range(Period::ThisMonth, now),
            (datetime!(2024-03-01 0:00 UTC), datetime!(2024-04-01 0:00 UTC))
        );
        assert_eq!(
            range(Period::LastMonth, now),
            (datetime!(2024-02-01 0:00 UTC), datetime!(2024-03-01 0:00 UTC))
        );
        assert_eq!(
            range(Period::Last24h, now),
            (datetime!(2024-03-30 23:00 UTC), datetime!(2024-04-01 0:00 UTC))
        );
        assert_eq!(
            range(Period::Last7d, now),
            (datetime!(2024-03-25 0:00 UTC), datetime!(2024-04-01 0:00 UTC))
        );
        assert_eq!(
            range(Period::Last30d, now),
            (datetime!(2024-03-02 0:00 UTC), datetime!(2024-04-01 0:00 UTC))
        );
    }

    #[test]
    fn periods_are_utc_whatever_offset_now_has() {
        let now = datetime!(2024-04-01 01:00 +05:30);
        assert_eq!(range(Period::ThisMonth, now).0, datetime!(2024-03-01 0:00 UTC));
    }

    #[test]
    fn december_is_followed_by_january() {
        let now = datetime!(2025-12-01 0:00 UTC);
        assert_eq!(range(Period::ThisMonth, now).1, datetime!(2026-01-01 0:00 UTC));
        assert_eq!(
            range(Period::LastMonth, datetime!(2026-01-31 0:00 UTC)).0,
            datetime!(2025-12-01 0:00 UTC)
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
