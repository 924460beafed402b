use super::*;
use analytics_core::query::{Question, Scope};
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-11-24 10:30 UTC);
const USER: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";

fn usage(query: &str) -> Result<Asked, ApiError> {
    super::usage(query, NOW, &OF_ORGANIZATION)
}

fn named_faults(asked: Result<Asked, ApiError>) -> Vec<String> {
    match asked {
        Err(ApiError::BadParameters(faults)) => faults
            .into_iter()
            .map(|fault| format!("{} {}", fault.parameter, fault.detail))
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn refused(query: &str) -> Vec<String> {
    named_faults(usage(query))
}

fn span(asked: &Asked) -> (OffsetDateTime, OffsetDateTime) {
    (asked.buckets.range().start(), asked.buckets.range().end())
}

#[test]
fn without_parameters_it_is_this_month_by_day() {
    let asked = usage("").unwrap();
    assert_eq!(
        span(&asked),
        (datetime!(2026-11-01 0:00 UTC), datetime!(2026-12-01 0:00 UTC))
    );
    assert_eq!(asked.buckets.width(), BucketWidth::Day);
    assert_eq!(asked.filter, Filter::default());
    assert!(asked.group_by.is_empty() && !asked.include.latency && asked.before.is_none());
    let rows = Rows::Buckets {
        from: 0,
        limit: 100,
        filled: false,
        top: None,
    };
    assert_eq!(asked.rows, rows);
}

#[test]
fn every_parameter_is_read() {
    let asked = usage(&format!(
        "start_time=2026-11-01T00:00:00%2B01:00&end_time=1793491200&bucket_width=1h&time_zone=asia/kolkata\
         &model=gpt%204&model=a%2Bb&model=gpt+4&user_id={USER}&api_key_id={USER}&status=error&status=timeout\
         &group_by=model&group_by=user_id&top=5&fill=zero&compare=previous_period&include=latency&limit=1000"
    ))
    .unwrap();
    assert_eq!(
        span(&asked),
        (datetime!(2026-10-31 23:00 UTC), datetime!(2026-11-01 0:00 UTC))
    );
    assert_eq!(asked.buckets.width(), BucketWidth::Hour);
    assert_eq!(asked.buckets.zone().name(), "Asia/Kolkata");
    let user = uuid(USER).unwrap();
    let filter = Filter {
        models: vec!["gpt 4".into(), "a+b".into()],
        user_ids: vec![user],
        api_key_ids: vec![user],
        statuses: vec!["error".into(), "timeout".into()],
    };
    assert_eq!(asked.filter, filter);
    assert_eq!(asked.group_by, [Dimension::Model, Dimension::User]);
    assert!(asked.include.latency);
    assert_eq!(
        asked.before.unwrap().range().start(),
        datetime!(2026-10-31 22:00 UTC)
    );
    let rows = Rows::Buckets {
        from: 0,
        limit: 1000,
        filled: true,
        top: Some(5),
    };
    assert_eq!(asked.rows, rows);
}

#[test]
fn a_period_is_of_the_zone() {
    let asked = usage("period=this_month&time_zone=Australia/Darwin").unwrap();
    assert_eq!(
        span(&asked),
        (datetime!(2026-10-31 14:30 UTC), datetime!(2026-11-30 14:30 UTC))
    );
    assert!(asked.by_period);
}

#[test]
fn a_start_alone_is_until_now() {
    let asked = usage("start_time=2026-11-24T00:00:00Z").unwrap();
    assert_eq!(
        span(&asked),
        (datetime!(2026-11-24 0:00 UTC), datetime!(2026-11-24 10:30 UTC))
    );
    assert!(!asked.by_period);
}

#[test]
fn lists_are_ranked_or_complete() {
    let list = |query: &str| list(query, NOW, Dimension::User);
    assert_eq!(list("").unwrap().rows, Rows::Ranked { top: 100 });
    assert_eq!(list("limit=7").unwrap().rows, Rows::Ranked { top: 7 });
    assert_eq!(list("top=7").unwrap().rows, Rows::Ranked { top: 7 });
    let by_id = Rows::ById {
        after: None,
        limit: 7,
    };
    assert_eq!(list("order_by=id&limit=7").unwrap().rows, by_id);
    for (query, expected) in [
        (
            "top=7&limit=7",
            "top cannot be combined with limit, which means the same here",
        ),
        ("order_by=id&top=7", "top cannot be combined with order_by=id"),
        ("order_by=cost", "order_by is not what it may be"),
        (
            "bucket_width=1d",
            "bucket_width is not a parameter of this request",
        ),
        ("fill=zero", "fill is not a parameter of this request"),
    ] {
        assert_eq!(named_faults(list(query)), [expected], "{query}");
    }
}

fn question(asked: &Asked, scope: Scope) -> Question {
    Question {
        scope,
        range: asked.buckets.range(),
        filter: asked.filter.clone(),
    }
}

#[test]
fn a_cursor_belongs_to_its_question_and_its_organization() {
    let spelled = "period=last_24h&model=a&bucket_width=1h";
    let asked = usage(spelled).unwrap();
    let scope = Scope::Organization(uuid(USER).unwrap());
    let cursor = page::next(
        "/orgs/x/usage",
        &asked.spelling,
        &question(&asked, scope),
        Position::Bucket(3),
    );

    // An hour later, in another order and with another limit, it is the same range.
    let later = NOW + Duration::HOUR;
    let again = format!("bucket_width=1h&model=a&limit=5&page={cursor}&period=last_24h");
    let next = super::usage(&again, later, &OF_ORGANIZATION).unwrap();
    assert_eq!(next.buckets, asked.buckets);
    assert!(matches!(
        next.rows,
        Rows::Buckets {
            from: 3,
            limit: 5,
            ..
        }
    ));
    let page = next.page.as_ref().unwrap();
    assert!(
        page.check("/orgs/x/usage", &next.spelling, &question(&next, scope))
            .is_ok()
    );

    let foreign = |path: &str, query: &str, scope: Scope| {
        let other = usage(&format!("{query}&page={cursor}")).unwrap();
        let page = other.page.as_ref().unwrap();
        page.check(path, &other.spelling, &question(&other, scope))
            .is_err()
    };
    assert!(!foreign("/orgs/x/usage", spelled, scope));
    assert!(foreign("/orgs/y/usage", spelled, scope));
    assert!(foreign("/orgs/x/usage", spelled, Scope::System));
    assert!(foreign(
        "/orgs/x/usage",
        "period=last_24h&model=b&bucket_width=1h",
        scope
    ));
    assert!(foreign(
        "/orgs/x/usage",
        "period=last_7d&model=a&bucket_width=1h",
        scope
    ));
}

#[test]
fn a_cursor_that_is_none_is_refused() {
    let list = |query: &str| named_faults(list(query, NOW, Dimension::User));
    for page in ["x", "%20", "e30", "eyJxIjoxfQ", &"A".repeat(9_000)] {
        assert_eq!(refused(&format!("page={page}")), ["page is not what it may be"]);
    }
    let asked = usage("").unwrap();
    let at = |position| page::next("/", &asked.spelling, &question(&asked, Scope::System), position);
    let foreign = "page is not a page of this question";
    let past_the_end = at(Position::Bucket(30));
    assert_eq!(refused(&format!("page={past_the_end}")), [foreign]);
    let key = at(Position::After("gpt".into()));
    assert_eq!(refused(&format!("page={key}")), [foreign]);
    assert_eq!(list(&format!("order_by=id&page={key}")), [foreign]);
    let bucket = at(Position::Bucket(1));
    assert_eq!(list(&format!("order_by=id&page={bucket}")), [foreign]);
    assert_eq!(
        list(&format!("page={bucket}")),
        ["page needs order_by=id: a ranked list is one page"]
    );
}

/// To cut a century into minutes takes minutes, and as long the thread answers nobody.
#[test]
fn a_range_that_is_too_wide_is_refused_at_once() {
    let query = "bucket_width=1m&start_time=2000-01-01T00:00:00Z&end_time=2100-01-01T00:00:00Z";
    let began = std::time::Instant::now();
    assert_eq!(refused(query).len(), 1);
    assert_eq!(named_faults(openai::completions(query, NOW)).len(), 1);
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[test]
fn a_width_has_its_widest_range() {
    for (width, days) in [
        ("1m", 1),
        ("15m", 31),
        ("1h", 93),
        ("1d", 400),
        ("1w", 3660),
        ("1mo", 3660),
    ] {
        let query = |end: OffsetDateTime| {
            format!(
                "bucket_width={width}&start_time=2010-01-01T00:00:00Z&end_time={}",
                end.unix_timestamp()
            )
        };
        let end = datetime!(2010-01-01 0:00 UTC) + Duration::days(days);
        assert!(usage(&query(end)).is_ok(), "{width}");
        let too_wide = refused(&query(end + Duration::hours(2)));
        let named = if days == 1 {
            "24 hours"
        } else {
            &format!("{days} days")
        };
        assert_eq!(
            too_wide,
            [format!("bucket_width {width} allows a range of at most {named}")]
        );
    }
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
        ("bucket_width=2h", "bucket_width is not what it may be"),
        ("time_zone=Mars", "time_zone is not what it may be"),
        ("time_zone=%2B05:30", "time_zone is not what it may be"),
        ("group_by=org_id", "group_by is not what it may be"),
        ("group_by=model_name", "group_by is not what it may be"),
        ("top=5", "top needs groups"),
        ("top=0&group_by=model", "top is not what it may be"),
        ("fill=null", "fill is not what it may be"),
        ("compare=last_year", "compare is not what it may be"),
        ("include=cost", "include is not what it may be"),
        ("order_by=id", "order_by is not a parameter of this request"),
        (
            "compare=previous_period&start_time=946684800&end_time=946684900",
            "compare reaches back before the year 2000",
        ),
        ("user_id=me", "user_id is not what it may be"),
        (
            "user_id=3f2504e04f8941d39a0c0305e82c3301",
            "user_id is not what it may be",
        ),
        ("model=a%00b", "model is not what it may be"),
        (
            "start_time=2026-11-24T10:31:00Z",
            "end_time is missing beside a start_time in the future",
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
fn filters_have_a_length() {
    let too_many: String = (0..101).map(|n| format!("model=m{n}&")).collect();
    assert_eq!(refused(&too_many), ["model is given too often"]);
    assert_eq!(
        refused(&format!("model={}", "x".repeat(256))),
        ["model is not what it may be"]
    );
    assert!(usage(&format!("model={}", "é".repeat(255))).is_ok());
}

#[test]
fn a_query_string_that_is_none_is_refused() {
    for query in ["model=%", "model=%f", "model=%zz", "model=%ff", "%C3=1"] {
        assert!(
            matches!(usage(query), Err(ApiError::MalformedQuery(_))),
            "{query}"
        );
    }
}

#[test]
fn openais_parameters_are_read() {
    let asked = openai::completions(
        &format!(
            "start_time=1793491200&bucket_width=1h&group_by[]=model&group_by%5B%5D=user_id&user_ids={USER}\
             &models[]=a&models=b&limit=168&org_id={USER}"
        ),
        NOW,
    )
    .unwrap();
    assert_eq!(
        span(&asked),
        (datetime!(2026-11-01 0:00 UTC), datetime!(2026-11-24 10:30 UTC))
    );
    assert_eq!(asked.group_by, [Dimension::Model, Dimension::User]);
    assert_eq!(asked.filter.models, ["a", "b"]);
    let limit = |asked: Asked| match asked.rows {
        Rows::Buckets {
            limit, filled: true, ..
        } => limit,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit(asked), 168);
    let week = openai::completions("start_time=1793491200", NOW).unwrap();
    assert_eq!((week.buckets.width(), limit(week)), (BucketWidth::Day, 7));
    let costs = openai::costs("start_time=1793491200&group_by=line_item&limit=180", NOW).unwrap();
    assert_eq!(costs.group_by, [Dimension::Model]);
    assert_eq!(limit(costs), 180);

    for (query, expected) in [
        ("", "start_time is missing"),
        ("start_time=1793491200&limit=32", "limit is not what it may be"),
        (
            "start_time=1793491200&group_by=project_id",
            "group_by is not what it may be",
        ),
        (
            "start_time=1793491200&bucket_width=15m",
            "bucket_width is not what it may be",
        ),
        (
            "start_time=1793491200&bucket_width=1m",
            "bucket_width 1m allows a range of at most 24 hours",
        ),
        (
            "start_time=1793491200&period=last_7d",
            "period is not a parameter of this request",
        ),
    ] {
        assert_eq!(
            named_faults(openai::completions(query, NOW)),
            [expected],
            "{query}"
        );
    }
    assert_eq!(
        named_faults(openai::costs("start_time=1793491200&bucket_width=1h", NOW)),
        ["bucket_width is not what it may be"]
    );
}
