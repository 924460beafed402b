use std::collections::BTreeMap;

use super::*;
use crate::calendar::{BucketWidth, Zone};
use proptest::prelude::*;
use time::macros::datetime;

/// All that is asked about has been.
const LONG_AFTER: OffsetDateTime = datetime!(2099-01-01 0:00 UTC);

/// All is kept, and all that has been is closed.
fn kept() -> Kept {
    Kept {
        closed_through: [LONG_AFTER; Relation::RUNGS.len()],
        ..Kept::EVERYTHING
    }
}

/// Everything before this is closed, as far as whole buckets go.
fn closed_through(moment: OffsetDateTime) -> Kept {
    Kept {
        closed_through: Relation::RUNGS.map(|rung| floor_to(moment, rung.grain().unwrap())),
        ..Kept::EVERYTHING
    }
}

fn needs(users: bool) -> Needs {
    Needs {
        users,
        models: true,
        organizations: false,
        one_organization: true,
        now: LONG_AFTER,
        kept: kept(),
    }
}

fn system(users: bool) -> Needs {
    Needs {
        one_organization: false,
        ..needs(users)
    }
}

fn buckets(start: OffsetDateTime, end: OffsetDateTime, width: BucketWidth, zone: &str) -> Buckets {
    let range = TimeRange::new(start, end).unwrap();
    Buckets::new(range, width, &Zone::named(zone).unwrap())
}

fn nothing_outside(buckets: &Buckets, relations: &[Relation], needs: &Needs) -> Vec<Segment> {
    with_edges(buckets, relations, None, None, needs).unwrap()
}

fn read(buckets: &Buckets, needs: &Needs) -> Vec<(Relation, OffsetDateTime)> {
    let segments = cover(buckets, needs).unwrap();
    segments
        .iter()
        .map(|segment| (segment.relation, segment.range.start()))
        .collect()
}

#[test]
fn a_derived_rung_is_read_up_to_its_watermark_and_the_one_below_from_there_on() {
    let now = datetime!(2026-11-27 4:40 UTC);
    let kept = closed_through(now - Duration::minutes(10));
    let monday = datetime!(2026-11-02 0:00 UTC);
    let to = datetime!(2026-11-28 0:00 UTC);
    let asked = |needs: Needs, width: BucketWidth| {
        let needs = Needs { now, kept, ..needs };
        cover(&buckets(monday, to, width, "UTC"), &needs)
            .unwrap()
            .iter()
            .map(|part| (part.relation, part.range.end()))
            .collect::<Vec<_>>()
    };
    let (midnight, four) = (datetime!(2026-11-27 0:00 UTC), datetime!(2026-11-27 4:00 UTC));
    let half_past = datetime!(2026-11-27 4:30 UTC);
    let expected = [
        (Relation::Daily, midnight),
        (Relation::Hourly, four),
        (Relation::QuarterHourly, to),
    ];
    assert_eq!(asked(needs(false), BucketWidth::Day), expected);
    let expected = [
        (Relation::DailyByUser, midnight),
        (Relation::QuarterHourlyByUser, to),
    ];
    assert_eq!(asked(needs(true), BucketWidth::Day), expected);
    let by_key = Needs {
        models: false,
        ..needs(true)
    };
    let expected = [
        (Relation::WeeklyByKey, datetime!(2026-11-23 0:00 UTC)),
        (Relation::DailyByUser, midnight),
        (Relation::QuarterHourlyByUser, to),
    ];
    assert_eq!(asked(by_key, BucketWidth::All), expected);
    let expected = [
        (Relation::SystemDaily, midnight),
        (Relation::SystemQuarterHourly, half_past),
        (Relation::QuarterHourly, to),
    ];
    assert_eq!(asked(system(false), BucketWidth::Day), expected);
    let by_organization = Needs {
        organizations: true,
        models: false,
        ..system(false)
    };
    let expected = [
        (Relation::DailyByOrg, midnight),
        (Relation::HourlyByOrg, four),
        (Relation::QuarterHourly, to),
    ];
    assert_eq!(asked(by_organization, BucketWidth::Day), expected);
    // Before the first closing, what is written with each batch answers alone.
    let nothing = Needs {
        kept: Kept::EVERYTHING,
        ..needs(false)
    };
    let all = buckets(monday, to, BucketWidth::Day, "UTC");
    assert_eq!(read(&all, &nothing), [(Relation::QuarterHourly, monday)]);
}

