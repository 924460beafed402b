//! The usage event as it arrives, and the one way it is read.
//!
//! The wire format is `contracts/usage-event.schema.json`. Reading is deterministic: the same body gives
//! the same row on every path and every try, because a redelivered event is recognised by what the
//! producer fixed, `(org_id, time, event_id)`. Nanoseconds are cut to microseconds, offsets become UTC,
//! UUIDs lose their case.

use std::borrow::Cow;
use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use uuid::Uuid;

use crate::cost::EventCost;
use crate::number::{DecimalText, Rounding, ScaleError};

/// Tokens and latencies are kept in 32 bits.
const MAX_INTEGER: u64 = i32::MAX as u64;
/// Characters of a model's name.
pub const MAX_MODEL_CHARACTERS: usize = 255;
/// Characters of a status.
pub const MAX_STATUS_CHARACTERS: usize = 50;
/// Characters of a request id.
pub const MAX_REQUEST_ID_CHARACTERS: usize = 100;
/// Characters of an error message.
pub const MAX_ERROR_MESSAGE_CHARACTERS: usize = 8_000;
/// The last character of a text that was cut.
const CUT: char = '…';
/// What gzip begins with, and no JSON does.
const GZIP: &[u8] = b"\x1f\x8b";
/// Bytes that a body in gzip may hold.
const MOST_INFLATED: u64 = 4 << 20;
/// Some editors and libraries begin a text with it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One request to a model, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageEvent {
    /// When the request ended, by the producer's clock; UTC, whole microseconds.
    pub time: OffsetDateTime,
    /// Made once per request: a publish that is repeated carries the same.
    pub event_id: Uuid,
    /// The organization that pays.
    pub org_id: Uuid,
    /// The user who asked.
    pub user_id: Uuid,
    /// The key that was used.
    pub api_key_id: Uuid,
    /// 1 to 255 characters.
    pub model_name: Box<str>,
    /// Tokens of the prompt.
    pub input_tokens: i32,
    /// Tokens of the answer.
    pub output_tokens: i32,
    /// Input and output tokens together.
    pub total_tokens: i32,
    /// Of the input tokens, those that were read from a cache, where the producer says.
    pub cached_input_tokens: Option<i32>,
    /// Of the output tokens, those that were spent on reasoning, where the producer says.
    pub reasoning_tokens: Option<i32>,
    /// What the request cost.
    pub cost: EventCost,
    /// Milliseconds to the first token, where one came.
    pub latency_ms: Option<i32>,
    /// 1 to 50 characters; everything but `success` counts as an error.
    pub status: Box<str>,
    /// What went wrong, in the words of whoever noticed.
    pub error_message: Option<Box<str>>,
    /// The gateway's id of the request, up to 100 characters.
    pub request_id: Option<Box<str>>,
    /// Which diagnostic texts are not as their producer sent them.
    pub mended: Mended,
}

/// Diagnostic texts that were mended: what is no character became U+FFFD, what is too long was cut. They cost
/// nothing and identify nothing, so they never refuse an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mended {
    /// Of `error_message`.
    pub error_message: bool,
    /// Of `request_id`.
    pub request_id: bool,
}

impl UsageEvent {
    /// What makes an event the same event: the unique key of `usage_events`, in its order.
    #[must_use]
    pub fn key(&self) -> (Uuid, OffsetDateTime, Uuid) {
        (self.org_id, self.time, self.event_id)
    }
}

