//! The wire format's contract against the harness's own messages. The services' decoder is held against
//! the same file by its own tests.

use std::fs;

use jsonschema::Validator;
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::datetime;

use crate::generator::{Generator, Shape};
use crate::malformed;
use crate::servers::place::clone_root;

fn schema() -> (Value, Validator) {
    let text = fs::read_to_string(clone_root().join("contracts/usage-event.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap();
    (schema, validator)
}

#[test]
fn its_examples_match() {
    let (schema, validator) = schema();
    let examples = schema["examples"].as_array().unwrap();
    assert!(!examples.is_empty());
    for example in examples {
        validator.validate(example).unwrap();
    }
}

#[test]
fn every_generated_event_matches() {
    let (_, validator) = schema();
    let shape = Shape {
        seed: 11,
        organizations: 30,
        start: datetime!(2026-03-01 00:00 UTC),
        end: datetime!(2026-03-31 00:00 UTC),
    };
    for event in Generator::new(&shape).take(3_000) {
        let json = serde_json::from_slice(&event.body).unwrap();
        if let Err(error) = validator.validate(&json) {
            panic!("{error}: {}", String::from_utf8_lossy(&event.body));
        }
    }
}

#[test]
fn malformed_messages_do_not_match() {
    // What a schema can't say: sums, repeated fields, two fields against each other, a clock, and an
    // amount inside of a string.
    const BEYOND: [&str; 5] = [
        "duplicate_field",
        "conflicting_fields",
        "total_mismatch",
        "in_the_future",
        "too_old",
    ];
    let (_, validator) = schema();
    let now = OffsetDateTime::now_utc();
    let mut refused = 0;
    for message in [malformed::twenty(now), malformed::further(now)].concat() {
        let Ok(json) = serde_json::from_slice(&message.body) else {
            continue;
        };
        let beyond = BEYOND.contains(&message.reason) || message.what == "a cost of millions";
        assert_eq!(validator.is_valid(&json), beyond, "{}", message.what);
        refused += usize::from(!beyond);
    }
    assert!(refused > 15);
}
