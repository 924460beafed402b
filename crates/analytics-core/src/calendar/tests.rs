use super::*;
use proptest::prelude::*;
use time::macros::datetime;

fn zone(name: &str) -> Zone {
    Zone::named(name).unwrap()
}

fn range(start: OffsetDateTime, end: OffsetDateTime) -> TimeRange {
    TimeRange::new(start, end).unwrap()
}

fn starts(
    zone_name: &str,
    width: BucketWidth,
    start: OffsetDateTime,
    end: OffsetDateTime,
) -> Vec<OffsetDateTime> {
    Buckets::new(range(start, end), width, &zone(zone_name))
        .starts()
        .to_vec()
}

#[test]
fn zones_go_by_the_names_of_the_database() {
    assert_eq!(zone("europe/berlin").name(), "Europe/Berlin");
    assert_eq!(zone("UTC").name(), "UTC");
    for wrong in [
        "",
        "nonsense3",
        "Etc/Unknown",
        "+05:30",
        "Europe/Berlin ",
        "EST5EDT4,M3",
    ] {
        assert_eq!(Zone::named(wrong), None, "{wrong}");
    }
}

#[test]
fn days_follow_clock_changes() {
    // 23 hours in March, 25 in November.
    assert_eq!(
        starts(
            "America/New_York",
            BucketWidth::Day,
            datetime!(2026-03-07 05:00 UTC),
            datetime!(2026-03-10 04:00 UTC)
        ),
        [
            datetime!(2026-03-07 05:00 UTC),
            datetime!(2026-03-08 05:00 UTC),
            datetime!(2026-03-09 04:00 UTC)
        ]
    );
    assert_eq!(
        starts(
            "Europe/Berlin",
            BucketWidth::Day,
            datetime!(2026-10-24 22:00 UTC),
            datetime!(2026-10-26 23:00 UTC)
        ),
        [datetime!(2026-10-24 22:00 UTC), datetime!(2026-10-25 23:00 UTC)]
    );
}

#[test]
fn odd_offsets_have_days_of_their_own() {
    for (name, midnight) in [
        ("Asia/Kolkata", datetime!(2026-06-30 18:30 UTC)),
        ("Asia/Kathmandu", datetime!(2026-06-30 18:15 UTC)),
        ("Australia/Darwin", datetime!(2026-06-30 14:30 UTC)),
        ("Pacific/Chatham", datetime!(2026-06-30 11:15 UTC)),
    ] {
        let july = Period::ThisMonth
            .range(datetime!(2026-07-10 0:00 UTC), &zone(name))
            .unwrap();
        assert_eq!(july.start(), midnight, "{name}");
    }
}

#[test]
fn a_midnight_that_is_skipped_or_comes_twice() {
    // Cairo skips 00:00 to 01:00 on 2026-04-24.
    assert_eq!(
        starts(
            "Africa/Cairo",
            BucketWidth::Day,
            datetime!(2026-04-22 22:00 UTC),
            datetime!(2026-04-24 23:00 UTC)
        ),
        [
            datetime!(2026-04-22 22:00 UTC),
            datetime!(2026-04-23 22:00 UTC),
            datetime!(2026-04-24 21:00 UTC)
        ]
    );
    // Havana goes from 01:00 back to 00:00 on 2025-11-02: the day begins at the first midnight.
    assert_eq!(
        starts(
            "America/Havana",
            BucketWidth::Day,
            datetime!(2025-11-01 04:00 UTC),
            datetime!(2025-11-03 05:00 UTC)
        ),
        [datetime!(2025-11-01 04:00 UTC), datetime!(2025-11-02 04:00 UTC)]
    );
    // Apia had no 30th of December 2011.
    assert_eq!(
        starts(
            "Pacific/Apia",
            BucketWidth::Day,
            datetime!(2011-12-29 10:00 UTC),
            datetime!(2012-01-01 10:00 UTC)
        ),
        [
            datetime!(2011-12-29 10:00 UTC),
            datetime!(2011-12-30 10:00 UTC),
            datetime!(2011-12-31 10:00 UTC)
        ]
    );
}

