//! A time zone of the IANA database that is part of the program.

use jiff::civil::Date;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan as _};
use time::{Duration, OffsetDateTime};

/// A time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// UTC.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// The zone of this name in the IANA database, in any case of letters; `None` if there is none.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let zone = TimeZoneDatabase::bundled().get(name).ok()?;
        // `Etc/Unknown` is a name that stands for no zone.
        (!zone.is_unknown()).then_some(Self(zone))
    }

    /// Its name, as the database spells it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// How far its clock is ahead of UTC at `instant`.
    pub(super) fn offset(&self, instant: OffsetDateTime) -> Duration {
        Duration::seconds(i64::from(self.0.to_offset(timestamp(instant)).seconds()))
    }

    /// When the clock was last put forward or back, up to and including `instant`, within the last hour: more
    /// is not asked for.
    pub(super) fn last_change(&self, instant: OffsetDateTime) -> Option<OffsetDateTime> {
        let begin = instant - Duration::HOUR;
        self.0
            .preceding(timestamp(instant + Duration::MICROSECOND))
            .map(|transition| self::instant(transition.timestamp()))
            .take_while(|change| *change > begin)
            .find(|change| self.is_change(*change))
    }

    /// When the clock is next put forward or back, after `instant` and before `end`.
    pub(super) fn next_change(&self, instant: OffsetDateTime, end: OffsetDateTime) -> Option<OffsetDateTime> {
        self.0
            .following(timestamp(instant))
            .map(|transition| self::instant(transition.timestamp()))
            .take_while(|change| *change < end)
            .find(|change| self.is_change(*change))
    }

    /// Some entries of the database change a name alone.
    fn is_change(&self, at: OffsetDateTime) -> bool {
        self.offset(at) != self.offset(at - Duration::MICROSECOND)
    }

    /// The day that `instant` belongs to. Where a clock change takes the evening back after midnight, the
    /// new day has begun all the same.
    pub(super) fn day_of(&self, instant: OffsetDateTime) -> Date {
        let date = self.0.to_datetime(timestamp(instant)).date();
        let next = date.saturating_add(1.day());
        if self.midnight(next) <= instant {
            next
        } else {
            date
        }
    }

    /// The first instant of a date.
    pub(super) fn midnight(&self, date: Date) -> OffsetDateTime {
        let midnight = date.at(0, 0, 0, 0);
        // A midnight that comes twice is the first one; one that is skipped is where the clock goes on.
        let start = self.0.to_ambiguous_timestamp(midnight);
        let compatible = start.compatible();
        let skipped = matches!(start.offset(), jiff::tz::AmbiguousOffset::Gap { .. });
        match compatible {
            Ok(instant) if skipped => self.change_before(instant),
            Ok(instant) => self::instant(instant),
            // Only at the ends of the calendar, which no range reaches.
            Err(_) => OffsetDateTime::UNIX_EPOCH,
        }
    }

    /// The clock change through which a skipped midnight became `instant`.
    fn change_before(&self, instant: Timestamp) -> OffsetDateTime {
        let just_after = self::instant(instant) + Duration::MICROSECOND;
        let change = self.0.preceding(timestamp(just_after)).next();
        change.map_or(self::instant(instant), |change| self::instant(change.timestamp()))
    }
}

/// Instants between 2000 and 2100 are far inside of what either library can say.
fn timestamp(instant: OffsetDateTime) -> Timestamp {
    let microseconds = i64::try_from(instant.unix_timestamp_nanos().div_euclid(1_000));
    microseconds
        .ok()
        .and_then(|microseconds| Timestamp::from_microsecond(microseconds).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

fn instant(timestamp: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(timestamp.as_nanosecond()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