#[test]
fn a_month_of_utc_is_one_read_of_a_daily_rollup() {
    let (start, end) = (datetime!(2026-11-01 0:00 UTC), datetime!(2026-12-01 0:00 UTC));
    for width in [
        BucketWidth::Day,
        BucketWidth::Week,
        BucketWidth::Month,
        BucketWidth::All,
    ] {
        let month = buckets(start, end, width, "UTC");
        assert_eq!(read(&month, &needs(false)), [(Relation::Daily, start)]);
        assert_eq!(read(&month, &system(false)), [(Relation::SystemDaily, start)]);
        assert_eq!(read(&month, &system(true)), [(Relation::DailyByUser, start)]);
        let by_key = Needs {
            models: false,
            ..system(true)
        };
        let (monday, last_monday) = (datetime!(2026-11-02 0:00 UTC), datetime!(2026-11-30 0:00 UTC));
        let expected = match width {
            BucketWidth::Day => vec![(Relation::DailyByUser, start)],
            _ => vec![
                (Relation::DailyByUser, start),
                (Relation::WeeklyByKey, monday),
                (Relation::DailyByUser, last_monday),
            ],
        };
        assert_eq!(read(&month, &by_key), expected);
    }
    let by_hour = buckets(start, end, BucketWidth::Hour, "UTC");
    assert_eq!(read(&by_hour, &needs(false)), [(Relation::Hourly, start)]);
    assert_eq!(
        read(&by_hour, &needs(true)),
        [(Relation::QuarterHourlyByUser, start)]
    );
    let by_quarter = buckets(start, end, BucketWidth::QuarterHour, "UTC");
    assert_eq!(
        read(&by_quarter, &system(false)),
        [(Relation::SystemQuarterHourly, start)]
    );
}

#[test]
fn local_days_are_read_from_the_finest_relation_that_they_need() {
    let (start, end) = (datetime!(2026-11-01 4:00 UTC), datetime!(2026-12-01 5:00 UTC));
    let new_york = buckets(start, end, BucketWidth::Day, "America/New_York");
    assert_eq!(read(&new_york, &needs(false)), [(Relation::Hourly, start)]);
    assert_eq!(
        read(&new_york, &needs(true)),
        [(Relation::QuarterHourlyByUser, start)]
    );
    let (start, end) = (datetime!(2026-10-31 18:30 UTC), datetime!(2026-11-30 18:30 UTC));
    let kolkata = buckets(start, end, BucketWidth::Day, "Asia/Kolkata");
    assert_eq!(read(&kolkata, &needs(false)), [(Relation::QuarterHourly, start)]);
    // The last day has most of a UTC day in it.
    assert_eq!(
        read(&kolkata, &needs(true))[..2],
        [
            (Relation::QuarterHourlyByUser, start),
            (Relation::DailyByUser, datetime!(2026-11-30 0:00 UTC))
        ]
    );
    // One local month is whole days, and their edges.
    let kolkata = buckets(start, end, BucketWidth::Month, "Asia/Kolkata");
    let relations: Vec<_> = read(&kolkata, &system(false))
        .into_iter()
        .map(|(relation, _)| relation)
        .collect();
    assert_eq!(
        relations,
        [
            Relation::SystemQuarterHourly,
            Relation::SystemDaily,
            Relation::SystemQuarterHourly
        ]
    );
    let relations: Vec<_> = read(&kolkata, &needs(true))
        .into_iter()
        .map(|(relation, _)| relation)
        .collect();
    assert_eq!(
        relations,
        [
            Relation::QuarterHourlyByUser,
            Relation::DailyByUser,
            Relation::QuarterHourlyByUser
        ]
    );
}

#[test]
fn edges_go_to_finer_relations() {
    let odd = buckets(
        datetime!(2026-10-01 22:40 UTC),
        datetime!(2026-11-03 0:50:01 UTC),
        BucketWidth::Day,
        "UTC",
    );
    let expected = [
        (Relation::Events, datetime!(2026-10-01 22:40 UTC)),
        (Relation::QuarterHourly, datetime!(2026-10-01 22:45 UTC)),
        (Relation::Hourly, datetime!(2026-10-01 23:00 UTC)),
        (Relation::Daily, datetime!(2026-10-02 0:00 UTC)),
        (Relation::QuarterHourly, datetime!(2026-11-03 0:00 UTC)),
        (Relation::Events, datetime!(2026-11-03 0:45 UTC)),
    ];
    let segments = nothing_outside(&odd, relations(&needs(false)), &needs(false));
    let read: Vec<_> = segments
        .iter()
        .map(|segment| (segment.relation, segment.range.start()))
        .collect();
    assert_eq!(read, expected);
}

