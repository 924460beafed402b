//! Which relations answer a question exactly.
//!
//! Every bucket of the answer is covered by the coarsest relation that fits into it; what is left at its two
//! edges goes to the next finer one, down to raw events. Where that makes many small parts, one finer relation
//! for all of it is read instead, if that costs less. And where a range ends inside a bucket of a relation, all
//! of that bucket may be read, and what comes after the end taken off again: of a day that is still running
//! there is hardly anything. The same at its start, where all of it is one bucket of the answer. Whatever is chosen,
//! every instant of the range is counted once and no other one is, none crosses from one bucket into the next by less
//! than its grain, and so their sums add up to the sum over raw events (the property that the tests hold).

mod nearest;

use time::{Duration, OffsetDateTime};

use crate::calendar::Buckets;
use crate::range::{TimeRange, ceil_to, floor_to};

/// A relation of the reading contract, the same in both flavors of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `usage_events`: one row per event.
    Events,
    /// `usage_daily_by_user`: UTC day by user, key, model and status.
    DailyByUser,
    /// `usage_weekly_by_key`: week from a Monday, UTC, by user and key.
    WeeklyByKey,
    /// `usage_quarter_hourly`: quarter of an hour by model and status.
    QuarterHourly,
    /// `usage_hourly`: hour by model and status.
    Hourly,
    /// `usage_daily`: UTC day by model and status.
    Daily,
}

impl Relation {
    /// The relation's name in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "usage_events",
            Self::DailyByUser => "usage_daily_by_user",
            Self::WeeklyByKey => "usage_weekly_by_key",
            Self::QuarterHourly => "usage_quarter_hourly",
            Self::Hourly => "usage_hourly",
            Self::Daily => "usage_daily",
        }
    }

    /// The name of its time column.
    #[must_use]
    pub fn time_column(self) -> &'static str {
        match self {
            Self::Events => "time",
            Self::DailyByUser | Self::Daily => "day",
            Self::WeeklyByKey => "week",
            Self::QuarterHourly => "bucket",
            Self::Hourly => "hour",
        }
    }

    /// Whether a transaction that stores events has added them to it by its end, whatever bucket they fall into.
    /// (In the timescaledb flavor the other two are continuous aggregates: a late event waits for a refresh.)
    fn is_kept_by_trigger(self) -> bool {
        match self {
            Self::DailyByUser | Self::WeeklyByKey | Self::QuarterHourly => true,
            Self::Events | Self::Hourly | Self::Daily => false,
        }
    }

    /// How wide its buckets are; `None` for events, which are points.
    #[must_use]
    pub fn grain(self) -> Option<Duration> {
        match self {
            Self::Events => None,
            Self::DailyByUser | Self::Daily => Some(Duration::DAY),
            Self::WeeklyByKey => Some(Duration::WEEK),
            Self::QuarterHourly => Some(Duration::minutes(15)),
            Self::Hourly => Some(Duration::HOUR),
        }
    }
}

/// A part of a range and the relation that answers for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where to read.
    pub relation: Relation,
    /// Which part; its bounds are multiples of the relation's grain.
    pub range: TimeRange,
    /// Whether it counts, or is taken off what counts.
    pub sign: Sign,
}

/// Whether a part counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It counts.
    Plus,
    /// It lies outside of the range, and is taken off the bucket next to it.
    Minus,
}

/// What is stored: what of the past, whole, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Raw events from here on.
    pub raw_since: OffsetDateTime,
    /// Rollups from here on.
    pub rollups_since: OffsetDateTime,
    /// Whether hours and days are aggregates that a late event waits for: in the timescaledb flavor. In the other
    /// one they are kept by triggers.
    pub aggregates: bool,
}

impl Kept {
    /// Everything, in the way that promises least: for a first look, before any database has said what it keeps.
    pub const EVERYTHING: Self = Self {
        raw_since: OffsetDateTime::UNIX_EPOCH,
        rollups_since: OffsetDateTime::UNIX_EPOCH,
        aggregates: true,
    };
}

