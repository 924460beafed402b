//! Standard output: the answer of a command. What it says about its progress goes to standard error.

use std::io::{ErrorKind, Write};

use comfy_table::{ContentArrangement, Table, presets};

use super::OperatorError;

/// Where an answer goes.
pub struct Output<W = std::io::Stdout>(W);

impl Output {
    /// Standard output.
    #[must_use]
    pub fn standard() -> Self {
        Self(std::io::stdout())
    }

    /// Writes a line.
    ///
    /// # Errors
    /// If it cannot be written; [`OperatorError::OutputClosed`] if nobody reads it any more.
    pub fn line(&mut self, text: &str) -> Result<(), OperatorError> {
        self.bytes(text.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), OperatorError> {
        self.0
            .write_all(bytes)
            .and_then(|()| self.0.flush())
            .map_err(|source| match source.kind() {
                ErrorKind::BrokenPipe => OperatorError::OutputClosed,
                _ => OperatorError::File {
                    name: "standard output".to_owned(),
                    source,
                },
            })
    }
}

/// An empty table with these columns, as wide as the terminal.
#[must_use]
pub fn table<const N: usize>(columns: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(columns);
    table
}

/// Text of foreign origin for a terminal: what would steer it is spelled out.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            printable.extend(character.escape_default());
        } else {
            printable.push(character);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(
            printable("red \u{1b}[31m\r\n é \u{202e}x"),
            "red \\u{1b}[31m\\r\\n é \\u{202e}x"
        );
    }
}
