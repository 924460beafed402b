//! Which local hour, day, week or month an instant belongs to, found by looking at the clock: naive on purpose,
//! and slow. The services compute where buckets begin instead.

use anyhow::{Context, Result};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _, ZonedDateTime};

/// Where the bucket of this width begins that an instant falls into, both in unix microseconds. `width` is
/// spelled as in the API; for `all` it is the instant of the smallest number.
pub fn bucket(time_us: i64, width: &str, zone: &TimeZone) -> Result<i64> {
    let at = Timestamp::from_microsecond(time_us)?.to_zoned_datetime(zone.clone());
    match width {
        "1m" => walk_back(&at, 1),
        "15m" => walk_back(&at, 15),
        "1h" => walk_back(&at, 60),
        "1d" => midnight(at.date(), zone),
        "1w" => {
            let since_monday = i64::from(at.date().weekday().to_monday_zero_offset());
            midnight(at.date().checked_sub(since_monday.days())?, zone)
        }
        "1mo" => midnight(at.date().first_of_month(), zone),
        "all" => Ok(i64::MIN),
        _ => anyhow::bail!("no width {width}"),
    }
}

/// The zone of this name.
pub fn zone(name: &str) -> Result<TimeZone> {
    TimeZone::get(name).with_context(|| format!("no zone {name}"))
}

/// The first minute of a date, searched for: dates may begin after midnight.
fn midnight(date: Date, zone: &TimeZone) -> Result<i64> {
    let noon = date.at(12, 0, 0, 0).to_zoned_datetime(zone.clone())?;
    let mut first = noon.timestamp();
    let minute = SignedDuration::from_mins(1);
    // Dates are contiguous in all zones that are asked about.
    loop {
        let before = first - minute;
        if before.to_zoned_datetime(zone.clone()).date() != date {
            return Ok(first.as_microsecond());
        }
        first = before;
    }
}

/// Goes back minute by minute, for as long as the clock shows the same multiple of `minutes` and runs on.
fn walk_back(at: &ZonedDateTime, minutes: i16) -> Result<i64> {
    let shown = |at: &ZonedDateTime| {
        let minute = i16::from(at.minute());
        (at.date(), at.hour(), minute - minute % minutes, at.offset())
    };
    let within = at.timestamp().as_microsecond().rem_euclid(60_000_000);
    let mut start = Timestamp::from_microsecond(at.timestamp().as_microsecond() - within)?;
    loop {
        let before = start - SignedDuration::from_mins(1);
        if shown(&before.to_zoned_datetime(at.time_zone().clone())) != shown(at) {
            return Ok(start.as_microsecond());
        }
        start = before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(instant: &str, width: &str, name: &str) -> String {
        let time: Timestamp = instant.parse().unwrap();
        let start = bucket(time.as_microsecond(), width, &zone(name).unwrap()).unwrap();
        Timestamp::from_microsecond(start).unwrap().to_string()
    }

    #[test]
    fn clocks_that_change_are_followed() {
        let berlin = "Europe/Berlin";
        assert_eq!(
            start("2026-10-25T12:00:00Z", "1d", berlin),
            "2026-10-24T22:00:00Z"
        );
        assert_eq!(
            start("2026-10-25T01:30:00Z", "1h", berlin),
            "2026-10-25T01:00:00Z"
        );
        assert_eq!(
            start("2026-10-25T00:30:00Z", "1h", berlin),
            "2026-10-25T00:00:00Z"
        );
        assert_eq!(
            start("2026-11-18T12:00:00Z", "1w", berlin),
            "2026-11-15T23:00:00Z"
        );
        assert_eq!(
            start("2026-11-18T12:00:00Z", "1mo", berlin),
            "2026-10-31T23:00:00Z"
        );
        assert_eq!(
            start("2026-06-01T00:20:00Z", "1h", "Asia/Kolkata"),
            "2026-05-31T23:30:00Z"
        );
        assert_eq!(
            start("2026-04-04T15:10:00Z", "1h", "Australia/Lord_Howe"),
            "2026-04-04T15:00:00Z"
        );
    }
}
