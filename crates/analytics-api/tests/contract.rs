//! The contract and the service say the same: paths, permissions, parameters, examples.

use std::collections::BTreeSet;
use std::path::Path;

use analytics_api::routes::{Readers, TABLE};
use serde_json::Value;

fn contract() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/api-spec.yaml");
    let text = std::fs::read_to_string(file).expect("the contract is in the repository");
    serde_saphyr::from_str(&text).expect("the contract is YAML")
}

fn operation<'a>(contract: &'a Value, path: &str) -> &'a Value {
    &contract["paths"][path]["get"]
}

/// Follows a local reference, if there is one.
fn resolved<'a>(contract: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => contract
            .pointer(reference.trim_start_matches('#'))
            .expect(reference),
        None => value,
    }
}

#[test]
fn every_route_is_in_the_contract_and_the_other_way_round() {
    let contract = contract();
    let paths = contract["paths"].as_object().unwrap();
    let described: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    let served: BTreeSet<&str> = TABLE.iter().map(|entry| entry.path).collect();
    assert_eq!(described, served);
    for (path, item) in paths {
        let methods: Vec<&String> = item
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| *key != "parameters")
            .collect();
        assert_eq!(methods, ["get"], "{path}");
    }
}

#[test]
fn every_operation_says_how_it_can_fail() {
    let contract = contract();
    for entry in &TABLE {
        let operation = operation(&contract, entry.path);
        let responses = operation["responses"].as_object().unwrap();
        let public = entry.readers == Readers::Everybody;
        assert_eq!(
            operation.get("security").is_some(),
            public,
            "{}: no token only where the table says",
            entry.path
        );
        let needed: &[&str] = match entry.path {
            "/ready" => &["200", "405", "503"],
            _ if public => &["200", "405"],
            _ => &[
                "200", "304", "400", "401", "403", "405", "406", "413", "414", "429", "431", "500", "503",
                "504",
            ],
        };
        assert_eq!(responses.keys().collect::<Vec<_>>(), needed, "{}", entry.path);
        for (status, response) in responses {
            let response = resolved(&contract, response);
            let media: Vec<&String> = response["content"]
                .as_object()
                .map(|content| content.keys().collect())
                .unwrap_or_default();
            let headers = response["headers"].as_object().unwrap();
            assert!(headers.contains_key("X-Request-Id"), "{} {status}", entry.path);
            let expected: &[&str] = match (status.as_str(), entry.path) {
                ("304", _) => &[],
                ("200", path) if path.starts_with("/v1/") => &["application/json"],
                ("200", _) if !public => &["application/json", "text/csv"],
                ("200", "/metrics") => &["text/plain"],
                ("200", "/api/v1/openapi.yaml") => &["application/yaml"],
                ("200", _) | ("503", "/ready") => &["application/json"],
                _ => &["application/problem+json"],
            };
            assert_eq!(media, expected, "{} {status}", entry.path);
        }
    }
}

#[test]
fn a_header_names_the_organization_where_no_path_does() {
    let contract = contract();
    let organization = |parameter: &Value| {
        let parameter = resolved(&contract, parameter);
        parameter["in"] == "header" && parameter["name"] == "OpenAI-Organization"
    };
    for entry in &TABLE {
        let parameters = operation(&contract, entry.path)["parameters"].as_array().unwrap();
        assert_eq!(
            parameters.iter().any(organization),
            entry.path.starts_with("/v1/"),
            "{}",
            entry.path
        );
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(contract: &Value, value: &Value) {
        match value {
            Value::Object(fields) => {
                resolved(contract, value);
                fields.values().for_each(|field| walk(contract, field));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(contract, item)),
            _ => {}
        }
    }
    let contract = contract();
    walk(&contract, &contract);
}

#[test]
fn every_example_is_what_its_schema_says() {
    let contract = contract();
    let mut checked = 0;
    for entry in &TABLE {
        for response in operation(&contract, entry.path)["responses"]
            .as_object()
            .unwrap()
            .values()
        {
            for media in resolved(&contract, response)["content"]
                .as_object()
                .into_iter()
                .flat_map(|content| content.values())
            {
                // The schema by itself, with the components that its references lead to.
                let mut schema = media["schema"].clone();
                schema["components"] = contract["components"].clone();
                let validator = jsonschema::validator_for(&schema).unwrap();
                let named = media["examples"]
                    .as_object()
                    .into_iter()
                    .flat_map(|examples| examples.values());
                for example in media
                    .get("example")
                    .into_iter()
                    .chain(named.map(|example| &example["value"]))
                {
                    let errors: Vec<_> = validator
                        .iter_errors(example)
                        .map(|error| error.to_string())
                        .collect();
                    assert!(errors.is_empty(), "{}: {errors:?}\n{example}", entry.path);
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 60, "{checked}");
}
