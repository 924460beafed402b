//! Every route, and who may read it.

use actix_web::http::Method;
use actix_web::web::{self, ServiceConfig};
use analytics_core::query::Dimension;

use crate::handlers::{list, openai, probes, usage};
use crate::media::Media;
use crate::params::{OF_ORGANIZATION, OF_SYSTEM};

/// Who may read what a route answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Anybody; nothing about usage is in it.
    Everybody,
    /// The organization's admins, and its users as far as their own requests go.
    Members,
    /// The organization's admins.
    OrgAdmins,
    /// System admins, who may read all of the above as well.
    SystemAdmins,
}

/// One line of the table. All routes answer GET, and HEAD.
pub struct Entry {
    /// The path, with its parameters in braces.
    pub path: &'static str,
    /// Who may read it.
    pub readers: Readers,
    handler: fn() -> actix_web::Route,
}

/// The table.
#[rustfmt::skip]
pub const TABLE: [Entry; 13] = [
    Entry { path: "/api/v1/analytics/orgs/{org_id}/usage",  readers: Readers::Members,      handler: || over_time("org_usage", &OF_ORGANIZATION) },
    Entry { path: "/api/v1/analytics/orgs/{org_id}/users",  readers: Readers::OrgAdmins,    handler: || by("org_users", Dimension::User) },
    Entry { path: "/api/v1/analytics/orgs/{org_id}/keys",   readers: Readers::Members,      handler: || by("org_keys", Dimension::ApiKey) },
    Entry { path: "/api/v1/analytics/orgs/{org_id}/models", readers: Readers::Members,      handler: || by("org_models", Dimension::Model) },
    Entry { path: "/api/v1/analytics/system/usage",         readers: Readers::SystemAdmins, handler: || over_time("system_usage", &OF_SYSTEM) },
    Entry { path: "/api/v1/analytics/system/orgs",          readers: Readers::SystemAdmins, handler: || by("system_orgs", Dimension::Organization) },
    Entry { path: "/api/v1/analytics/system/models",        readers: Readers::SystemAdmins, handler: || by("system_models", Dimension::Model) },
    Entry { path: "/v1/organization/usage/completions",     readers: Readers::Members,      handler: || web::route().to(openai::completions) },
    Entry { path: "/v1/organization/costs",                 readers: Readers::Members,      handler: || web::route().to(openai::costs) },
    Entry { path: "/api/v1/openapi.yaml",                   readers: Readers::Everybody,    handler: || web::route().to(probes::contract) },
    Entry { path: "/health",                                readers: Readers::Everybody,    handler: || web::route().to(probes::health) },
    Entry { path: "/ready",                                 readers: Readers::Everybody,    handler: || web::route().to(probes::ready) },
    Entry { path: "/metrics",                               readers: Readers::Everybody,    handler: || web::route().to(probes::exposition) },
];

/// Which part of the table a port has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// What callers ask.
    Public,
    /// What operators ask.
    Admin,
}

impl Part {
    fn has(self, path: &str) -> bool {
        let of_operators = matches!(path, "/health" | "/ready" | "/metrics");
        match self {
            Self::Whole => true,
            Self::Public => !of_operators,
            Self::Admin => of_operators,
        }
    }
}

/// Registers a part of the table.
pub(crate) fn configure(part: Part, service: &mut ServiceConfig) {
    for entry in TABLE.iter().filter(|entry| part.has(entry.path)) {
        // Whoever asks for the head alone gets that of the same answer.
        let route = |method| (entry.handler)().method(method);
        service.service(
            web::resource(entry.path)
                .route(route(Method::GET))
                .route(route(Method::HEAD)),
        );
    }
}

/// Who may read the route of this pattern.
pub(crate) fn readers(pattern: &str) -> Option<Readers> {
    TABLE
        .iter()
        .find(|entry| entry.path == pattern)
        .map(|entry| entry.readers)
}

/// Whether the route of this pattern is one of OpenAI's.
pub(crate) fn is_compatible(pattern: &str) -> bool {
    pattern.starts_with("/v1/")
}

/// The media types that the route of this pattern answers a question in; the first one is given to whoever takes
/// any.
pub(crate) fn offered(pattern: &str) -> &'static [Media] {
    // The shape that others gave it has no rows to be written as lines.
    match is_compatible(pattern) {
        true => &[Media::Json],
        false => &[Media::Json, Media::Csv],
    }
}

fn over_time(name: &'static str, dimensions: &'static [Dimension]) -> actix_web::Route {
    web::route().to(move |permit, request, app| usage::usage(name, dimensions, permit, request, app))
}

fn by(name: &'static str, dimension: Dimension) -> actix_web::Route {
    web::route().to(move |permit, request, app| list::list(name, dimension, permit, request, app))
}