#[test]
fn what_is_left_of_a_bucket_is_taken_off_it() {
    let now = datetime!(2026-11-27 4:40 UTC);
    let midnight = datetime!(2026-11-27 0:00 UTC);
    let asked = |end: OffsetDateTime, width: BucketWidth| {
        let buckets = buckets(end - Duration::DAY, end, width, "UTC");
        let needs = Needs {
            now,
            kept: closed_through(now),
            ..needs(true)
        };
        cover(&buckets, &needs)
            .unwrap()
            .iter()
            .map(|part| (part.relation, part.range.start(), part.sign))
            .collect::<Vec<_>>()
    };
    let quarters = |start: OffsetDateTime, sign| (Relation::QuarterHourlyByUser, start, sign);
    // The running quarter of an hour is read whole: what comes after the end has hardly been.
    let end = datetime!(2026-11-27 4:42 UTC);
    let expected = [
        (Relation::Events, end - Duration::DAY, Sign::Plus),
        quarters(datetime!(2026-11-26 4:45 UTC), Sign::Plus),
        (Relation::Events, end, Sign::Minus),
    ];
    assert_eq!(asked(end, BucketWidth::Day), expected);
    // Of a day that is over, whatever is less: in one bucket, at the start as well.
    let day_before = midnight - Duration::DAY;
    let early = day_before + Duration::hours(5);
    let expected = [
        quarters(day_before - Duration::DAY, Sign::Minus),
        (Relation::DailyByUser, day_before - Duration::DAY, Sign::Plus),
        quarters(day_before, Sign::Plus),
    ];
    assert_eq!(asked(early, BucketWidth::All), expected);
    let late = day_before + Duration::hours(20);
    let expected = [
        quarters(late - Duration::DAY, Sign::Plus),
        (Relation::DailyByUser, day_before, Sign::Plus),
        quarters(late, Sign::Minus),
    ];
    assert_eq!(asked(late, BucketWidth::All), expected);
}

#[test]
fn weeks_at_both_edges_are_read_whole_if_fewer_days_have_to_be_taken_off() {
    let (monday, day) = (datetime!(2026-10-26 0:00 UTC), Duration::DAY);
    let asked = |start: i32, end: i32, width: BucketWidth, now: OffsetDateTime| {
        let buckets = buckets(monday + day * start, monday + day * end, width, "UTC");
        let needs = Needs {
            models: false,
            now,
            ..needs(true)
        };
        cover(&buckets, &needs)
            .unwrap()
            .iter()
            .map(|part| (part.relation, part.range.start(), part.sign))
            .collect::<Vec<_>>()
    };
    let days = |from: i32, sign| (Relation::DailyByUser, monday + day * from, sign);
    let weeks = |from: i32| (Relation::WeeklyByKey, monday + day * from, Sign::Plus);
    // From a Tuesday, to a Sunday.
    let both = [days(0, Sign::Minus), weeks(0), days(34, Sign::Minus)];
    assert_eq!(asked(1, 34, BucketWidth::All, LONG_AFTER), both);
    // From a Saturday, to a Tuesday.
    let none = [days(5, Sign::Plus), weeks(7), days(35, Sign::Plus)];
    assert_eq!(asked(5, 36, BucketWidth::All, LONG_AFTER), none);
    // Of several buckets, only the last one's end.
    let months = asked(1, 34, BucketWidth::Month, LONG_AFTER);
    assert_eq!(months.first(), Some(&days(1, Sign::Plus)));
    assert_eq!(months.last(), Some(&days(34, Sign::Minus)));
    // What has yet to come has no days.
    let running = monday + day * 34 - Duration::HOUR;
    let coming = (Relation::Events, monday + day * 34, Sign::Minus);
    assert_eq!(
        asked(1, 34, BucketWidth::All, running),
        [days(0, Sign::Minus), weeks(0), coming]
    );
}

