//! Which relations answer a question exactly.
//!
//! Every bucket of the answer is covered by the coarsest relation that fits into it; what is left at its two
//! edges goes to the next finer one, down to raw events. Where that makes many small parts, one finer relation
//! for all of it is read instead, if that costs less. And where a range ends inside a bucket of a relation, all
//! of that bucket may be read, and what comes after the end taken off again: of a day that is still running
//! there is hardly anything. The same at its start, where all of it is one bucket of the answer. A derived relation is
//! read up to its watermark, and the next finer one from there on. Whatever is chosen,
//! every instant of the range is counted once and no other one is, none crosses from one bucket into the next by less
//! than its grain, and so their sums add up to the sum over raw events (the property that the tests hold).

mod nearest;

use time::{Duration, OffsetDateTime};

use crate::calendar::Buckets;
use crate::range::{TimeRange, ceil_to, floor_to};

/// A relation of the reading contract, the same in both flavors of the schema (`migrations/common/V2__ladder.sql`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `usage_events`: one row per event.
    Events,
    /// `usage_quarter_hourly_by_user`: quarter of an hour by user, key, model and status. Written with each batch.
    QuarterHourlyByUser,
    /// `usage_quarter_hourly`: quarter of an hour by model and status. Written with each batch.
    QuarterHourly,
    /// `closed_hourly`: hour by model and status.
    Hourly,
    /// `closed_daily`: UTC day by model and status.
    Daily,
    /// `closed_daily_by_user`: UTC day by user, key, model and status.
    DailyByUser,
    /// `closed_weekly_by_key`: week from a Monday, UTC, by user and key.
    WeeklyByKey,
    /// `closed_hourly_by_org`: hour by organization alone.
    HourlyByOrg,
    /// `closed_daily_by_org`: UTC day by organization alone.
    DailyByOrg,
    /// `closed_system_quarter_hourly`: quarter of an hour of all organizations, by model and status.
    SystemQuarterHourly,
    /// `closed_system_daily`: UTC day of all organizations, by model and status.
    SystemDaily,
}

impl Relation {
    /// The rungs of the ladder, in the order of `ladder.place`: what each is added up from comes before it.
    pub const RUNGS: [Self; 10] = [
        Self::QuarterHourlyByUser,
        Self::QuarterHourly,
        Self::Hourly,
        Self::Daily,
        Self::DailyByUser,
        Self::WeeklyByKey,
        Self::HourlyByOrg,
        Self::DailyByOrg,
        Self::SystemQuarterHourly,
        Self::SystemDaily,
    ];

    /// The relation's name in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "usage_events",
            Self::QuarterHourlyByUser => "usage_quarter_hourly_by_user",
            Self::QuarterHourly => "usage_quarter_hourly",
            Self::Hourly => "closed_hourly",
            Self::Daily => "closed_daily",
            Self::DailyByUser => "closed_daily_by_user",
            Self::WeeklyByKey => "closed_weekly_by_key",
            Self::HourlyByOrg => "closed_hourly_by_org",
            Self::DailyByOrg => "closed_daily_by_org",
            Self::SystemQuarterHourly => "closed_system_quarter_hourly",
            Self::SystemDaily => "closed_system_daily",
        }
    }

    /// The name of its time column.
    #[must_use]
    pub fn time_column(self) -> &'static str {
        match self {
            Self::Events => "time",
            Self::QuarterHourlyByUser | Self::QuarterHourly | Self::SystemQuarterHourly => "bucket",
            Self::Hourly | Self::HourlyByOrg => "hour",
            Self::Daily | Self::DailyByUser | Self::DailyByOrg | Self::SystemDaily => "day",
            Self::WeeklyByKey => "week",
        }
    }

    /// How wide its buckets are; `None` for events, which are points.
    #[must_use]
    pub fn grain(self) -> Option<Duration> {
        match self {
            Self::Events => None,
            Self::QuarterHourlyByUser | Self::QuarterHourly | Self::SystemQuarterHourly => Some(FINEST_GRAIN),
            Self::Hourly | Self::HourlyByOrg => Some(Duration::HOUR),
            Self::Daily | Self::DailyByUser | Self::DailyByOrg | Self::SystemDaily => Some(Duration::DAY),
            Self::WeeklyByKey => Some(Duration::WEEK),
        }
    }

    /// Whether a batch writes it by itself, so that it is complete at every commit. The others are derived when their
    /// buckets are over, and complete before their watermark.
    fn is_written(self) -> bool {
        matches!(
            self,
            Self::Events | Self::QuarterHourlyByUser | Self::QuarterHourly
        )
    }

    /// Whether it is kept as long as raw events, and not as long as rollups.
    fn is_kept_briefly(self) -> bool {
        matches!(self, Self::Events | Self::QuarterHourlyByUser)
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

/// What is stored: what of the past, and how far each rung of the ladder is derived.
///
/// It may be older than what is read: retention and watermarks only move ahead, and a rung that has been derived since
/// is still whole before its older watermark, as is the rung below it from there on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Raw events, and quarters of an hour by user, from here on.
    pub raw_since: OffsetDateTime,
    /// All other rollups from here on.
    pub rollups_since: OffsetDateTime,
    /// Watermarks, in the order of [`Relation::RUNGS`]; not looked at for written rungs.
    pub closed_through: [OffsetDateTime; Relation::RUNGS.len()],
}

