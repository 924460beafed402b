//! Tokens as the platform's identity service issues them.

use anyhow::Result;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// A `JWT_SECRET` for tests and the demo.
pub const SECRET: &str = "a-secret-for-tests-and-the-demo-only-0123456789";

/// What a caller may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads everything, belongs to no organization.
    SystemAdmin,
    /// Reads its organization.
    OrgAdmin,
    /// Reads its own usage.
    OrgUser,
}

/// The claims of a token.
#[derive(Clone, Debug, Serialize)]
pub struct Claims {
    /// The user's id.
    pub sub: String,
    /// The role.
    pub role: Role,
    /// The organization; none for system admins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org_id: Option<Uuid>,
    /// When it expires, unix seconds.
    pub exp: i64,
}

impl Claims {
    /// Of a caller whose token expires in twelve hours.
    pub fn new(role: Role, user_id: Uuid, org_id: Option<Uuid>) -> Self {
        let exp = OffsetDateTime::now_utc() + Duration::hours(12);
        Self {
            sub: user_id.to_string(),
            role,
            org_id,
            exp: exp.unix_timestamp(),
        }
    }

    /// Of some system admin.
    pub fn system_admin() -> Self {
        Self::new(Role::SystemAdmin, Uuid::new_v4(), None)
    }

    /// Of some admin of this organization.
    pub fn org_admin(org_id: Uuid) -> Self {
        Self::new(Role::OrgAdmin, Uuid::new_v4(), Some(org_id))
    }

    /// Of this user of this organization.
    pub fn org_user(org_id: Uuid, user_id: Uuid) -> Self {
        Self::new(Role::OrgUser, user_id, Some(org_id))
    }

    /// The token, signed with HS256 and this secret.
    pub fn sign(&self, secret: &str) -> Result<String> {
        sign(self, secret)
    }
}

/// Signs any claims with HS256: hostile ones, for instance.
pub fn sign(claims: &impl Serialize, secret: &str) -> Result<String> {
    let key = EncodingKey::from_secret(secret.as_bytes());
    Ok(jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        claims,
        &key,
    )?)
}