#[test]
fn the_system_is_never_read_from_raw_events() {
    let (start, end) = (datetime!(2026-11-01 0:07 UTC), datetime!(2026-11-03 0:50 UTC));
    let odd = buckets(start, end, BucketWidth::Day, "UTC");
    assert_eq!(
        cover(&odd, &system(false)),
        Err(Unanswerable {
            why: Why::OffTheGrain,
            mend: vec![
                Mend::Start(datetime!(2026-11-01 0:00 UTC)),
                Mend::End(datetime!(2026-11-03 1:00 UTC))
            ]
        })
    );
    let midnight = datetime!(2026-11-01 0:00 UTC);
    let minutes = buckets(midnight, midnight + Duration::HOUR, BucketWidth::Minute, "UTC");
    assert_eq!(
        cover(&minutes, &system(false)).unwrap_err().mend,
        [Mend::Width(BucketWidth::QuarterHour)]
    );
    let local = buckets(
        midnight,
        midnight + Duration::days(7),
        BucketWidth::Day,
        "Asia/Kathmandu",
    );
    assert!(cover(&local, &system(true)).is_ok());
    assert!(cover(&local, &system(false)).is_ok());
}

#[test]
fn what_is_gone_is_refused_with_what_is_left() {
    let old = Needs {
        kept: Kept {
            raw_since: datetime!(2026-10-01 0:00 UTC),
            rollups_since: datetime!(2025-10-01 6:00 UTC),
            ..kept()
        },
        ..needs(true)
    };
    let from_six = buckets(
        datetime!(2026-09-01 6:00 UTC),
        datetime!(2026-11-01 0:00 UTC),
        BucketWidth::All,
        "UTC",
    );
    assert_eq!(
        cover(&from_six, &old),
        Err(Unanswerable {
            why: Why::RawEventsGone(datetime!(2026-10-01 0:00 UTC)),
            mend: vec![Mend::Start(datetime!(2026-09-01 0:00 UTC))],
        })
    );
    let whole_days = buckets(
        datetime!(2026-09-01 0:00 UTC),
        datetime!(2026-11-01 6:00 UTC),
        BucketWidth::All,
        "UTC",
    );
    assert!(cover(&whole_days, &old).is_ok());
    let very_old = buckets(
        datetime!(2025-09-01 0:00 UTC),
        datetime!(2025-11-01 0:00 UTC),
        BucketWidth::All,
        "UTC",
    );
    assert_eq!(
        cover(&very_old, &old),
        Err(Unanswerable {
            why: Why::RollupsGone(datetime!(2025-10-01 6:00 UTC)),
            mend: vec![Mend::Start(datetime!(2025-10-02 0:00 UTC))],
        })
    );
}

#[test]
fn local_days_of_users_need_no_raw_events_in_any_zone() {
    for zone in [
        "America/New_York",
        "Asia/Kolkata",
        "Asia/Kathmandu",
        "Pacific/Chatham",
    ] {
        let zone = Zone::named(zone).unwrap();
        let range = TimeRange::new(datetime!(2026-09-01 0:00 UTC), datetime!(2026-12-01 0:00 UTC)).unwrap();
        let days = Buckets::new(range, BucketWidth::Day, &zone);
        assert!(
            read(&days, &needs(true))
                .iter()
                .all(|(relation, _)| *relation != Relation::Events)
        );
    }
}

fn zones() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "UTC",
        "America/New_York",
        "Europe/Berlin",
        "Asia/Kolkata",
        "Asia/Kathmandu",
        "Australia/Darwin",
        "Australia/Lord_Howe",
        "America/Havana",
    ])
}

fn asked() -> impl Strategy<Value = (Buckets, Needs)> {
    let instants = (
        0_i64..400_000_000,
        1_i64..40_000_000,
        prop::sample::select(vec![1_i64, 60, 900, 3600, 86_400]),
    );
    let cut = (prop::sample::select(BucketWidth::EVERY.to_vec()), zones());
    let kept = (0_i64..5_000, 0_i64..400, -100_i64..100, 0_i64..500_000_000);
    (instants, cut, any::<[bool; 4]>(), kept).prop_map(
        |(
            (start, length, coarse),
            (width, zone),
            [users, models, organizations, one_organization],
            (rollup_days, raw_days, now, closed),
        )| {
            let start = datetime!(2015-01-01 0:00 UTC) + Duration::seconds(start / coarse * coarse);
            let length = length.min(width.widest_days() * 86_400);
            let end = start + Duration::seconds((length / coarse).max(1) * coarse);
            let mut range = TimeRange::new(start, end).unwrap();
            if !width.allows(&range) {
                range = TimeRange::new(start, start + Duration::HOUR).unwrap();
            }
            let rollups_since = datetime!(2010-01-01 0:00 UTC) + Duration::days(rollup_days);
            // What is no longer kept finely is closed.
            let raw_since = rollups_since + Duration::days(raw_days);
            let closed = datetime!(2015-01-01 0:00 UTC) + Duration::seconds(closed);
            let closed = closed_through(closed.max(raw_since + Duration::WEEK));
            let needs = Needs {
                users,
                models,
                organizations,
                one_organization,
                now: end + Duration::hours(now),
                kept: Kept {
                    rollups_since,
                    raw_since,
                    ..closed
                },
            };
            (Buckets::new(range, width, &Zone::named(zone).unwrap()), needs)
        },
    )
}

