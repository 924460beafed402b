//! Moments on the command line.

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

/// Reads `2026-11-24`.
///
/// # Errors
/// If it is no such day, in words for the command line.
pub fn parse_day(text: &str) -> Result<Date, String> {
    Date::parse(text, format_description!("[year]-[month]-[day]"))
        .map_err(|_| "must be a day (2026-11-24)".to_owned())
}

/// Reads `2026-11-24`, the midnight UTC that begins the day, or an RFC 3339 time.
///
/// # Errors
/// If it is neither, in words for the command line.
pub fn parse(text: &str) -> Result<OffsetDateTime, String> {
    if let Ok(date) = parse_day(text) {
        return Ok(date.midnight().assume_utc());
    }
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "must be a day (2026-11-24, UTC) or an RFC 3339 time (2026-11-24T10:15:00Z)".to_owned())
}

/// As RFC 3339.
#[must_use]
pub fn text(moment: OffsetDateTime) -> String {
    // Years beyond 9999 have no RFC 3339 spelling; none can be stored.
    moment
        .format(&Rfc3339)
        .unwrap_or_else(|_| moment.unix_timestamp().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn days_and_instants() {
        assert_eq!(parse("2026-11-24"), Ok(datetime!(2026-11-24 0:00 UTC)));
        assert_eq!(
            parse("2026-11-24T10:15:00+02:00"),
            Ok(datetime!(2026-11-24 8:15 UTC))
        );
        for wrong in [
            "",
            "24.11.2026",
            "2026-11-24 10:15",
            "2026-11-24T10:15:00",
            "yesterday",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