/// What decides where a question can be answered, besides its buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Whether users or keys take part, as a filter or as groups.
    pub users: bool,
    /// Whether models or statuses do.
    pub models: bool,
    /// Whether only relations will do that are kept by triggers, like those by user: then both agree in one snapshot.
    pub as_of_commit: bool,
    /// Whether it is about one organization. Only then may raw events be read: over all organizations they
    /// would be a scan of everything.
    pub one_organization: bool,
    /// When it is asked: later there are hardly any events. Whatever it is, the answer is the same.
    pub now: OffsetDateTime,
    /// What is stored.
    pub kept: Kept,
}

/// The most days of raw events that a question may read: a local month, and the hour of a clock change.
pub const MOST_RAW_DAYS: i64 = 31;

/// Why a question has no exact answer, and what could be asked instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswerable {
    /// Why.
    pub why: Why,
    /// What to change, all of it together, for the nearest question that has an answer.
    pub mend: Vec<Mend>,
}

/// Why a question has no exact answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A question about the whole system begins, ends and is cut into buckets on multiples of this.
    OffTheGrain(Duration),
    /// Parts of it need raw events from before this, which are no longer kept.
    RawEventsGone(OffsetDateTime),
    /// It begins before this, and rollups from before are no longer kept.
    RollupsGone(OffsetDateTime),
    /// It would read more days of raw events than [`MOST_RAW_DAYS`].
    TooManyRawDays,
}

/// A change that makes a question answerable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    /// Begin here.
    Start(OffsetDateTime),
    /// End here.
    End(OffsetDateTime),
    /// In buckets of this width.
    Width(crate::calendar::BucketWidth),
    /// By the calendar of UTC.
    Utc,
}

/// The segments that answer for `buckets`, in order of time.
///
/// # Errors
/// If no set of relations answers exactly.
pub fn cover(buckets: &Buckets, needs: &Needs) -> Result<Vec<Segment>, Unanswerable> {
    covered(buckets, needs).map_err(|why| Unanswerable {
        why,
        mend: nearest::mend(buckets, needs),
    })
}

/// The relations that know a question's dimensions, the coarsest first.
fn relations(needs: &Needs) -> &'static [Relation] {
    match (needs.users, needs.models) {
        (true, true) => &[Relation::DailyByUser, Relation::Events],
        (true, false) => &[Relation::WeeklyByKey, Relation::DailyByUser, Relation::Events],
        (false, _) if needs.as_of_commit && needs.kept.aggregates => {
            &[Relation::QuarterHourly, Relation::Events]
        }
        (false, _) => &[
            Relation::Daily,
            Relation::Hourly,
            Relation::QuarterHourly,
            Relation::Events,
        ],
    }
}

/// The finest rollup's grain.
fn finest_grain(users: bool) -> Duration {
    match users {
        true => Duration::DAY,
        false => Duration::minutes(15),
    }
}

fn covered(buckets: &Buckets, needs: &Needs) -> Result<Vec<Segment>, Why> {
    let mut cheapest: Option<(i64, Vec<Segment>)> = None;
    let mut refused = None;
    for segments in candidates(buckets, relations(needs), needs.now) {
        if let Err(why) = readable(&segments, needs) {
            refused.get_or_insert(why);
            continue;
        }
        let cost = cost(&segments, needs);
        if cheapest.as_ref().is_none_or(|(least, _)| cost < *least) {
            cheapest = Some((cost, segments));
        }
    }
    match (cheapest, refused) {
        (Some((_, segments)), _) => Ok(segments),
        (None, Some(why)) => Err(why),
        // There is always a candidate.
        (None, None) => Ok(Vec::new()),
    }
}

