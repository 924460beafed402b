//! The parameters that each route takes are those that the contract gives it.

use std::path::Path;

use serde_json::{Value, json};

use super::without_database::{app, get};
use crate::auth::test_tokens::{ORG, SECRET, Signer, USER, now};
use crate::routes::{Readers, TABLE};

#[actix_web::test]
async fn every_route_takes_the_parameters_of_the_contract_and_no_others() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/api-spec.yaml");
    let contract: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let app = app(&[("JWT_SECRET", SECRET)]);
    let claims = json!({"sub": USER, "role": "system_admin", "exp": now() + 3600});
    let token = Signer::secret().token(None, &claims);
    for entry in TABLE.iter().filter(|entry| entry.readers != Readers::Everybody) {
        let described: Vec<&Value> = contract["paths"][entry.path]["get"]["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|parameter| {
                contract
                    .pointer(parameter["$ref"].as_str().unwrap().trim_start_matches('#'))
                    .unwrap()
            })
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| &parameter["name"])
            .collect();
        let reply = get(
            &app,
            &match entry.path.starts_with("/v1/") {
                true => format!("{}?nonsense=1&org_id={ORG}", entry.path),
                false => format!("{}?nonsense=1", entry.path.replace("{org_id}", ORG)),
            },
            &token,
        )
        .await;
        assert_eq!(reply.problem(), "invalid-parameter");
        assert_eq!(
            reply.json()["errors"][0]["allowed"],
            json!(described),
            "{}",
            entry.path
        );
    }
}
