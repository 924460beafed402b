//! Tokens made by hand, byte by byte, so that they can be wrong in any way.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use time::OffsetDateTime;

pub(crate) const SECRET: &str = "a-test-secret-of-at-least-32-bytes";
pub(crate) const ORG: &str = "11111111-1111-4111-8111-111111111111";
pub(crate) const OTHER_ORG: &str = "22222222-2222-4222-8222-222222222222";
pub(crate) const USER: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
pub(crate) const OTHER_USER: &str = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb";

/// A key that signs, and its public half as a JWK.
pub(crate) enum Signer {
    Hmac(Vec<u8>),
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

pub(crate) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub(crate) fn secret() -> Self {
        Self::Hmac(SECRET.as_bytes().to_vec())
    }

    pub(crate) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub(crate) fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Hmac(_) => "HS256",
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    pub(crate) fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Hmac(secret) => json!({"kty": "oct", "kid": kid, "k": base64url(secret)}),
            Self::Rsa(pair) => {
                let public = pair.public_key();
                json!({
                    "kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256",
                    "n": base64url(public.modulus().big_endian_without_leading_zero()),
                    "e": base64url(public.exponent().big_endian_without_leading_zero()),
                })
            }
            Self::P256(pair) => {
                // An uncompressed point: a tag, then x and y.
                let point = pair.public_key().as_ref();
                json!({
                    "kty": "EC", "crv": "P-256", "kid": kid,
                    "x": base64url(&point[1..33]), "y": base64url(&point[33..]),
                })
            }
            Self::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": base64url(pair.public_key())})
            }
        }
    }

    /// The public key in DER: what an attacker would use as an HMAC secret.
    pub(crate) fn public_der(&self) -> Vec<u8> {
        match self {
            Self::Rsa(pair) => {
                let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> = rsa_public(pair).as_der().unwrap();
                der.as_ref().to_vec()
            }
            _ => unreachable!("only asked of RSA"),
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Hmac(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message)
                .as_ref()
                .to_vec(),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .unwrap();
                signature
            }
            Self::P256(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A token of exactly this header and payload.
    pub(crate) fn raw(&self, header: &str, payload: &str) -> String {
        let message = format!("{}.{}", base64url(header), base64url(payload));
        format!("{message}.{}", base64url(self.sign(message.as_bytes())))
    }

    /// A token as a provider would make it.
    pub(crate) fn token(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = json!({"typ": "JWT", "alg": self.algorithm()});
        if let Some(kid) = kid {
            header["kid"] = json!(kid);
        }
        self.raw(&header.to_string(), &claims.to_string())
    }
}

fn rsa_public(pair: &RsaKeyPair) -> rsa::PublicKey {
    pair.public_key().clone()
}

pub(crate) fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// The claims of an organization's admin, valid for an hour.
pub(crate) fn admin_claims() -> Value {
    json!({"sub": USER, "role": "org_admin", "org_id": ORG, "exp": now() + 3600})
}

/// The same with one claim changed, or taken out by null.
pub(crate) fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = admin_claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}
