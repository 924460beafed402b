//! Lines that are read together, and how they are written: in order of time, a batch within a day.

use std::mem;

use time::Date;

use super::lines::{Line, Part, Place};
use super::rejected::Reject;
use crate::operator::writer::Entry;

/// Lines and bytes that fill a window; the last part may go beyond.
const FULL_LINES: usize = 50_000;
const FULL_BYTES: usize = 64 * 1024 * 1024;

/// Lines that are read and not yet written.
#[derive(Default)]
pub(super) struct Window {
    lines: Vec<Line>,
    bytes: usize,
    position: u64,
}

/// A window that is ready to be written.
pub(super) struct Sorted {
    /// Where each entry stands, by its number.
    pub(super) places: Vec<Place>,
    /// Events to write together, one after the other.
    pub(super) pieces: Vec<Vec<Entry>>,
    /// Lines that are no events.
    pub(super) rejects: Vec<Reject>,
}

impl Window {
    pub(super) fn add(&mut self, part: Part) {
        self.position = part.position;
        self.bytes += part
            .lines
            .iter()
            .map(|line| line.body.as_ref().map_or(0, Vec::len))
            .sum::<usize>();
        self.lines.extend(part.lines);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.lines.len() >= FULL_LINES || self.bytes >= FULL_BYTES
    }

    /// How far the files are read by its end.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// No piece has more than `batch_size` events, or those of two days: a transaction then touches one
    /// partition or chunk of raw events.
    pub(super) fn sorted(self, batch_size: usize) -> Sorted {
        let mut sorted = Sorted {
            places: Vec::with_capacity(self.lines.len()),
            pieces: Vec::new(),
            rejects: Vec::new(),
        };
        let mut entries = Vec::with_capacity(self.lines.len());
        for Line { place, body, outcome } in self.lines {
            match outcome {
                Ok(event) => {
                    entries.push(Entry {
                        number: sorted.places.len() as u64,
                        event,
                        body: body.unwrap_or_default(),
                    });
                    sorted.places.push(place);
                }
                Err(malformed) => sorted.rejects.push(Reject {
                    place,
                    malformed,
                    body,
                }),
            }
        }
        // Stable: of equal events the one that stands first is the one that is stored.
        entries.sort_by_key(|entry| entry.event.time);
        let mut piece: Vec<Entry> = Vec::new();
        let mut day: Option<Date> = None;
        for entry in entries {
            let its_day = Some(entry.event.time.date());
            if piece.len() >= batch_size || (its_day != day && !piece.is_empty()) {
                sorted.pieces.push(mem::take(&mut piece));
            }
            day = its_day;
            piece.push(entry);
        }
        sorted.pieces.push(piece);
        sorted
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use analytics_core::event::decode;
    use proptest::prelude::*;

    use super::*;

    fn line(number: u64, minute: u32) -> Line {
        let body = format!(
            r#"{{"event_id":"00000000-0000-4000-8000-{number:012}","time":"2026-11-{:02}T{:02}:{:02}:00Z",
               "org_id":"00000000-0000-4000-8000-000000000001","user_id":"00000000-0000-4000-8000-000000000002",
               "api_key_id":"00000000-0000-4000-8000-000000000003","model":"m","input_tokens":1,"output_tokens":1,
               "cost":0,"status":"success"}}"#,
            1 + minute / 1440,
            minute / 60 % 24,
            minute % 60
        )
        .into_bytes();
        let body = if minute.is_multiple_of(7) {
            body[1..].to_vec()
        } else {
            body
        };
        Line {
            place: Place {
                file: Arc::from("f"),
                line: number,
            },
            outcome: decode(&body),
            body: Some(body),
        }
    }

    proptest! {
        #[test]
        fn pieces_hold_every_event_in_order_of_time(minutes in prop::collection::vec(0_u32..5_000, 0..60), batch_size in 1_usize..20) {
            let mut window = Window::default();
            for (number, minute) in minutes.iter().enumerate() {
                window.add(Part { lines: vec![line(number as u64, *minute)], position: 0 });
            }
            let sorted = window.sorted(batch_size);
            for piece in &sorted.pieces {
                prop_assert!(piece.len() <= batch_size);
                let days: std::collections::HashSet<_> = piece.iter().map(|entry| entry.event.time.date()).collect();
                prop_assert!(days.len() <= 1);
            }
            let entries: Vec<&Entry> = sorted.pieces.iter().flatten().collect();
            prop_assert!(entries.is_sorted_by_key(|entry| entry.event.time));
            for entry in &entries {
                let place = &sorted.places[usize::try_from(entry.number).unwrap()];
                prop_assert_eq!(Ok(entry.event.clone()), line(place.line, minutes[usize::try_from(place.line).unwrap()]).outcome);
            }
            prop_assert_eq!(entries.len() + sorted.rejects.len(), minutes.len());
        }
    }
}