#[test]
fn an_hour_that_comes_twice_is_two_buckets() {
    // Berlin, 02:00 to 03:00 twice.
    assert_eq!(
        starts(
            "Europe/Berlin",
            BucketWidth::Hour,
            datetime!(2026-10-25 00:00 UTC),
            datetime!(2026-10-25 03:00 UTC)
        ),
        [
            datetime!(2026-10-25 00:00 UTC),
            datetime!(2026-10-25 01:00 UTC),
            datetime!(2026-10-25 02:00 UTC)
        ]
    );
    // Lord Howe goes back half an hour at 02:00 (15:00 UTC): half an hour from 01:30, then 02:00 again.
    assert_eq!(
        starts(
            "Australia/Lord_Howe",
            BucketWidth::Hour,
            datetime!(2026-04-04 14:00 UTC),
            datetime!(2026-04-04 16:30 UTC)
        ),
        [
            datetime!(2026-04-04 14:00 UTC),
            datetime!(2026-04-04 15:00 UTC),
            datetime!(2026-04-04 15:30 UTC)
        ]
    );
}

#[test]
fn hours_of_half_hour_zones_begin_on_the_half_hour() {
    assert_eq!(
        starts(
            "Asia/Kolkata",
            BucketWidth::Hour,
            datetime!(2026-06-01 00:00 UTC),
            datetime!(2026-06-01 02:00 UTC)
        ),
        [
            datetime!(2026-06-01 00:00 UTC),
            datetime!(2026-06-01 00:30 UTC),
            datetime!(2026-06-01 01:30 UTC)
        ]
    );
}

#[test]
fn weeks_begin_on_monday_and_months_on_the_first() {
    assert_eq!(
        starts(
            "UTC",
            BucketWidth::Week,
            datetime!(2026-11-01 0:00 UTC),
            datetime!(2026-11-17 0:00 UTC)
        ),
        [
            datetime!(2026-11-01 0:00 UTC),
            datetime!(2026-11-02 0:00 UTC),
            datetime!(2026-11-09 0:00 UTC),
            datetime!(2026-11-16 0:00 UTC)
        ]
    );
    assert_eq!(
        starts(
            "America/New_York",
            BucketWidth::Month,
            datetime!(2026-01-15 0:00 UTC),
            datetime!(2026-05-01 4:00 UTC)
        ),
        [
            datetime!(2026-01-15 0:00 UTC),
            datetime!(2026-02-01 5:00 UTC),
            datetime!(2026-03-01 5:00 UTC),
            datetime!(2026-04-01 4:00 UTC)
        ]
    );
}

#[test]
fn periods_are_whole_months_days_and_hours() {
    let now = datetime!(2024-03-31 23:30:05.25 UTC);
    let of = |period: Period, name: &str| {
        let range = period.range(now, &zone(name)).unwrap();
        (range.start(), range.end())
    };
    assert_eq!(
        of(Period::ThisMonth, "UTC"),
        (datetime!(2024-03-01 0:00 UTC), datetime!(2024-04-01 0:00 UTC))
    );
    assert_eq!(
        of(Period::LastMonth, "UTC"),
        (datetime!(2024-02-01 0:00 UTC), datetime!(2024-03-01 0:00 UTC))
    );
    assert_eq!(
        of(Period::Last24h, "UTC"),
        (datetime!(2024-03-31 0:00 UTC), datetime!(2024-04-01 0:00 UTC))
    );
    assert_eq!(
        of(Period::Last7d, "UTC"),
        (datetime!(2024-03-25 0:00 UTC), datetime!(2024-04-01 0:00 UTC))
    );
    assert_eq!(
        of(Period::Last30d, "UTC"),
        (datetime!(2024-03-02 0:00 UTC), datetime!(2024-04-01 0:00 UTC))
    );
    // In Berlin it is April already.
    assert_eq!(
        of(Period::ThisMonth, "Europe/Berlin"),
        (datetime!(2024-03-31 22:00 UTC), datetime!(2024-04-30 22:00 UTC))
    );
    assert_eq!(
        of(Period::LastMonth, "Europe/Berlin"),
        (datetime!(2024-02-29 23:00 UTC), datetime!(2024-03-31 22:00 UTC))
    );
    assert_eq!(
        of(Period::Last24h, "Asia/Kolkata"),
        (datetime!(2024-03-31 0:30 UTC), datetime!(2024-04-01 0:30 UTC))
    );
}

