//! How single values are spelled.

use analytics_core::range::{EARLIEST_UNIX_SECONDS, LATEST_UNIX_SECONDS};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

pub(super) const A_UUID: &str = "a UUID of 36 characters";

/// The hyphenated spelling alone: `uuid` would take braces, URNs and bare hex as well.
pub(crate) fn uuid(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

/// A name as events carry it. A NUL can be no part of a stored one, and PostgreSQL refuses it in a
/// parameter.
pub(super) fn word(text: &str, most_chars: usize) -> Option<String> {
    (text.chars().count() <= most_chars && !text.contains('\0')).then(|| text.to_owned())
}

pub(super) fn instant(text: &str) -> Option<OffsetDateTime> {
    let instant = match whole_number(text) {
        Some(seconds) => OffsetDateTime::from_unix_timestamp(seconds).ok()?,
        // The library takes any character between date and time.
        None if !matches!(text.as_bytes().get(10), Some(b'T' | b't')) => return None,
        None => OffsetDateTime::parse(text, &Rfc3339).ok()?,
    };
    let bounds = EARLIEST_UNIX_SECONDS..=LATEST_UNIX_SECONDS;
    // An instant in the last second's fraction is past the bound, though its whole seconds are not.
    let in_bounds = bounds.contains(&instant.unix_timestamp())
        && !(instant.unix_timestamp() == LATEST_UNIX_SECONDS && instant.nanosecond() > 0);
    in_bounds.then_some(instant)
}

/// Digits alone: `parse` would take a sign as well.
pub(super) fn whole_number(text: &str) -> Option<i64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}
