//! How a question is spelled in a query string. Nothing else in this crate knows.
//!
//! Whatever cannot be understood is refused by name, all faults at once: a misspelt filter that is
//! ignored would be wrong money.

use analytics_core::query::Filter;
use analytics_core::range::{BucketWidth, EARLIEST_UNIX_SECONDS, LATEST_UNIX_SECONDS, Period, TimeRange};
use percent_encoding::percent_decode_str;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::error::{ApiError, ParameterFault};

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;
/// How many values one filter may name: a dashboard picks a few, and every one is a term of the query.
const MAX_FILTER_VALUES: usize = 100;
/// The wire format's longest model name.
const MAX_MODEL_CHARS: usize = 255;
/// How much of an unknown parameter's name an error repeats.
const MAX_ECHOED_CHARS: usize = 64;

const PERIODS: [(&str, Period); 5] = [
    ("this_month", Period::ThisMonth),
    ("last_month", Period::LastMonth),
    ("last_24h", Period::Last24h),
    ("last_7d", Period::Last7d),
    ("last_30d", Period::Last30d),
];
const WIDTHS: [(&str, BucketWidth); 3] = [
    ("1h", BucketWidth::Hour),
    ("1d", BucketWidth::Day),
    ("all", BucketWidth::All),
];
const AN_INSTANT: &str = "RFC 3339 with an offset, or whole unix seconds, from 2000 to 2100";
const A_UUID: &str = "a UUID of 36 characters";

const USAGE: [&str; 7] = [
    "start_time",
    "end_time",
    "period",
    "bucket_width",
    "model",
    "user_id",
    "limit",
];
const RANKING: [&str; 6] = ["start_time", "end_time", "period", "model", "user_id", "limit"];

/// A question about usage over time.
#[derive(Debug)]
pub(crate) struct UsageParams {
    pub(crate) range: TimeRange,
    pub(crate) width: BucketWidth,
    pub(crate) filter: Filter,
    pub(crate) limit: u32,
}

/// A question about who or what used most.
#[derive(Debug)]
pub(crate) struct RankingParams {
    pub(crate) range: TimeRange,
    pub(crate) filter: Filter,
    pub(crate) limit: u32,
}

/// Reads the parameters of a `usage` request.
pub(crate) fn usage(query: &str, now: OffsetDateTime) -> Result<UsageParams, ApiError> {
    let mut given = Given::read(query, &USAGE)?;
    let width = given.one("bucket_width", &WIDTHS.map(|(name, _)| name), |text| {
        named(&WIDTHS, text)
    });
    let range = given.range(now);
    let filter = given.filter();
    let limit = given.limit();
    let range = given.finish(range)?;
    Ok(UsageParams {
        range,
        width: width.unwrap_or(BucketWidth::Day),
        filter,
        limit,
    })
}

/// Reads the parameters of a `users`, `models` or `orgs` request.
pub(crate) fn ranking(query: &str, now: OffsetDateTime) -> Result<RankingParams, ApiError> {
    let mut given = Given::read(query, &RANKING)?;
    let range = given.range(now);
    let filter = given.filter();
    let limit = given.limit();
    let range = given.finish(range)?;
    Ok(RankingParams { range, filter, limit })
}

/// Reads an organization's id from the path.
pub(crate) fn organization(text: &str) -> Result<Uuid, ApiError> {
    uuid(text).ok_or_else(|| ApiError::BadParameters(vec![fault("org_id", "is not a UUID", &[A_UUID])]))
}

/// The hyphenated spelling alone: `uuid` would take braces, URNs and bare hex as well.
pub(crate) fn uuid(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

/// How a bucket width is spelled.
pub(crate) fn width_name(width: BucketWidth) -> &'static str {
    WIDTHS
        .iter()
        .find(|(_, it)| *it == width)
        .map_or("all", |(name, _)| name)
}

fn named<T: Copy>(names: &[(&str, T)], text: &str) -> Option<T> {
    names
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, value)| *value)
}

