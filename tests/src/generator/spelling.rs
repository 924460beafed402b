//! The ways in which producers write one and the same event.

use std::io::Write;

use time::OffsetDateTime;
use time::format_description::FormatItem;
use time::macros::format_description;

use super::Fact;
use super::decimal;
use super::random::Random;

/// Appends the cost to a body and returns the amount that its text names, in units of 1e-10 USD.
pub(super) fn write_cost(body: &mut Vec<u8>, cost_e10: i128, random: &mut Random) -> i128 {
    let (text, quoted) = match random.below(20) {
        // The router: Go, in float64.
        0..=11 => (go_float(float_of(cost_e10, random)), false),
        12..=14 => (decimal::text(cost_e10), true),
        15 => (decimal::text(cost_e10), false),
        // All places, zeros too.
        16 => (
            format!("{}.{:010}", cost_e10 / 10_000_000_000, cost_e10 % 10_000_000_000),
            true,
        ),
        17 => (format!("{cost_e10}e-10"), false),
        18 => (format!("{cost_e10}.0E-10"), true),
        // Exactly between two amounts, or a hair above.
        _ => {
            let hair = if random.one_in(2) { "5" } else { "5000000001" };
            (
                format!(
                    "{}.{:010}{hair}",
                    cost_e10 / 10_000_000_000,
                    cost_e10 % 10_000_000_000
                ),
                true,
            )
        }
    };
    let amount = decimal::e10(&text);
    let quote = if quoted { "\"" } else { "" };
    put(body, format_args!("{quote}{text}{quote}"));
    // The spellings above are all decimal numbers; anything else would show as a wrong sum.
    amount.unwrap_or(i128::MIN)
}

/// The amount as a producer has it that adds up floats: sometimes a bit beside the exact one.
fn float_of(cost_e10: i128, random: &mut Random) -> f64 {
    let exact = cost_e10 as f64 / 1e10;
    match random.below(3) {
        0 => exact,
        // As `input * price + output * price` comes out: the last bit is off.
        1 => f64::from_bits(exact.to_bits().saturating_sub(u64::from(exact > 0.0))),
        _ => exact / 3.0 * 3.0,
    }
}

/// What Go's encoding/json prints for a float64.
fn go_float(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-6 {
        format!("{value:e}")
    } else {
        format!("{value}")
    }
}

