//! The rows of an answer as CSV (RFC 4180): under the names that they have in JSON, a dot where JSON nests,
//! nothing for null, and no line of totals. The only file that names csv.
//!
//! A spreadsheet takes a field that begins with `=` and the like for a formula. Where somebody else chose the
//! text, such a field gets an apostrophe in front.

use std::iter::Peekable;

use actix_web::body::{BodyStream, MessageBody};
use actix_web::web::Bytes;
use futures_util::stream;
use serde::Serialize;
use serde_json::Value;

use super::figures::Figures;
use super::{Answer, Data};

/// How much is written before it is sent.
const CHUNK_BYTES: usize = 16 * 1024;

const BUCKET: [&str; 3] = ["start_time", "end_time", "state"];
const FIGURES: [&str; 7] = [
    "requests",
    "errors",
    "error_rate",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cost",
];
const TOKEN_DETAILS: [&str; 2] = [
    "token_details.cached_input_tokens",
    "token_details.reasoning_tokens",
];
const LATENCY: [&str; 11] = [
    "latency.measured_requests",
    "latency.mean_ms",
    "latency.p50.estimate_ms",
    "latency.p50.at_least_ms",
    "latency.p50.at_most_ms",
    "latency.p95.estimate_ms",
    "latency.p95.at_least_ms",
    "latency.p95.at_most_ms",
    "latency.p99.estimate_ms",
    "latency.p99.at_least_ms",
    "latency.p99.at_most_ms",
];
const CHANGE: [&str; 6] = [
    "requests",
    "errors",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cost",
];

/// The columns of an answer: the same for every row, and for none.
fn columns(answer: &Answer) -> Vec<String> {
    let figures = |prefix: &str, figures: &Figures| -> Vec<String> {
        let latency: &[&str] = if figures.has_latency() { &LATENCY } else { &[] };
        let tokens: &[&str] = if figures.has_token_details() {
            &TOKEN_DETAILS
        } else {
            &[]
        };
        let names = FIGURES.iter().chain(tokens).chain(latency);
        names.map(|name| format!("{prefix}{name}")).collect()
    };
    let mut columns = Vec::new();
    if matches!(answer.data, Data::Buckets(_)) {
        columns.extend(BUCKET.map(str::to_owned));
    }
    columns.extend(answer.group_by.iter().map(|name| (*name).to_owned()));
    if !answer.group_by.is_empty() {
        columns.push("other".to_owned());
    }
    columns.extend(figures("", &answer.totals));
    if let Some(comparison) = &answer.comparison {
        columns.extend(figures("previous.", comparison.totals()));
        columns.extend(CHANGE.map(|name| format!("change.{name}")));
        columns.extend(CHANGE.map(|name| format!("change.percent.{name}")));
    }
    columns
}

/// The body, written while it is sent. Its rows are in memory, as many as an answer may have; its text never is as
/// a whole.
pub(super) fn body(answer: Answer) -> impl MessageBody + 'static {
    let columns = columns(&answer);
    let head = columns.clone();
    let foreign = answer.group_by.clone();
    let rows = rows(answer.data).map(move |row| {
        let cell = |column: &String| {
            let text = cell(&row, column);
            match foreign.contains(&column.as_str()) {
                true => harmless(text),
                false => text,
            }
        };
        columns.iter().map(cell).collect()
    });
    BodyStream::new(stream::iter(Chunks {
        records: std::iter::once(head).chain(rows).peekable(),
    }))
}

fn rows(data: Data) -> Box<dyn Iterator<Item = Value>> {
    match data {
        Data::Lines(lines) => Box::new(lines.into_iter().map(|line| json(&line))),
        Data::Buckets(buckets) => Box::new(buckets.into_iter().flat_map(|mut bucket| {
            let lines = std::mem::take(&mut bucket.results);
            let bucket = json(&bucket);
            lines.into_iter().map(move |line| {
                let mut row = json(&line);
                for name in BUCKET {
                    row[name] = bucket[name].clone();
                }
                row
            })
        })),
    }
}

/// What is written as JSON is a value as well.
fn json(row: &impl Serialize) -> Value {
    serde_json::to_value(row).unwrap_or_default()
}

fn cell(row: &Value, column: &str) -> String {
    let value = column.split('.').try_fold(row, |value, name| value.get(name));
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn harmless(text: String) -> String {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']) {
        true => format!("'{text}"),
        false => text,
    }
}

/// Records as chunks of text.
struct Chunks<I: Iterator> {
    records: Peekable<I>,
}