fn fault(parameter: &str, detail: &str, allowed: &[&str]) -> ParameterFault {
    let allowed = allowed.iter().map(|&text| text.to_owned()).collect();
    ParameterFault {
        parameter: parameter.to_owned(),
        detail: detail.to_owned(),
        allowed,
    }
}

/// The parameters as they came, and what has been found wrong with them so far.
struct Given {
    pairs: Vec<(String, String)>,
    faults: Vec<ParameterFault>,
}

impl Given {
    fn read(query: &str, known: &[&str]) -> Result<Self, ApiError> {
        let mut given = Self {
            pairs: Vec::new(),
            faults: Vec::new(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if known.contains(&name.as_str()) {
                given.pairs.push((name, value));
            } else if !given.faults.iter().any(|fault| fault.parameter == name) {
                let name: String = name.chars().take(MAX_ECHOED_CHARS).collect();
                given
                    .faults
                    .push(fault(&name, "is not a parameter of this request", known));
            }
        }
        Ok(given)
    }

    /// All values of a parameter, in the order they came.
    fn values(&self, name: &str) -> Vec<String> {
        self.pairs
            .iter()
            .filter(|(given, _)| given == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// A parameter that may be given once: `None` if it is absent, or wrong and noted as that.
    fn one<T>(&mut self, name: &str, allowed: &[&str], read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let values = self.values(name);
        if values.len() > 1 {
            self.faults.push(fault(name, "is given more than once", allowed));
            return None;
        }
        values
            .first()
            .and_then(|text| self.value(name, text, allowed, read))
    }

    /// A parameter that may be repeated.
    fn many<T: PartialEq>(
        &mut self,
        name: &str,
        allowed: &[&str],
        read: impl Fn(&str) -> Option<T> + Copy,
    ) -> Vec<T> {
        let values = self.values(name);
        if values.len() > MAX_FILTER_VALUES {
            self.faults
                .push(fault(name, "is given too often", &["at most 100 times"]));
            return Vec::new();
        }
        let mut read_ones = Vec::new();
        for text in &values {
            let Some(value) = self.value(name, text, allowed, read) else {
                return Vec::new();
            };
            if !read_ones.contains(&value) {
                read_ones.push(value);
            }
        }
        read_ones
    }

    fn value<T>(
        &mut self,
        name: &str,
        text: &str,
        allowed: &[&str],
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let value = if text.is_empty() { None } else { read(text) };
        if value.is_none() {
            let detail = if text.is_empty() {
                "is empty"
            } else {
                "is not what it may be"
            };
            self.faults.push(fault(name, detail, allowed));
        }
        value
    }

    fn range(&mut self, now: OffsetDateTime) -> Option<TimeRange> {
        let period = self.one("period", &PERIODS.map(|(name, _)| name), |text| {
            named(&PERIODS, text)
        });
        let start = self.one("start_time", &[AN_INSTANT], instant);
        let end = self.one("end_time", &[AN_INSTANT], instant);
        let given = |name: &str| self.pairs.iter().any(|(given, _)| given == name);
        let range = match (given("period"), given("start_time"), given("end_time")) {
            (true, false, false) => period.map(|period| period.range(now)),
            (false, true, true) => start.zip(end).map(|(start, end)| TimeRange::new(start, end)),
            (false, false, false) => Some(Period::ThisMonth.range(now)),
            (true, _, _) => {
                let detail = "cannot be combined with start_time or end_time";
                self.faults.push(fault(
                    "period",
                    detail,
                    &["period alone", "start_time with end_time"],
                ));
                None
            }
            (false, true, false) => {
                self.faults
                    .push(fault("end_time", "is missing beside start_time", &[AN_INSTANT]));
                None
            }
            (false, false, true) => {
                self.faults
                    .push(fault("start_time", "is missing beside end_time", &[AN_INSTANT]));
                None
            }
        };
        match range? {
            Ok(range) => Some(range),
            Err(_) => {
                // The bounds were checked one by one, so what is left is an empty range.
                self.faults.push(fault(
                    "end_time",
                    "is not after start_time",
                    &["an instant after start_time"],
                ));
                None
            }
        }
    }

    fn filter(&mut self) -> Filter {
        Filter {
            models: self.many("model", &["a model's name, 1 to 255 characters"], model),
            user_ids: self.many("user_id", &[A_UUID], uuid),
        }
    }

    fn limit(&mut self) -> u32 {
        let limit = self.one("limit", &["a whole number from 1 to 1000"], |text| {
            let number: u32 = whole_number(text)?.try_into().ok()?;
            (1..=MAX_LIMIT).contains(&number).then_some(number)
        });
        limit.unwrap_or(DEFAULT_LIMIT)
    }

    /// The range, if nothing at all was wrong.
    fn finish(self, range: Option<TimeRange>) -> Result<TimeRange, ApiError> {
        match range {
            Some(range) if self.faults.is_empty() => Ok(range),
            _ => Err(ApiError::BadParameters(self.faults)),
        }
    }
}

fn instant(text: &str) -> Option<OffsetDateTime> {
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
fn whole_number(text: &str) -> Option<i64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// A NUL can be no part of a stored name, and PostgreSQL refuses it in a parameter.
fn model(text: &str) -> Option<String> {
    (text.chars().count() <= MAX_MODEL_CHARS && !text.contains('\0')).then(|| text.to_owned())
}

/// Form decoding (`+` is a space), but strict: a stray `%` and bytes that are not UTF-8 are refused.
fn decoded(text: &str) -> Result<String, ApiError> {
    let bytes = text.as_bytes();
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
        let digits = bytes.get(at + 1..at + 3).unwrap_or_default();
        if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(ApiError::MalformedQuery(
                "a % is not followed by two hexadecimal digits",
            ));
        }
    }
    let text = text.replace('+', " ");
    let text = percent_decode_str(&text).decode_utf8();
    Ok(text
        .map_err(|_| ApiError::MalformedQuery("it is not UTF-8"))?
        .into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-24 10:30 UTC);
    const USER: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";

    fn refused(query: &str) -> Vec<String> {
        match usage(query, NOW) {
            Err(ApiError::BadParameters(faults)) => faults
                .into_iter()
                .map(|fault| format!("{} {}", fault.parameter, fault.detail))
                .collect(),
            other => panic!("{query}: {other:?}"),
        }
    }

    #[test]
    fn without_parameters_it_is_this_month_by_day() {
        let asked = usage("", NOW).unwrap();
        assert_eq!(asked.range.start(), datetime!(2026-11-01 0:00 UTC));
        assert_eq!(asked.range.end(), datetime!(2026-12-01 0:00 UTC));
        assert_eq!((asked.width, asked.limit), (BucketWidth::Day, 100));
        assert!(asked.filter.models.is_empty() && asked.filter.user_ids.is_empty());
    }

    #[test]
    fn every_parameter_is_read() {
        let asked = usage(
            &format!(
                "start_time=2026-11-01T00:00:00%2B01:00&end_time=1793491200&bucket_width=1h\
                 &model=gpt%204&model=a%2Bb&model=gpt+4&user_id={USER}&limit=1000"
            ),
            NOW,
        )
        .unwrap();
        assert_eq!(asked.range.start(), datetime!(2026-10-31 23:00 UTC));
        assert_eq!(asked.range.end(), datetime!(2026-11-01 0:00 UTC));
        assert_eq!(asked.width, BucketWidth::Hour);
        assert_eq!(asked.filter.models, ["gpt 4", "a+b"]);
        assert_eq!(asked.filter.user_ids, [uuid(USER).unwrap()]);
        assert_eq!(asked.limit, 1000);
    }

    #[test]
    fn the_end_may_lie_in_the_future() {
        assert!(
            usage(
                "start_time=2026-11-24T00:00:00Z&end_time=2100-01-01T00:00:00Z",
                NOW
            )
            .is_ok()
        );
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        for (query, names) in [
            ("modle=a", "modle is not a parameter of this request"),
            ("Limit=5", "Limit is not a parameter of this request"),
            ("%20limit=5", " limit is not a parameter of this request"),
            ("model=", "model is empty"),
            ("model", "model is empty"),
            ("limit=5&limit=5", "limit is given more than once"),
            (
                "period=this_month&period=this_month",
                "period is given more than once",
            ),
            ("limit=0", "limit is not what it may be"),
            ("limit=1001", "limit is not what it may be"),
            ("limit=-1", "limit is not what it may be"),
            ("limit=%2B5", "limit is not what it may be"),
            ("limit=5.0", "limit is not what it may be"),
            ("limit=99999999999999999999", "limit is not what it may be"),
            ("period=today", "period is not what it may be"),
            ("period=THIS_MONTH", "period is not what it may be"),
            ("bucket_width=1m", "bucket_width is not what it may be"),
            ("user_id=me", "user_id is not what it may be"),
            (
                "user_id=3f2504e04f8941d39a0c0305e82c3301",
                "user_id is not what it may be",
            ),
            ("model=a%00b", "model is not what it may be"),
            (
                "start_time=2026-11-01T00:00:00Z",
                "end_time is missing beside start_time",
            ),
            (
                "end_time=2026-11-01T00:00:00Z",
                "start_time is missing beside end_time",
            ),
            (
                "start_time=1793491200&end_time=1793491200",
                "end_time is not after start_time",
            ),
            (
                "start_time=1793491200&end_time=1793491100",
                "end_time is not after start_time",
            ),
            (
                "start_time=2026-11-01&end_time=1793491200",
                "start_time is not what it may be",
            ),
            (
                "start_time=2026-11-01T00:00:00&end_time=1793491200",
                "start_time is not what it may be",
            ),
            (
                "start_time=2026-11-01T00:00:00+01:00&end_time=1793491200",
                "start_time is not what it may be",
            ),
            (
                "start_time=946684799&end_time=1793491200",
                "start_time is not what it may be",
            ),
            (
                "start_time=946684800&end_time=4102444801",
                "end_time is not what it may be",
            ),
            (
                "start_time=946684800&end_time=2100-01-01T00:00:00.5Z",
                "end_time is not what it may be",
            ),
            (
                "start_time=1793491200.5&end_time=1793491201",
                "start_time is not what it may be",
            ),
            (
                "period=this_month&start_time=946684800&end_time=1793491200",
                "period cannot be combined with start_time or end_time",
            ),
        ] {
            assert_eq!(refused(query), [names], "{query}");
        }
    }

    #[test]
    fn all_faults_are_named_at_once() {
        assert_eq!(
            refused("limit=0&modle=a&period=x"),
            [
                "modle is not a parameter of this request",
                "period is not what it may be",
                "limit is not what it may be"
            ]
        );
    }

    #[test]
    fn a_ranking_has_no_buckets() {
        let error = ranking("bucket_width=1d", NOW).unwrap_err();
        assert!(matches!(error, ApiError::BadParameters(faults) if faults[0].parameter == "bucket_width"));
    }

    #[test]
    fn filters_have_a_length() {
        let too_many: String = (0..101).map(|n| format!("model=m{n}&")).collect();
        assert_eq!(refused(&too_many), ["model is given too often"]);
        assert_eq!(
            refused(&format!("model={}", "x".repeat(256))),
            ["model is not what it may be"]
        );
        assert!(usage(&format!("model={}", "é".repeat(255)), NOW).is_ok());
    }

    #[test]
    fn a_query_string_that_is_none_is_refused() {
        for query in ["model=%", "model=%f", "model=%zz", "model=%ff", "%C3=1"] {
            assert!(
                matches!(usage(query, NOW), Err(ApiError::MalformedQuery(_))),
                "{query}"
            );
        }
    }
}