#[test]
fn what_came_before_is_as_many_months_or_days() {
    let berlin = zone("Europe/Berlin");
    let before = |start, end| {
        let range = previous(&range(start, end), &berlin).unwrap();
        (range.start(), range.end())
    };
    // March of 743 hours after February.
    assert_eq!(
        before(datetime!(2026-02-28 23:00 UTC), datetime!(2026-03-31 22:00 UTC)),
        (datetime!(2026-01-31 23:00 UTC), datetime!(2026-02-28 23:00 UTC))
    );
    // A day of 23 hours after one of 24.
    assert_eq!(
        before(datetime!(2026-03-28 23:00 UTC), datetime!(2026-03-29 22:00 UTC)),
        (datetime!(2026-03-27 23:00 UTC), datetime!(2026-03-28 23:00 UTC))
    );
    assert_eq!(
        before(datetime!(2026-03-28 12:00 UTC), datetime!(2026-03-29 15:00 UTC)),
        (datetime!(2026-03-27 09:00 UTC), datetime!(2026-03-28 12:00 UTC))
    );
}

#[test]
fn the_running_month_is_local() {
    let berlin = zone("Europe/Berlin");
    let now = datetime!(2024-03-31 23:30 UTC);
    let april = Period::ThisMonth.range(now, &berlin).unwrap();
    assert!(is_running_month(&april, now, &berlin));
    assert!(!is_running_month(&april, now, &Zone::UTC));
}

proptest! {
    /// Any instant of any zone: the bucket that holds it is the one that the naive rule says.
    #[test]
    fn buckets_are_what_the_local_clock_says(
        seconds in 0_i64..900_000_000,
        name in prop::sample::select(vec![
            "UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu",
            "Australia/Darwin", "Australia/Lord_Howe", "Africa/Cairo", "America/Havana", "Pacific/Apia",
            "America/Sao_Paulo", "Africa/Casablanca", "America/St_Johns", "Pacific/Chatham",
        ]),
        width in prop::sample::select(BucketWidth::EVERY.to_vec()),
        days in 1_i64..40,
    ) {
        let zone = zone(name);
        let at = datetime!(2005-01-01 0:00 UTC) + Duration::seconds(seconds);
        let days = days.min(width.widest_days());
        let asked = range(at - Duration::hours(days * 7), at + Duration::hours(days * 17));
        let buckets = Buckets::new(asked, width, &zone);
        prop_assert_eq!(buckets.starts()[0], asked.start());
        prop_assert!(buckets.starts().windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(*buckets.starts().last().unwrap() < asked.end());
        let place = buckets.iter().position(|bucket| bucket.start() <= at && at < bucket.end()).unwrap();
        prop_assert_eq!(buckets.place(buckets.at(place).start()), Some(place));
        if width == BucketWidth::All {
            prop_assert_eq!(buckets.starts().len(), 1);
        } else {
            prop_assert_eq!(buckets.at(place).start(), width.floor(at, &zone).max(asked.start()));
        }
        if let Some((step, origin)) = buckets.uniform() {
            prop_assert!(origin <= asked.start());
            for start in &buckets.starts()[1..] {
                prop_assert_eq!((*start - origin).whole_microseconds() % step.whole_microseconds(), 0);
            }
            for bucket in buckets.iter() {
                prop_assert!(bucket.length() <= step);
            }
        }
    }
}