/// Why a message is no event. [`Reason::code`] is what `dead_letters.reason` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No bytes at all.
    EmptyBody,
    /// Gzip that is broken, or holds too much.
    InvalidEncoding,
    /// Bytes that are no UTF-8.
    InvalidUtf8,
    /// Text that is no JSON.
    InvalidJson,
    /// JSON, but not an object.
    NotAnObject,
    /// A required field is absent.
    MissingField,
    /// A required field is null.
    NullField,
    /// A field stands there twice.
    DuplicateField,
    /// `model` and `model_name` say different things.
    ConflictingFields,
    /// Another JSON type than the field has.
    WrongType,
    /// No UUID in its hyphenated form.
    InvalidUuid,
    /// No RFC 3339 time with an offset.
    InvalidTime,
    /// A cost whose text is no decimal number.
    InvalidNumber,
    /// Below zero.
    Negative,
    /// A number with decimals where a whole one is needed.
    NotAnInteger,
    /// Larger than the field can be.
    OutOfRange,
    /// `total_tokens` is not the sum of the other two.
    TotalMismatch,
    /// A text without characters.
    Empty,
    /// A text with too many characters.
    TooLong,
    /// A text with a NUL character, which PostgreSQL cannot keep.
    ContainsNul,
    /// Older than what can still be told from a duplicate.
    TooOld,
    /// More than ten minutes ahead of the database's clock.
    InTheFuture,
    /// The database refused the row; the detail has its words.
    RefusedByDatabase,
}

// `ALL` lacks none of them: it is as long as its last one's place says.
const _: () = assert!(Reason::ALL.len() == Reason::RefusedByDatabase as usize + 1);

impl Reason {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::EmptyBody,
        Self::InvalidEncoding,
        Self::InvalidUtf8,
        Self::InvalidJson,
        Self::NotAnObject,
        Self::MissingField,
        Self::NullField,
        Self::DuplicateField,
        Self::ConflictingFields,
        Self::WrongType,
        Self::InvalidUuid,
        Self::InvalidTime,
        Self::InvalidNumber,
        Self::Negative,
        Self::NotAnInteger,
        Self::OutOfRange,
        Self::TotalMismatch,
        Self::Empty,
        Self::TooLong,
        Self::ContainsNul,
        Self::TooOld,
        Self::InTheFuture,
        Self::RefusedByDatabase,
    ];

    /// The reason as stored and counted.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::EmptyBody => "empty_body",
            Self::InvalidEncoding => "invalid_encoding",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidJson => "invalid_json",
            Self::NotAnObject => "not_an_object",
            Self::MissingField => "missing_field",
            Self::NullField => "null_field",
            Self::DuplicateField => "duplicate_field",
            Self::ConflictingFields => "conflicting_fields",
            Self::WrongType => "wrong_type",
            Self::InvalidUuid => "invalid_uuid",
            Self::InvalidTime => "invalid_time",
            Self::InvalidNumber => "invalid_number",
            Self::Negative => "negative",
            Self::NotAnInteger => "not_an_integer",
            Self::OutOfRange => "out_of_range",
            Self::TotalMismatch => "total_mismatch",
            Self::Empty => "empty",
            Self::TooLong => "too_long",
            Self::ContainsNul => "contains_nul",
            Self::TooOld => "too_old",
            Self::InTheFuture => "in_the_future",
            Self::RefusedByDatabase => "refused_by_database",
        }
    }
}

/// A message that is no event: why, in which field, and in words for whoever mends the producer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {detail}", .reason.code(), .field.map(|f| format!(" ({f})")).unwrap_or_default())]
pub struct Malformed {
    /// What is wrong.
    pub reason: Reason,
    /// The JSON name of the field that is wrong, where it is one field.
    pub field: Option<&'static str>,
    /// For a person; holds nothing of the message's values.
    pub detail: String,
}

impl Malformed {
    /// A reason that concerns one field.
    #[must_use]
    pub fn field(reason: Reason, field: &'static str, detail: impl Into<String>) -> Self {
        Self {
            reason,
            field: Some(field),
            detail: detail.into(),
        }
    }

    /// A reason that concerns the message as a whole.
    #[must_use]
    pub fn body(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            field: None,
            detail: detail.into(),
        }
    }
}

/// The fields of the wire format, each as the text it has in the body: reading every value in its own
/// place is what lets an error name its field without a second pass.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    event_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    time: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    org_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    user_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    api_key_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    model: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    model_name: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    input_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    output_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    total_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    cached_input_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    reasoning_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    cost: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    latency_ms: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    status: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error_message: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    request_id: Option<&'a RawValue>,
    /// Of a CloudEvents envelope, as the next one.
    #[serde(borrow, default, deserialize_with = "present")]
    specversion: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

