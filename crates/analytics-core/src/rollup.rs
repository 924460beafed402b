//! Which relations answer a question exactly.
//!
//! Every bucket of the answer is covered by the coarsest relation that fits into it; what is left at its two
//! edges goes to the next finer one, down to raw events. Where that makes many small parts, one finer relation
//! for all of it is read instead, if that costs less. Whatever is chosen, the parts never overlap and leave no
//! gap, none crosses from one bucket into the next by less than its grain, and so their sums add up to the sum
//! over raw events (the property that the tests hold).

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
    /// `usage_daily_by_key`: UTC day by user, key and whether it failed.
    DailyByKey,
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
            Self::DailyByKey => "usage_daily_by_key",
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
            Self::DailyByUser | Self::DailyByKey | Self::Daily => "day",
            Self::QuarterHourly => "bucket",
            Self::Hourly => "hour",
        }
    }

    /// How wide its buckets are; `None` for events, which are points.
    #[must_use]
    pub fn grain(self) -> Option<Duration> {
        match self {
            Self::Events => None,
            Self::DailyByUser | Self::DailyByKey | Self::Daily => Some(Duration::DAY),
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
}

/// What of the past is still stored, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Raw events from here on.
    pub raw_since: OffsetDateTime,
    /// Rollups from here on.
    pub rollups_since: OffsetDateTime,
}

impl Kept {
    /// Everything: for a first look at a question, before the database has said what it keeps.
    pub const EVERYTHING: Self = Self {
        raw_since: OffsetDateTime::UNIX_EPOCH,
        rollups_since: OffsetDateTime::UNIX_EPOCH,
    };
}

/// What decides where a question can be answered, besides its buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Whether users or keys take part, as a filter or as groups.
    pub users: bool,
    /// Whether models or statuses do.
    pub models: bool,
    /// Whether it is about one organization. Only then may raw events be read: over all organizations they
    /// would be a scan of everything.
    pub one_organization: bool,
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
        (true, false) => &[Relation::DailyByKey, Relation::Events],
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
    let start = buckets.range().start();
    if start < needs.kept.rollups_since {
        return Err(Why::RollupsGone(needs.kept.rollups_since));
    }
    let relations = relations(needs);
    // With the coarsest relation, without it, without the two coarsest, …. The first of these has the
    // fewest raw events, so what is wrong with it is wrong with all.
    let mut cheapest: Option<(i64, Vec<Segment>)> = None;
    for coarsest in 0..relations.len() {
        let segments = segments(buckets, &relations[coarsest..]);
        if let Err(why) = readable(&segments, needs) {
            if coarsest == 0 {
                return Err(why);
            }
            continue;
        }
        let cost = cost(&segments, needs.one_organization);
        if cheapest.as_ref().is_none_or(|(least, _)| cost < *least) {
            cheapest = Some((cost, segments));
        }
    }
    // The first candidate was readable, or its fault has been returned.
    Ok(cheapest.map(|(_, segments)| segments).unwrap_or_default())
}

/// Covers each bucket by itself, and joins what is next to each other and of one relation.
fn segments(buckets: &Buckets, relations: &[Relation]) -> Vec<Segment> {
    let mut segments = Vec::new();
    for bucket in buckets.iter() {
        fill(bucket, relations, &mut segments);
    }
    segments
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
        segments.push(Segment { relation, range });
    }
}

fn readable(segments: &[Segment], needs: &Needs) -> Result<(), Why> {
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

/// What reading the segments costs: rows of a large organization, measured on one with 13 % of 20 million
/// events in 60 days. The whole system has about eight times as many.
fn cost(segments: &[Segment], one_organization: bool) -> i64 {
    /// What planning and starting one more part costs, as rows that could be read in that time: some
    /// milliseconds, because a real-time aggregate is planned twice, over all of its chunks.
    const PART: i64 = 50_000;
    let all_organizations = if one_organization { 1 } else { 8 };
    segments
        .iter()
        .map(|Segment { relation, range }| {
            let rows_a_day = match relation {
                Relation::Daily => 40,
                Relation::Hourly => 24 * 40,
                Relation::QuarterHourly => 96 * 40,
                Relation::DailyByUser => 9_000,
                // Not measured: half of that, as decisions/rollups.md has it.
                Relation::DailyByKey => 4_500,
                Relation::Events => 50_000,
            };
            PART + all_organizations * rows_a_day * range.length().whole_minutes() / (24 * 60)
        })
        .sum()
}

#[cfg(test)]
mod tests;
