//! The parameters as they came, and what has been found wrong with them so far.

use analytics_core::calendar::Buckets;
use percent_encoding::percent_decode_str;

use super::page::{Cursor, Position};
use super::values::whole_number;
use crate::error::{ApiError, ParameterFault};

/// How many values one filter may name: a dashboard picks a few, and every one is a term of the query.
const MAX_FILTER_VALUES: usize = 100;
/// How much of an unknown parameter's name an error repeats.
const MAX_ECHOED_CHARS: usize = 64;
/// What is not part of a question, so that a cursor is not bound to it.
const NOT_OF_THE_QUESTION: [&str; 2] = ["page", "limit"];

pub(super) fn fault(parameter: &str, detail: &str, allowed: &[&str]) -> ParameterFault {
    let allowed = allowed.iter().map(|&text| text.to_owned()).collect();
    ParameterFault {
        parameter: parameter.to_owned(),
        detail: detail.to_owned(),
        allowed,
    }
}

pub(super) fn named<T: Copy>(names: &[(&str, T)], text: &str) -> Option<T> {
    names
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, value)| *value)
}

pub(super) struct Given {
    pairs: Vec<(String, String)>,
    faults: Vec<ParameterFault>,
}

impl Given {
    pub(super) fn read(query: &str, known: &[&str]) -> Result<Self, ApiError> {
        Self::read_with(query, known, |name| name)
    }

    /// The same, of names that have more than one spelling.
    pub(super) fn read_with(
        query: &str,
        known: &[&str],
        spelled: impl Fn(&str) -> &str,
    ) -> Result<Self, ApiError> {
        let mut given = Self {
            pairs: Vec::new(),
            faults: Vec::new(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if known.contains(&spelled(&name)) {
                given.pairs.push((spelled(&name).to_owned(), value));
            } else if !given.faults.iter().any(|fault| fault.parameter == name) {
                let name: String = name.chars().take(MAX_ECHOED_CHARS).collect();
                given.refuse(&name, "is not a parameter of this request", known);
            }
        }
        Ok(given)
    }

    pub(super) fn refuse(&mut self, parameter: &str, detail: &str, allowed: &[&str]) {
        self.faults.push(fault(parameter, detail, allowed));
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(given, _)| given == name)
    }

    /// All of the question, in one order however it was spelled.
    pub(super) fn spelling(&self) -> String {
        let mut pairs: Vec<_> = self
            .pairs
            .iter()
            .filter(|(name, _)| !NOT_OF_THE_QUESTION.contains(&name.as_str()))
            .collect();
        pairs.sort();
        format!("{pairs:?}")
    }

    /// All values of a parameter, in the order they came.
    pub(super) fn values(&self, name: &str) -> Vec<String> {
        self.pairs
            .iter()
            .filter(|(given, _)| given == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// A parameter that may be given once: `None` if it is absent, or wrong and noted as that.
    pub(super) fn one<T>(
        &mut self,
        name: &str,
        allowed: &[&str],
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let values = self.values(name);
        if values.len() > 1 {
            self.refuse(name, "is given more than once", allowed);
            return None;
        }
        values
            .first()
            .and_then(|text| self.value(name, text, allowed, read))
    }

    /// A parameter that may be repeated.
    pub(super) fn many<T: PartialEq>(
        &mut self,
        name: &str,
        allowed: &[&str],
        read: impl Fn(&str) -> Option<T> + Copy,
    ) -> Vec<T> {
        let values = self.values(name);
        if values.len() > MAX_FILTER_VALUES {
            self.refuse(name, "is given too often", &["at most 100 times"]);
            return Vec::new();
        }
        let mut read_ones = Vec::new();
        for text in &values {
            let Some(value) = self.value(name, text, allowed, read) else {
                return Vec::new();
            };
            if !read_ones.contains(&value) {
                read_ones.push(value);
            }
        }
        read_ones
    }

    /// A whole number from 1 to `most`.
    pub(super) fn number(&mut self, name: &str, most: u32, allowed: &str) -> Option<u32> {
        self.one(name, &[allowed], |text| {
            let number: u32 = whole_number(text)?.try_into().ok()?;
            (1..=most).contains(&number).then_some(number)
        })
    }

    /// The cursor that was given.
    pub(super) fn page(&mut self) -> Option<Cursor> {
        self.one("page", &[Cursor::ALLOWED], Cursor::read)
    }

    /// The place of the first bucket of a page.
    pub(super) fn first_bucket(&mut self, position: Option<&Position>) -> usize {
        match position {
            None => 0,
            Some(Position::Bucket(place)) => *place,
            Some(Position::After(_)) => self.refuse_page(),
        }
    }

    /// Notes a page that begins after the last bucket.
    pub(super) fn refuse_beyond(&mut self, from: usize, buckets: Option<&Buckets>) {
        if from > 0 && buckets.is_some_and(|buckets| from >= buckets.starts().len()) {
            self.refuse_page::<()>();
        }
    }

    /// Notes that the cursor is of another kind of answer.
    pub(super) fn refuse_page<T: Default>(&mut self) -> T {
        self.refuse("page", Cursor::FOREIGN, &[Cursor::ALLOWED]);
        T::default()
    }

    fn value<T>(
        &mut self,
        name: &str,
        text: &str,
        allowed: &[&str],
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let value = if text.is_empty() { None } else { read(text) };
        if value.is_none() {
            let detail = if text.is_empty() {
                "is empty"
            } else {
                "is not what it may be"
            };
            self.refuse(name, detail, allowed);
        }
        value
    }

    /// The range, if nothing at all was wrong.
    pub(super) fn finish<T>(self, range: Option<T>) -> Result<T, ApiError> {
        match range {
            Some(range) if self.faults.is_empty() => Ok(range),
            _ => Err(ApiError::BadParameters(self.faults)),
        }
    }
}

/// Form decoding (`+` is a space), but strict: a stray `%` and bytes that are not UTF-8 are refused.
fn decoded(text: &str) -> Result<String, ApiError> {
    let bytes = text.as_bytes();
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
        let digits = bytes.get(at + 1..at + 3).unwrap_or_default();
        if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(ApiError::MalformedQuery(
                "a % is not followed by two hexadecimal digits",
            ));
        }
    }
    let text = text.replace('+', " ");
    let text = percent_decode_str(&text).decode_utf8();
    Ok(text
        .map_err(|_| ApiError::MalformedQuery("it is not UTF-8"))?
        .into_owned())
}