/// Keeps `null` as the text it is: serde's own `Option` could not tell it from an absent field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads one message.
///
/// An unknown field is never an error: later producers may say more. Gzip is recognised by how it begins. A byte-order mark is ignored, and of a
/// CloudEvents envelope the `data` is read.
///
/// # Errors
/// The first thing that is wrong, with its field.
pub fn decode(body: &[u8]) -> Result<UsageEvent, Malformed> {
    decode_with(body, Total::MustAddUp)
}

/// The same, but a `total_tokens` that does not add up is replaced by the sum: for an operator who knows that its
/// producer counts something else into it.
///
/// # Errors
/// The first thing that is wrong, with its field.
pub fn decode_recomputing_total(body: &[u8]) -> Result<UsageEvent, Malformed> {
    decode_with(body, Total::IsRecomputed)
}

/// What becomes of a `total_tokens` that does not add up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Total {
    MustAddUp,
    IsRecomputed,
}

/// Whose event a message is, as far as that can be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Payer {
    /// Its organization.
    pub org_id: Option<Uuid>,
    /// Its model.
    pub model: Option<String>,
}

/// Looks into a message that need not be an event.
#[must_use]
pub fn payer(body: &[u8]) -> Payer {
    let Ok(body) = inflated(body) else {
        return Payer::default();
    };
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&body);
    let text = String::from_utf8_lossy(body);
    let Ok(mut fields) = parse_object(&text) else {
        return Payer::default();
    };
    if let (None, Some(data)) = (fields.org_id, fields.data) {
        let Ok(inside) = parse_object(data.get()) else {
            return Payer::default();
        };
        fields = inside;
    }
    Payer {
        org_id: optional(fields.org_id).and_then(|value| id(value, "org_id").ok()),
        model: optional(fields.model.or(fields.model_name))
            .and_then(|value| text_of(value, "model").ok())
            .map(|model| model.chars().take(MAX_MODEL_CHARACTERS).collect()),
    }
}

fn decode_with(body: &[u8], total: Total) -> Result<UsageEvent, Malformed> {
    if body.is_empty() {
        return Err(Malformed::body(Reason::EmptyBody, "the message has no body"));
    }
    let body = inflated(body)?;
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&body);
    match std::str::from_utf8(body) {
        Ok(text) => read(text, total),
        Err(error) => read_mended(body, total).ok_or_else(|| {
            Malformed::body(
                Reason::InvalidUtf8,
                format!("byte {} is no UTF-8", error.valid_up_to()),
            )
        }),
    }
}

/// The body as it was before it became gzip, if it did.
pub(crate) fn inflated(body: &[u8]) -> Result<Cow<'_, [u8]>, Malformed> {
    if !body.starts_with(GZIP) {
        return Ok(body.into());
    }
    let mut plain = Vec::new();
    let read = MultiGzDecoder::new(body)
        .take(MOST_INFLATED + 1)
        .read_to_end(&mut plain);
    match read {
        Ok(_) if plain.len() as u64 <= MOST_INFLATED => Ok(plain.into()),
        Ok(_) => Err(Malformed::body(
            Reason::InvalidEncoding,
            format!("the gzip holds more than {MOST_INFLATED} bytes"),
        )),
        Err(_) => Err(Malformed::body(Reason::InvalidEncoding, "the gzip is broken")),
    }
}

/// Reads a body that is no UTF-8, if that is so in a diagnostic text alone.
fn read_mended(body: &[u8], total: Total) -> Option<UsageEvent> {
    let mut event = read(&String::from_utf8_lossy(body), total).ok()?;
    let is_whole = |text: &str| !text.contains(char::REPLACEMENT_CHARACTER);
    let broken = |text: &Option<Box<str>>| text.as_deref().is_some_and(|text| !is_whole(text));
    event.mended.error_message |= broken(&event.error_message);
    event.mended.request_id |= broken(&event.request_id);
    (is_whole(&event.model_name) && is_whole(&event.status)).then_some(event)
}