impl Kept {
    /// Everything, and nothing derived: for a first look, before any database has said what it keeps.
    pub const EVERYTHING: Self = Self {
        raw_since: OffsetDateTime::UNIX_EPOCH,
        rollups_since: OffsetDateTime::UNIX_EPOCH,
        closed_through: [OffsetDateTime::UNIX_EPOCH; Relation::RUNGS.len()],
    };

    /// Where a relation stops to be complete; `None` if it never does.
    fn complete_until(&self, relation: Relation) -> Option<OffsetDateTime> {
        let rung = Relation::RUNGS.iter().position(|rung| *rung == relation);
        rung.filter(|_| !relation.is_written())
            .and_then(|rung| self.closed_through.get(rung).copied())
    }

    /// Where a relation begins.
    fn since(&self, relation: Relation) -> OffsetDateTime {
        if relation.is_kept_briefly() {
            self.raw_since
        } else {
            self.rollups_since
        }
    }
}

/// What decides where a question can be answered, besides its buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Whether users or keys take part, as a filter or as groups.
    pub users: bool,
    /// Whether models or statuses do, or latencies are asked for in buckets: what rollups by organization alone, and by
    /// key, cannot tell.
    pub models: bool,
    /// Whether organizations are told apart.
    pub organizations: bool,
    /// Whether it is about one organization. Only then may raw events be read: over all organizations they
    /// would be a scan of everything.
    pub one_organization: bool,
    /// When it is asked: later there are hardly any events. Whatever it is, the answer is the same.
    pub now: OffsetDateTime,
    /// What is stored.
    pub kept: Kept,
}

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
    /// A question about the whole system begins, ends and is cut into buckets on quarters of an hour.
    OffTheGrain,
    /// Parts of it need raw events from before this, which are no longer kept.
    RawEventsGone(OffsetDateTime),
    /// It begins before this, and rollups from before are no longer kept.
    RollupsGone(OffsetDateTime),
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

/// The relations that know a question's dimensions, the coarsest first. The last but events is always complete.
fn relations(needs: &Needs) -> &'static [Relation] {
    use Relation::{
        Daily, DailyByOrg, DailyByUser, Events, Hourly, HourlyByOrg, QuarterHourly, QuarterHourlyByUser,
        SystemDaily, SystemQuarterHourly, WeeklyByKey,
    };
    if needs.users {
        return match needs.models {
            true => &[DailyByUser, QuarterHourlyByUser, Events],
            false => &[WeeklyByKey, DailyByUser, QuarterHourlyByUser, Events],
        };
    }
    match (needs.one_organization, needs.organizations, needs.models) {
        (true, _, _) | (false, true, true) => &[Daily, Hourly, QuarterHourly, Events],
        (false, true, false) => &[DailyByOrg, HourlyByOrg, QuarterHourly, Events],
        (false, false, _) => &[SystemDaily, SystemQuarterHourly, QuarterHourly, Events],
    }
}

/// The grain of the finest rollups: no time zone has a finer offset.
const FINEST_GRAIN: Duration = Duration::minutes(15);

fn covered(buckets: &Buckets, needs: &Needs) -> Result<Vec<Segment>, Why> {
    let mut cheapest: Option<(i64, Vec<Segment>)> = None;
    let mut refused = None;
    for segments in candidates(buckets, needs) {
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
fn candidates(buckets: &Buckets, needs: &Needs) -> Vec<Vec<Segment>> {
    let relations = relations(needs);
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
        for first in edges(buckets.range().start(), relations, &needs.kept) {
            for last in edges(buckets.range().end(), relations, &needs.kept) {
                candidates.extend(with_edges(
                    buckets,
                    relations,
                    first.as_ref(),
                    last.as_ref(),
                    needs,
                ));
            }
        }
    }
    candidates
}

/// A bucket of a relation that an edge of the range lies in, to be read whole.
struct Edge<'a> {
    whole: Relation,
    bucket: TimeRange,
    /// What may be taken off it.
    finer: &'a [Relation],
}

