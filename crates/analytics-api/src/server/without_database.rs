//! The whole service, over a database that is not there. A request that is let in gets as far as the
//! database and is told that it cannot be reached; one that is not never gets that far.

use std::sync::OnceLock;

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use actix_web::test::{TestRequest, init_service, try_call_service};
use actix_web::web::Data;
use analytics_runtime::metrics_endpoint::MetricsEndpoint;
use analytics_runtime::settings::Settings;
use serde_json::Value;

use super::application;
use crate::App;
use crate::config::{Config, KEYS};
use crate::routes::Part;

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The last part of the problem's type.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        self.json()["type"]
            .as_str()
            .unwrap()
            .rsplit(':')
            .next()
            .unwrap()
            .to_owned()
    }
}

/// Configured with these settings.
pub(crate) fn app(settings: &[(&str, &str)]) -> Data<App> {
    static METRICS: OnceLock<MetricsEndpoint> = OnceLock::new();
    analytics_runtime::tls::install_provider();
    // Port 1 refuses at once.
    let database = ("DATABASE_URL", "postgres://reader@127.0.0.1:1/usage");
    let settings = settings
        .iter()
        .chain([&database])
        .map(|(name, value)| ((*name).into(), (*value).into()));
    let config = Config::from_settings(&Settings::from_map(KEYS, settings).unwrap()).unwrap();
    let metrics = METRICS.get_or_init(|| MetricsEndpoint::install().unwrap());
    Data::new(App::new(&config, metrics.clone()).unwrap())
}

/// Sends one request.
pub(crate) async fn send(app: &Data<App>, request: TestRequest) -> Reply {
    let service = init_service(application(app.clone(), Part::Whole)).await;
    let response = try_call_service(&service, request.to_request()).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = actix_web::test::read_body(response).await.to_vec();
    Reply {
        status,
        headers,
        body,
    }
}

/// GET with a bearer token.
pub(crate) async fn get(app: &Data<App>, path: &str, token: &str) -> Reply {
    let request = TestRequest::get()
        .uri(path)
        .insert_header(("Authorization", format!("Bearer {token}")));
    send(app, request).await
}
