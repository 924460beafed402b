//! How a question is spelled in a query string. Nothing else in this crate knows.
//!
//! Whatever cannot be understood is refused by name, all faults at once: a misspelt filter that is
//! ignored would be wrong money.

mod given;
pub(crate) mod openai;
pub(crate) mod organization;
pub(crate) mod page;
mod refusal;
mod values;

use analytics_core::calendar::{self, BucketWidth, Buckets, Period, Zone};
use analytics_core::query::usage::{Key, Rows};
use analytics_core::query::{Dimension, Filter};
use analytics_core::range::{TimeRange, ceil_to};
use time::{Duration, OffsetDateTime};

use crate::error::ApiError;
use given::{Given, named};
use page::{Cursor, Position};
pub(crate) use refusal::{too_many_rows, unanswerable};
pub(crate) use values::uuid;

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;
const TO_A_THOUSAND: &str = "a whole number from 1 to 1000";

const PERIODS: [(&str, Period); 5] = [
    ("this_month", Period::ThisMonth),
    ("last_month", Period::LastMonth),
    ("last_24h", Period::Last24h),
    ("last_7d", Period::Last7d),
    ("last_30d", Period::Last30d),
];
const AN_INSTANT: &str = "RFC 3339 with an offset, or whole unix seconds, from 2000 to 2100";
const A_ZONE: &str = "a name of the IANA time zone database, such as Europe/Berlin";

const USAGE: [&str; 16] = [
    "start_time",
    "end_time",
    "period",
    "time_zone",
    "bucket_width",
    "model",
    "user_id",
    "api_key_id",
    "status",
    "group_by",
    "top",
    "fill",
    "compare",
    "include",
    "limit",
    "page",
];
const LIST: [&str; 14] = [
    "start_time",
    "end_time",
    "period",
    "time_zone",
    "model",
    "user_id",
    "api_key_id",
    "status",
    "order_by",
    "top",
    "compare",
    "include",
    "limit",
    "page",
];

/// What an organization's usage can be told apart by.
pub(crate) const OF_ORGANIZATION: [Dimension; 4] = [
    Dimension::User,
    Dimension::ApiKey,
    Dimension::Model,
    Dimension::Status,
];
/// What the whole system's can.
pub(crate) const OF_SYSTEM: [Dimension; 5] = [
    Dimension::Organization,
    Dimension::User,
    Dimension::ApiKey,
    Dimension::Model,
    Dimension::Status,
];

/// What an answer has beside the usual figures.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Include {
    pub(crate) latency: bool,
    pub(crate) token_details: bool,
}

/// A question as it was spelled, before it is known who may ask it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) buckets: Buckets,
    /// Whether the range was given by its name, or not at all.
    pub(crate) by_period: bool,
    pub(crate) filter: Filter,
    pub(crate) group_by: Vec<Dimension>,
    pub(crate) rows: Rows,
    pub(crate) include: Include,
    pub(crate) before: Option<Buckets>,
    /// When it was asked.
    pub(crate) now: OffsetDateTime,
    /// The page that was asked for, and what of the query string it belongs to.
    pub(crate) page: Option<Cursor>,
    pub(crate) spelling: String,
}

/// Reads the parameters of a `usage` request, which may be grouped by these.
pub(crate) fn usage(query: &str, now: OffsetDateTime, dimensions: &[Dimension]) -> Result<Asked, ApiError> {
    let mut given = Given::read(query, &USAGE)?;
    let spelling = given.spelling();
    let page = given.page();
    let zone = zone(&mut given);
    let range = range(&mut given, page.as_ref(), now, &zone);
    let width = width(&mut given, range.as_ref());
    let filter = filter(&mut given);
    let names: Vec<&str> = dimensions.iter().map(|dimension| dimension.name()).collect();
    let group_by = given.many("group_by", &names, |text| {
        dimensions
            .iter()
            .copied()
            .find(|dimension| dimension.name() == text)
    });
    let top = given.number("top", MAX_LIMIT, TO_A_THOUSAND);
    if top.is_some() && group_by.is_empty() {
        given.refuse("top", "needs groups", &["group_by"]);
    }
    let filled = given.one("fill", &["zero"], |text| (text == "zero").then_some(()));
    let compare = compare(&mut given);
    let include = include(&mut given);
    let limit = given.number("limit", MAX_LIMIT, TO_A_THOUSAND);
    let from = given.first_bucket(page.as_ref().map(|page| &page.position));
    let before = before(&mut given, compare, range.as_ref(), &zone);
    let cut = cut(range, width, &zone);
    given.refuse_beyond(from, cut.as_ref());
    let range = given.finish(range.zip(cut))?;
    let (range, buckets) = range;
    Ok(Asked {
        buckets,
        by_period: range.by_period,
        filter,
        group_by,
        rows: Rows::Buckets {
            from,
            limit: count(limit.unwrap_or(DEFAULT_LIMIT)),
            filled: filled.is_some(),
            top,
        },
        include,
        before,
        now,
        page,
        spelling,
    })
}

