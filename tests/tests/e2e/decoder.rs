//! The decoder's verdicts against the contract of the wire format, and against the generator's truth.

use analytics_core::event::decode;
use anyhow::{Context, Result, ensure};
use e2e::generator::{Fact, Generator, Shape};
use e2e::malformed;
use e2e::servers::place::clone_root;
use jsonschema::Validator;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;

fn schema() -> Result<Validator> {
    let text = std::fs::read_to_string(clone_root().join("contracts/usage-event.schema.json"))?;
    let schema: Value = serde_json::from_str(&text)?;
    Ok(jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)?)
}

fn shape() -> Shape {
    Shape {
        seed: 71,
        organizations: 20,
        start: datetime!(2026-03-01 00:00 UTC),
        end: datetime!(2026-03-31 00:00 UTC),
    }
}

#[test]
fn generated_events_are_read_as_they_were_meant() -> Result<()> {
    for event in Generator::new(&shape()).take(5_000) {
        let read = decode(&event.body).with_context(|| String::from_utf8_lossy(&event.body).into_owned())?;
        let fact = Fact {
            cached_input_tokens: read.cached_input_tokens,
            reasoning_tokens: read.reasoning_tokens,
            time_us: i64::try_from(read.time.unix_timestamp_nanos() / 1_000)?,
            event_id: read.event_id,
            org_id: read.org_id,
            user_id: read.user_id,
            api_key_id: read.api_key_id,
            model: event.fact.model,
            input_tokens: read.input_tokens,
            output_tokens: read.output_tokens,
            cost_e10: i128::from(read.cost.e10()),
            latency_ms: read.latency_ms,
            status: event.fact.status,
            error_message: read.error_message.map(Into::into),
            request_id: read.request_id.map(Into::into),
        };
        ensure!(
            fact == event.fact,
            "{fact:?} of {}",
            String::from_utf8_lossy(&event.body)
        );
        ensure!((&*read.model_name, &*read.status) == (event.fact.model, event.fact.status));
    }
    Ok(())
}

#[test]
fn malformed_messages_get_their_reason() -> Result<()> {
    let now = OffsetDateTime::now_utc();
    for message in [malformed::twenty(now), malformed::further(now)].concat() {
        match decode(&message.body) {
            // A clock decides on these, the database's.
            Ok(_) => ensure!(
                ["in_the_future", "too_old"].contains(&message.reason),
                "{}",
                message.what
            ),
            Err(malformed) => ensure!(
                (malformed.reason.code(), malformed.field) == (message.reason, message.field),
                "{}: {malformed}",
                message.what
            ),
        }
    }
    Ok(())
}

/// Every field with values of every kind: the schema and the decoder agree on each.
#[test]
fn the_schema_and_the_decoder_agree() -> Result<()> {
    let schema = schema()?;
    let values = [
        Value::Null,
        json!(true),
        json!(0),
        json!(5),
        json!(5.0),
        json!(-1),
        json!(-0.0),
        json!(1.5),
        json!(1e300),
        json!(2_147_483_647_u64),
        json!(2_147_483_648_u64),
        json!(1_000_000),
        json!(1_000_000.5),
        json!(""),
        json!("0.25"),
        json!("7.5e-8"),
        json!("-1"),
        json!("01"),
        json!("1_000"),
        json!("NaN"),
        json!("+1"),
        json!("success"),
        json!("nul\0"),
        json!("x".repeat(50)),
        json!("x".repeat(51)),
        json!("é".repeat(255)),
        json!("é".repeat(256)),
        json!([]),
        json!({}),
        json!("0190a5e0-0000-7000-8000-000000000001"),
        json!("0190A5E0-0000-7000-8000-000000000001"),
        json!("{0190a5e0-0000-7000-8000-000000000001}"),
        json!("0190a5e00000700080000000000000001"),
        json!("2026-03-01T00:00:00Z"),
        json!("2026-03-01T00:00:00.123456789+05:30"),
        json!("2026-03-01T00:00:00"),
        json!("2026-02-30T00:00:00Z"),
        json!("2026-03-01T00:00:00.1234567890Z"),
        json!("2026-03-01 00:00:00Z"),
        json!("2026-03-01"),
    ];
    let fields = [
        "event_id",
        "time",
        "org_id",
        "user_id",
        "api_key_id",
        "model",
        "model_name",
        "input_tokens",
        "output_tokens",
        "cost",
        "latency_ms",
        "status",
        "error_message",
        "request_id",
        "a_field_of_later",
    ];
    let valid = json!({
        "event_id": "0190a5e0-0000-7000-8000-000000000001", "time": "2026-03-01T00:00:00Z",
        "org_id": "11111111-1111-4111-8111-111111111111", "user_id": "22222222-2222-4222-8222-222222222222",
        "api_key_id": "33333333-3333-4333-8333-333333333333", "model": "m", "input_tokens": 0, "output_tokens": 0,
        "cost": 0.5, "latency_ms": 7, "status": "success", "error_message": "e", "request_id": "r",
    });
    let (mut taken, mut refused) = (0, 0);
    for field in fields {
        for value in values.iter().map(Some).chain([None]) {
            let mut event = valid.clone();
            let object = event.as_object_mut().context("an object")?;
            if field == "model_name" {
                object.remove("model");
            }
            match value {
                Some(value) => object.insert(field.to_owned(), value.clone()),
                None => object.remove(field),
            };
            let body = event.to_string();
            let verdict = decode(body.as_bytes());
            ensure!(
                schema.is_valid(&event) == verdict.is_ok(),
                "the decoder says {verdict:?} of {body}"
            );
            *(if verdict.is_ok() { &mut taken } else { &mut refused }) += 1;
        }
    }
    ensure!(taken > 80 && refused > 300, "{taken} taken, {refused} refused");
    Ok(())
}
