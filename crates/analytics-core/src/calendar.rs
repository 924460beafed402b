//! Local days, hours, weeks and months: where buckets begin, as instants.
//!
//! Every boundary is computed here, by one table of time zones that is part of the program, and bound to
//! statements as an instant. The database never sees a zone: its own table is of another year.
//!
//! - A day begins with the first instant of its date: midnight, or the moment at which a clock change
//!   skips it; the first midnight where it comes twice.
//! - A week begins on Monday, a month on its first day.
//! - Hours, quarters and minutes begin where the local clock shows a multiple of them, and at every change of
//!   the clock. So each is of one offset, and an hour that comes twice is two buckets.

mod zone;

use jiff::ToSpan as _;
use jiff::civil::Date;
use time::{Duration, OffsetDateTime};

use crate::range::{RangeError, TimeRange, floor_to};
pub use zone::Zone;

/// How wide the buckets of an answer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketWidth {
    /// One minute.
    Minute,
    /// A quarter of an hour.
    QuarterHour,
    /// One hour.
    Hour,
    /// One local day.
    Day,
    /// Seven local days from a Monday.
    Week,
    /// One local calendar month.
    Month,
    /// The whole range is one bucket.
    All,
}

impl BucketWidth {
    /// All of them, the finest first.
    pub const EVERY: [Self; 7] = [
        Self::Minute,
        Self::QuarterHour,
        Self::Hour,
        Self::Day,
        Self::Week,
        Self::Month,
        Self::All,
    ];

    /// How it is spelled.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::QuarterHour => "15m",
            Self::Hour => "1h",
            Self::Day => "1d",
            Self::Week => "1w",
            Self::Month => "1mo",
            Self::All => "all",
        }
    }

    /// The widest range that may be asked for in buckets of this width, in days: it bounds how many there
    /// are.
    #[must_use]
    pub fn widest_days(self) -> i64 {
        match self {
            Self::Minute => 1,
            Self::QuarterHour => 31,
            Self::Hour => 93,
            Self::Day => 400,
            Self::Week | Self::Month | Self::All => 3_660,
        }
    }

    /// Whether a range is one that may be asked for in buckets of this width. A day of local time has an
    /// hour more where clocks change.
    #[must_use]
    pub fn allows(self, range: &TimeRange) -> bool {
        let slack = if self == Self::Minute {
            Duration::ZERO
        } else {
            Duration::HOUR
        };
        range.length() <= Duration::days(self.widest_days()) + slack
    }

    /// Minutes, quarters and hours; `None` for what the calendar decides.
    fn step(self) -> Option<Duration> {
        match self {
            Self::Minute => Some(Duration::MINUTE),
            Self::QuarterHour => Some(Duration::minutes(15)),
            Self::Hour => Some(Duration::HOUR),
            Self::Day | Self::Week | Self::Month | Self::All => None,
        }
    }

    /// Where the bucket begins that `instant` falls into.
    fn floor(self, instant: OffsetDateTime, zone: &Zone) -> OffsetDateTime {
        if let Some(step) = self.step() {
            let offset = zone.offset(instant);
            let start = floor_to(instant + offset, step) - offset;
            return zone
                .last_change(instant)
                .map_or(start, |change| change.max(start));
        }
        let date = zone.day_of(instant);
        zone.midnight(match self {
            Self::Week => {
                let days_since_monday = i64::from(date.weekday().to_monday_zero_offset());
                shifted(date, -days_since_monday)
            }
            Self::Month => date.first_of_month(),
            _ => date,
        })
    }

    /// Where the bucket ends that begins at `start`.
    fn next(self, start: OffsetDateTime, zone: &Zone) -> OffsetDateTime {
        if let Some(step) = self.step() {
            let offset = zone.offset(start);
            let next = floor_to(start + offset, step) + step - offset;
            return zone
                .next_change(start, next)
                .map_or(next, |change| change.min(next));
        }
        let date = zone.day_of(start);
        zone.midnight(match self {
            Self::Week => shifted(date, 7),
            Self::Month => next_month(date),
            _ => shifted(date, 1),
        })
    }
}

/// A range cut into buckets. There is at least one, and they leave no gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    width: BucketWidth,
    zone: Zone,
    range: TimeRange,
    /// Where each begins; the first one at the start of the range.
    starts: Vec<OffsetDateTime>,
}

impl Buckets {
    /// Cuts `range` into buckets of `width`, in `zone`. The first and the last are cut to the range.
    ///
    /// How many there are is bounded by [`BucketWidth::allows`], which is the caller's to ask.
    #[must_use]
    pub fn new(range: TimeRange, width: BucketWidth, zone: &Zone) -> Self {
        let mut starts = vec![range.start()];
        if width != BucketWidth::All {
            let mut next = width.next(width.floor(range.start(), zone), zone);
            while next < range.end() {
                starts.push(next);
                next = width.next(next, zone);
            }
        }
        Self {
            width,
            zone: zone.clone(),
            range,
            starts,
        }
    }

