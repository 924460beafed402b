//! Latencies as the rollups keep them: how many fell between fixed bounds. Counts add up over any range and
//! groups, so a percentile of the sum is known as exactly as the bounds are narrow, and the bounds are told.

/// Upper bounds of all buckets but the last, which has none. They are columns of the rollups: another bound
/// is another migration.
const BOUNDS_MS: [i64; BUCKETS - 1] = [
    25, 50, 100, 175, 300, 500, 800, 1_300, 2_500, 5_000, 10_000, 30_000,
];

/// How many buckets there are.
pub const BUCKETS: usize = 13;

/// The buckets' columns, in order.
pub(crate) const COLUMNS: [&str; BUCKETS] = [
    "latency_to_25ms",
    "latency_to_50ms",
    "latency_to_100ms",
    "latency_to_175ms",
    "latency_to_300ms",
    "latency_to_500ms",
    "latency_to_800ms",
    "latency_to_1300ms",
    "latency_to_2500ms",
    "latency_to_5000ms",
    "latency_to_10000ms",
    "latency_to_30000ms",
    "latency_above_30000ms",
];

/// What is known about the latencies of some requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// Of all that were measured, added up.
    pub sum_ms: i64,
    /// How many were measured.
    pub count: i64,
    /// How many fell into each bucket; `None` by user or key, whose rollup has none.
    pub histogram: Option<[i64; BUCKETS]>,
}

/// A percentile, and between which values it lies for certain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentile {
    /// The estimate: within its bucket, latencies are taken to be spread evenly.
    pub estimate_ms: f64,
    /// It is not less than this.
    pub at_least_ms: i64,
    /// It is not more than this; `None` above the last bound.
    pub at_most_ms: Option<i64>,
}

/// The least latency of a bucket and the greatest, which the last one has not.
pub(crate) fn bounds(bucket: usize) -> (i64, Option<i64>) {
    let below = bucket.checked_sub(1).and_then(|lower| BOUNDS_MS.get(lower));
    (below.map_or(0, |bound| bound + 1), BOUNDS_MS.get(bucket).copied())
}

impl Latency {
    /// These without `part`, which is one of theirs.
    pub(crate) fn less(&self, part: &Self) -> Self {
        let histogram = self.histogram.zip(part.histogram);
        Self {
            sum_ms: self.sum_ms - part.sum_ms,
            count: self.count - part.count,
            histogram: histogram.map(|(all, part)| std::array::from_fn(|place| all[place] - part[place])),
        }
    }

    /// The mean of what was measured.
    #[must_use]
    pub fn mean_ms(&self) -> Option<f64> {
        (self.count > 0).then(|| float(self.sum_ms) / float(self.count))
    }

    /// The smallest latency that at least `percent` of a hundred are not above.
    #[must_use]
    pub fn percentile(&self, percent: i64) -> Option<Percentile> {
        let histogram = self.histogram?;
        let total: i64 = histogram.iter().sum();
        if total == 0 {
            return None;
        }
        // Nearest rank, from 1: rounded up, without a float.
        let rank = ((total * percent + 99) / 100).max(1);
        let mut below = 0;
        for (bucket, count) in histogram.into_iter().enumerate() {
            if below + count >= rank {
                let (at_least_ms, at_most_ms) = bounds(bucket);
                let width = at_most_ms.map_or(0, |most| most - at_least_ms);
                let share = float(rank - below) / float(count);
                return Some(Percentile {
                    estimate_ms: float(at_least_ms) + float(width) * share,
                    at_least_ms,
                    at_most_ms,
                });
            }
            below += count;
        }
        None
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an estimate; counts and sums stay below 2^53"
)]
fn float(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(latencies: &[i64]) -> Latency {
        let mut histogram = [0; BUCKETS];
        for latency in latencies {
            let bucket = BOUNDS_MS.iter().filter(|bound| *latency > **bound).count();
            histogram[bucket] += 1;
        }
        Latency {
            sum_ms: latencies.iter().sum(),
            count: i64::try_from(latencies.len()).unwrap(),
            histogram: Some(histogram),
        }
    }

    #[test]
    fn nothing_measured_is_no_percentile() {
        assert_eq!(counted(&[]).percentile(50), None);
        assert_eq!(counted(&[]).mean_ms(), None);
    }

    #[test]
    fn what_is_above_the_last_bound_has_no_upper_one() {
        let p99 = counted(&[40_000]).percentile(99).unwrap();
        assert_eq!((p99.at_least_ms, p99.at_most_ms), (30_001, None));
    }

    #[test]
    fn columns_are_named_by_their_bounds() {
        for (bucket, column) in COLUMNS.iter().enumerate() {
            match bounds(bucket) {
                (_, Some(most)) => assert_eq!(*column, format!("latency_to_{most}ms")),
                (least, None) => assert_eq!(*column, format!("latency_above_{}ms", least - 1)),
            }
        }
    }

    proptest! {
        #[test]
        fn the_true_percentile_lies_between_the_bounds(
            mut latencies in prop::collection::vec(prop_oneof![0_i64..100, 0_i64..50_000], 1..200),
            percent in prop::sample::select(vec![50_i64, 95, 99]),
        ) {
            let found = counted(&latencies).percentile(percent).unwrap();
            latencies.sort_unstable();
            let rank = (latencies.len() * usize::try_from(percent).unwrap()).div_ceil(100);
            let truth = latencies[rank - 1];
            prop_assert!(found.at_least_ms <= truth);
            prop_assert!(found.at_most_ms.is_none_or(|most| truth <= most));
            prop_assert!(float(found.at_least_ms) <= found.estimate_ms);
            prop_assert!(found.at_most_ms.is_none_or(|most| found.estimate_ms <= float(most)));
        }
    }
}
