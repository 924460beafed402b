//! A proven caller: the claims of a good token, read strictly.

use serde_json::Value;
use uuid::Uuid;

use super::token::Claims;
use crate::params;

/// The longest `sub` that is taken for one.
const MAX_SUBJECT_CHARS: usize = 255;

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Principal {
    /// The `sub` claim: a user's id.
    pub(super) subject: String,
    pub(super) role: Role,
}

/// What a caller is, with what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Role {
    /// Reads every organization and the whole system.
    SystemAdmin,
    /// Reads one organization.
    OrgAdmin { org_id: Uuid },
    /// Reads its own usage inside one organization.
    OrgUser { org_id: Uuid, user_id: Uuid },
}

impl Principal {
    /// `None` if a claim that the role needs is missing or malformed.
    pub(super) fn from_claims(claims: &Claims) -> Option<Self> {
        let subject = text(&claims.sub)?;
        if subject.is_empty() || subject.chars().count() > MAX_SUBJECT_CHARS {
            return None;
        }
        let role = match text(&claims.role)? {
            // Whatever organization such a token may name, it is not bound to it.
            "system_admin" => Role::SystemAdmin,
            "org_admin" => Role::OrgAdmin {
                org_id: id(&claims.org_id)?,
            },
            "org_user" => Role::OrgUser {
                org_id: id(&claims.org_id)?,
                user_id: params::uuid(subject)?,
            },
            _ => return None,
        };
        Some(Self {
            subject: subject.to_owned(),
            role,
        })
    }
}

fn text(claim: &Value) -> Option<&str> {
    claim.as_str()
}

fn id(claim: &Value) -> Option<Uuid> {
    params::uuid(text(claim)?)
}
