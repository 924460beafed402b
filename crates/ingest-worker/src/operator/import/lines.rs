//! From files to decoded lines, on a thread of its own: reading blocks, and a second core decodes while the
//! first one writes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use analytics_core::event::{Malformed, Reason, UsageEvent, decode};
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::operator::OperatorError;

/// Lines in a part.
const PART_LINES: usize = 1_000;
/// Bytes after which a part ends.
const PART_BYTES: usize = 4 * 1024 * 1024;
/// Parts that wait to be written.
const PARTS_AHEAD: usize = 16;
/// A longer line is rejected unread, so that a file of another kind cannot fill the memory.
const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// Where a line stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: Arc<str>,
    /// From 1.
    pub(super) line: u64,
}

/// A line that has been read.
pub(super) struct Line {
    pub(super) place: Place,
    /// Nothing where it was too long.
    pub(super) body: Option<Vec<u8>>,
    pub(super) outcome: Result<UsageEvent, Malformed>,
}

/// Lines that were read together.
#[derive(Default)]
pub(super) struct Part {
    pub(super) lines: Vec<Line>,
    /// Bytes of all files that had been read by then, as they are stored.
    pub(super) position: u64,
}

/// A file that can be read.
pub(super) struct Source {
    name: Arc<str>,
    input: Box<dyn Read + Send>,
}

/// Opens all files, so that a name that is wrong is told before anything is done. Also says how many bytes
/// they have together, if they are all plain files.
pub(super) fn examine(files: &[PathBuf]) -> Result<(Vec<Source>, Option<u64>), OperatorError> {
    let mut total = Some(0);
    let mut sources = Vec::with_capacity(files.len());
    for path in files {
        let name = path.display().to_string();
        if path == Path::new("-") {
            total = None;
            sources.push(Source {
                name: name.into(),
                input: Box::new(io::stdin()),
            });
            continue;
        }
        let fault = |source| OperatorError::File {
            name: name.clone(),
            source,
        };
        let file = File::open(path).map_err(fault)?;
        let metadata = file.metadata().map_err(fault)?;
        if metadata.is_dir() {
            return Err(fault(io::ErrorKind::IsADirectory.into()));
        }
        total = total
            .filter(|_| metadata.is_file())
            .map(|sum| sum + metadata.len());
        sources.push(Source {
            name: name.into(),
            input: Box::new(file),
        });
    }
    Ok((sources, total))
}

/// Reads them one after the other. The thread ends with the sources, or with the receiver.
pub(super) fn read(sources: Vec<Source>) -> Result<Receiver<Result<Part, OperatorError>>, OperatorError> {
    let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
    let read = move || {
        let position = Arc::new(AtomicU64::new(0));
        for Source { name, input } in sources {
            let input = Counted {
                input,
                position: Arc::clone(&position),
            };
            if let Err(source) = read_one(&name, input, &position, &sender) {
                let name = name.to_string();
                let _ = sender.blocking_send(Err(OperatorError::File { name, source }));
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("import".to_owned())
        .spawn(read)
        .map_err(|source| OperatorError::File {
            name: "a thread to read".to_owned(),
            source,
        })?;
    Ok(receiver)
}

/// Counts what is read.
struct Counted {
    input: Box<dyn Read + Send>,
    position: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.position
            .fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
        Ok(count)
    }
}

fn read_one(
    name: &Arc<str>,
    input: Counted,
    position: &AtomicU64,
    sender: &Sender<Result<Part, OperatorError>>,
) -> io::Result<()> {
    let mut input = decompressed(input)?;
    let mut number = 0;
    loop {
        let mut part = Part::default();
        let mut bytes = 0;
        let mut ended = false;
        while part.lines.len() < PART_LINES && bytes < PART_BYTES {
            let mut line = Vec::new();
            let Some(length) = read_line(&mut *input, &mut line, LONGEST_LINE)? else {
                ended = true;
                break;
            };
            number += 1;
            bytes += line.len();
            let place = Place {
                file: Arc::clone(name),
                line: number,
            };
            if length > LONGEST_LINE {
                part.lines.push(Line {
                    place,
                    body: None,
                    outcome: Err(Malformed::body(
                        Reason::TooLong,
                        format!("the line has {length} bytes, more than {LONGEST_LINE}"),
                    )),
                });
            } else if !line.trim_ascii().is_empty() {
                let outcome = decode(&line);
                part.lines.push(Line {
                    place,
                    body: Some(line),
                    outcome,
                });
            }
        }
        part.position = position.load(Ordering::Relaxed);
        // Without a receiver nobody wants more.
        if (!part.lines.is_empty() && sender.blocking_send(Ok(part)).is_err()) || ended {
            return Ok(());
        }
    }
}

/// The plain bytes of a file, whatever its name: gzip and zstd begin as no JSON does.
fn decompressed(input: Counted) -> io::Result<Box<dyn BufRead>> {
    const BUFFER: usize = 128 * 1024;
    let mut input = BufReader::with_capacity(BUFFER, input);
    Ok(match input.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(BufReader::with_capacity(
            BUFFER,
            flate2::bufread::MultiGzDecoder::new(input),
        )),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(BufReader::with_capacity(
            BUFFER,
            zstd::Decoder::with_buffer(input)?,
        )),
        _ => Box::new(input),
    })
}

/// Reads a line without its end, and says how long it is; `None` at the end of the input. Of a line longer
/// than `limit` nothing is kept.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>, limit: usize) -> io::Result<Option<usize>> {
    let mut length = 0;
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok((length > 0).then_some(length));
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(available.len());
        length += taken;
        if length > limit {
            *line = Vec::new();
        } else {
            line.extend_from_slice(&available[..taken]);
        }
        input.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(Some(length));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], limit: usize) -> Vec<(usize, String)> {
        // A small buffer: lines go over its end.
        let mut input = BufReader::with_capacity(4, text);
        let mut found = Vec::new();
        let mut line = Vec::new();
        while let Some(length) = read_line(&mut input, &mut line, limit).unwrap() {
            found.push((length, String::from_utf8(std::mem::take(&mut line)).unwrap()));
        }
        found
    }

    #[test]
    fn lines_end_with_a_newline_or_the_file() {
        let found = lines(b"one\n\ntwo and more\r\nthree", 100);
        let expected = [(3, "one"), (0, ""), (13, "two and more"), (5, "three")];
        assert_eq!(found, expected.map(|(length, text)| (length, text.to_owned())));
        assert_eq!(lines(b"", 100), []);
        assert_eq!(lines(b"\n", 100), [(0, String::new())]);
    }

    #[test]
    fn a_line_that_is_too_long_is_not_kept() {
        let found = lines(b"123456789\nabc\n", 5);
        assert_eq!(found, [(9, String::new()), (3, "abc".to_owned())]);
    }
}
