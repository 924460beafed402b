use std::collections::{HashMap, HashSet};

use serde_json::Value;
use time::macros::datetime;

use super::{Event, Generator, Shape};

const SHAPE: Shape = Shape {
    seed: 7,
    organizations: 50,
    start: datetime!(2026-03-01 00:00 UTC),
    end: datetime!(2026-03-31 00:00 UTC),
};

#[test]
fn the_same_seed_gives_the_same_events() {
    let bodies = |seed| {
        Generator::new(&Shape { seed, ..SHAPE })
            .take(500)
            .map(|event| event.body)
            .collect::<Vec<_>>()
    };
    assert_eq!(bodies(1), bodies(1));
    assert_ne!(bodies(1), bodies(2));
}

#[test]
fn bodies_say_what_the_fact_says() {
    for Event { body, fact } in Generator::new(&SHAPE).take(5_000) {
        let json: Value = serde_json::from_slice(&body).unwrap();
        let text = |name: &str| json.get(name).and_then(Value::as_str);
        let number = |name: &str| json.get(name).and_then(Value::as_f64);
        assert_eq!(
            text("event_id").unwrap().to_lowercase(),
            fact.event_id.to_string()
        );
        assert_eq!(text("org_id").unwrap(), fact.org_id.to_string());
        assert_eq!(text("model").or(text("model_name")).unwrap(), fact.model);
        assert_eq!(number("input_tokens").unwrap(), f64::from(fact.input_tokens));
        assert_eq!(number("output_tokens").unwrap(), f64::from(fact.output_tokens));
        assert_eq!(number("latency_ms"), fact.latency_ms.map(f64::from));
        assert_eq!(text("status").unwrap(), fact.status);
        assert_eq!(text("error_message"), fact.error_message.as_deref());
        assert_eq!(text("request_id"), fact.request_id.as_deref());
        let cost = number("cost").or_else(|| text("cost")?.parse().ok()).unwrap();
        assert!(
            (cost * 1e10 - fact.cost_e10 as f64).abs() <= 1.0,
            "{cost} {}",
            fact.cost_e10
        );
        let time = time::OffsetDateTime::parse(
            text("time").unwrap(),
            &time::format_description::well_known::Rfc3339,
        )
        .unwrap();
        assert_eq!(
            time.unix_timestamp_nanos().div_euclid(1_000),
            i128::from(fact.time_us)
        );
        assert!(SHAPE.start <= time && time < SHAPE.end);
    }
}

#[test]
fn sizes_are_uneven_and_everything_occurs() {
    let facts: Vec<_> = Generator::new(&SHAPE)
        .take(20_000)
        .map(|event| event.fact)
        .collect();
    let mut sizes = HashMap::new();
    for fact in &facts {
        *sizes.entry(fact.org_id).or_insert(0) += 1;
    }
    assert_eq!(sizes.len(), 50);
    // 1 / (1 + 1/2 + .. + 1/50)
    assert!((4_000..5_000).contains(sizes.values().max().unwrap()));
    assert_eq!(
        facts.iter().map(|fact| fact.model).collect::<HashSet<_>>().len(),
        8
    );
    assert_eq!(
        facts.iter().map(|fact| fact.status).collect::<HashSet<_>>().len(),
        6
    );
    assert_eq!(
        facts
            .iter()
            .map(|fact| fact.event_id)
            .collect::<HashSet<_>>()
            .len(),
        facts.len()
    );
}

#[test]
fn in_order_is_in_order() {
    let times: Vec<_> = Generator::new(&SHAPE)
        .in_order(3_000)
        .map(|event| event.fact.time_us / 1_000_000)
        .collect();
    assert_eq!(times.len(), 3_000);
    // Whole seconds: a spelling may cut the fraction.
    assert!(times.is_sorted());
}