/// With the coarsest relation, without it, without the two coarsest, …: the first one has the fewest raw
/// events of those that take nothing off. And each of them with a first and a last bucket of its relations read whole.
fn candidates(buckets: &Buckets, relations: &[Relation], now: OffsetDateTime) -> Vec<Vec<Segment>> {
    let mut candidates = Vec::new();
    // No bucket is wider than an even step: none of a relation's fits into it.
    let step = buckets.uniform().map(|(step, _)| step);
    let too_coarse = |relation: &&Relation| {
        step.zip(relation.grain())
            .is_some_and(|(step, grain)| grain > step)
    };
    let first_fitting = relations.iter().take_while(too_coarse).count();
    for coarsest in first_fitting..relations.len() {
        let relations = &relations[coarsest..];
        for first in edges(buckets.range().start(), relations) {
            for last in edges(buckets.range().end(), relations) {
                candidates.extend(with_edges(buckets, relations, first.as_ref(), last.as_ref(), now));
            }
        }
    }
    candidates
}

/// A bucket of a relation that an edge of the range lies in, to be read whole.
struct Edge<'a> {
    whole: Relation,
    bucket: TimeRange,
    /// What may be taken off it. (It has to be kept by triggers as well, and is: a property.)
    finer: &'a [Relation],
}

/// The ways to deal with an edge of the range: in the first one nothing is read that lies outside.
fn edges(edge: OffsetDateTime, relations: &[Relation]) -> Vec<Option<Edge<'_>>> {
    let mut edges = vec![None];
    let mut rest = relations;
    while let Some((whole, finer)) = rest.split_first() {
        rest = finer;
        let Some(grain) = whole.grain().filter(|_| whole.is_kept_by_trigger()) else {
            continue;
        };
        let inside = TimeRange::part(floor_to(edge, grain), ceil_to(edge, grain));
        edges.extend(inside.map(|bucket| {
            Some(Edge {
                whole: *whole,
                bucket,
                finer,
            })
        }));
    }
    edges
}

/// Covers the range, with the bucket of a relation that it begins in and the one that it ends in read whole, and what is
/// too much of them taken off. `None` if that would be taken off a bucket of the answer that it is no part of.
fn with_edges(
    buckets: &Buckets,
    relations: &[Relation],
    first: Option<&Edge<'_>>,
    last: Option<&Edge<'_>>,
    now: OffsetDateTime,
) -> Option<Vec<Segment>> {
    let range = buckets.range();
    let from = first.map_or(range.start(), |edge| edge.bucket.end());
    let to = last.map_or(range.end(), |edge| edge.bucket.start());
    // Rows before the first of several buckets would have to be told to be of that one, and of the last bucket alone is
    // what is taken off at the end.
    let is_of_one_bucket = first.is_none() || buckets.starts().len() == 1;
    if from > to || !is_of_one_bucket || last.is_some() && to < buckets.last().start() {
        return None;
    }
    let mut segments = Vec::new();
    if let Some(Edge { whole, bucket, finer }) = first {
        take_off(bucket.start(), range.start(), finer, now, &mut segments);
        push(&mut segments, *whole, *bucket);
    }
    fill_buckets(buckets, from, to, relations, &mut segments);
    if let Some(Edge { whole, bucket, finer }) = last {
        push(&mut segments, *whole, *bucket);
        take_off(range.end(), bucket.end(), finer, now, &mut segments);
    }
    Some(segments)
}

fn take_off(
    from: OffsetDateTime,
    to: OffsetDateTime,
    relations: &[Relation],
    now: OffsetDateTime,
    segments: &mut Vec<Segment>,
) {
    // Of what has yet to come there is nothing: one part will do.
    let has_been = |relation: &Relation| relation.grain().is_none_or(|grain| ceil_to(from, grain) < now);
    let relations: Vec<Relation> = relations.iter().copied().filter(has_been).collect();
    let mut over = Vec::new();
    if let Some(range) = TimeRange::part(from, to) {
        fill(range, &relations, &mut over);
    }
    segments.extend(over.into_iter().map(|part| Segment {
        sign: Sign::Minus,
        ..part
    }));
}