impl<I: Iterator<Item = Vec<String>>> Iterator for Chunks<I> {
    type Item = Result<Bytes, std::io::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.records.peek()?;
        let mut writer = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .from_writer(Vec::new());
        let mut written = 0;
        while written < CHUNK_BYTES
            && let Some(record) = self.records.next()
        {
            written += record.iter().map(String::len).sum::<usize>();
            if let Err(error) = writer.write_record(&record) {
                return Some(Err(error.into()));
            }
        }
        Some(
            writer
                .into_inner()
                .map(Bytes::from)
                .map_err(|error| error.into_error()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{compared_by_model, over_time};
    use super::*;
    use actix_web::body::to_bytes;
    use std::collections::BTreeSet;

    async fn written(answer: Answer) -> String {
        let bytes = to_bytes(body(answer)).await;
        let Ok(bytes) = bytes else { panic!("no body") };
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn leaves(prefix: &str, value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, field)| {
                let dot = if prefix.is_empty() { "" } else { "." };
                leaves(&format!("{prefix}{dot}{name}"), field, found);
            }),
            _ => drop(found.insert(prefix.to_owned())),
        }
    }

    #[actix_web::test]
    async fn every_leaf_of_a_row_is_a_column_and_the_other_way_round() {
        for answer in [compared_by_model("gpt"), over_time()] {
            let columns = columns(&answer);
            let mut found = BTreeSet::new();
            let row = match &answer.data {
                Data::Lines(_) => rows(compared_by_model("gpt").data).next().unwrap(),
                Data::Buckets(_) => rows(over_time().data).next().unwrap(),
            };
            leaves("", &row, &mut found);
            assert_eq!(columns.iter().cloned().collect::<BTreeSet<_>>(), found);
            assert_eq!(columns.len(), found.len(), "no column twice");
        }
    }

    #[actix_web::test]
    async fn rows_are_those_of_json() {
        let text = written(over_time()).await;
        let mut lines = text.split("\r\n");
        assert_eq!(
            lines.next().unwrap(),
            "start_time,end_time,state,requests,errors,error_rate,input_tokens,output_tokens,total_tokens,cost"
        );
        assert_eq!(
            lines.next().unwrap(),
            "2026-11-01T00:00:00Z,2026-11-02T00:00:00Z,closed,3,1,0.333333,3,4,7,0.002122"
        );
        assert_eq!(
            (lines.next(), lines.next()),
            (Some(""), None),
            "no line of totals"
        );
    }

    #[actix_web::test]
    async fn no_row_is_a_line_of_names() {
        let mut answer = compared_by_model("gpt");
        let with_rows = columns(&answer);
        answer.data = Data::Lines(Vec::new());
        assert_eq!(written(answer).await, format!("{}\r\n", with_rows.join(",")));
    }

    #[actix_web::test]
    async fn a_model_is_no_formula() {
        for (model, field) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("a\",=1", "\"a\"\",=1\""),
            ("a\r\n=1", "\"a\r\n=1\""),
            ("llama-3-70b", "llama-3-70b"),
        ] {
            let text = written(compared_by_model(model)).await;
            let (_, rows) = text.split_once("\r\n").unwrap();
            assert!(rows.starts_with(&format!("{field},false,")), "{model:?}: {rows}");
            let mut reader = csv::Reader::from_reader(text.as_bytes());
            let records: Vec<_> = reader.records().map(Result::unwrap).collect();
            assert_eq!(records.len(), 1);
            // A change below zero is a number.
            let names = reader.headers().unwrap().clone();
            let change = names.iter().position(|name| name == "change.requests").unwrap();
            assert_eq!(&records[0][change], "-2");
        }
    }

    #[actix_web::test]
    async fn a_long_answer_comes_in_pieces() {
        let mut answer = compared_by_model("gpt");
        let Data::Lines(lines) = &mut answer.data else {
            panic!("a list has lines")
        };
        *lines = vec![lines[0].clone(); 1_000];
        let mut body = std::pin::pin!(body(answer));
        let (mut pieces, mut rows) = (0, 0);
        while let Some(piece) = std::future::poll_fn(|context| body.as_mut().poll_next(context)).await {
            let Ok(piece) = piece else { panic!("no piece") };
            assert!(piece.len() < 2 * CHUNK_BYTES, "{}", piece.len());
            rows += piece.iter().filter(|byte| **byte == b'\n').count();
            pieces += 1;
        }
        assert_eq!(rows, 1_001);
        assert!(pieces > 3, "{pieces}");
    }
}
