//! Which media type an answer comes in: what the caller's `Accept` likes best of what a route offers
//! (RFC 9110, section 12.5.1). Errors come as problem+json, whatever it says.

use actix_web::http::header::{ACCEPT, HeaderMap};

use crate::error::ApiError;

/// A media type of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    /// The answer as it is in the contract.
    Json,
    /// Its rows alone.
    Csv,
}

impl Media {
    const fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Json => ("application", "json"),
            Self::Csv => ("text", "csv"),
        }
    }

    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv",
        }
    }
}

/// The best of `offered`, which is in the order of our own liking.
pub(crate) fn negotiate(headers: &HeaderMap, offered: &'static [Media]) -> Result<Media, ApiError> {
    let mut ranges = Vec::new();
    for value in headers.get_all(ACCEPT) {
        let value = value.to_str().map_err(|_| ApiError::NotAcceptable(offered))?;
        ranges.extend(
            value
                .split(',')
                .filter(|range| !range.trim().is_empty())
                .map(Range::parse),
        );
    }
    let best = |media: &Media| {
        ranges
            .iter()
            .flatten()
            .filter_map(|range| range.quality(*media))
            .max()
    };
    let mut liked: Option<(u16, Media)> = None;
    for media in offered {
        let quality = if ranges.is_empty() {
            1_000
        } else {
            best(media).map_or(0, |(_, quality)| quality)
        };
        if quality > liked.map_or(0, |(most, _)| most) {
            liked = Some((quality, *media));
        }
    }
    liked
        .map(|(_, media)| media)
        .ok_or(ApiError::NotAcceptable(offered))
}

/// One media range of an `Accept` header.
struct Range<'a> {
    main: &'a str,
    sub: &'a str,
    /// In thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    /// `None` if it is not one: it then likes nothing.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (main, sub) = parts.next()?.split_once('/')?;
        let mut quality = 1_000;
        for parameter in parts {
            if let Some((name, value)) = parameter.split_once('=')
                && name.trim().eq_ignore_ascii_case("q")
            {
                quality = thousandths(value.trim())?;
            }
        }
        Some(Self { main, sub, quality })
    }

    /// How exactly it names a type, and how much it likes it; `None` if it does not name it.
    fn quality(&self, media: Media) -> Option<(u8, u16)> {
        let (main, sub) = media.parts();
        let exactness = match (self.main, self.sub) {
            ("*", "*") => 0,
            (range, "*") if range.eq_ignore_ascii_case(main) => 1,
            (range, name) if range.eq_ignore_ascii_case(main) && name.eq_ignore_ascii_case(sub) => 2,
            _ => return None,
        };
        Some((exactness, self.quality))
    }
}

/// A weight from 0 to 1 with at most three decimals.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = decimals.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(whole, "0" | "1") || decimals.len() > 3 || !digits {
        return None;
    }
    let value: u16 = format!("{whole}{decimals:0<3}").parse().ok()?;
    (value <= 1_000).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    fn of(accept: &[&str]) -> Option<Media> {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, HeaderValue::from_str(value).unwrap());
        }
        negotiate(&headers, &[Media::Json, Media::Csv]).ok()
    }

    #[test]
    fn what_is_liked_best_of_what_is_offered() {
        for (accept, media) in [
            (&[][..], Media::Json),
            (&[""], Media::Json),
            (&["*/*"], Media::Json),
            (&["application/json"], Media::Json),
            (&["application/*"], Media::Json),
            (&["text/csv"], Media::Csv),
            (&["Text/CSV; header=present"], Media::Csv),
            (&["text/*"], Media::Csv),
            (
                &["text/html, text/csv;q=0.4, application/json;q=0.5"],
                Media::Json,
            ),
            (&["text/csv;q=0.9, application/json;q=0.899"], Media::Csv),
            (&["application/json;q=0.5", "text/csv"], Media::Csv),
            (&["text/csv, application/json"], Media::Json),
            (&["*/*, application/json;q=0.1"], Media::Csv),
            (&["application/json;q=0, */*"], Media::Csv),
            (&["text/html, application/xhtml+xml, */*;q=0.8"], Media::Json),
        ] {
            assert_eq!(of(accept), Some(media), "{accept:?}");
        }
    }

    #[test]
    fn nothing_that_is_liked_is_offered() {
        for accept in [
            "text/html",
            "application/problem+json",
            "application/vnd.api+json",
            "application/json;q=0",
            "text/csv;q=0.000, application/json;q=0",
            "*/*;q=0",
            "json",
            "application/json;q=2",
            "application/json;q=0.0001",
            "application/json;q=x",
            "*/json",
        ] {
            assert_eq!(of(&[accept]), None, "{accept}");
        }
    }
}