/// Covers each bucket by itself, and joins what is next to each other and of one relation.
fn fill_buckets(
    buckets: &Buckets,
    from: OffsetDateTime,
    to: OffsetDateTime,
    relations: &[Relation],
    segments: &mut Vec<Segment>,
) {
    let mut fill = |from, to| {
        if let Some(part) = TimeRange::part(from, to) {
            fill(part, relations, segments);
        }
    };
    let coarsest = relations.first().and_then(|relation| relation.grain());
    let mut edges = buckets.starts().iter().skip(1);
    if edges.all(|edge| coarsest.is_none_or(|grain| floor_to(*edge, grain) == *edge)) {
        // No row of the coarsest one lies across an edge, and finer grains divide it: the same, at once.
        fill(from, to);
    } else {
        buckets
            .iter()
            .for_each(|bucket| fill(bucket.start().max(from), bucket.end().min(to)));
    }
}

fn fill(range: TimeRange, relations: &[Relation], segments: &mut Vec<Segment>) {
    let Some((relation, finer)) = relations.split_first() else {
        return;
    };
    let (start, end) = match relation.grain() {
        None => (range.start(), range.end()),
        Some(grain) => (ceil_to(range.start(), grain), floor_to(range.end(), grain)),
    };
    let Some(inner) = TimeRange::part(start, end) else {
        return fill(range, finer, segments);
    };
    if let Some(before) = TimeRange::part(range.start(), start) {
        fill(before, finer, segments);
    }
    push(segments, *relation, inner);
    if let Some(after) = TimeRange::part(end, range.end()) {
        fill(after, finer, segments);
    }
}

fn push(segments: &mut Vec<Segment>, relation: Relation, range: TimeRange) {
    if let Some(last) = segments.last_mut()
        && last.relation == relation
        && let Some(joined) = TimeRange::part(last.range.start(), range.end())
    {
        last.range = joined;
    } else {
        segments.push(Segment {
            relation,
            range,
            sign: Sign::Plus,
        });
    }
}

fn readable(segments: &[Segment], needs: &Needs) -> Result<(), Why> {
    let since = needs.kept.rollups_since;
    if segments.iter().any(|segment| segment.range.start() < since) {
        return Err(Why::RollupsGone(since));
    }
    let mut raw = segments
        .iter()
        .filter(|segment| segment.relation == Relation::Events)
        .map(|segment| segment.range)
        .peekable();
    if raw.peek().is_some() && !needs.one_organization {
        return Err(Why::OffTheGrain(finest_grain(needs.users)));
    }
    let mut length = Duration::ZERO;
    for part in raw {
        if part.start() < needs.kept.raw_since {
            return Err(Why::RawEventsGone(needs.kept.raw_since));
        }
        length += part.length();
    }
    if length > Duration::days(MOST_RAW_DAYS) + Duration::HOUR {
        return Err(Why::TooManyRawDays);
    }
    Ok(())
}

/// What reading the segments costs, in rows of a rollup that could be read in that time: those of a large
/// organization, one with 13 % of 100 million events in 60 days. The whole system has about eight times as many.
fn cost(segments: &[Segment], needs: &Needs) -> i64 {
    let all_organizations = if needs.one_organization { 1 } else { 8 };
    segments
        .iter()
        .map(|Segment { relation, range, .. }| {
            let rows_a_day = match relation {
                Relation::Daily => 40,
                Relation::Hourly => 24 * 40,
                Relation::QuarterHourly => 96 * 40,
                Relation::DailyByUser => 9_000,
                // A fifteenth, as decisions/rollups.md has it.
                Relation::WeeklyByKey => 600,
                // 217,000, and one takes as long as two rows of a rollup.
                Relation::Events => 434_000,
            };
            // Planning and starting one more part: a real-time aggregate is planned twice, over all of its chunks.
            let part = match relation {
                Relation::Daily | Relation::Hourly => 50_000,
                _ => 10_000,
            };
            let past = range.end().min(needs.now) - range.start();
            part + all_organizations * rows_a_day * past.whole_minutes().max(0) / (24 * 60)
        })
        .sum()
}

#[cfg(test)]
mod tests;
