//! The organizations that a request names. Who may name which, and whose it is where none is named, is for the
//! permit to say.

use actix_web::http::header::HeaderMap;
use uuid::Uuid;

use super::given::{Given, fault};
use super::values::{A_UUID, uuid};
use crate::error::{ApiError, ParameterFault};

const PARAMETER: &str = "org_id";
/// OpenAI's clients send it.
pub(crate) const HEADER: &str = "OpenAI-Organization";

/// What a request says about whose usage it asks for.
#[derive(Debug)]
pub(crate) struct Named {
    /// In the path, or on a path without one in the query: as text, be it an id or not.
    parameter: Option<String>,
    /// In the header.
    header: Option<Uuid>,
}

impl Named {
    /// By the path alone.
    pub(crate) fn by_path(org_id: Option<&str>) -> Self {
        Self {
            parameter: org_id.map(str::to_owned),
            header: None,
        }
    }

    /// As OpenAI's clients do it, and by the query. A header that names nothing is refused whoever sends it: that
    /// says nothing about which organizations there are.
    pub(crate) fn by_openai(query: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        let given = Given::read(query, &[PARAMETER]).ok();
        Ok(Self {
            parameter: given.and_then(|given| given.values(PARAMETER).into_iter().next()),
            header: of_header(headers).map_err(|wrong| ApiError::BadParameters(vec![wrong]))?,
        })
    }

    /// Whether no other organization than this one is named.
    pub(crate) fn is_none_but(&self, own: Uuid) -> bool {
        let parameter = self.parameter.as_deref();
        parameter.is_none_or(|text| uuid(text) == Some(own)) && self.header.is_none_or(|id| id == own)
    }

    /// The one that is named.
    pub(crate) fn one(&self) -> Result<Uuid, ApiError> {
        let parameter = match self.parameter.as_deref().map(uuid) {
            None => None,
            Some(Some(id)) => Some(id),
            Some(None) => return Err(refused(PARAMETER, "is not a UUID")),
        };
        match (parameter, self.header) {
            (None, None) => Err(refused(
                PARAMETER,
                "is missing: a system admin names an organization",
            )),
            (Some(one), Some(other)) if one != other => Err(ApiError::BadParameters(vec![
                differs(PARAMETER, HEADER),
                differs(HEADER, PARAMETER),
            ])),
            (Some(id), _) | (None, Some(id)) => Ok(id),
        }
    }
}

fn of_header(headers: &HeaderMap) -> Result<Option<Uuid>, ParameterFault> {
    let mut values = headers.get_all(HEADER);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let wrong = match value.to_str().ok().and_then(uuid) {
        _ if values.next().is_some() => "is given more than once",
        Some(id) => return Ok(Some(id)),
        None if value.is_empty() => "is empty",
        None => "is not a UUID",
    };
    Err(fault(HEADER, wrong, &[A_UUID]))
}

fn refused(name: &str, wrong: &str) -> ApiError {
    ApiError::BadParameters(vec![fault(name, wrong, &[A_UUID])])
}

fn differs(name: &str, other: &str) -> ParameterFault {
    let detail = format!("names another organization than `{other}`");
    fault(name, &detail, &["one of the two", "the same in both"])
}
