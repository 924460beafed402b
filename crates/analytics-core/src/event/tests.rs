use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use time::macros::datetime;

fn valid() -> Value {
    json!({
        "event_id": "0190A5E0-0000-7000-8000-000000000001",
        "time": "2026-11-24T10:00:00.123456789+05:30",
        "org_id": "11111111-1111-4111-8111-111111111111",
        "user_id": "22222222-2222-4222-8222-222222222222",
        "api_key_id": "33333333-3333-4333-8333-333333333333",
        "model": "llama-3-70b",
        "input_tokens": 12,
        "output_tokens": 30,
        "total_tokens": 42,
        "cost": "0.0021219999999999998",
        "latency_ms": 250,
        "status": "success",
        "error_message": null,
        "request_id": "req-1",
    })
}

fn with(field: &str, value: Value) -> Vec<u8> {
    let mut event = valid();
    event[field] = value;
    event.to_string().into_bytes()
}

fn without(field: &str) -> Vec<u8> {
    let mut event = valid();
    event.as_object_mut().unwrap().remove(field);
    event.to_string().into_bytes()
}

/// The valid event with one field's value replaced by a text that serde_json would not write.
fn with_raw(field: &str, raw: &str) -> Vec<u8> {
    let mut event = valid();
    event[field] = json!("@");
    event.to_string().replace("\"@\"", raw).into_bytes()
}

fn reason(body: &[u8]) -> (&'static str, Option<&'static str>) {
    let malformed = decode(body).unwrap_err();
    (malformed.reason.code(), malformed.field)
}

#[test]
fn reads_every_field_and_normalizes() {
    let event = decode(valid().to_string().as_bytes()).unwrap();
    assert_eq!(event.time, datetime!(2026-11-24 04:30:00.123456 UTC));
    assert_eq!(event.time.offset(), UtcOffset::UTC);
    assert_eq!(event.event_id.to_string(), "0190a5e0-0000-7000-8000-000000000001");
    assert_eq!(&*event.model_name, "llama-3-70b");
    assert_eq!(
        (event.input_tokens, event.output_tokens, event.total_tokens),
        (12, 30, 42)
    );
    assert_eq!(event.cost.e10(), 21_220_000);
    assert_eq!(event.latency_ms, Some(250));
    assert_eq!(event.error_message, None);
    assert_eq!(event.request_id.as_deref(), Some("req-1"));
}

#[test]
fn accepts_what_the_format_allows() {
    for body in [
        without("total_tokens"),
        without("latency_ms"),
        without("error_message"),
        without("request_id"),
        with("latency_ms", Value::Null),
        with("total_tokens", Value::Null),
        with("cached_tokens", json!({"deep": [1, {"er": null}]})),
        with("status", json!("a_status_nobody_knows_yet")),
        with("model_name", json!("llama-3-70b")),
        with("input_tokens", json!(12.0)),
        with_raw("input_tokens", "1.2e1"),
        with("model", json!("模".repeat(255))),
        with_raw("model", "\"caf\\u00e9 \\\"x\\\"\""),
        with_raw("cost", "7.5e-8"),
        with_raw("cost", "\"1000000\""),
        with("time", json!("2026-11-24T10:00:00Z")),
    ] {
        decode(&body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&body)));
    }
    let mut renamed = valid();
    let model = renamed.as_object_mut().unwrap().remove("model").unwrap();
    renamed["model_name"] = model;
    assert_eq!(
        &*decode(renamed.to_string().as_bytes()).unwrap().model_name,
        "llama-3-70b"
    );
}

