//! Proves a JSON Web Token (RFC 7519, by the rules of RFC 8725). The only file that names jsonwebtoken.
//!
//! The algorithm belongs to the key: a token that names another one is refused before anything is
//! verified. Of the token's header only `alg` and `kid` are looked at, and `kid` only to find a key;
//! `jku`, `x5u` and `jwk` never lead anywhere, and a `crit` that asks for more is refused.

use std::fmt;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;

use crate::config::JwtConfig;

/// Why a request is not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenFault {
    /// No bearer token came.
    #[error("A bearer token is needed.")]
    Missing,
    /// It is no JSON Web Token, or one that asks for what is not supported.
    #[error("The bearer token cannot be read.")]
    Malformed,
    /// It was signed by another algorithm than the key's.
    #[error("The bearer token is signed by an algorithm that is not accepted here.")]
    WrongAlgorithm,
    /// No key of that id is known.
    #[error("The bearer token is signed with a key that is not known here.")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("The bearer token's signature is not valid.")]
    BadSignature,
    /// `exp` is over.
    #[error("The bearer token has expired.")]
    Expired,
    /// `nbf` is still to come.
    #[error("The bearer token is not valid yet.")]
    NotYetValid,
    /// `exp`, `nbf`, `iss` or `aud` is missing, of a wrong type, or not the one that is needed.
    #[error("A claim of the bearer token (exp, nbf, iss or aud) is missing or not accepted here.")]
    BadClaim,
}

impl TokenFault {
    /// A label for metrics and logs.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::BadClaim => "bad_claim",
        }
    }
}

/// A key that verifies signatures of one algorithm.
#[derive(Clone)]
pub(super) struct VerifyingKey {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerifyingKey").field(&self.algorithm).finish()
    }
}

impl VerifyingKey {
    /// HS256.
    pub(super) fn secret(secret: &[u8]) -> Self {
        Self {
            algorithm: Algorithm::HS256,
            key: DecodingKey::from_secret(secret),
        }
    }

    /// RS256, from modulus and exponent in base64url.
    pub(super) fn rsa(modulus: &str, exponent: &str) -> Option<Self> {
        let key = DecodingKey::from_rsa_components(modulus, exponent).ok()?;
        Some(Self {
            algorithm: Algorithm::RS256,
            key,
        })
    }

    /// ES256, from a point of P-256 in base64url.
    pub(super) fn p256(x: &str, y: &str) -> Option<Self> {
        let key = DecodingKey::from_ec_components(x, y).ok()?;
        Some(Self {
            algorithm: Algorithm::ES256,
            key,
        })
    }

    /// EdDSA, from an Ed25519 public key in base64url.
    pub(super) fn ed25519(x: &str) -> Option<Self> {
        let key = DecodingKey::from_ed_components(x).ok()?;
        Some(Self {
            algorithm: Algorithm::EdDSA,
            key,
        })
    }

    /// The algorithm's name in a JWK.
    pub(super) fn algorithm_name(&self) -> &'static str {
        match self.algorithm {
            Algorithm::HS256 => "HS256",
            Algorithm::RS256 => "RS256",
            Algorithm::ES256 => "ES256",
            // The constructors above make no other.
            _ => "EdDSA",
        }
    }

    /// Whether this key's algorithm is the one that the token names.
    pub(super) fn fits(&self, header: &TokenHeader) -> bool {
        self.algorithm == header.algorithm
    }
}

/// What is looked at of a token's header. Not proven: good for finding a key and nothing else.
#[derive(Debug)]
pub(super) struct TokenHeader {
    algorithm: Algorithm,
    pub(super) key_id: Option<String>,
}

/// Reads the header of a token.
pub(super) fn read_header(token: &str) -> Result<TokenHeader, TokenFault> {
    // jsonwebtoken has no name for `none` and the like, and so cannot read such a header.
    let header = decode_header(token).map_err(|_| TokenFault::Malformed)?;
    if header.crit.is_some() {
        return Err(TokenFault::Malformed);
    }
    Ok(TokenHeader {
        algorithm: header.alg,
        key_id: header.kid,
    })
}

/// The claims this service reads besides the registered ones that [`prove`] holds against the rules.
/// Values, because a wrong type is a question of permission here, not of authenticity.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    pub(super) sub: Value,
    #[serde(default)]
    pub(super) role: Value,
    #[serde(default)]
    pub(super) org_id: Value,
    /// Checked by the library where an audience is configured.
    #[serde(default)]
    aud: Value,
}

/// What the registered claims of a token must say.
pub(super) struct Rules {
    leeway_seconds: u64,
    issuer: Option<String>,
    audience: Option<String>,
}

impl Rules {
    pub(super) fn new(config: &JwtConfig) -> Self {
        Self {
            leeway_seconds: config.leeway_seconds,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
        }
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        // Everything is written out: the library leaves `nbf` unchecked, is lenient by a minute, and lets
        // a token pass that has no `iss` or `aud` at all, unless told otherwise.
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.leeway_seconds;
        validation.validate_exp = true;
        validation.validate_nbf = true;
        // Without an audience of our own, a token that names one is meant for somebody else.
        validation.validate_aud = true;
        let mut required = vec!["exp"];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

/// The claims of a token that `key` signed and the rules accept.
pub(super) fn prove(
    token: &str,
    header: &TokenHeader,
    key: &VerifyingKey,
    rules: &Rules,
) -> Result<Claims, TokenFault> {
    if !key.fits(header) {
        return Err(TokenFault::WrongAlgorithm);
    }
    match decode::<Claims>(token, &key.key, &rules.validation(key.algorithm)) {
        // The library lets one pass that is no text and no list of texts.
        Ok(proven) if rules.audience.is_none() && !proven.claims.aud.is_null() => Err(TokenFault::BadClaim),
        Ok(proven) => Ok(proven.claims),
        Err(error) => Err(match error.kind() {
            ErrorKind::ExpiredSignature => TokenFault::Expired,
            ErrorKind::ImmatureSignature => TokenFault::NotYetValid,
            ErrorKind::InvalidSignature => TokenFault::BadSignature,
            ErrorKind::InvalidAlgorithm => TokenFault::WrongAlgorithm,
            ErrorKind::MissingRequiredClaim(_)
            | ErrorKind::InvalidClaimFormat(_)
            | ErrorKind::InvalidIssuer
            | ErrorKind::InvalidAudience => TokenFault::BadClaim,
            _ => TokenFault::Malformed,
        }),
    }
}
