//! Money: exact to ten decimals of a US dollar, never a binary float.
//!
//! Prices go down to 75 billionths of a dollar per token, so a micro-dollar is too coarse. One event's
//! cost and a rollup's are whole numbers of 1e-10 USD; a sum over rows is a decimal of any size.

use std::fmt;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde::{Serialize, Serializer};

use crate::number::{DecimalText, Rounding, ScaleError};

/// Decimals of a dollar that are kept.
pub const SCALE: u32 = 10;

/// The largest cost of one event, in units of 1e-10 USD: a million dollars.
pub const MAX_EVENT_COST_E10: u64 = 1_000_000 * 10_u64.pow(SCALE);

/// What one request cost: 0 to 1,000,000 USD in units of 1e-10 USD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct EventCost(u64);

impl EventCost {
    /// Reads a decimal number and rounds it half-even to ten decimals.
    ///
    /// # Errors
    /// Below zero, or above 1,000,000 USD.
    pub fn from_decimal_text(text: &DecimalText) -> Result<Self, ScaleError> {
        text.scaled(SCALE, MAX_EVENT_COST_E10, Rounding::HalfEven)
            .map(Self)
    }

    /// The cost in units of 1e-10 USD.
    #[must_use]
    pub fn e10(self) -> u64 {
        self.0
    }

    /// The cost in dollars, with ten decimals.
    #[must_use]
    pub fn dollars(self) -> Decimal {
        Decimal::from_i128_with_scale(i128::from(self.0), SCALE)
    }
}

/// A sum of costs in dollars, of any size up to 7.9e18 USD; prints as a plain decimal without trailing
/// zeros (`0.002122`, `12.5`, `0`) and is serialized as that string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cost(Decimal);

impl Cost {
    /// From a sum of whole units of 1e-10 USD, as the rollups keep it.
    ///
    /// `None` if it is no whole number, or beyond 28 digits.
    #[must_use]
    pub fn from_e10(units: Decimal) -> Option<Self> {
        let units = units.normalize();
        if units.scale() != 0 {
            return None;
        }
        Decimal::try_from_i128_with_scale(units.mantissa(), SCALE)
            .ok()
            .map(Self)
    }

    /// This sum without `part`; below zero if `part` is more.
    #[must_use]
    pub fn less(self, part: Self) -> Self {
        Self(self.0 - part.0)
    }

    /// For ratios and charts: never for sums.
    #[must_use]
    pub fn approximate(self) -> f64 {
        self.0.to_f64().unwrap_or_default()
    }

    /// This cost times `whole / part`, rounded to cents; as it is where that is beyond all numbers.
    #[must_use]
    pub fn scaled_to_cents(self, whole: i128, part: i128) -> Self {
        let decimal = |number: i128| Decimal::try_from_i128_with_scale(number, 0).ok();
        let scaled = decimal(whole)
            .zip(decimal(part))
            .and_then(|(whole, part)| self.0.checked_mul(whole)?.checked_div(part));
        Self(scaled.unwrap_or(self.0).round_dp(2))
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.normalize().fmt(f)
    }
}

impl Serialize for Cost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_plain_decimals() {
        let print = |units: &str| Cost::from_e10(units.parse().unwrap()).unwrap().to_string();
        assert_eq!(print("0"), "0");
        assert_eq!(print("21220000"), "0.002122");
        assert_eq!(print("125000000000"), "12.5");
        assert_eq!(print("1"), "0.0000000001");
        assert_eq!(print("1000000000000000000000000000"), "100000000000000000");
        assert_eq!(Cost::from_e10("0.5".parse().unwrap()), None);
    }
}