#[test]
fn names_what_is_wrong_and_where() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: Vec<(Vec<u8>, &str, Option<&str>)> = vec![
        (vec![], "empty_body", None),
        (b"\xff{}".to_vec(), "invalid_utf8", None),
        (b"{\"a\": \xc3\x28}".to_vec(), "invalid_utf8", None),
        (latin("model"), "invalid_utf8", None),
        (latin("status"), "invalid_utf8", None),
        (latin("org_id"), "invalid_utf8", None),
        (format!("[{}]", valid()).into_bytes(), "not_an_object", None),
        (
            br#"{"specversion":"1.0","data":[1]}"#.to_vec(),
            "not_an_object",
            None,
        ),
        (b"hello".to_vec(), "invalid_json", None),
        (b"{\"event_id\": ".to_vec(), "invalid_json", None),
        (b"  ".to_vec(), "invalid_json", None),
        (b"[1]".to_vec(), "not_an_object", None),
        (b"null".to_vec(), "not_an_object", None),
        (deep.clone().into_bytes(), "not_an_object", None),
        (b"{} {}".to_vec(), "invalid_json", None),
        (b"{}".to_vec(), "missing_field", Some("input_tokens")),
        (b"{\"cost\":1,\"cost\":2}".to_vec(), "duplicate_field", None),
        (without("model"), "missing_field", Some("model")),
        (with("model", Value::Null), "null_field", Some("model")),
        (
            with("model_name", json!("other")),
            "conflicting_fields",
            Some("model"),
        ),
        (without("cost"), "missing_field", Some("cost")),
        (with("cost", Value::Null), "null_field", Some("cost")),
        (with("cost", json!([1])), "wrong_type", Some("cost")),
        (with("cost", json!(true)), "wrong_type", Some("cost")),
        (with("cost", json!("NaN")), "invalid_number", Some("cost")),
        (with("cost", json!("1_000")), "invalid_number", Some("cost")),
        (with("cost", json!("")), "invalid_number", Some("cost")),
        (with("cost", json!("-0.01")), "negative", Some("cost")),
        (
            with_raw("cost", "1000000.000000000000000001"),
            "out_of_range",
            Some("cost"),
        ),
        (with_raw("cost", "1e999999999999"), "out_of_range", Some("cost")),
        (with("event_id", json!(5)), "wrong_type", Some("event_id")),
        (
            with("event_id", json!("nonsense")),
            "invalid_uuid",
            Some("event_id"),
        ),
        (
            with("org_id", json!("{11111111-1111-4111-8111-111111111111}")),
            "invalid_uuid",
            Some("org_id"),
        ),
        (
            with("org_id", json!("11111111111141118111111111111111")),
            "invalid_uuid",
            Some("org_id"),
        ),
        (with("user_id", json!("")), "invalid_uuid", Some("user_id")),
        (
            with("time", json!("2026-11-24T10:00:00")),
            "invalid_time",
            Some("time"),
        ),
        (
            with("time", json!("2026-02-30T10:00:00Z")),
            "invalid_time",
            Some("time"),
        ),
        (with("time", json!(1_764_000_000)), "wrong_type", Some("time")),
        (
            with("input_tokens", json!("12")),
            "wrong_type",
            Some("input_tokens"),
        ),
        (with("input_tokens", json!(-1)), "negative", Some("input_tokens")),
        (
            with("output_tokens", json!(1.5)),
            "not_an_integer",
            Some("output_tokens"),
        ),
        (
            with("input_tokens", json!(2_147_483_648_u64)),
            "out_of_range",
            Some("input_tokens"),
        ),
        (
            with("input_tokens", json!(2_147_483_647)),
            "out_of_range",
            Some("total_tokens"),
        ),
        (
            with("total_tokens", json!(43)),
            "total_mismatch",
            Some("total_tokens"),
        ),
        (with("latency_ms", json!(-5)), "negative", Some("latency_ms")),
        (
            with("latency_ms", json!("fast")),
            "wrong_type",
            Some("latency_ms"),
        ),
        (with("status", json!("")), "empty", Some("status")),
        (with("status", json!("s".repeat(51))), "too_long", Some("status")),
        (with("model", json!("m".repeat(256))), "too_long", Some("model")),
        (with("model", json!("nul\0")), "contains_nul", Some("model")),
        (with_raw("model", "\"\\ud800\""), "invalid_json", None),
    ];
    for (body, code, field) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let got = reason(&body);
        assert_eq!(got.0, code, "{shown}");
        if code != "invalid_json" {
            assert_eq!(got.1, field, "{shown}");
        }
    }
    let nested = with_raw("surplus", &deep);
    decode(&nested).unwrap();
}

/// A body with a byte of another encoding in one field.
fn latin(field: &str) -> Vec<u8> {
    let body = String::from_utf8(with(field, json!("na%ve"))).unwrap();
    let (before, after) = body.split_once('%').unwrap();
    [before.as_bytes(), b"\xef", after.as_bytes()].concat()
}

