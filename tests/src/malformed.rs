//! Messages that are no events, each with the verdict it must get.

use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// A message that must become a dead letter.
#[derive(Clone, Debug)]
pub struct Malformed {
    /// What is wrong with it, for a person.
    pub what: &'static str,
    /// The message.
    pub body: Vec<u8>,
    /// `dead_letters.reason`.
    pub reason: &'static str,
    /// `dead_letters.field`.
    pub field: Option<&'static str>,
}

/// Twenty messages, each malformed in its own way. `now` is the database's time.
pub fn twenty(now: OffsetDateTime) -> Vec<Malformed> {
    let valid = || valid(now);
    let set = |name: &str, value: Value| changed(valid(), name, Some(value));
    let drop = |name: &str| changed(valid(), name, None);
    let text = |valid: Value| valid.to_string();
    vec![
        whole("no body", Vec::new(), "empty_body"),
        whole(
            "a byte that is no UTF-8",
            [text(valid()).as_bytes(), b"\xff"].concat(),
            "invalid_utf8",
        ),
        whole(
            "an object that is cut off",
            text(valid()).into_bytes()[..200].to_vec(),
            "invalid_json",
        ),
        whole("an array", format!("[{}]", valid()).into_bytes(), "not_an_object"),
        whole(
            "a field twice",
            text(valid()).replacen('{', "{\"status\":\"success\",", 1).into(),
            "duplicate_field",
        ),
        of("no user", drop("user_id"), "missing_field", "user_id"),
        of("no model", drop("model"), "missing_field", "model"),
        of("a null", set("org_id", Value::Null), "null_field", "org_id"),
        of(
            "two models",
            set("model_name", json!("another")),
            "conflicting_fields",
            "model",
        ),
        of(
            "tokens as text",
            set("input_tokens", json!("12")),
            "wrong_type",
            "input_tokens",
        ),
        of(
            "an id that is no UUID",
            set("api_key_id", json!("key-1")),
            "invalid_uuid",
            "api_key_id",
        ),
        of(
            "a time without offset",
            set("time", json!("2026-01-01T00:00:00")),
            "invalid_time",
            "time",
        ),
        of(
            "negative tokens",
            set("output_tokens", json!(-1)),
            "negative",
            "output_tokens",
        ),
        of(
            "half a token",
            set("output_tokens", json!(1.5)),
            "not_an_integer",
            "output_tokens",
        ),
        of(
            "a cost of millions",
            set("cost", json!("1000000.01")),
            "out_of_range",
            "cost",
        ),
        of(
            "a sum that does not add up",
            set("total_tokens", json!(31)),
            "total_mismatch",
            "total_tokens",
        ),
        of(
            "no status in the status",
            set("status", json!("")),
            "empty",
            "status",
        ),
        of(
            "a status of 51 characters",
            set("status", json!("s".repeat(51))),
            "too_long",
            "status",
        ),
        of("a NUL", set("model", json!("nul\0")), "contains_nul", "model"),
        of(
            "an hour ahead",
            set("time", json!(spelled(now + Duration::HOUR))),
            "in_the_future",
            "time",
        ),
    ]
}

/// More ways: what [`twenty`] left out.
pub fn further(now: OffsetDateTime) -> Vec<Malformed> {
    let valid = || valid(now);
    let set = |name: &str, value: Value| changed(valid(), name, Some(value));
    let in_years = now + Duration::days(4_000);
    vec![
        whole("white space", b" \n".to_vec(), "invalid_json"),
        whole("a bare word", b"usage".to_vec(), "invalid_json"),
        whole("null", b"null".to_vec(), "not_an_object"),
        of(
            "a cost that is no number",
            set("cost", json!("NaN")),
            "invalid_number",
            "cost",
        ),
        of(
            "a cost that is a list",
            set("cost", json!([1])),
            "wrong_type",
            "cost",
        ),
        of(
            "a negative cost",
            set("cost", json!("-0.000001")),
            "negative",
            "cost",
        ),
        of(
            "33 bits of tokens",
            set("input_tokens", json!(1_u64 << 32)),
            "out_of_range",
            "input_tokens",
        ),
        of(
            "a model of 256 characters",
            set("model", json!("é".repeat(256))),
            "too_long",
            "model",
        ),
        of(
            "a model without characters",
            set("model", json!("")),
            "empty",
            "model",
        ),
        of(
            "a status that is a number",
            set("status", json!(200)),
            "wrong_type",
            "status",
        ),
        of(
            "years ahead",
            set("time", json!(spelled(in_years))),
            "in_the_future",
            "time",
        ),
        of(
            "100 days ago",
            set("time", json!(spelled(now - Duration::days(100)))),
            "too_old",
            "time",
        ),
    ]
}

fn valid(now: OffsetDateTime) -> Value {
    json!({
        "event_id": Uuid::new_v4(),
        "time": spelled(now - Duration::MINUTE),
        "org_id": Uuid::new_v4(),
        "user_id": Uuid::new_v4(),
        "api_key_id": Uuid::new_v4(),
        "model": "model-of-a-malformed-event",
        "input_tokens": 10,
        "output_tokens": 20,
        "total_tokens": 30,
        "cost": "0.0001",
        "latency_ms": 100,
        "status": "success",
        "error_message": null,
        "request_id": "req-1",
    })
}

fn changed(mut event: Value, name: &str, value: Option<Value>) -> Vec<u8> {
    if let Some(fields) = event.as_object_mut() {
        match value {
            Some(value) => fields.insert(name.to_owned(), value),
            None => fields.remove(name),
        };
    }
    event.to_string().into_bytes()
}

fn whole(what: &'static str, body: Vec<u8>, reason: &'static str) -> Malformed {
    Malformed {
        what,
        body,
        reason,
        field: None,
    }
}

fn of(what: &'static str, body: Vec<u8>, reason: &'static str, field: &'static str) -> Malformed {
    Malformed {
        what,
        body,
        reason,
        field: Some(field),
    }
}

fn spelled(time: OffsetDateTime) -> String {
    // Years of four digits can always be spelled.
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use time::macros::datetime;

    #[test]
    fn every_message_is_another() {
        let now = datetime!(2026-03-01 00:00 UTC);
        assert_eq!(super::twenty(now).len(), 20);
        let all = [super::twenty(now), super::further(now)].concat();
        assert_eq!(
            all.iter().map(|m| m.what).collect::<HashSet<_>>().len(),
            all.len()
        );
        assert_eq!(all.iter().map(|m| m.reason).collect::<HashSet<_>>().len(), 21);
    }
}
