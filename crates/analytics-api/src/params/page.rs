//! Cursors: where the next page of an answer begins, and to which question it belongs.
//!
//! A cursor holds the range of the first page, so that a `period` that has moved on in the meantime is still
//! the same one, and a digest of the question and of what its caller may read. It grants nothing: every page
//! is asked for with a token of its own, and answered by what that token may read.

use analytics_core::query::Question;
use analytics_core::range::TimeRange;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::given::fault;
use crate::error::ApiError;

/// A page that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    digest: u64,
    pub(super) range: TimeRange,
    pub(super) position: Position,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Position {
    #[serde(rename = "b")]
    Bucket(usize),
    #[serde(rename = "a")]
    After(String),
}

/// What is in it, as JSON in base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    q: u64,
    /// Unix microseconds.
    s: i64,
    e: i64,
    p: Position,
}

impl Cursor {
    pub(super) const ALLOWED: &str = "next_page of an answer to the same question";
    pub(super) const FOREIGN: &str = "is not a page of this question";
    /// A key is 255 characters at most.
    const MOST_BYTES: usize = 4_096;

    pub(super) fn read(text: &str) -> Option<Self> {
        if text.len() > Self::MOST_BYTES {
            return None;
        }
        let json = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let content: Content = serde_json::from_slice(&json).ok()?;
        let instant = |microseconds: i64| {
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(microseconds) * 1_000).ok()
        };
        Some(Self {
            digest: content.q,
            range: TimeRange::new(instant(content.s)?, instant(content.e)?).ok()?,
            position: match content.p {
                Position::After(key) if key.contains('\0') => return None,
                position => position,
            },
        })
    }

    /// Refuses a cursor that was given for another question, or to a caller who may read something else.
    pub(crate) fn check(&self, path: &str, spelling: &str, question: &Question) -> Result<(), ApiError> {
        if self.digest == digest(path, spelling, question) {
            return Ok(());
        }
        Err(ApiError::BadParameters(vec![fault(
            "page",
            Self::FOREIGN,
            &[Self::ALLOWED],
        )]))
    }
}

/// The cursor of the page of `question` that begins here.
pub(crate) fn next(path: &str, spelling: &str, question: &Question, position: Position) -> String {
    let microseconds =
        |instant: OffsetDateTime| i64::try_from(instant.unix_timestamp_nanos() / 1_000).unwrap_or_default();
    let content = Content {
        q: digest(path, spelling, question),
        s: microseconds(question.range.start()),
        e: microseconds(question.range.end()),
        p: position,
    };
    // Numbers and a text are JSON in any case.
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&content).unwrap_or_default())
}

/// FNV-1a: the same in every build and on every instance. It keeps questions apart, not attackers out.
fn digest(path: &str, spelling: &str, question: &Question) -> u64 {
    let asked = format!(
        "{path}\n{spelling}\n{:?}\n{:?}\n{:?}",
        question.scope, question.filter.user_ids, question.range
    );
    asked.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
