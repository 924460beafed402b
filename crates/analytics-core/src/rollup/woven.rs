//! Parts that alternate between relations, read as one part of each.
//!
//! Where local days begin on a half hour, thirty of them are whole hours and, around each midnight, quarters of an
//! hour: sixty parts, or all quarters, of which there are four times as many. Read as two parts it is all hours
//! but those with a midnight in them, and the quarters of these.

use time::{Duration, OffsetDateTime};

use super::{Read, Relation, Segment, Sign};
use crate::range::TimeRange;

/// From how many parts of one relation on they are read at once.
const FROM: usize = 3;
/// The most buckets that are named one by one: as many as the quarters of an hour around each midnight of 13 months.
const MOST_NAMED: usize = 2_000;

/// The same with one part of each relation that had several. `None` if none had, or too many buckets had to be
/// named.
pub(super) fn woven(segments: &[Segment]) -> Option<Vec<Segment>> {
    let mut woven: Vec<Segment> = Vec::new();
    let mut done: Vec<Relation> = Vec::new();
    for segment in segments {
        if segment.sign == Sign::Plus && done.contains(&segment.relation) {
            continue;
        }
        let parts: Vec<TimeRange> = segments
            .iter()
            .filter(|other| other.sign == Sign::Plus && other.relation == segment.relation)
            .map(|other| other.range)
            .collect();
        let several = segment.sign == Sign::Plus && parts.len() >= FROM;
        match segment.relation.grain().filter(|_| several) {
            None => woven.push(segment.clone()),
            Some(grain) => {
                woven.push(joined(segment.relation, grain, &parts)?);
                done.push(segment.relation);
            }
        }
    }
    (!done.is_empty()).then_some(woven)
}

fn joined(relation: Relation, grain: Duration, parts: &[TimeRange]) -> Option<Segment> {
    let (first, last) = (parts.first()?, parts.last()?);
    let range = TimeRange::part(first.start(), last.end())?;
    let gaps: Vec<TimeRange> = parts
        .windows(2)
        .filter_map(|pair| TimeRange::part(pair[0].end(), pair[1].start()))
        .collect();
    let length = |ranges: &[TimeRange]| ranges.iter().map(TimeRange::length).sum::<Duration>();
    let read = match length(parts) < length(&gaps) {
        true => Read::Only(named(parts, grain)?),
        false => Read::Except(named(&gaps, grain)?),
    };
    Some(Segment {
        relation,
        range,
        read,
        sign: Sign::Plus,
    })
}

fn named(ranges: &[TimeRange], grain: Duration) -> Option<Vec<OffsetDateTime>> {
    let mut starts = Vec::new();
    for range in ranges {
        let mut start = range.start();
        while start < range.end() {
            if starts.len() == MOST_NAMED {
                return None;
            }
            starts.push(start);
            start += grain;
        }
    }
    Some(starts)
}
