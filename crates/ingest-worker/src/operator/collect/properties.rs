//! A message's properties and headers as JSON, whatever bytes they have: what is no UTF-8, and NUL, becomes
//! U+FFFD; what cannot be read ends the reading.

use serde_json::{Map, Value, json};

use crate::room::{DEEPEST, Room, cut};

/// Names of the properties, from the highest flag down.
const NAMES: [&str; 14] = [
    "content_type",
    "content_encoding",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
];

/// Reads them, from the flags on.
pub(super) fn read(bytes: &[u8]) -> Value {
    let mut rest = bytes;
    let mut properties = Map::new();
    let _ = read_into(&mut rest, &mut properties);
    Value::Object(properties)
}

/// `None` where the bytes end too soon; what was read by then stays.
fn read_into(rest: &mut &[u8], properties: &mut Map<String, Value>) -> Option<()> {
    let flags = u16::from_be_bytes(take(rest)?);
    for (place, name) in NAMES.into_iter().enumerate() {
        if flags & (0x8000 >> place) == 0 {
            continue;
        }
        let value = match name {
            "headers" => table(rest, 0, &mut Room::default())?,
            "delivery_mode" | "priority" => json!(u8::from_be_bytes(take(rest)?)),
            "timestamp" => json!(u64::from_be_bytes(take(rest)?)),
            _ => short(rest)?,
        };
        properties.insert(name.to_owned(), value);
    }
    Some(())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

fn slice<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}")
}

fn short(rest: &mut &[u8]) -> Option<Value> {
    let length = usize::from(u8::from_be_bytes(take(rest)?));
    Some(Value::String(text(slice(rest, length)?)))
}

fn long<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(u32::from_be_bytes(take(rest)?)).ok()?;
    slice(rest, length)
}

fn table(rest: &mut &[u8], depth: u32, room: &mut Room) -> Option<Value> {
    let mut inside = long(rest)?;
    let mut fields = Map::new();
    while let Some(Value::String(name)) = short(&mut inside) {
        if !room.takes_value() {
            fields.insert(room.text(&name), cut());
            break;
        }
        let Some(value) = field(&mut inside, depth + 1, room) else {
            break;
        };
        fields.insert(room.text(&name), value);
    }
    Some(Value::Object(fields))
}

fn field(rest: &mut &[u8], depth: u32, room: &mut Room) -> Option<Value> {
    if depth > DEEPEST {
        return None;
    }
    let [kind] = take(rest)?;
    Some(match kind {
        b't' => json!(u8::from_be_bytes(take(rest)?) != 0),
        b'b' => json!(i8::from_be_bytes(take(rest)?)),
        b'B' => json!(u8::from_be_bytes(take(rest)?)),
        b's' => json!(i16::from_be_bytes(take(rest)?)),
        b'u' => json!(u16::from_be_bytes(take(rest)?)),
        b'I' => json!(i32::from_be_bytes(take(rest)?)),
        b'i' => json!(u32::from_be_bytes(take(rest)?)),
        b'l' => json!(i64::from_be_bytes(take(rest)?)),
        b'T' => json!(u64::from_be_bytes(take(rest)?)),
        b'f' => json!(f32::from_be_bytes(take(rest)?)),
        b'd' => json!(f64::from_be_bytes(take(rest)?)),
        b'D' => {
            let scale = u8::from_be_bytes(take(rest)?);
            json!(format!("{}e-{scale}", i32::from_be_bytes(take(rest)?)))
        }
        b'S' | b'x' => Value::String(room.text(&text(long(rest)?))),
        b'F' => table(rest, depth, room)?,
        b'A' => {
            let mut inside = long(rest)?;
            let mut items = Vec::new();
            while room.takes_value()
                && let Some(item) = field(&mut inside, depth + 1, room)
            {
                items.push(item);
            }
            Value::Array(items)
        }
        b'V' => Value::Null,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn properties_of_every_kind() {
        let mut bytes = vec![0xa0, 0x40];
        bytes.extend(b"\x04text");
        let mut headers = b"\x03who".to_vec();
        headers.extend(b"S\x00\x00\x00\x03a\xff\x00");
        headers.extend(b"\x04listA\x00\x00\x00\x0bt\x01l\x00\x00\x00\x00\x00\x00\x00\x65");
        headers.extend(b"\x02\xfe\xffI\xff\xff\xff\xfe");
        bytes.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
        bytes.extend(headers);
        bytes.extend(1_700_000_000_u64.to_be_bytes());
        assert_eq!(
            read(&bytes),
            json!({
                "content_type": "text",
                "headers": {"who": "a\u{fffd}\u{fffd}", "list": [true, 101], "\u{fffd}\u{fffd}": -2},
                "timestamp": 1_700_000_000_u64,
            })
        );
    }

    #[test]
    fn depth_has_an_end() {
        let mut nested = Vec::new();
        for _ in 0..10_000 {
            let length = u32::try_from(nested.len()).unwrap();
            nested = [b"A", &length.to_be_bytes()[..], &nested].concat();
        }
        let mut headers = b"\x01x".to_vec();
        headers.extend(nested);
        let length = u32::try_from(headers.len()).unwrap().to_be_bytes();
        assert!(read(&[&[0x20, 0], &length[..], &headers].concat())["headers"].is_object());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!read(&bytes).to_string().contains("\\u0000"));
        }
    }
}
