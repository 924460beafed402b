//! What operators, Kubernetes and the makers of clients ask. The only routes without a token; they tell nothing
//! about usage.

use actix_web::web::Data;
use actix_web::{HttpResponse, Responder};
use analytics_runtime::metrics_endpoint::CONTENT_TYPE;
use serde::Serialize;

use crate::db::Unready;
use crate::{App, metrics};

/// `GET /health`: the process answers. It asks no other server, or a database's outage would make
/// Kubernetes restart every pod.
pub(crate) async fn health() -> impl Responder {
    HttpResponse::Ok().json(serde_json::json!({ "status": "ok" }))
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    database: &'static str,
    schema: &'static str,
    signing_keys: &'static str,
    shutting_down: bool,
    /// What is missing, for people.
    missing: Vec<String>,
}

/// `GET /ready`: whether requests should be sent here, and if not, what is missing. It asks nobody: however many ask,
/// the database is looked at by one session, again and again.
pub(crate) async fn ready(app: Data<App>) -> impl Responder {
    let (database, schema, mut missing) = match app.database.ready() {
        Ok(()) => ("ok", "ok", Vec::new()),
        Err(Unready::Database) => (
            "unreachable",
            "unknown",
            vec!["the database cannot be reached".to_owned()],
        ),
        Err(Unready::Schema(why)) => ("ok", "wrong", vec![why]),
    };
    let has_keys = app.authenticator.has_keys();
    if !has_keys {
        missing.push("no signing keys from JWT_JWKS_URL yet".to_owned());
    }
    let shutting_down = app.is_shutting_down();
    if shutting_down {
        missing.push("this instance is shutting down".to_owned());
    }
    let readiness = Readiness {
        ready: missing.is_empty(),
        database,
        schema,
        signing_keys: if has_keys { "ok" } else { "missing" },
        shutting_down,
        missing,
    };
    let mut response = if readiness.ready {
        HttpResponse::Ok()
    } else {
        HttpResponse::ServiceUnavailable()
    };
    response.json(readiness)
}

/// `GET /api/v1/openapi.yaml`
pub(crate) async fn contract() -> impl Responder {
    HttpResponse::Ok()
        .content_type("application/yaml")
        .body(include_str!("../../../../contracts/api-spec.yaml"))
}

/// `GET /metrics`
pub(crate) async fn exposition(app: Data<App>) -> impl Responder {
    app.database.report_pool();
    metrics::in_flight(app.admission.in_flight());
    HttpResponse::Ok()
        .content_type(CONTENT_TYPE)
        .body(app.metrics.render())
}
