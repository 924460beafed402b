//! A message's body in JSON, to the byte: text where it is UTF-8, base64 where it is not.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

/// One of the two fields is there, never both.
#[derive(Debug, Serialize)]
pub struct Body<'a> {
    /// The body as text; an empty body is an empty text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<&'a str>,
    /// The body in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

impl<'a> From<&'a [u8]> for Body<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self {
                body: Some(text),
                body_base64: None,
            },
            Err(_) => Self {
                body: None,
                body_base64: Some(STANDARD.encode(bytes)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    proptest! {
        #[test]
        fn no_byte_is_lost(bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..40), any::<String>().prop_map(String::into_bytes)]) {
            let json: Value = serde_json::from_str(&serde_json::to_string(&Body::from(&*bytes)).unwrap()).unwrap();
            let back = match (json.get("body"), json.get("body_base64")) {
                (Some(text), None) => text.as_str().unwrap().as_bytes().to_vec(),
                (None, Some(coded)) => STANDARD.decode(coded.as_str().unwrap()).unwrap(),
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(back, bytes);
        }
    }
}