/// The ways to deal with an edge of the range: in the first one nothing is read that lies outside.
fn edges<'a>(edge: OffsetDateTime, relations: &'a [Relation], kept: &Kept) -> Vec<Option<Edge<'a>>> {
    let mut edges = vec![None];
    let mut rest = relations;
    while let Some((whole, finer)) = rest.split_first() {
        rest = finer;
        let Some(grain) = whole.grain() else {
            continue;
        };
        let until = kept.complete_until(*whole);
        let inside = TimeRange::part(floor_to(edge, grain), ceil_to(edge, grain))
            .filter(|bucket| until.is_none_or(|until| bucket.end() <= until));
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
    needs: &Needs,
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
        take_off(bucket.start(), range.start(), finer, needs, &mut segments);
        push(&mut segments, *whole, *bucket);
    }
    fill_buckets(buckets, from, to, relations, &needs.kept, &mut segments);
    if let Some(Edge { whole, bucket, finer }) = last {
        push(&mut segments, *whole, *bucket);
        take_off(range.end(), bucket.end(), finer, needs, &mut segments);
    }
    Some(segments)
}

fn take_off(
    from: OffsetDateTime,
    to: OffsetDateTime,
    relations: &[Relation],
    needs: &Needs,
    segments: &mut Vec<Segment>,
) {
    // Of what has yet to come there is nothing: one part will do.
    let has_been = |relation: &Relation| {
        relation
            .grain()
            .is_none_or(|grain| ceil_to(from, grain) < needs.now)
    };
    let relations: Vec<Relation> = relations.iter().copied().filter(has_been).collect();
    let mut over = Vec::new();
    if let Some(range) = TimeRange::part(from, to) {
        fill(range, &relations, &needs.kept, &mut over);
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
    kept: &Kept,
    segments: &mut Vec<Segment>,
) {
    let mut fill = |from, to| {
        if let Some(part) = TimeRange::part(from, to) {
            fill(part, relations, kept, segments);
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

/// Covers a range with the coarsest relation, as far as that is complete, and what is left at its two ends with the finer
/// ones.
fn fill(range: TimeRange, relations: &[Relation], kept: &Kept, segments: &mut Vec<Segment>) {
    let Some((relation, finer)) = relations.split_first() else {
        return;
    };
    let (start, end) = match relation.grain() {
        None => (range.start(), range.end()),
        Some(grain) => (ceil_to(range.start(), grain), floor_to(range.end(), grain)),
    };
    let end = kept.complete_until(*relation).map_or(end, |until| end.min(until));
    let Some(inner) = TimeRange::part(start, end) else {
        return fill(range, finer, kept, segments);
    };
    if let Some(before) = TimeRange::part(range.start(), start) {
        fill(before, finer, kept, segments);
    }
    push(segments, *relation, inner);
    if let Some(after) = TimeRange::part(end, range.end()) {
        fill(after, finer, kept, segments);
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
    let is_raw = |segment: &Segment| segment.relation == Relation::Events;
    if segments.iter().any(is_raw) && !needs.one_organization {
        return Err(Why::OffTheGrain);
    }
    let gone = |segment: &Segment| segment.range.start() < needs.kept.since(segment.relation);
    if segments.iter().any(gone) {
        return Err(Why::RawEventsGone(needs.kept.raw_since));
    }
    Ok(())
}

/// What reading the segments costs, in rows of a rollup that could be read in that time: those of a large
/// organization, one with 13 % of 100 million events in 60 days. The whole system has about eight times as many.
fn cost(segments: &[Segment], needs: &Needs) -> i64 {
    /// Planning and starting one more part.
    const PART: i64 = 10_000;
    let all_organizations = if needs.one_organization { 1 } else { 8 };
    segments
        .iter()
        .map(|Segment { relation, range, .. }| {
            let rows_a_day = match relation {
                Relation::Daily => 40 * all_organizations,
                Relation::Hourly => 24 * 40 * all_organizations,
                Relation::QuarterHourly => 96 * 40 * all_organizations,
                Relation::DailyByUser => 9_000 * all_organizations,
                // A fifteenth.
                Relation::WeeklyByKey => 600 * all_organizations,
                // Two of three events have a row of their own.
                Relation::QuarterHourlyByUser => 150_000 * all_organizations,
                // 217,000, and one takes as long as two rows of a rollup.
                Relation::Events => 434_000 * all_organizations,
                Relation::HourlyByOrg => 24 * 1_000,
                Relation::DailyByOrg => 1_000,
                Relation::SystemQuarterHourly => 96 * 40,
                Relation::SystemDaily => 40,
            };
            let past = range.end().min(needs.now) - range.start();
            PART + rows_a_day * past.whole_minutes().max(0) / (24 * 60)
        })
        .sum()
}

#[cfg(test)]
mod tests;
