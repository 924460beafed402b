use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Duration, Instant, timeout};

use super::{Proxy, Rules, Snap, Traffic};

const SOON: Duration = Duration::from_secs(5);
const NEVER: Duration = Duration::from_millis(200);

/// A server that says everything back, and ends a connection when its client does.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reads, mut writes) = stream.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
            });
        }
    });
    port
}

async fn proxied() -> (Proxy, TcpStream) {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    (proxy, client)
}

async fn say(client: &mut TcpStream, words: &[u8]) -> Vec<u8> {
    client.write_all(words).await.unwrap();
    hear(client, words.len()).await
}

async fn hear(client: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut heard = vec![0; length];
    timeout(SOON, client.read_exact(&mut heard))
        .await
        .unwrap()
        .unwrap();
    heard
}

async fn is_reset(client: &mut TcpStream) -> bool {
    let read = timeout(SOON, client.read(&mut [0; 16])).await.unwrap();
    read.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

async fn is_closed(client: &mut TcpStream) -> bool {
    timeout(SOON, client.read(&mut [0; 16])).await.unwrap().unwrap() == 0
}

async fn is_silent(client: &mut TcpStream) -> bool {
    timeout(NEVER, client.read(&mut [0; 16])).await.is_err()
}

#[tokio::test]
async fn without_rules_bytes_and_ends_pass() {
    let (proxy, mut client) = proxied().await;
    let long = vec![7; 300_000];
    let (mut reads, mut writes) = client.split();
    let send = async {
        writes.write_all(&long).await.unwrap();
        writes.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    tokio::join!(send, async { reads.read_to_end(&mut heard).await.unwrap() });
    assert_eq!(heard, long);
    let counts = proxy.counts();
    assert_eq!(
        (counts.bytes_to_server, counts.bytes_to_client),
        (300_000, 300_000)
    );
    assert_eq!((counts.accepted, counts.cut, counts.held), (1, 0, 0));
}

#[tokio::test]
async fn delay_adds_to_each_round_trip_and_does_not_thin_the_line() {
    let (proxy, mut client) = proxied().await;
    proxy.set(Rules::round_trip(Duration::from_millis(200)));
    let began = Instant::now();
    say(&mut client, b"ping").await;
    assert!(began.elapsed() >= Duration::from_millis(200));
    let began = Instant::now();
    say(&mut client, &[1; 200_000]).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn throttle_thins_the_line() {
    let (proxy, mut client) = proxied().await;
    proxy.set(Rules::throttle(40_000));
    let began = Instant::now();
    say(&mut client, &[1; 20_000]).await;
    assert!(
        began.elapsed() >= Duration::from_millis(500),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_black_hole_holds_everything_until_it_is_healed() {
    let (proxy, mut client) = proxied().await;
    say(&mut client, b"before").await;
    proxy.set(Rules::black_hole());
    client.write_all(b"during").await.unwrap();
    assert!(is_silent(&mut client).await);
    // New connections are taken, and hear as little.
    let mut second = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    second.write_all(b"hello").await.unwrap();
    assert!(is_silent(&mut second).await);
    assert!(proxy.counts().held > 0);
    proxy.heal();
    assert_eq!(hear(&mut client, 6).await, b"during");
    assert_eq!(hear(&mut second, 5).await, b"hello");
}

#[tokio::test]
async fn discarded_bytes_are_gone() {
    let (proxy, mut client) = proxied().await;
    let mut rules = Rules::default();
    rules.to_client.traffic = Traffic::Discard;
    proxy.set(rules);
    client.write_all(b"lost").await.unwrap();
    assert!(is_silent(&mut client).await);
    proxy.heal();
    assert_eq!(say(&mut client, b"kept").await, b"kept");
    assert_eq!(proxy.counts().bytes_discarded, 4);
}

#[tokio::test]
async fn one_direction_can_end_while_the_other_goes_on() {
    let (proxy, mut client) = proxied().await;
    say(&mut client, b"both").await;
    proxy.set(Rules::end_to_clients());
    assert!(is_closed(&mut client).await);
    client.write_all(b"still sent").await.unwrap();
    let deadline = Instant::now() + SOON;
    while proxy.counts().bytes_to_server < 14 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(proxy.counts().bytes_to_server, 14);
}

#[tokio::test]
async fn orders_reach_open_connections() {
    let (proxy, mut client) = proxied().await;
    say(&mut client, b"open").await;
    proxy.inject_to_clients(b"garbage");
    assert_eq!(hear(&mut client, 7).await, b"garbage");
    proxy.reset();
    assert!(is_reset(&mut client).await);

    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    say(&mut client, b"open").await;
    proxy.close();
    assert!(is_closed(&mut client).await);

    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    say(&mut client, b"open").await;
    proxy.half_open();
    client.write_all(b"anybody?").await.unwrap();
    assert!(is_silent(&mut client).await);
    proxy.reset();
    assert!(is_reset(&mut client).await);
    assert_eq!(proxy.counts().cut, 3);
}

#[tokio::test]
async fn refused_connections_and_absent_servers_reset() {
    let (proxy, mut open) = proxied().await;
    say(&mut open, b"open").await;
    proxy.set(Rules {
        refuse: true,
        ..Rules::default()
    });
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    assert!(is_reset(&mut client).await);
    say(&mut open, b"still open").await;

    let proxy = Proxy::start(crate::ports::free().unwrap()).await.unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    assert!(is_reset(&mut client).await);
}

#[tokio::test]
async fn traps_spring_on_their_request_and_no_other() {
    for snap in [Snap::BeforeRequest, Snap::BeforeAnswer, Snap::Silence] {
        let (proxy, mut client) = proxied().await;
        proxy.set(Rules::trap(b"COMMIT", snap, 1));
        assert_eq!(say(&mut client, b"INSERT").await, b"INSERT");
        client.write_all(b"-- COMMIT").await.unwrap();
        if snap == Snap::Silence {
            assert!(is_silent(&mut client).await);
            proxy.heal();
            assert!(is_silent(&mut client).await);
        } else {
            assert!(is_reset(&mut client).await);
        }
        let counts = proxy.counts();
        assert_eq!(counts.sprung, 1);
        let reached = counts.bytes_to_server == 15;
        assert_eq!(reached, snap != Snap::BeforeRequest, "{snap:?} {counts:?}");
        assert_eq!(counts.bytes_to_client, 6);
        // It sprang as often as it was to.
        let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        assert_eq!(say(&mut client, b"COMMIT").await, b"COMMIT");
    }
}