    /// The range that they make up.
    #[must_use]
    pub fn range(&self) -> TimeRange {
        self.range
    }

    /// How wide they are.
    #[must_use]
    pub fn width(&self) -> BucketWidth {
        self.width
    }

    /// Where they are local.
    #[must_use]
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Where each begins.
    #[must_use]
    pub fn starts(&self) -> &[OffsetDateTime] {
        &self.starts
    }

    /// All of them, in order of time.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = TimeRange> + '_ {
        (0..self.starts.len()).map(|place| self.at(place))
    }

    /// The bucket at this place, or the last one.
    #[must_use]
    pub fn at(&self, place: usize) -> TimeRange {
        let place = place.min(self.starts.len() - 1);
        let end = self.starts.get(place + 1).copied().unwrap_or(self.range.end());
        TimeRange::part(self.starts[place], end).unwrap_or(self.range)
    }

    /// The last one, which ends where the range does.
    #[must_use]
    pub fn last(&self) -> TimeRange {
        self.at(self.starts.len() - 1)
    }

    /// The place of the bucket that begins at `start`; the range's start is the first one's.
    #[must_use]
    pub fn place(&self, start: OffsetDateTime) -> Option<usize> {
        self.starts.binary_search(&start).ok()
    }

    /// The step and an origin not after the first bucket, if a step from bucket to bucket is always the
    /// same; the first and the last bucket are not wider either.
    pub(crate) fn uniform(&self) -> Option<(Duration, OffsetDateTime)> {
        let [first, second, rest @ ..] = &*self.starts else {
            return None;
        };
        let step = match rest.first() {
            Some(third) => *third - *second,
            None => return None,
        };
        let even = self
            .starts
            .windows(2)
            .skip(1)
            .all(|pair| pair[1] - pair[0] == step);
        let last = *self.starts.last().unwrap_or(first);
        (even && *second - *first <= step && self.range.end() - last <= step)
            .then_some((step, *second - step))
    }
}

/// A range by its name, relative to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// The running calendar month, to its end.
    ThisMonth,
    /// The calendar month before the running one.
    LastMonth,
    /// Twenty-four whole hours, the running one included.
    Last24h,
    /// Seven whole days, today included.
    Last7d,
    /// Thirty whole days, today included.
    Last30d,
}

impl Period {
    /// The range that the name means at the instant `now`, by the local calendar of `zone`.
    ///
    /// # Errors
    /// If `now` is not between 2000 and 2100.
    pub fn range(self, now: OffsetDateTime, zone: &Zone) -> Result<TimeRange, RangeError> {
        // Beyond that no range is valid, and no calendar is asked.
        TimeRange::new(now, now + Duration::SECOND)?;
        let today = zone.day_of(now);
        let tomorrow = shifted(today, 1);
        let month = today.first_of_month();
        let days = |from: Date, to: Date| (zone.midnight(from), zone.midnight(to));
        let (start, end) = match self {
            Self::ThisMonth => days(month, next_month(month)),
            Self::LastMonth => days(shifted(month, -1).first_of_month(), month),
            Self::Last24h => {
                let end = BucketWidth::Hour.next(BucketWidth::Hour.floor(now, zone), zone);
                (end - Duration::DAY, end)
            }
            Self::Last7d => days(shifted(tomorrow, -7), tomorrow),
            Self::Last30d => days(shifted(tomorrow, -30), tomorrow),
        };
        TimeRange::new(start, end)
    }
}

/// The range that a range is compared with: as many local months before it if it is whole months, as many
/// local days if it is whole days, and otherwise as long a span.
///
/// # Errors
/// If that range begins before 2000.
pub fn previous(range: &TimeRange, zone: &Zone) -> Result<TimeRange, RangeError> {
    let (first, last) = (zone.day_of(range.start()), zone.day_of(range.end()));
    let whole_days = zone.midnight(first) == range.start() && zone.midnight(last) == range.end();
    let start = if whole_days && first.day() == 1 && last.day() == 1 {
        let months = |date: Date| i32::from(date.year()) * 12 + i32::from(date.month());
        let start = first.checked_sub((months(last) - months(first)).months());
        start.map(|date| zone.midnight(date)).ok()
    } else if whole_days {
        let days = first.duration_until(last).as_hours() / 24;
        Some(zone.midnight(shifted(first, -days)))
    } else {
        Some(range.start() - range.length())
    };
    TimeRange::new(start.ok_or(RangeError::OutOfBounds)?, range.start())
}

/// Whether a range is exactly the local calendar month that is running at `now`.
#[must_use]
pub fn is_running_month(range: &TimeRange, now: OffsetDateTime, zone: &Zone) -> bool {
    Period::ThisMonth.range(now, zone) == Ok(*range)
}

/// Dates of two centuries are far from the ends of the calendar.
fn shifted(date: Date, days: i64) -> Date {
    date.saturating_add(days.days())
}

fn next_month(date: Date) -> Date {
    date.last_of_month().saturating_add(1.day())
}

#[cfg(test)]
mod tests;