/// Reads the parameters of a `users`, `keys`, `models` or `orgs` request.
pub(crate) fn list(query: &str, now: OffsetDateTime, dimension: Dimension) -> Result<Asked, ApiError> {
    let mut given = Given::read(query, &LIST)?;
    let spelling = given.spelling();
    let page = given.page();
    let zone = zone(&mut given);
    let range = range(&mut given, page.as_ref(), now, &zone);
    let filter = filter(&mut given);
    let by_id = given.one("order_by", &["tokens", "id"], |text| match text {
        "tokens" => Some(false),
        "id" => Some(true),
        _ => None,
    });
    let by_id = by_id.unwrap_or_default();
    let top = given.number("top", MAX_LIMIT, TO_A_THOUSAND);
    let compare = compare(&mut given);
    let include = include(&mut given);
    let limit = given.number("limit", MAX_LIMIT, TO_A_THOUSAND);
    if by_id && top.is_some() {
        given.refuse("top", "cannot be combined with order_by=id", &["limit with page"]);
    }
    if top.is_some() && limit.is_some() {
        given.refuse(
            "top",
            "cannot be combined with limit, which means the same here",
            &[],
        );
    }
    let rows = if by_id {
        let after = page.as_ref().map(|page| match &page.position {
            Position::After(key) if dimension.is_id() => uuid(key).map(Key::Id),
            Position::After(key) => Some(Key::Word(key.clone())),
            Position::Bucket(_) => None,
        });
        if after == Some(None) {
            given.refuse_page::<()>();
        }
        Rows::ById {
            after: after.flatten(),
            limit: count(limit.unwrap_or(DEFAULT_LIMIT)),
        }
    } else {
        if page.is_some() {
            given.refuse(
                "page",
                "needs order_by=id: a ranked list is one page",
                &["order_by=id"],
            );
        }
        Rows::Ranked {
            top: top.or(limit).unwrap_or(DEFAULT_LIMIT),
        }
    };
    let before = before(&mut given, compare, range.as_ref(), &zone);
    let range = given.finish(range)?;
    Ok(Asked {
        buckets: Buckets::new(range.range, BucketWidth::All, &zone),
        by_period: range.by_period,
        filter,
        group_by: vec![dimension],
        rows,
        include,
        before,
        now,
        page,
        spelling,
    })
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn zone(given: &mut Given) -> Zone {
    given
        .one("time_zone", &[A_ZONE], Zone::named)
        .unwrap_or(Zone::UTC)
}

fn width(given: &mut Given, range: Option<&Range>) -> BucketWidth {
    let names = BucketWidth::EVERY.map(BucketWidth::name);
    let width = given.one("bucket_width", &names, |text| {
        BucketWidth::EVERY.into_iter().find(|width| width.name() == text)
    });
    let width = width.unwrap_or(BucketWidth::Day);
    too_wide(given, width, range);
    width
}

/// The buckets of a range that is not too wide for them: a century of minutes would take minutes to cut.
fn cut(range: Option<Range>, width: BucketWidth, zone: &Zone) -> Option<Buckets> {
    let Range { range, .. } = range?;
    width.allows(&range).then(|| Buckets::new(range, width, zone))
}

/// Notes a range that is wider than buckets of this width allow.
fn too_wide(given: &mut Given, width: BucketWidth, range: Option<&Range>) {
    if let Some(Range { range, .. }) = range
        && !width.allows(range)
    {
        let most = width.widest_days();
        let days = if most == 1 {
            "24 hours"
        } else {
            &format!("{most} days")
        };
        let wider: Vec<String> = BucketWidth::EVERY
            .iter()
            .filter(|width| width.allows(range))
            .map(|width| format!("bucket_width={}", width.name()))
            .chain([format!("a range of at most {days}")])
            .collect();
        let wider: Vec<&str> = wider.iter().map(String::as_str).collect();
        let detail = format!("{} allows a range of at most {days}", width.name());
        given.refuse("bucket_width", &detail, &wider);
    }
}

fn filter(given: &mut Given) -> Filter {
    Filter {
        models: given.many("model", &["a model's name, 1 to 255 characters"], |text| {
            values::word(text, 255)
        }),
        user_ids: given.many("user_id", &[values::A_UUID], uuid),
        api_key_ids: given.many("api_key_id", &[values::A_UUID], uuid),
        statuses: given.many("status", &["a status, 1 to 50 characters"], |text| {
            values::word(text, 50)
        }),
    }
}

fn include(given: &mut Given) -> Include {
    let names = given.many("include", &["latency", "token_details"], |text| {
        ["latency", "token_details"]
            .into_iter()
            .find(|name| *name == text)
    });
    Include {
        latency: names.contains(&"latency"),
        token_details: names.contains(&"token_details"),
    }
}

fn compare(given: &mut Given) -> bool {
    let compare = given.one("compare", &["previous_period"], |text| {
        (text == "previous_period").then_some(())
    });
    compare.is_some()
}

/// What a range is compared with: one bucket, whatever the question's are.
fn before(given: &mut Given, compare: bool, range: Option<&Range>, zone: &Zone) -> Option<Buckets> {
    let Range { range, .. } = range.filter(|_| compare)?;
    match calendar::previous(range, zone) {
        Ok(before) => Some(Buckets::new(before, BucketWidth::All, zone)),
        Err(_) => {
            given.refuse("compare", "reaches back before the year 2000", &["a later range"]);
            None
        }
    }
}

/// A range, and how it was given.
#[derive(Debug, Clone, Copy)]
struct Range {
    range: TimeRange,
    by_period: bool,
}

fn range(given: &mut Given, page: Option<&Cursor>, now: OffsetDateTime, zone: &Zone) -> Option<Range> {
    let period = given.one("period", &PERIODS.map(|(name, _)| name), |text| {
        named(&PERIODS, text)
    });
    let start = given.one("start_time", &[AN_INSTANT], values::instant);
    let end = given.one("end_time", &[AN_INSTANT], values::instant);
    let by_period = !given.has("start_time") && !given.has("end_time");
    let range = match (
        given.has("period"),
        given.has("start_time"),
        given.has("end_time"),
    ) {
        (true, false, false) => period.map(|period| period.range(now, zone)),
        (false, false, false) => Some(Period::ThisMonth.range(now, zone)),
        (false, true, true) => start.zip(end).map(|(start, end)| TimeRange::new(start, end)),
        // Until now: everything that has happened is in the running quarter of an hour or before it.
        (false, true, false) => {
            let quarter = ceil_to(now, Duration::minutes(15));
            if start.is_some_and(|start| start >= quarter) {
                given.refuse(
                    "end_time",
                    "is missing beside a start_time in the future",
                    &[AN_INSTANT],
                );
                return None;
            }
            start.map(|start| TimeRange::new(start, quarter))
        }
        (false, false, true) => {
            given.refuse("start_time", "is missing beside end_time", &[AN_INSTANT]);
            None
        }
        (true, _, _) => {
            let detail = "cannot be combined with start_time or end_time";
            given.refuse("period", detail, &["period alone", "start_time with end_time"]);
            None
        }
    };
    // A page is of the range that its first page had, whatever `now` has become.
    if let Some(page) = page {
        return Some(Range {
            range: page.range,
            by_period,
        });
    }
    match range? {
        Ok(range) => Some(Range { range, by_period }),
        Err(_) => {
            // The bounds were checked one by one, so what is left is an empty range.
            given.refuse(
                "end_time",
                "is not after start_time",
                &["an instant after start_time"],
            );
            None
        }
    }
}

#[cfg(test)]
mod tests;
