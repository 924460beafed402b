//! `/health`, `/ready` and `/metrics`.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use actix_web::dev::Server;
use actix_web::http::Method;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{Data, resource, route};
use actix_web::{App, HttpResponse, HttpServer, Resource, Route};
use analytics_runtime::metrics_endpoint::{self, MetricsEndpoint};
use serde_json::json;

use crate::status::Status;

/// The server of the probes.
///
/// # Errors
/// If nothing can listen there.
pub fn server(
    listener: TcpListener,
    status: Arc<Status>,
    metrics: MetricsEndpoint,
) -> std::io::Result<Server> {
    tracing::info!(port = listener.local_addr()?.port(), "probes are served");
    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::from(Arc::clone(&status)))
            .app_data(Data::new(metrics.clone()))
            .service(probe("/health", || route().to(health)))
            .service(probe("/ready", || route().to(ready)))
            .service(probe("/metrics", || route().to(render)))
    });
    Ok(server
        .workers(1)
        .disable_signals()
        .shutdown_timeout(1)
        .listen(listener)?
        .run())
}

/// Answers GET, and HEAD.
fn probe(path: &str, handler: fn() -> Route) -> Resource {
    resource(path)
        .route(handler().method(Method::GET))
        .route(handler().method(Method::HEAD))
}

/// The process makes progress: this thread answers, and the main one came by. It depends on no other server.
async fn health(status: Data<Status>) -> HttpResponse {
    if status.is_alive(Instant::now()) {
        HttpResponse::Ok().json(json!({"status": "ok"}))
    } else {
        HttpResponse::ServiceUnavailable().json(json!({"status": "the main thread hangs"}))
    }
}

async fn ready(status: Data<Status>) -> HttpResponse {
    let missing = status.missing();
    if missing.is_empty() {
        return HttpResponse::Ok().json(json!({"status": "ready"}));
    }
    let names: Vec<_> = missing.keys().collect();
    let answer = json!({"status": "not ready", "missing": names, "because": missing});
    HttpResponse::ServiceUnavailable().json(answer)
}

async fn render(metrics: Data<MetricsEndpoint>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, metrics_endpoint::CONTENT_TYPE))
        .body(metrics.render())
}
