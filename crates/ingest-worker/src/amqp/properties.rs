//! A message's properties: what is kept of them is bound in depth and in size, whatever a producer sends.

use amqprs::{BasicProperties, FieldTable, FieldValue};
use serde_json::{Map, Value, json};

use crate::room::{DEEPEST, Room, cut};

/// Headers that take more memory than this are cut down at once.
const LIGHT: usize = 16 << 10;
/// Memory of an entry of a table besides its texts.
const ENTRY: usize = 128;

/// Properties of a message, read only when somebody asks.
#[derive(Debug, Default)]
pub struct Properties {
    basic: BasicProperties,
    /// In place of headers that are nested or large.
    cut_down: Option<Value>,
}

impl Properties {
    /// Keeps plain headers as they are, and cuts down nested and large ones. Also tells about how many bytes
    /// of memory it keeps.
    pub(super) fn keep(mut basic: BasicProperties) -> (Self, usize) {
        let weight = basic.headers().map_or(Some(0), plain_weight);
        if let Some(weight) = weight.filter(|weight| *weight <= LIGHT) {
            let cut_down = None;
            return (Self { basic, cut_down }, weight);
        }
        let mut room = Room::default();
        let headers = basic.headers().cloned().unwrap_or_default();
        basic.with_headers(FieldTable::new());
        let cut_down = Some(table(headers, 0, &mut room));
        (Self { basic, cut_down }, room.used())
    }

    /// As JSON, for the table of dead letters. NUL, which `jsonb` cannot hold, becomes U+FFFD.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let properties = &self.basic;
        let mut object = Map::new();
        let texts = [
            ("content_type", properties.content_type()),
            ("content_encoding", properties.content_encoding()),
            ("correlation_id", properties.correlation_id()),
            ("message_id", properties.message_id()),
            ("type", properties.message_type()),
            ("user_id", properties.user_id()),
            ("app_id", properties.app_id()),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                object.insert(name.to_owned(), value.replace('\0', "\u{fffd}").into());
            }
        }
        if let Some(timestamp) = properties.timestamp() {
            object.insert("timestamp".to_owned(), json!(timestamp));
        }
        let plain = || properties.headers().cloned();
        let headers = self.cut_down.clone();
        if let Some(headers) = headers.or_else(|| Some(table(plain()?, 0, &mut Room::default()))) {
            object.insert("headers".to_owned(), headers);
        }
        Value::Object(object)
    }
}

/// The memory of headers without anything nested in them.
fn plain_weight(headers: &FieldTable) -> Option<usize> {
    headers.as_ref().iter().try_fold(0, |weight, (name, value)| {
        let text = match value {
            FieldValue::A(_) | FieldValue::F(_) | FieldValue::x(_) => return None,
            FieldValue::S(text) => text.as_ref().len(),
            _ => 0,
        };
        Some(weight + ENTRY + name.as_ref().len() + text)
    })
}

/// Takes its fields out one by one: a copy of each level would be a copy of all levels below.
fn table(mut fields: FieldTable, depth: u32, room: &mut Room) -> Value {
    let names: Vec<_> = fields.as_ref().keys().cloned().collect();
    let mut object = Map::new();
    for name in names {
        let Some(value) = fields.remove(&name) else {
            continue;
        };
        if !room.takes_value() {
            object.insert(room.text(name.as_ref()), cut());
            break;
        }
        object.insert(room.text(name.as_ref()), field(value, depth + 1, room));
    }
    Value::Object(object)
}

fn field(value: FieldValue, depth: u32, room: &mut Room) -> Value {
    match value {
        FieldValue::t(value) => json!(value),
        FieldValue::b(value) => json!(value),
        FieldValue::B(value) => json!(value),
        FieldValue::s(value) => json!(value),
        FieldValue::u(value) => json!(value),
        FieldValue::I(value) => json!(value),
        FieldValue::i(value) => json!(value),
        FieldValue::l(value) => json!(value),
        FieldValue::T(value) => json!(value),
        FieldValue::f(value) => json!(value),
        FieldValue::d(value) => json!(value),
        FieldValue::V => Value::Null,
        FieldValue::S(value) => Value::String(room.text(value.as_ref())),
        FieldValue::x(value) => {
            let bytes: Vec<u8> = value.into();
            Value::String(room.text(&String::from_utf8_lossy(&bytes)))
        }
        FieldValue::D(value) => Value::String(value.to_string()),
        FieldValue::A(_) | FieldValue::F(_) if depth > DEEPEST => cut(),
        FieldValue::F(value) => table(value, depth, room),
        FieldValue::A(value) => array(value.into(), depth, room),
    }
}

fn array(items: Vec<FieldValue>, depth: u32, room: &mut Room) -> Value {
    let mut kept = Vec::new();
    for item in items {
        if !room.takes_value() {
            kept.push(cut());
            break;
        }
        kept.push(field(item, depth + 1, room));
    }
    Value::Array(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_headers(headers: FieldTable) -> (Properties, usize) {
        let mut properties = BasicProperties::default();
        properties.with_message_id("m\0").with_headers(headers);
        Properties::keep(properties)
    }

    fn one(name: &str, value: FieldValue) -> FieldTable {
        let mut table = FieldTable::new();
        table.insert(name.try_into().unwrap(), value);
        table
    }

    #[test]
    fn properties_become_json_without_nul() {
        let mut headers = one("retry", FieldValue::I(3));
        headers.insert("who".try_into().unwrap(), "a\0b".into());
        let (properties, weight) = with_headers(headers);
        assert!((200..400).contains(&weight), "{weight}");
        assert_eq!(
            properties.to_json(),
            json!({"message_id": "m\u{fffd}", "headers": {"retry": 3, "who": "a\u{fffd}b"}})
        );
    }

    #[test]
    fn arrays_and_bytes_are_readable() {
        let items = vec![FieldValue::t(true), FieldValue::A(Vec::new().try_into().unwrap())];
        let mut headers = one("list", FieldValue::A(items.try_into().unwrap()));
        let bytes = FieldValue::x(b"a\xff".to_vec().try_into().unwrap());
        headers.insert("bytes".try_into().unwrap(), bytes);
        let json = with_headers(headers).0.to_json();
        assert_eq!(json["headers"], json!({"list": [true, []], "bytes": "a\u{fffd}"}));
    }

    #[test]
    fn what_is_kept_has_an_end_in_depth_and_size() {
        let mut deep = FieldValue::t(true);
        for _ in 0..100 {
            deep = FieldValue::F(one("x", deep));
        }
        let text = with_headers(one("deep", deep)).0.to_json().to_string();
        assert_eq!(text.matches("\"x\"").count(), 32, "{text}");
        assert!(text.contains('…'), "{text}");

        let wide: Vec<FieldValue> = (0..130_000).map(|_| FieldValue::V).collect();
        let (properties, weight) = with_headers(one("wide", FieldValue::A(wide.try_into().unwrap())));
        assert!(weight <= 64 << 10, "{weight}");
        let kept = properties.to_json()["headers"]["wide"].as_array().unwrap().len();
        assert!((1_000..1_100).contains(&kept), "{kept}");

        let (properties, weight) = with_headers(one("long", "é".repeat(50_000).into()));
        let text = properties.to_json()["headers"]["long"].to_string();
        assert!(
            weight <= 64 << 10 && text.len() < 66_000 && text.contains('…'),
            "{weight}"
        );
    }
}
