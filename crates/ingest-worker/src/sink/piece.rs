//! Pieces of a batch: what one transaction tries to write, and what follows when it fails.

use analytics_core::event::{Malformed, Reason};

use crate::batch::{DeadLetter, Row};

/// How the rows of a piece go in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// COPY into the table: fails if one of them is stored already.
    Straight,
    /// By way of a staging table, leaving out what is stored.
    AroundDuplicates,
}

/// What one transaction writes.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) rows: Vec<Row>,
    pub(super) letters: Vec<DeadLetter>,
    pub(super) way: Way,
    /// Its error was seen on a fresh connection as well, so it is no matter of the session's past.
    fresh: bool,
    /// The letter's headers have been left out: nothing more can be simplified.
    bare: bool,
}

/// How far a transaction came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Connecting, `BEGIN`, the accepted window: nothing of the piece was looked at.
    Begin,
    /// Its dead letters.
    Letters,
    /// Its rows.
    Rows,
    /// `COMMIT`.
    Commit,
}

/// What went wrong, as far as it matters for what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A row is stored already.
    Duplicate,
    /// Something in it cannot be stored, ever.
    Data,
    /// It took too long.
    TooSlow,
    /// Anything that passes.
    Passing,
}

/// What to do with a piece that failed.
#[derive(Debug)]
pub(super) enum Next {
    /// Write these instead, the last one first.
    Pieces(Vec<Piece>),
    /// The same again on a fresh connection.
    OnFreshConnection(Piece),
    /// The same again later.
    Later(Piece),
}

impl Piece {
    pub(super) fn new(rows: Vec<Row>, letters: Vec<DeadLetter>) -> Self {
        Self {
            rows,
            letters,
            way: Way::Straight,
            fresh: false,
            bare: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.letters.is_empty()
    }

    fn part(&self, rows: Vec<Row>, letters: Vec<DeadLetter>) -> Self {
        Self {
            way: self.way,
            ..Self::new(rows, letters)
        }
    }

    /// Narrows the fault down: halves of what may be to blame, until it is one row or one letter.
    pub(super) fn after(mut self, fault: Fault, stage: Stage, words: &str) -> Next {
        match (fault, stage) {
            (Fault::Duplicate, Stage::Rows | Stage::Commit) if self.way == Way::Straight => {
                self.way = Way::AroundDuplicates;
                Next::Pieces(vec![self])
            }
            // Dead letters are never blamed on rows, nor rows on letters.
            (Fault::Data | Fault::TooSlow, Stage::Letters) if !self.rows.is_empty() => {
                let (rows, letters) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.letters));
                Next::Pieces(vec![self.part(rows, Vec::new()), self.part(Vec::new(), letters)])
            }
            (Fault::Data | Fault::TooSlow, Stage::Letters) if self.letters.len() > 1 => {
                let rest = self.letters.split_off(self.letters.len() / 2);
                let first = std::mem::take(&mut self.letters);
                Next::Pieces(vec![self.part(Vec::new(), rest), self.part(Vec::new(), first)])
            }
            (Fault::Data | Fault::TooSlow, Stage::Rows | Stage::Commit) if self.rows.len() > 1 => {
                let rest = self.rows.split_off(self.rows.len() / 2);
                let first = std::mem::take(&mut self.rows);
                let letters = std::mem::take(&mut self.letters);
                Next::Pieces(vec![self.part(rest, Vec::new()), self.part(first, letters)])
            }
            // A session's past may be at fault ("cached plan must not change result type"): nothing is
            // condemned on its word alone.
            (Fault::Data, Stage::Letters | Stage::Rows | Stage::Commit) if !self.fresh => {
                self.fresh = true;
                Next::OnFreshConnection(self)
            }
            (Fault::Data, Stage::Rows | Stage::Commit) if self.rows.len() == 1 => {
                let mut letters = std::mem::take(&mut self.letters);
                letters.extend(self.rows.drain(..).map(|row| DeadLetter {
                    message: row.message,
                    malformed: Malformed::body(Reason::RefusedByDatabase, words.to_owned()),
                }));
                Next::Pieces(vec![self.part(Vec::new(), letters)])
            }
            (Fault::Data, Stage::Letters | Stage::Commit) if !self.bare => {
                for letter in &mut self.letters {
                    letter.message.properties = crate::amqp::Properties::default();
                }
                self.bare = true;
                Next::Pieces(vec![self])
            }
            _ => Next::Later(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Message;
    use analytics_core::event::decode;

    fn message() -> Box<Message> {
        Box::default()
    }

    fn piece(rows: usize, letters: usize) -> Piece {
        let id = "00000000-0000-4000-8000-000000000001";
        let body = format!(
            r#"{{"event_id":"{id}","time":"2026-01-01T00:00:00Z","org_id":"{id}","user_id":"{id}",
            "api_key_id":"{id}","model":"m","input_tokens":1,"output_tokens":1,"cost":1,"status":"success"}}"#
        );
        let row = || Row {
            event: decode(body.as_bytes()).unwrap(),
            message: message(),
        };
        let letter = || DeadLetter {
            message: message(),
            malformed: Malformed::body(Reason::EmptyBody, ""),
        };
        Piece::new(
            std::iter::repeat_with(row).take(rows).collect(),
            std::iter::repeat_with(letter).take(letters).collect(),
        )
    }