fn read(text: &str, total: Total) -> Result<UsageEvent, Malformed> {
    let mut fields = parse_object(text)?;
    if let (None, Some(_), Some(data)) = (fields.event_id, fields.specversion, fields.data) {
        fields = parse_object(data.get())?;
    }

    let input_tokens = integer(required(fields.input_tokens, "input_tokens")?, "input_tokens")?;
    let output_tokens = integer(required(fields.output_tokens, "output_tokens")?, "output_tokens")?;
    let total_tokens = input_tokens.checked_add(output_tokens).ok_or_else(|| {
        Malformed::field(
            Reason::OutOfRange,
            "total_tokens",
            "input and output tokens exceed 2147483647",
        )
    })?;
    if let Some(value) = optional(fields.total_tokens)
        && total == Total::MustAddUp
        && integer(value, "total_tokens")? != total_tokens
    {
        return Err(Malformed::field(
            Reason::TotalMismatch,
            "total_tokens",
            format!("must be input_tokens + output_tokens = {total_tokens}"),
        ));
    }

    let (error_message, request_id) = (
        diagnostic(fields.error_message, MAX_ERROR_MESSAGE_CHARACTERS),
        diagnostic(fields.request_id, MAX_REQUEST_ID_CHARACTERS),
    );
    Ok(UsageEvent {
        mended: Mended {
            error_message: error_message.1,
            request_id: request_id.1,
        },
        time: instant(required(fields.time, "time")?, "time")?,
        event_id: id(required(fields.event_id, "event_id")?, "event_id")?,
        org_id: id(required(fields.org_id, "org_id")?, "org_id")?,
        user_id: id(required(fields.user_id, "user_id")?, "user_id")?,
        api_key_id: id(required(fields.api_key_id, "api_key_id")?, "api_key_id")?,
        model_name: model(&fields)?,
        input_tokens,
        output_tokens,
        total_tokens,
        cached_input_tokens: part_of(fields.cached_input_tokens, "cached_input_tokens", input_tokens)?,
        reasoning_tokens: part_of(fields.reasoning_tokens, "reasoning_tokens", output_tokens)?,
        cost: cost(required(fields.cost, "cost")?)?,
        latency_ms: optional(fields.latency_ms)
            .map(|value| integer(value, "latency_ms"))
            .transpose()?,
        status: name(
            required(fields.status, "status")?,
            "status",
            MAX_STATUS_CHARACTERS,
        )?,
        error_message: error_message.0,
        request_id: request_id.0,
    })
}

/// A number of tokens that are among the `whole`, where the producer says.
fn part_of(value: Option<&RawValue>, field: &'static str, whole: i32) -> Result<Option<i32>, Malformed> {
    let Some(value) = optional(value) else {
        return Ok(None);
    };
    let part = integer(value, field)?;
    if part > whole {
        return Err(Malformed::field(
            Reason::OutOfRange,
            field,
            format!("is a part of {whole} tokens"),
        ));
    }
    Ok(Some(part))
}

fn parse_object(text: &str) -> Result<Fields<'_>, Malformed> {
    let not_an_object = || {
        let detail = if text.trim_ascii_start().starts_with('[') {
            "the message must be one JSON object, not an array: publish each event as a message"
        } else {
            "the message must be one JSON object"
        };
        Malformed::body(Reason::NotAnObject, detail)
    };
    if text.trim_ascii_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| explain(text, &error));
    }
    // serde reads a struct from an array as well, so this cannot be left to it.
    match serde_json::from_str::<&RawValue>(text) {
        Ok(_) => Err(not_an_object()),
        Err(error) => Err(explain(text, &error)),
    }
}

