//! A generator of random numbers whose sequence is ours: the same seed gives the same events in every
//! build, whatever a library changes.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// One that always gives the same numbers for the same path of numbers: an id can be made when it is
    /// needed, instead of being kept.
    pub fn of(path: &[u64]) -> Self {
        let mut random = Self(0);
        for step in path {
            random.0 ^= *step;
            random.0 = random.next();
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 inclusive to 1 exclusive.
    pub fn unit(&mut self) -> f64 {
        // 53 bits: as many as a float holds exactly.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A whole number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A random UUID of version 4, as a producer makes them.
    pub fn uuid(&mut self) -> uuid::Uuid {
        let bits = (u128::from(self.next()) << 64) | u128::from(self.next());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }
}

/// Draws places of a list by their weight.
#[derive(Clone, Debug)]
pub(crate) struct Weighted {
    cumulative: Vec<f64>,
}

impl Weighted {
    pub(crate) fn new(weights: impl IntoIterator<Item = f64>) -> Self {
        let cumulative = weights
            .into_iter()
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        Self { cumulative }
    }

    /// The place at `quantile` (0 to 1), and how far into it that is (0 to 1).
    pub(crate) fn at(&self, quantile: f64) -> (usize, f64) {
        let target = quantile * self.cumulative.last().copied().unwrap_or(0.0);
        let place = self
            .cumulative
            .partition_point(|sum| *sum <= target)
            .min(self.cumulative.len() - 1);
        let before = if place == 0 {
            0.0
        } else {
            self.cumulative[place - 1]
        };
        let share = (target - before) / (self.cumulative[place] - before);
        (
            place,
            if share.is_finite() {
                share.clamp(0.0, 1.0)
            } else {
                0.0
            },
        )
    }

    pub(crate) fn draw(&self, random: &mut Random) -> usize {
        self.at(random.unit()).0
    }
}
