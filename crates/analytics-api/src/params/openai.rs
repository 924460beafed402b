//! The parameters of OpenAI's organization usage API, as far as they have a meaning here: existing tools send
//! them.

use analytics_core::calendar::{BucketWidth, Zone};
use analytics_core::query::usage::Rows;
use analytics_core::query::{Dimension, Filter};
use time::OffsetDateTime;

use super::given::{Given, named};
use super::{Asked, Include, count, cut, range, too_wide, values};
use crate::error::ApiError;

const COMPLETIONS: [&str; 10] = [
    "org_id",
    "start_time",
    "end_time",
    "bucket_width",
    "user_ids",
    "api_key_ids",
    "models",
    "group_by",
    "limit",
    "page",
];
const COSTS: [&str; 8] = [
    "org_id",
    "start_time",
    "end_time",
    "bucket_width",
    "api_key_ids",
    "group_by",
    "limit",
    "page",
];
/// Clients spell lists with and without it.
const LIST_SUFFIX: &str = "[]";

/// A width, and how many buckets of it a page has by default and at most.
type Width = (BucketWidth, u32, u32);
const COMPLETION_WIDTHS: [(&str, Width); 3] = [
    ("1m", (BucketWidth::Minute, 60, 1_440)),
    ("1h", (BucketWidth::Hour, 24, 168)),
    ("1d", (BucketWidth::Day, 7, 31)),
];
const COST_WIDTHS: [(&str, Width); 1] = [("1d", (BucketWidth::Day, 7, 180))];

const COMPLETION_GROUPS: [(&str, Dimension); 3] = [
    ("user_id", Dimension::User),
    ("api_key_id", Dimension::ApiKey),
    ("model", Dimension::Model),
];
/// What is paid for is a model.
const COST_GROUPS: [(&str, Dimension); 2] =
    [("line_item", Dimension::Model), ("api_key_id", Dimension::ApiKey)];

/// Reads the parameters of `/v1/organization/usage/completions`.
pub(crate) fn completions(query: &str, now: OffsetDateTime) -> Result<Asked, ApiError> {
    read(query, now, &COMPLETIONS, &COMPLETION_WIDTHS, &COMPLETION_GROUPS)
}

/// Reads the parameters of `/v1/organization/costs`.
pub(crate) fn costs(query: &str, now: OffsetDateTime) -> Result<Asked, ApiError> {
    read(query, now, &COSTS, &COST_WIDTHS, &COST_GROUPS)
}

fn read(
    query: &str,
    now: OffsetDateTime,
    known: &[&str],
    widths: &[(&str, Width)],
    groups: &[(&str, Dimension)],
) -> Result<Asked, ApiError> {
    let mut given = Given::read_with(query, known, |name| {
        name.strip_suffix(LIST_SUFFIX).unwrap_or(name)
    })?;
    let spelling = given.spelling();
    let page = given.page();
    // The permit has read it.
    given.one("org_id", &[values::A_UUID], values::uuid);
    let range = if given.has("start_time") {
        range(&mut given, page.as_ref(), now, &Zone::UTC)
    } else {
        given.refuse("start_time", "is missing", &["unix seconds, or RFC 3339"]);
        None
    };
    let names: Vec<&str> = widths.iter().map(|(name, _)| *name).collect();
    let width = given.one("bucket_width", &names, |text| named(widths, text));
    // Without one it is days, the last of the list.
    let days = widths.last().map_or((BucketWidth::Day, 7, 31), |(_, days)| *days);
    let (width, default_limit, most) = width.unwrap_or(days);
    too_wide(&mut given, width, range.as_ref());
    let filter = Filter {
        models: given.many("models", &["a model's name"], |text| values::word(text, 255)),
        user_ids: given.many("user_ids", &[values::A_UUID], values::uuid),
        api_key_ids: given.many("api_key_ids", &[values::A_UUID], values::uuid),
        statuses: Vec::new(),
    };
    let names: Vec<&str> = groups.iter().map(|(name, _)| *name).collect();
    let group_by = given.many("group_by", &names, |text| named(groups, text));
    let limit = given.number("limit", most, &format!("a whole number from 1 to {most}"));
    let from = given.first_bucket(page.as_ref().map(|page| &page.position));
    let cut = cut(range, width, &Zone::UTC);
    given.refuse_beyond(from, cut.as_ref());
    let buckets = given.finish(cut)?;
    Ok(Asked {
        buckets,
        by_period: false,
        filter,
        group_by,
        rows: Rows::Buckets {
            from,
            limit: count(limit.unwrap_or(default_limit)),
            filled: true,
            top: None,
        },
        include: Include {
            latency: false,
            token_details: true,
        },
        before: None,
        now,
        page,
        spelling,
    })
}
