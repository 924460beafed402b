//! Exact decimal numbers from their text, as JSON writes them ([RFC 8259, section 6]).
//!
//! A number is never read through a binary float: `0.0021219999999999998` has nineteen decimals and
//! all of them take part in the rounding.
//!
//! [RFC 8259, section 6]: https://www.rfc-editor.org/rfc/rfc8259#section-6

use std::cmp::Ordering;

/// Exponents beyond this are clamped: the value is then zero or out of every range that is asked for,
/// whatever its digits say.
const EXPONENT_LIMIT: i64 = 1_000_000;

/// A decimal number in parts: `digits × 10^exponent`, and its sign.
///
/// `digits` has neither leading nor trailing zeros; zero has none at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecimalText {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

/// Why a decimal number is not an integer of the wanted range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleError {
    /// Below zero.
    Negative,
    /// Larger than the largest value that is allowed.
    TooLarge,
    /// It has decimals beyond the scale, and rounding was not asked for.
    Inexact,
}

/// What to do with decimals beyond the scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest; a tie goes to the even neighbour (IEEE 754 `roundTiesToEven`).
    HalfEven,
    /// Refuse: the value must be exact.
    Refuse,
}

impl DecimalText {
    /// Reads `text` by JSON's grammar for numbers: no leading `+`, no leading zeros, no `1_000`, no
    /// `NaN`. `None` if it is anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (rest, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return None,
            Some((whole, fraction)) => (whole, fraction),
            None => (mantissa, ""),
        };
        let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || (whole.len() > 1 && whole.starts_with('0')) {
            return None;
        }
        if !is_digits(whole) || !is_digits(fraction) {
            return None;
        }
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').collect();
        let mut exponent = exponent - i64::try_from(fraction.len()).ok()?;
        while digits.last() == Some(&0) {
            digits.pop();
            exponent += 1;
        }
        let leading = digits.iter().take_while(|d| **d == 0).count();
        digits.drain(..leading);
        Some(Self {
            negative,
            digits,
            exponent,
        })
    }

    /// The number in units of `10^-scale`, as an integer between 0 and `max`.
    ///
    /// # Errors
    /// Below zero (before rounding), above `max` (before rounding too: a millionth of a cent above the
    /// limit is above it), or with decimals that `rounding` refuses.
    pub fn scaled(&self, scale: u32, max: u64, rounding: Rounding) -> Result<u64, ScaleError> {
        if self.digits.is_empty() {
            return Ok(0);
        }
        if self.negative {
            return Err(ScaleError::Negative);
        }
        let shift = self.exponent + i64::from(scale);
        let length = i64::try_from(self.digits.len()).unwrap_or(i64::MAX);
        // A u64 has 20 digits at most; the value has `length + shift` before the decimal point.
        if length.saturating_add(shift) > 20 {
            return Err(ScaleError::TooLarge);
        }
        let kept = usize::try_from(length.saturating_add(shift).min(length)).unwrap_or(0);
        let mut whole: u128 = self.digits[..kept].iter().fold(0, |n, d| n * 10 + u128::from(*d));
        for _ in 0..shift.max(0) {
            whole *= 10;
        }
        let rest = &self.digits[kept..];
        let max = u128::from(max);
        if whole > max || (whole == max && !rest.is_empty()) {
            return Err(ScaleError::TooLarge);
        }
        if !rest.is_empty() {
            if rounding == Rounding::Refuse {
                return Err(ScaleError::Inexact);
            }
            // Where the decimals begin below the scale (0.00…), the first digit cut off is a zero.
            let first_is_dropped_digit = length.saturating_add(shift) >= 0;
            let against_half = if !first_is_dropped_digit {
                Ordering::Less
            } else {
                rest[0].cmp(&5).then_with(|| {
                    if rest.len() > 1 {
                        Ordering::Greater
                    } else {
                        Ordering::Equal
                    }
                })
            };
            let up = match against_half {
                Ordering::Greater => true,
                Ordering::Equal => whole % 2 == 1,
                Ordering::Less => false,
            };
            whole += u128::from(up);
        }
        u64::try_from(whole).map_err(|_| ScaleError::TooLarge)
    }
}

fn parse_exponent(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let size = digits
        .bytes()
        .fold(0_i64, |n, b| (n * 10 + i64::from(b - b'0')).min(EXPONENT_LIMIT));
    Some(sign * size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scaled(text: &str) -> Result<u64, ScaleError> {
        DecimalText::parse(text)
            .unwrap()
            .scaled(10, 10_u64.pow(16), Rounding::HalfEven)
    }

    #[test]
    fn rounds_half_to_even_on_all_digits() {
        assert_eq!(scaled("0.0021219999999999998"), Ok(21_220_000));
        assert_eq!(scaled("0.00000000005"), Ok(0));
        assert_eq!(scaled("0.00000000015"), Ok(2));
        assert_eq!(scaled("0.00000000025"), Ok(2));
        assert_eq!(scaled("0.000000000250000000000000000000000000001"), Ok(3));
        assert_eq!(scaled("0.000000000009"), Ok(0));
        assert_eq!(scaled("7.5e-8"), Ok(750));
        assert_eq!(scaled("75E-9"), Ok(750));
        assert_eq!(scaled("1e-400000000000000000000"), Ok(0));
    }

    #[test]
    fn knows_its_limits() {
        assert_eq!(scaled("1000000"), Ok(10_u64.pow(16)));
        assert_eq!(scaled("1000000.00000000000000001"), Err(ScaleError::TooLarge));
        assert_eq!(scaled("1e400000000000000000000"), Err(ScaleError::TooLarge));
        assert_eq!(scaled("-0.0"), Ok(0));
        assert_eq!(scaled("-1e-30"), Err(ScaleError::Negative));
        let five = DecimalText::parse("50e-1").unwrap();
        assert_eq!(five.scaled(0, 10, Rounding::Refuse), Ok(5));
        let half = DecimalText::parse("0.5").unwrap();
        assert_eq!(half.scaled(0, 10, Rounding::Refuse), Err(ScaleError::Inexact));
    }

    #[test]
    fn takes_json_numbers_only() {
        for text in [
            "", "-", "+1", "01", "1.", ".5", "1e", "1e+", "1_000", "NaN", "Infinity", " 1", "0x1",
        ] {
            assert_eq!(DecimalText::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_integer_arithmetic(units in 0_u64..10_000_000_000_000_000, extra in 0_u64..1000) {
            // `units` tenths of a nano-dollar and `extra` thousandths of one such unit.
            let text = format!("{}.{:010}{:03}", units / 10_000_000_000, units % 10_000_000_000, extra);
            let expected = match extra.cmp(&500) {
                Ordering::Less => units,
                Ordering::Equal => units + units % 2,
                Ordering::Greater => units + 1,
            };
            prop_assert_eq!(scaled(&text), Ok(expected));
        }
    }
}
