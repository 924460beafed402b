//! The file of rejected lines: NDJSON, a line for each, with its place, the reason and the line itself.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use analytics_core::event::Malformed;
use serde::Serialize;
use time::OffsetDateTime;
use time::macros::format_description;

use super::lines::Place;
use crate::operator::OperatorError;
use crate::operator::body::Body;

/// A line that was not imported.
pub(super) struct Reject {
    pub(super) place: Place,
    pub(super) malformed: Malformed,
    /// Nothing where it was too long.
    pub(super) body: Option<Vec<u8>>,
}

/// The file.
pub(super) struct Rejected {
    path: PathBuf,
    file: BufWriter<File>,
    any: bool,
}

impl Rejected {
    /// Made at once: that it cannot be written is told before the import, not after hours of it.
    pub(super) fn create(path: Option<PathBuf>) -> Result<Self, OperatorError> {
        let path = path.unwrap_or_else(default_path);
        match File::create(&path) {
            Ok(file) => Ok(Self {
                path,
                file: BufWriter::new(file),
                any: false,
            }),
            Err(source) => Err(fault(&path, source)),
        }
    }

    /// Adds lines, in the order of the files.
    pub(super) fn write(&mut self, mut rejects: Vec<Reject>) -> Result<(), OperatorError> {
        #[derive(Serialize)]
        struct Record<'a> {
            file: &'a str,
            line: u64,
            reason: &'static str,
            field: Option<&'static str>,
            detail: &'a str,
            #[serde(flatten)]
            body: Option<Body<'a>>,
        }
        rejects.sort_by(|one, other| one.place.cmp(&other.place));
        for Reject {
            place,
            malformed,
            body,
        } in &rejects
        {
            self.any = true;
            let record = Record {
                file: &place.file,
                line: place.line,
                reason: malformed.reason.code(),
                field: malformed.field,
                detail: &malformed.detail,
                body: body.as_deref().map(Body::from),
            };
            serde_json::to_writer(&mut self.file, &record)
                .map_err(std::io::Error::from)
                .and_then(|()| self.file.write_all(b"\n"))
                .map_err(|source| fault(&self.path, source))?;
        }
        self.file.flush().map_err(|source| fault(&self.path, source))
    }

    /// Its name, if there is anything in it; else it is gone again.
    pub(super) fn finish(self) -> Result<Option<String>, OperatorError> {
        if self.any {
            return Ok(Some(self.path.display().to_string()));
        }
        // Only a file can be taken away, and one that is there: not /dev/null.
        if self.path.is_file() {
            fs::remove_file(&self.path).map_err(|source| fault(&self.path, source))?;
        }
        Ok(None)
    }
}

fn default_path() -> PathBuf {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let now = OffsetDateTime::now_utc().format(format).unwrap_or_default();
    PathBuf::from(format!("import-rejected-{now}.ndjson"))
}

fn fault(path: &std::path::Path, source: std::io::Error) -> OperatorError {
    OperatorError::File {
        name: path.display().to_string(),
        source,
    }
}
