//! Exact amounts of money: the harness's own reading of decimal text.

/// Decimal places that the product keeps.
const PLACES: i64 = 10;

/// The amount that a decimal text such as `0.0021219999999999998`, `7.5e-8` or `12` names, in units of
/// 1e-10, rounded half to even. None when the text is no decimal number, or names more than fits.
pub fn e10(text: &str) -> Option<i128> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let shift = exponent + PLACES - i64::try_from(fraction.len()).ok()?;
    let amount = if shift >= 0 {
        digits.checked_mul(10_i128.checked_pow(u32::try_from(shift).ok()?)?)?
    } else {
        match u32::try_from(-shift)
            .ok()
            .and_then(|places| 10_i128.checked_pow(places))
        {
            Some(unit) => divide_half_even(digits, unit),
            // Smaller than half of anything.
            None => 0,
        }
    };
    Some(if negative { -amount } else { amount })
}

/// The decimal text of an amount in units of 1e-10, without superfluous zeros.
pub fn text(e10: i128) -> String {
    let sign = if e10 < 0 { "-" } else { "" };
    let amount = e10.unsigned_abs();
    let full = format!(
        "{sign}{}.{:010}",
        amount / 10_000_000_000,
        amount % 10_000_000_000
    );
    full.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn divide_half_even(amount: i128, unit: i128) -> i128 {
    let (quotient, remainder) = (amount / unit, amount % unit);
    match (remainder * 2).cmp(&unit) {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Greater => quotient + 1,
        std::cmp::Ordering::Equal => quotient + (quotient & 1),
    }
}

#[cfg(test)]
mod tests {
    use super::{e10, text};

    #[test]
    fn reads_every_spelling() {
        let cases = [
            ("0.0021219999999999998", 21_220_000),
            ("7.5e-8", 750),
            ("7.5E-08", 750),
            ("12", 120_000_000_000),
            ("0.00000000005", 0),
            ("0.00000000015", 2),
            ("0.00000000025", 2),
            ("0.000000000250000000001", 3),
            ("1e-30", 0),
            ("1e2", 1_000_000_000_000),
            ("-0.5", -5_000_000_000),
        ];
        for (spelling, expected) in cases {
            assert_eq!(e10(spelling), Some(expected), "{spelling}");
        }
        for nonsense in ["", ".5", "1_000", "NaN", "1e", "0x1", " 1"] {
            assert_eq!(e10(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn writes_without_superfluous_zeros() {
        assert_eq!(text(21_220_000), "0.002122");
        assert_eq!(text(120_000_000_000), "12");
        assert_eq!(text(0), "0");
        assert_eq!(text(1), "0.0000000001");
    }
}