/// Whether no bucket of the relation lies on both sides of an edge between two of the answer's buckets.
fn nothing_crosses(segment: &Segment, buckets: &Buckets) -> bool {
    let Some(grain) = segment.relation.grain() else {
        return true;
    };
    let (start, end) = (segment.range.start(), segment.range.end());
    let mut inner = buckets.starts().iter().skip(1);
    floor_to(start, grain) == start
        && floor_to(end, grain) == end
        && inner.all(|edge| *edge < start || end < *edge || floor_to(*edge, grain) == *edge)
}

proptest! {
    #[test]
    fn every_candidate_counts_each_instant_once_and_respects_the_buckets((buckets, needs) in asked()) {
        let range = buckets.range();
        for segments in candidates(&buckets, &needs) {
            // Time counted, less time taken off, at each instant where that may change.
            let mut changes = BTreeMap::new();
            for segment in &segments {
                let Segment { relation, range: part, sign } = segment;
                let by = if *sign == Sign::Plus { 1 } else { -1 };
                *changes.entry(part.start()).or_insert(0) += by;
                *changes.entry(part.end()).or_insert(0) -= by;
                if *sign == Sign::Minus {
                    let counts = |other: &&Segment| {
                        let (start, end) = (other.range.start(), other.range.end());
                        other.sign == Sign::Plus && start <= part.start() && part.end() <= end
                    };
                    let whole = segments.iter().find(counts).unwrap().relation;
                    if part.end() <= range.start() {
                        prop_assert_eq!(buckets.starts().len(), 1);
                    } else {
                        let start = floor_to(part.start(), whole.grain().unwrap());
                        prop_assert!(part.start() >= range.end() && start >= buckets.last().start());
                    }
                }
                prop_assert!(nothing_crosses(segment, &buckets), "{:?}", segment);
                // Complete where it is read.
                prop_assert!(needs.kept.complete_until(*relation).is_none_or(|until| part.end() <= until));
            }
            changes.retain(|_, by| *by != 0);
            prop_assert_eq!(changes.into_iter().collect::<Vec<_>>(), [(range.start(), 1), (range.end(), -1)]);
        }
    }

    #[test]
    fn what_is_covered_at_once_is_covered_as_bucket_by_bucket((buckets, needs) in asked()) {
        let relations = relations(&needs);
        for coarsest in 0..relations.len() {
            let mut one_by_one = Vec::new();
            for bucket in buckets.iter() {
                fill(bucket, &relations[coarsest..], &needs.kept, &mut one_by_one);
            }
            prop_assert_eq!(nothing_outside(&buckets, &relations[coarsest..], &needs), one_by_one);
        }
    }

    #[test]
    fn an_answer_reads_only_what_is_kept_and_a_refusal_names_a_way_out((buckets, needs) in asked()) {
        match cover(&buckets, &needs) {
            Ok(segments) => {
                for segment in &segments {
                    let raw = segment.relation == Relation::Events;
                    prop_assert!(segment.range.start() >= needs.kept.rollups_since);
                    prop_assert!(!raw || needs.one_organization);
                    prop_assert!(segment.range.start() >= needs.kept.since(segment.relation));
                }
            }
            Err(Unanswerable { why, mend }) => {
                let (mut start, mut end) = (buckets.range().start(), buckets.range().end());
                let (mut width, mut zone) = (buckets.width(), buckets.zone().clone());
                for change in &mend {
                    match change {
                        Mend::Start(instant) => start = *instant,
                        Mend::End(instant) => end = *instant,
                        Mend::Width(wider) => width = *wider,
                        Mend::Utc => zone = Zone::UTC,
                    }
                }
                if mend.is_empty() {
                    // All of it is gone, but for less than the days at its edges.
                    let whole_days = ceil_to(start.max(needs.kept.rollups_since), Duration::DAY);
                    prop_assert!(whole_days >= floor_to(end, Duration::DAY), "{:?}", why);
                } else {
                    let range = TimeRange::new(start, end).unwrap();
                    prop_assert!(cover(&Buckets::new(range, width, &zone), &needs).is_ok());
                }
            }
        }
    }
}