    /// What follows, as the (rows, letters) of each piece, the first to be written first.
    fn sizes(next: Next) -> (&'static str, Vec<(usize, usize)>) {
        let size = |piece: &Piece| (piece.rows.len(), piece.letters.len());
        match next {
            Next::Pieces(pieces) => ("pieces", pieces.iter().rev().map(size).collect()),
            Next::OnFreshConnection(piece) => ("fresh", vec![size(&piece)]),
            Next::Later(piece) => ("later", vec![size(&piece)]),
        }
    }

    #[test]
    fn rows_are_halved_and_letters_are_not_blamed_on_them() {
        let halves = piece(5, 2).after(Fault::Data, Stage::Rows, "");
        assert_eq!(sizes(halves), ("pieces", vec![(2, 2), (3, 0)]));
        let apart = piece(5, 2).after(Fault::Data, Stage::Letters, "");
        assert_eq!(sizes(apart), ("pieces", vec![(0, 2), (5, 0)]));
        let halves = piece(0, 3).after(Fault::Data, Stage::Letters, "");
        assert_eq!(sizes(halves), ("pieces", vec![(0, 1), (0, 2)]));
        let slow = piece(4, 0).after(Fault::TooSlow, Stage::Rows, "");
        assert_eq!(sizes(slow), ("pieces", vec![(2, 0), (2, 0)]));
    }

    #[test]
    fn one_row_is_condemned_on_a_fresh_connection_only() {
        let Next::OnFreshConnection(again) = piece(1, 0).after(Fault::Data, Stage::Rows, "no") else {
            panic!("condemned at once");
        };
        let Next::Pieces(mut pieces) = again.after(Fault::Data, Stage::Rows, "no") else {
            panic!("not condemned");
        };
        let letter = pieces.pop().unwrap().letters.pop().unwrap();
        assert_eq!(
            (letter.malformed.reason, &*letter.malformed.detail),
            (Reason::RefusedByDatabase, "no")
        );
        assert!(pieces.is_empty());
    }

    #[test]
    fn one_letter_loses_its_headers_before_it_waits() {
        let Next::OnFreshConnection(again) = piece(0, 1).after(Fault::Data, Stage::Letters, "") else {
            panic!("not on a fresh connection");
        };
        let Next::Pieces(mut bare) = again.after(Fault::Data, Stage::Letters, "") else {
            panic!("it keeps its headers");
        };
        let later = bare.pop().unwrap().after(Fault::Data, Stage::Letters, "");
        assert_eq!(sizes(later), ("later", vec![(0, 1)]));
    }

    #[test]
    fn what_nothing_of_it_can_be_blamed_for_waits() {
        for (fault, stage) in [
            (Fault::Passing, Stage::Rows),
            (Fault::Passing, Stage::Commit),
            (Fault::Data, Stage::Begin),
            (Fault::TooSlow, Stage::Begin),
            (Fault::Duplicate, Stage::Letters),
        ] {
            let next = piece(4, 2).after(fault, stage, "");
            assert_eq!(sizes(next), ("later", vec![(4, 2)]), "{fault:?} {stage:?}");
        }
        let slow = piece(1, 0).after(Fault::TooSlow, Stage::Rows, "");
        assert_eq!(sizes(slow), ("later", vec![(1, 0)]));
        let Next::Pieces(mut around) = piece(4, 0).after(Fault::Duplicate, Stage::Rows, "") else {
            panic!("not around duplicates");
        };
        let twice = around.pop().unwrap().after(Fault::Duplicate, Stage::Rows, "");
        assert_eq!(sizes(twice), ("later", vec![(4, 0)]));
    }
}