/// Tells a field that stands twice from text that is no JSON. serde stops at either.
fn explain(text: &str, error: &serde_json::Error) -> Malformed {
    let place = format!("line {} column {}", error.line(), error.column());
    if error.is_data() && serde_json::from_str::<&RawValue>(text).is_ok() {
        return Malformed::body(Reason::DuplicateField, format!("a field stands twice, {place}"));
    }
    Malformed::body(Reason::InvalidJson, format!("no valid JSON, {place}"))
}

fn required<'a>(value: Option<&'a RawValue>, field: &'static str) -> Result<&'a str, Malformed> {
    match value.map(RawValue::get) {
        None => Err(Malformed::field(Reason::MissingField, field, "is required")),
        Some("null") => Err(Malformed::field(Reason::NullField, field, "must not be null")),
        Some(value) => Ok(value),
    }
}

fn optional(value: Option<&RawValue>) -> Option<&str> {
    value.map(RawValue::get).filter(|value| *value != "null")
}

fn is_number(value: &str) -> bool {
    value.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// A whole number from 0 to 2147483647; `5.0` and `50e-1` are 5, as JSON Schema has it.
fn integer(value: &str, field: &'static str) -> Result<i32, Malformed> {
    let plain = value.len() <= 9 && value.bytes().all(|b| b.is_ascii_digit());
    if plain && let Ok(number) = value.parse() {
        return Ok(number);
    }
    if !is_number(value) {
        return Err(Malformed::field(Reason::WrongType, field, "must be an integer"));
    }
    let out_of_range = || Malformed::field(Reason::OutOfRange, field, "must be at most 2147483647");
    let number = DecimalText::parse(value)
        .ok_or_else(|| Malformed::field(Reason::InvalidNumber, field, "must be an integer"))?
        .scaled(0, MAX_INTEGER, Rounding::Refuse)
        .map_err(|error| match error {
            ScaleError::Negative => Malformed::field(Reason::Negative, field, "must not be negative"),
            ScaleError::TooLarge => out_of_range(),
            ScaleError::Inexact => Malformed::field(Reason::NotAnInteger, field, "must be a whole number"),
        })?;
    i32::try_from(number).map_err(|_| out_of_range())
}

/// A JSON number, or a string that holds one.
fn cost(value: &str) -> Result<EventCost, Malformed> {
    let unquoted;
    let number = if is_number(value) {
        value
    } else if value.starts_with('"') {
        unquoted = text_of(value, "cost")?;
        &*unquoted
    } else {
        return Err(Malformed::field(
            Reason::WrongType,
            "cost",
            "must be a number or a decimal string",
        ));
    };
    let number = DecimalText::parse(number)
        .ok_or_else(|| Malformed::field(Reason::InvalidNumber, "cost", "must be a decimal number"))?;
    EventCost::from_decimal_text(&number).map_err(|error| match error {
        ScaleError::Negative => Malformed::field(Reason::Negative, "cost", "must not be negative"),
        _ => Malformed::field(Reason::OutOfRange, "cost", "must be at most 1000000"),
    })
}

/// The characters of a JSON string.
fn text_of(value: &str, field: &'static str) -> Result<Box<str>, Malformed> {
    let Some(quoted) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Err(Malformed::field(Reason::WrongType, field, "must be a string"));
    };
    if !quoted.contains('\\') {
        return Ok(quoted.into());
    }
    let text: Box<str> = serde_json::from_str(value)
        .map_err(|_| Malformed::field(Reason::InvalidJson, field, "has an escape that is no character"))?;
    if text.contains('\0') {
        return Err(Malformed::field(
            Reason::ContainsNul,
            field,
            "must not contain NUL",
        ));
    }
    Ok(text)
}