/// What costs nothing refuses nothing.
#[test]
fn diagnostic_texts_are_mended() {
    let half = "\u{fffd}";
    for (json, mended) in [
        (
            r#""ends in half an emoji \ud83d""#,
            format!("ends in half an emoji {half}"),
        ),
        (r#""\ud83d\ud83d\ude00 \udc00x""#, format!("{half}😀 {half}x")),
        (r#""nul\u0000nul""#, format!("nul{half}nul")),
        (r#"{"code": 42}"#, r#"{"code": 42}"#.to_owned()),
        ("503", "503".to_owned()),
    ] {
        for field in ["error_message", "request_id"] {
            let event = decode(&with_raw(field, json)).unwrap();
            let (text, is_mended) = match field {
                "error_message" => (event.error_message, event.mended.error_message),
                _ => (event.request_id, event.mended.request_id),
            };
            assert_eq!((text.as_deref(), is_mended), (Some(&*mended), true), "{json}");
        }
    }
    let event = decode(&latin("error_message")).unwrap();
    assert_eq!(event.error_message.as_deref(), Some("na\u{fffd}ve"));
    assert!(event.mended.error_message && !event.mended.request_id);

    let whole = decode(&with("error_message", json!("é\n😀".repeat(2_000)))).unwrap();
    assert!(!whole.mended.error_message);
    let cut = decode(&with("error_message", json!("é".repeat(8_001)))).unwrap();
    assert_eq!(
        cut.error_message.unwrap(),
        format!("{}…", "é".repeat(7_999)).into()
    );
    assert!(cut.mended.error_message);
    let cut = decode(&with("request_id", json!("r".repeat(101)))).unwrap();
    assert_eq!(cut.request_id.unwrap(), format!("{}…", "r".repeat(99)).into());
}

#[test]
fn a_byte_order_mark_and_an_envelope_are_no_hindrance() {
    let plain = decode(valid().to_string().as_bytes()).unwrap();
    let marked = ["\u{feff}", &valid().to_string()].concat();
    assert_eq!(decode(marked.as_bytes()).unwrap(), plain);
    let envelope = json!({
        "specversion": "1.0", "type": "usage", "source": "gateway", "id": "1",
        "time": "2020-01-01T00:00:00Z", "datacontenttype": "application/json", "data": valid(),
    });
    assert_eq!(decode(envelope.to_string().as_bytes()).unwrap(), plain);
    // An event that has such fields of its own stays what it is.
    let own = decode(&with("data", json!({"event_id": 1}))).unwrap();
    assert_eq!(own, plain);
}

#[test]
fn a_total_is_recomputed_on_demand_only() {
    let body = with("total_tokens", json!(135));
    assert_eq!(reason(&body).0, "total_mismatch");
    let event = decode_recomputing_total(&body).unwrap();
    assert_eq!(event.total_tokens, event.input_tokens + event.output_tokens);
}

#[test]
fn whose_a_message_is_can_be_read_of_more_than_events() {
    let whole = decode(valid().to_string().as_bytes()).unwrap();
    let expected = Payer {
        org_id: Some(whole.org_id),
        model: Some(whole.model_name.into()),
    };
    let envelope = json!({"specversion": "1.0", "data": valid()}).to_string();
    for body in [
        &*with("cost", json!("free")),
        &gzip(envelope.as_bytes()),
        &latin("status"),
        &with_raw("error_message", r#""\ud83d""#),
    ] {
        assert_eq!(payer(body), expected);
    }
    let nothing = Payer::default();
    for body in [&b""[..], b"[1]", b"{", b"\x1f\x8b", br#"{"org_id":5,"model":{}}"#] {
        assert_eq!(payer(body), nothing);
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, body).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn gzip_is_read_as_far_as_it_may_hold() {
    let plain = valid().to_string().into_bytes();
    let packed = gzip(&plain);
    assert_eq!(decode(&packed).unwrap(), decode(&plain).unwrap());
    let spaces = " ".repeat(4 << 20);
    let bomb = gzip(&[spaces.as_bytes(), &plain].concat());
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    for broken in [&packed[..packed.len() - 9], b"\x1f\x8b", &bomb] {
        assert_eq!(reason(broken).0, "invalid_encoding");
    }
}

#[test]
fn details_hold_no_values() {
    let canary = "sk-canary-secret";
    for field in ["event_id", "time", "cost", "input_tokens", "latency_ms"] {
        let malformed = decode(&with(field, json!(canary))).unwrap_err();
        assert!(!malformed.to_string().contains(canary), "{malformed}");
    }
}

proptest! {
    #[test]
    fn never_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&body);
    }

    #[test]
    fn never_panics_on_nearly_valid(position in 0_usize..400, byte in any::<u8>()) {
        let mut body = valid().to_string().into_bytes();
        let position = position % body.len();
        body[position] = byte;
        let _ = decode(&body);
    }

    #[test]
    fn spellings_of_one_instant_are_one_key(nanos in 0_u32..1_000_000_000, minutes in -839_i32..840) {
        let utc = datetime!(2026-11-24 10:00 UTC).replace_nanosecond(nanos).unwrap();
        let offset = UtcOffset::from_whole_seconds(minutes * 60).unwrap();
        let spelled = utc.to_offset(offset).format(&Rfc3339).unwrap();
        let one = decode(&with("time", json!(spelled))).unwrap();
        let other = decode(&with("time", json!(utc.format(&Rfc3339).unwrap()))).unwrap();
        prop_assert_eq!(one.key(), other.key());
        prop_assert_eq!(one.time.nanosecond() % 1000, 0);
    }
}

#[test]
fn parts_of_tokens_are_optional_and_no_more_than_the_whole() {
    for (field, whole) in [("cached_input_tokens", 12), ("reasoning_tokens", 30)] {
        let read = |value: Value| {
            let event = decode(&with(field, value)).unwrap();
            match field {
                "reasoning_tokens" => event.reasoning_tokens,
                _ => event.cached_input_tokens,
            }
        };
        assert_eq!(read(json!(whole)), Some(whole));
        assert_eq!(read(json!(0)), Some(0));
        assert_eq!(read(Value::Null), None);
        assert_eq!(
            reason(&with(field, json!(whole + 1))),
            ("out_of_range", Some(field))
        );
        assert_eq!(reason(&with(field, json!(-1))), ("negative", Some(field)));
        assert_eq!(reason(&with(field, json!("1"))), ("wrong_type", Some(field)));
    }
    let event = decode(valid().to_string().as_bytes()).unwrap();
    assert_eq!((event.cached_input_tokens, event.reasoning_tokens), (None, None));
}
