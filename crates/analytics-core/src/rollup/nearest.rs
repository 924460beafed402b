//! The nearest question that has an answer, for one that has none.

use time::{Duration, OffsetDateTime};

use super::{FINEST_GRAIN, Mend, Needs, covered};
use crate::calendar::{BucketWidth, Buckets, Zone};
use crate::range::{TimeRange, ceil_to, floor_to};

/// The least change that helps: an edge of the range, both, UTC instead of a local calendar, wider buckets.
/// Empty if all of the range is gone.
pub(super) fn mend(buckets: &Buckets, needs: &Needs) -> Vec<Mend> {
    let (width, zone) = (buckets.width(), buckets.zone());
    let mut ways = vec![(width, zone.clone()), (width, Zone::UTC)];
    if width == BucketWidth::Minute {
        ways.push((BucketWidth::QuarterHour, zone.clone()));
    }
    ways.push((BucketWidth::Day, Zone::UTC));
    ways.push((BucketWidth::All, zone.clone()));
    for (width, zone) in ways {
        for start in starts(buckets, needs) {
            for end in ends(buckets) {
                let Ok(range) = TimeRange::new(start, end) else {
                    continue;
                };
                if !width.allows(&range) {
                    continue;
                }
                let candidate = Buckets::new(range, width, &zone);
                if covered(&candidate, needs).is_ok() {
                    return changes(buckets, &candidate);
                }
            }
        }
    }
    Vec::new()
}

/// Outwards before inwards, so that what is suggested holds what was asked for.
fn starts(buckets: &Buckets, needs: &Needs) -> Vec<OffsetDateTime> {
    let (start, grain) = (buckets.range().start(), FINEST_GRAIN);
    let mut starts = vec![start];
    for grain in [grain, Duration::DAY] {
        starts.extend([floor_to(start, grain), ceil_to(start, grain)]);
    }
    let mut later = vec![
        ceil_to(needs.kept.rollups_since, Duration::DAY),
        ceil_to(needs.kept.raw_since, Duration::DAY),
    ];
    later.extend(
        buckets
            .starts()
            .iter()
            .find(|start| **start >= needs.kept.raw_since),
    );
    later.retain(|instant| *instant > start);
    later.sort_unstable();
    starts.extend(later);
    distinct(starts)
}

fn ends(buckets: &Buckets) -> Vec<OffsetDateTime> {
    let (end, grain) = (buckets.range().end(), FINEST_GRAIN);
    let mut ends = vec![end];
    for grain in [grain, Duration::DAY] {
        ends.extend([ceil_to(end, grain), floor_to(end, grain)]);
    }
    distinct(ends)
}

fn distinct(instants: Vec<OffsetDateTime>) -> Vec<OffsetDateTime> {
    let mut kept = Vec::with_capacity(instants.len());
    for instant in instants {
        if !kept.contains(&instant) {
            kept.push(instant);
        }
    }
    kept
}

fn changes(asked: &Buckets, candidate: &Buckets) -> Vec<Mend> {
    let mut changes = Vec::new();
    if candidate.range().start() != asked.range().start() {
        changes.push(Mend::Start(candidate.range().start()));
    }
    if candidate.range().end() != asked.range().end() {
        changes.push(Mend::End(candidate.range().end()));
    }
    if candidate.width() != asked.width() {
        changes.push(Mend::Width(candidate.width()));
    }
    if candidate.zone() != asked.zone() {
        changes.push(Mend::Utc);
    }
    changes
}