/// A text for a person, mended where it has to be, and whether it was. What is no string stands there as its JSON.
fn diagnostic(value: Option<&RawValue>, characters: usize) -> (Option<Box<str>>, bool) {
    let Some(value) = optional(value) else {
        return (None, false);
    };
    let (mut text, mut mended) = match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        None => (value.to_owned(), true),
        Some(quoted) if !quoted.contains('\\') => (quoted.to_owned(), false),
        // Half an emoji is an escape that JSON allows and that no text can be made of: these are its bytes.
        Some(_) => match serde_json::from_str::<Escaped>(value) {
            Ok(Escaped(bytes)) => match String::from_utf8(bytes) {
                Ok(text) => (text, false),
                Err(error) => (without_surrogates(error.as_bytes()), true),
            },
            Err(_) => (quoted_as_it_is(value), true),
        },
    };
    if text.contains('\0') {
        (text, mended) = (text.replace('\0', "\u{fffd}"), true);
    }
    if let Some((end, _)) = text.char_indices().nth(characters) {
        let end = text[..end].char_indices().next_back().map_or(0, |(last, _)| last);
        text.truncate(end);
        text.push(CUT);
        mended = true;
    }
    (Some(text.into()), mended)
}

fn quoted_as_it_is(value: &str) -> String {
    value.trim_matches('"').to_owned()
}

/// The bytes of a JSON string: surrogates that stand alone are three bytes that are no UTF-8.
struct Escaped(Vec<u8>);

impl<'de> Deserialize<'de> for Escaped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a string")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Bytes).map(Self)
    }
}

fn without_surrogates(bytes: &[u8]) -> String {
    let (mut text, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some((first, after)) = rest.split_first() {
        match rest {
            [0xed, 0xa0..=0xbf, _, after @ ..] => {
                text.extend("\u{fffd}".bytes());
                rest = after;
            }
            _ => {
                text.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn at_most(text: Box<str>, field: &'static str, characters: usize) -> Result<Box<str>, Malformed> {
    if text.len() > characters && text.chars().count() > characters {
        let detail = format!("must have at most {characters} characters");
        return Err(Malformed::field(Reason::TooLong, field, detail));
    }
    Ok(text)
}

fn name(value: &str, field: &'static str, characters: usize) -> Result<Box<str>, Malformed> {
    let text = at_most(text_of(value, field)?, field, characters)?;
    if text.is_empty() {
        return Err(Malformed::field(Reason::Empty, field, "must not be empty"));
    }
    Ok(text)
}

fn model(fields: &Fields<'_>) -> Result<Box<str>, Malformed> {
    let read = |value| name(value, "model", MAX_MODEL_CHARACTERS);
    match (optional(fields.model), optional(fields.model_name)) {
        (Some(one), Some(other)) => {
            let (one, other) = (read(one)?, read(other)?);
            if one == other {
                return Ok(one);
            }
            Err(Malformed::field(
                Reason::ConflictingFields,
                "model",
                "model and model_name differ",
            ))
        }
        (Some(value), None) | (None, Some(value)) => read(value),
        (None, None) => required(fields.model.or(fields.model_name), "model").and_then(read),
    }
}

fn id(value: &str, field: &'static str) -> Result<Uuid, Malformed> {
    let invalid = || {
        Malformed::field(
            Reason::InvalidUuid,
            field,
            "must be a UUID such as 8-4-4-4-12 digits",
        )
    };
    let text = text_of(value, field)?;
    // The library also reads braces, URNs and bare digits; the wire format has one spelling.
    if text.len() != 36 {
        return Err(invalid());
    }
    Uuid::try_parse(&text).map_err(|_| invalid())
}

fn instant(value: &str, field: &'static str) -> Result<OffsetDateTime, Malformed> {
    let invalid = || {
        Malformed::field(
            Reason::InvalidTime,
            field,
            "must be an RFC 3339 time with an offset, up to nanoseconds",
        )
    };
    let text = text_of(value, field)?;
    // The library also reads a space for the T, and digits beyond nanoseconds.
    let fraction = text
        .split_once('.')
        .map_or(0, |(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count());
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't')) || fraction > 9 {
        return Err(invalid());
    }
    let time = OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| invalid())?;
    let time = time.checked_to_offset(UtcOffset::UTC).ok_or_else(invalid)?;
    time.replace_nanosecond(time.nanosecond() / 1000 * 1000)
        .map_err(|_| invalid())
}

#[cfg(test)]
mod tests;
