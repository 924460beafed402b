//! A publisher of messages whose headers no client library would write: AMQP 0-9-1, frame by frame.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const END: u8 = 0xce;
/// RabbitMQ's default, which it may be told to change.
const FRAME_MAX: usize = 131_072;
/// A header frame's bytes that are not the table's: frame, class, size, flags, delivery mode.
const AROUND: usize = 8 + 14 + 1;

/// A header table in which tables are nested so deep, as its bytes on the wire.
pub fn nested_tables(depth: usize) -> Vec<u8> {
    // Each level is a name of no characters, the type, and the length of what is inside.
    let mut bytes = Vec::new();
    for level in (0..depth).rev() {
        bytes.extend(length(level * 6));
        if level > 0 {
            bytes.extend([0, b'F']);
        }
    }
    bytes
}

/// A header table with an array in which arrays are nested as deep as the largest frame allows.
pub fn deepest_arrays() -> Vec<u8> {
    let depth = (FRAME_MAX - AROUND - 4 - 1) / 5;
    let mut bytes = [length(1 + depth * 5), vec![0]].concat();
    for level in (0..depth).rev() {
        bytes.push(b'A');
        bytes.extend(length(level * 5));
    }
    bytes
}

fn length(bytes: usize) -> Vec<u8> {
    u32::try_from(bytes)
        .expect("a frame's part is shorter than 4 GiB")
        .to_be_bytes()
        .to_vec()
}

/// Publishes one persistent message to a queue of the vhost `/`, its header table given as bytes.
pub async fn publish(url: &str, queue: &str, headers: &[u8], body: &[u8]) -> Result<()> {
    let url = reqwest::Url::parse(url)?;
    let address = (url.host_str().context("no host")?, url.port().unwrap_or(5672));
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
    expect(&mut stream, (10, 10)).await?;
    let login = format!("\0{}\0{}", url.username(), url.password().unwrap_or_default());
    let start = [
        length(0),
        short("PLAIN"),
        length(login.len()),
        login.into_bytes(),
        short("en_US"),
    ];
    method(&mut stream, 0, (10, 11), &start.concat()).await?;
    let tune = expect(&mut stream, (10, 30)).await?;
    method(&mut stream, 0, (10, 31), &tune).await?;
    method(&mut stream, 0, (10, 40), &[short("/"), vec![0, 0]].concat()).await?;
    expect(&mut stream, (10, 41)).await?;
    method(&mut stream, 1, (20, 10), &[0]).await?;
    expect(&mut stream, (20, 11)).await?;
    // Confirms, so that it is in the queue when this returns.
    method(&mut stream, 1, (85, 10), &[0]).await?;
    expect(&mut stream, (85, 11)).await?;
    method(
        &mut stream,
        1,
        (60, 40),
        &[vec![0, 0, 0], short(queue), vec![0]].concat(),
    )
    .await?;
    // Headers and the delivery mode.
    let size = u64::try_from(body.len())?.to_be_bytes();
    let header = [&[0, 60, 0, 0][..], &size, &[0x30, 0], headers, &[2]].concat();
    ensure!(
        header.len() <= FRAME_MAX - 8,
        "the headers are larger than a frame"
    );
    frame(&mut stream, HEADER, 1, &header).await?;
    frame(&mut stream, BODY, 1, body).await?;
    expect(&mut stream, (60, 80)).await?;
    method(
        &mut stream,
        0,
        (10, 50),
        &[vec![0, 200], short("done"), vec![0; 4]].concat(),
    )
    .await?;
    expect(&mut stream, (10, 51)).await?;
    Ok(())
}

fn short(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("names are short");
    [&[length], text.as_bytes()].concat()
}

async fn frame(stream: &mut TcpStream, kind: u8, channel: u16, payload: &[u8]) -> Result<()> {
    let bytes = [
        &[kind][..],
        &channel.to_be_bytes(),
        &length(payload.len()),
        payload,
        &[END],
    ];
    Ok(stream.write_all(&bytes.concat()).await?)
}

async fn method(stream: &mut TcpStream, channel: u16, method: (u16, u16), arguments: &[u8]) -> Result<()> {
    let payload = [&method.0.to_be_bytes()[..], &method.1.to_be_bytes(), arguments].concat();
    frame(stream, METHOD, channel, &payload).await
}

/// Its arguments.
async fn expect(stream: &mut TcpStream, expected: (u16, u16)) -> Result<Vec<u8>> {
    let read = async {
        let _kind = stream.read_u8().await?;
        let _channel = stream.read_u16().await?;
        let mut payload = vec![0; usize::try_from(stream.read_u32().await?)?];
        stream.read_exact(&mut payload).await?;
        stream.read_u8().await?;
        anyhow::Ok(payload)
    };
    let payload = tokio::time::timeout(Duration::from_secs(60), read)
        .await
        .with_context(|| format!("the broker has no answer where {expected:?} is due"))??;
    let number = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
    ensure!(
        (number(0), number(2)) == expected,
        "the broker said {:?} {}, not {expected:?}",
        (number(0), number(2)),
        String::from_utf8_lossy(&payload[4..])
    );
    Ok(payload[4..].to_vec())
}
