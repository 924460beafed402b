//! What a caller may read on the route that was matched.
//!
//! [`Permit`] is an extractor: a handler that takes one runs for permitted callers only. The database is asked
//! [`Permitted`] plans alone, and only a permit makes one, so no handler can ask about an organization that
//! the caller may not read. A route that is not in the table, or is public there, gives no permit at all.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use analytics_core::query::usage::{Ask, Plan, Refused};
use analytics_core::query::{Question, Scope};
use analytics_core::rollup::Kept;
use tracing::info;
use uuid::Uuid;

use super::principal::{Principal, Role};
use crate::App;
use crate::admission::Admitted;
use crate::error::ApiError;
use crate::media;
use crate::metrics;
use crate::params::Asked;
use crate::params::organization::Named;
use crate::routes::{self, Readers};

/// Leave to read one scope, or one user's part of it.
#[derive(Debug)]
pub(crate) struct Permit {
    scope: Scope,
    /// The only user whose requests may be read.
    only_user: Option<Uuid>,
    /// Held for as long as the question is.
    _admitted: Admitted,
}

/// What a permit wrote: a question, or the plan to ask it. Nothing else makes one, or changes it.
#[derive(Debug)]
pub(crate) struct Permitted<T>(T);

impl<T> Deref for Permitted<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl Permitted<Ask> {
    /// See [`Ask::plan`].
    pub(crate) fn plan(&self, kept: Kept) -> Result<Permitted<Plan<'_>>, Refused> {
        self.0.plan(kept).map(Permitted)
    }
}

impl Permit {
    /// What was asked, of what may be read; refuses a filter that names anybody else.
    pub(crate) fn ask(&self, name: &'static str, asked: Asked) -> Result<Permitted<Ask>, ApiError> {
        let mut filter = asked.filter;
        if let Some(user_id) = self.only_user {
            if filter.user_ids.iter().any(|asked| *asked != user_id) {
                return Err(ApiError::Forbidden);
            }
            filter.user_ids = vec![user_id];
        }
        Ok(Permitted(Ask {
            name,
            question: Question {
                scope: self.scope,
                range: asked.buckets.range(),
                filter,
            },
            buckets: asked.buckets,
            group_by: asked.group_by,
            rows: asked.rows,
            latency: asked.include.latency,
            token_details: asked.include.token_details,
            before: asked.before,
            now: asked.now,
        }))
    }

    /// Holds a caller against the readers of a route. For those who may read one organization, a request that
    /// names anything else is refused in the same way, be it a UUID or not. Where none is named, it is the
    /// caller's own.
    fn decide(
        principal: &Principal,
        readers: Readers,
        named: &Named,
        admitted: Admitted,
    ) -> Result<Self, ApiError> {
        let own = |own: Uuid| match named.is_none_but(own) {
            true => Ok(Scope::Organization(own)),
            false => Err(ApiError::Forbidden),
        };
        let (scope, only_user) = match (readers, principal.role) {
            (Readers::SystemAdmins, Role::SystemAdmin) => (Scope::System, None),
            (Readers::Members | Readers::OrgAdmins, Role::SystemAdmin) => {
                (Scope::Organization(named.one()?), None)
            }
            (Readers::Members | Readers::OrgAdmins, Role::OrgAdmin { org_id }) => (own(org_id)?, None),
            (Readers::Members, Role::OrgUser { org_id, user_id }) => (own(org_id)?, Some(user_id)),
            _ => return Err(ApiError::Forbidden),
        };
        Ok(Self {
            scope,
            only_user,
            _admitted: admitted,
        })
    }
}

impl FromRequest for Permit {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let app = request.app_data::<web::Data<App>>().ok_or(ApiError::Internal)?;
            let pattern = request.match_pattern().ok_or(ApiError::Internal)?;
            let readers = routes::readers(&pattern).ok_or(ApiError::Internal)?;
            let principal = app
                .authenticator
                .authenticate(request.headers())
                .await
                .inspect_err(|error| {
                    if let ApiError::Unauthenticated(fault) = error {
                        metrics::token_refused(*fault);
                    }
                })?;
            let admitted = app.admission.admit(&principal)?;
            let named = match routes::is_compatible(&pattern) {
                true => Named::by_openai(request.query_string(), request.headers())?,
                false => Named::by_path(request.match_info().get("org_id")),
            };
            let permit = Self::decide(&principal, readers, &named, admitted)?;
            // Before anything is asked: what it comes in, the handler finds out again.
            media::negotiate(request.headers(), routes::offered(&pattern))?;
            if principal.role == Role::SystemAdmin {
                audit(&principal, permit.scope, &pattern);
            }
            Ok(permit)
        })
    }
}

/// A read across organizations is written down before it happens.
fn audit(principal: &Principal, scope: Scope, route: &str) {
    let organization = match scope {
        Scope::System => "all".to_owned(),
        Scope::Organization(org_id) => org_id.to_string(),
    };
    info!(target: "audit", subject = %principal.subject, organization, route, "cross-organization read");
}
