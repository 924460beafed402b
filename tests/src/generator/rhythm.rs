//! When events happen: more on working days, most in working hours.

use time::OffsetDateTime;

use super::random::Weighted;

const HOUR_NS: i128 = 3_600_000_000_000;

/// Hours of a day, UTC: a night, a morning, a dip at noon, a long afternoon.
const HOURS: [f64; 24] = [
    0.20, 0.16, 0.15, 0.15, 0.18, 0.25, 0.45, 0.80, 1.30, 1.60, 1.70, 1.55, 1.30, 1.50, 1.70, 1.65, 1.45,
    1.15, 0.90, 0.75, 0.60, 0.45, 0.35, 0.25,
];
/// Monday to Sunday.
const DAYS: [f64; 7] = [1.0, 1.1, 1.1, 1.05, 0.9, 0.3, 0.25];

fn of(table: &[f64], place: i128) -> f64 {
    usize::try_from(place)
        .ok()
        .and_then(|place| table.get(place))
        .copied()
        .unwrap_or(1.0)
}

/// The rhythm over a span of time.
#[derive(Clone, Debug)]
pub(crate) struct Rhythm {
    start_ns: i128,
    end_ns: i128,
    hours: Weighted,
}

impl Rhythm {
    pub(crate) fn new(start: OffsetDateTime, end: OffsetDateTime) -> Self {
        let (start_ns, end_ns) = (start.unix_timestamp_nanos(), end.unix_timestamp_nanos());
        let first = start_ns.div_euclid(HOUR_NS);
        let last = (end_ns - 1).div_euclid(HOUR_NS);
        let hours = Weighted::new((first..=last).map(|hour| {
            let from = (hour * HOUR_NS).max(start_ns);
            let until = ((hour + 1) * HOUR_NS).min(end_ns);
            let share = (until - from) as f64 / HOUR_NS as f64;
            // 1970-01-01 was a Thursday.
            let weekday = (hour.div_euclid(24) + 3).rem_euclid(7);
            share * of(&DAYS, weekday) * of(&HOURS, hour.rem_euclid(24))
        }));
        Self {
            start_ns,
            end_ns,
            hours,
        }
    }

    /// The time before which `quantile` (0 to 1) of the events happen, in unix nanoseconds.
    pub(crate) fn at(&self, quantile: f64) -> i128 {
        let (place, share) = self.hours.at(quantile);
        let hour = self.start_ns.div_euclid(HOUR_NS) + place as i128;
        let from = (hour * HOUR_NS).max(self.start_ns);
        let until = ((hour + 1) * HOUR_NS).min(self.end_ns);
        #[expect(clippy::cast_possible_truncation, reason = "less than an hour of nanoseconds")]
        let within = (share * (until - from) as f64) as i128;
        (from + within).min(self.end_ns - 1)
    }
}
