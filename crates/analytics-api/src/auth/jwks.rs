//! A set of public keys (RFC 7517), read key by key: one that this service cannot use is left out, and
//! does not cost it the others.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::token::{TokenHeader, VerifyingKey};

/// RFC 7518, section 3.3: RS256 wants 2,048 bits; a base64url digit carries six.
const MIN_MODULUS_DIGITS: usize = 2048 / 6;

/// Why a document gives no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JwksError {
    /// Not JSON, or no list `keys` in it.
    #[error("it is not a JSON Web Key Set: {0}")]
    NotASet(#[from] serde_json::Error),
    /// Keys, but none for RS256, ES256 or EdDSA signatures.
    #[error("it has no key that verifies RS256, ES256 or EdDSA signatures")]
    NoUsableKey,
}

/// The usable keys of a set.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    named: HashMap<String, VerifyingKey>,
    nameless: Vec<VerifyingKey>,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a document.
    pub(super) fn parse(document: &[u8]) -> Result<Self, JwksError> {
        let document: Document = serde_json::from_slice(document)?;
        let mut set = Self::default();
        for key in document.keys {
            let Ok(jwk) = serde_json::from_value::<Jwk>(key) else {
                continue;
            };
            let Some(key) = verifying_key(&jwk) else { continue };
            match jwk.kid {
                // The first key of an id stays: a later one cannot push it out.
                Some(kid) => {
                    set.named.entry(kid).or_insert(key);
                }
                None => set.nameless.push(key),
            }
        }
        if set.named.is_empty() && set.nameless.is_empty() {
            return Err(JwksError::NoUsableKey);
        }
        Ok(set)
    }

    /// The key that a token says it was signed with. A token without a key id is read only where there is
    /// no choice: the set has one key of its algorithm.
    pub(super) fn find(&self, header: &TokenHeader) -> Option<VerifyingKey> {
        if let Some(kid) = &header.key_id {
            return self.named.get(kid).cloned();
        }
        let mut fitting = self
            .named
            .values()
            .chain(&self.nameless)
            .filter(|key| key.fits(header));
        let only = fitting.next()?;
        fitting.next().is_none().then(|| only.clone())
    }
}

fn verifying_key(jwk: &Jwk) -> Option<VerifyingKey> {
    let for_signatures = jwk.usage.as_deref().is_none_or(|usage| usage == "sig");
    let for_verifying = jwk
        .key_ops
        .as_ref()
        .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if !for_signatures || !for_verifying {
        return None;
    }
    let key = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => {
            let modulus = jwk.n.as_deref().filter(|n| n.len() >= MIN_MODULUS_DIGITS)?;
            VerifyingKey::rsa(modulus, jwk.e.as_deref()?)?
        }
        ("EC", Some("P-256")) => VerifyingKey::p256(jwk.x.as_deref()?, jwk.y.as_deref()?)?,
        ("OKP", Some("Ed25519")) => VerifyingKey::ed25519(jwk.x.as_deref()?)?,
        // `oct` among them: a shared secret has no place in a document that is handed around.
        _ => return None,
    };
    jwk.alg
        .as_deref()
        .is_none_or(|alg| alg == key.algorithm_name())
        .then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_left_out() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let refused = [
            serde_json::json!({"kty": "oct", "kid": "a", "k": "c2VjcmV0"}),
            serde_json::json!({"kty": "OKP", "crv": "X25519", "kid": "b", "x": x}),
            serde_json::json!({"kty": "OKP", "crv": "Ed25519", "kid": "c", "x": x, "use": "enc"}),
            serde_json::json!({"kty": "OKP", "crv": "Ed25519", "kid": "d", "x": x, "alg": "RS256"}),
            serde_json::json!({"kty": "OKP", "crv": "Ed25519", "kid": "e", "x": x, "key_ops": ["sign"]}),
            serde_json::json!({"kty": "OKP", "crv": "Ed25519", "kid": "f"}),
            serde_json::json!({"kty": "RSA", "kid": "g", "n": "0vx7agoebGcQ", "e": "AQAB"}),
            serde_json::json!({"kty": "EC", "crv": "P-521", "kid": "h", "x": x, "y": x}),
            serde_json::json!("no key at all"),
        ];
        let document = serde_json::json!({ "keys": refused }).to_string();
        assert!(matches!(
            KeySet::parse(document.as_bytes()),
            Err(JwksError::NoUsableKey)
        ));

        let mut keys = refused.to_vec();
        keys.push(serde_json::json!({"kty": "OKP", "crv": "Ed25519", "kid": "good", "x": x}));
        let document = serde_json::json!({ "keys": keys }).to_string();
        let set = KeySet::parse(document.as_bytes()).unwrap();
        assert_eq!(set.named.keys().collect::<Vec<_>>(), ["good"]);
    }

    #[test]
    fn a_document_that_is_no_set_is_refused() {
        for document in ["", "[]", "{}", r#"{"keys": 1}"#, "<html>"] {
            assert!(
                matches!(KeySet::parse(document.as_bytes()), Err(JwksError::NotASet(_))),
                "{document}"
            );
        }
    }
}
