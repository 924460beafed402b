//! What is kept of a message's headers has an end in depth and in size: a frame of 128 KiB can be 26,000
//! levels deep, or 50 times its size in memory.

use serde_json::Value;

/// Tables and arrays inside each other.
pub const DEEPEST: u32 = 32;
/// Bytes, about, that the headers of one message may take.
const MOST: usize = 64 << 10;
/// What a value takes besides its text.
const VALUE: usize = 64;
/// Stands where something is left out.
const CUT: char = '…';

/// How much more may be kept of one message's headers.
#[derive(Debug)]
pub struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(MOST)
    }
}

impl Room {
    /// Whether there is room for another value; takes it.
    pub fn takes_value(&mut self) -> bool {
        let fits = self.0 >= VALUE;
        self.0 = self.0.saturating_sub(VALUE);
        fits
    }

    /// A text as far as there is room, and without NUL, which `jsonb` cannot hold.
    pub fn text(&mut self, text: &str) -> String {
        let kept = text.floor_char_boundary(self.0.min(text.len()));
        self.0 -= kept;
        let mut fitting = text[..kept].replace('\0', "\u{fffd}");
        if kept < text.len() {
            fitting.push(CUT);
        }
        fitting
    }

    /// What has been taken of it.
    pub fn used(&self) -> usize {
        MOST - self.0
    }
}

/// Stands in place of what is left out.
pub fn cut() -> Value {
    Value::String(CUT.to_string())
}