const DATE_TIME: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
const OFFSET: &[FormatItem<'static>] = format_description!("[offset_hour sign:mandatory]:[offset_minute]");

/// Appends the time in one of its RFC 3339 spellings and returns what is left of it once stored: unix
/// microseconds, cut and not rounded.
pub(super) fn write_time(body: &mut Vec<u8>, unix_ns: i128, random: &mut Random) -> i64 {
    let (offset_minutes, zulu) = match random.below(20) {
        0..=13 => (0, true),
        14 => (0, false),
        15..=16 => (330, false),
        17 => (-300, false),
        18 => (345, false),
        _ => (60, false),
    };
    let digits = [9, 9, 9, 6, 3, 0][usize::from(u8::try_from(random.below(6)).unwrap_or(0))];
    let unit = 10_i128.pow(9 - digits);
    let unix_ns = unix_ns.div_euclid(unit) * unit;
    let at = OffsetDateTime::from_unix_timestamp_nanos(unix_ns).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let offset = time::UtcOffset::from_whole_seconds(offset_minutes * 60).unwrap_or(time::UtcOffset::UTC);
    let local = at.to_offset(offset);
    body.push(b'"');
    // Writing to memory can't fail, and these components exist for every year that occurs.
    let _ = local.format_into(body, DATE_TIME);
    if digits > 0 {
        let fraction = unix_ns.rem_euclid(1_000_000_000) / unit;
        let width = digits as usize;
        put(body, format_args!(".{fraction:0width$}"));
    }
    if zulu {
        body.push(b'Z');
    } else {
        let _ = local.format_into(body, OFFSET);
    }
    body.push(b'"');
    i64::try_from(unix_ns.div_euclid(1_000)).unwrap_or(i64::MAX)
}

/// Makes the body of an event, and sets what only its spelling decides: the time's and the cost's exact
/// values.
pub(super) fn write_body(fact: &mut Fact, unix_ns: i128, random: &mut Random) -> Vec<u8> {
    let mut body = Vec::with_capacity(512);
    let spaced = random.one_in(50);
    let mut fields = Fields {
        body: &mut body,
        first: true,
        spaced,
    };

    fields.name("event_id");
    if random.one_in(100) {
        fields.value(format_args!("\"{:X}\"", fact.event_id.hyphenated()));
    } else {
        fields.value(format_args!("\"{}\"", fact.event_id.hyphenated()));
    }
    fields.name("time");
    fact.time_us = write_time(fields.body, unix_ns, random);
    for (name, id) in [
        ("org_id", fact.org_id),
        ("user_id", fact.user_id),
        ("api_key_id", fact.api_key_id),
    ] {
        fields.name(name);
        fields.value(format_args!("\"{}\"", id.hyphenated()));
    }
    if random.one_in(40) {
        // A later producer says more.
        fields.name("cached_tokens");
        fields.value(format_args!("{}", fact.input_tokens / 2));
        fields.name("annotations");
        fields.value(format_args!(
            "{{\"cost\":[null,{{\"status\":\"nested\"}}],\"tier\":\"gold\"}}"
        ));
    }
    fields.name(if random.one_in(5) { "model_name" } else { "model" });
    fields.text(fact.model);
    let float_spelled = random.one_in(50);
    for (name, tokens) in [
        ("input_tokens", fact.input_tokens),
        ("output_tokens", fact.output_tokens),
    ] {
        fields.name(name);
        fields.value(format_args!("{tokens}{}", if float_spelled { ".0" } else { "" }));
    }
    if !random.one_in(10) {
        fields.name("total_tokens");
        fields.value(format_args!("{}", fact.input_tokens + fact.output_tokens));
    }
    for (name, tokens) in [
        ("cached_input_tokens", fact.cached_input_tokens),
        ("reasoning_tokens", fact.reasoning_tokens),
    ] {
        match tokens {
            Some(tokens) => {
                fields.name(name);
                fields.value(format_args!("{tokens}"));
            }
            None => fields.absent(name, random),
        }
    }
    fields.name("cost");
    fact.cost_e10 = write_cost(fields.body, fact.cost_e10, random);
    match fact.latency_ms {
        Some(latency) => {
            fields.name("latency_ms");
            fields.value(format_args!("{latency}"));
        }
        None => fields.absent("latency_ms", random),
    }
    fields.name("status");
    fields.text(fact.status);
    for (name, text) in [
        ("error_message", &fact.error_message),
        ("request_id", &fact.request_id),
    ] {
        match text {
            Some(text) => {
                fields.name(name);
                fields.text(text);
            }
            None => fields.absent(name, random),
        }
    }
    put(&mut body, format_args!("}}"));
    body
}

struct Fields<'a> {
    body: &'a mut Vec<u8>,
    first: bool,
    spaced: bool,
}

impl Fields<'_> {
    fn name(&mut self, name: &str) {
        let separator = if self.first { "{" } else { "," };
        self.first = false;
        let space = if self.spaced { "\n  " } else { "" };
        put(
            self.body,
            format_args!(
                "{separator}{space}\"{name}\":{}",
                if self.spaced { " " } else { "" }
            ),
        );
    }

    fn value(&mut self, value: std::fmt::Arguments<'_>) {
        put(self.body, value);
    }

    fn text(&mut self, text: &str) {
        // A string always has a JSON form, and memory takes it.
        let _ = serde_json::to_writer(&mut *self.body, text);
    }

    /// A value that is not there: null, or no field at all.
    fn absent(&mut self, name: &str, random: &mut Random) {
        if random.one_in(3) {
            return;
        }
        self.name(name);
        self.value(format_args!("null"));
    }
}

fn put(body: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Memory takes everything.
    let _ = body.write_fmt(text);
}
