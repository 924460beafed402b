//! What amqprs does on a broker's bad days, and that a session notices each of them: the pitfalls listed in
//! docs/decisions/broker-client.md, against a broker that plays a script.

#![expect(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod scripted;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ingest_worker::amqp::{Address, BrokerError, Consumer, Files, NotOpened, Session};
use ingest_worker::ledger::Ledger;
use ingest_worker::progress::{Alarm, Limits, Progress};
use ingest_worker::report::{Knowledge, watch_queue};
use scripted::{Act, Broker, CANCEL, CHANNEL_CLOSE, CHANNEL_OPEN, CONSUME};

async fn open(broker: &Broker) -> Result<(Session, Vec<Consumer>), NotOpened> {
    let address = Address::parse(&broker.url(), Files::default()).unwrap();
    Session::open(&address, "q", &[Some(10)]).await
}

/// How long it takes until the session is known to be dead: its token, or the end of a receiver.
async fn time_to_death(act: Act) -> Duration {
    let broker = Broker::play(act).await;
    let began = Instant::now();
    let (session, mut consumers) = open(&broker).await.unwrap();
    let mut nothing = Vec::new();
    let noticed = async {
        tokio::select! {
            () = session.death.cancelled() => {}
            0 = consumers[0].receive(&mut nothing, 10) => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(60), noticed)
        .await
        .unwrap_or_else(|_| panic!("{act:?} was never noticed"));
    began.elapsed()
}

#[tokio::test]
async fn every_way_to_die_is_noticed_at_once() {
    for act in [
        Act::WrongEnd,
        Act::HangUp,
        Act::HalfClose,
        // The library's reader panics over it, and its connection still calls itself open.
        Act::UnknownChannel,
        Act::CloseChannel,
        Act::CancelConsumer,
        Act::CloseConnection,
    ] {
        let time = time_to_death(act).await;
        assert!(
            time < Duration::from_secs(3),
            "{act:?} was noticed after {time:?}"
        );
    }
}

#[tokio::test]
async fn a_silent_broker_is_dead_after_two_heartbeats() {
    // The library takes any header for a frame's, and waits for the rest: silence, to it.
    let times = [Act::Silence, Act::Garbage].map(time_to_death);
    for time in futures_util::future::join_all(times).await {
        assert!(time > Duration::from_secs(10), "{time:?}: a heartbeat is 10 s");
        assert!(time < Duration::from_secs(35), "{time:?}");
    }
}

/// The broker notices a dead client by them as well, and gives what it held to others: it offers 60 s.
#[tokio::test]
async fn heartbeats_are_10_seconds_apart() {
    let broker = Broker::play(Act::Deliver).await;
    let _held = open(&broker).await.unwrap();
    assert_eq!(broker.heartbeat.load(Ordering::Relaxed), 10);
}

/// With messages ready and none delivered, the generation is to end; not while it holds some itself.
#[tokio::test]
async fn a_consumer_that_the_broker_forgot_is_noticed() {
    let broker = Broker::play(Act::Forget).await;
    let (session, _consumers) = open(&broker).await.unwrap();
    let (knowledge, progress) = (Arc::new(Knowledge::default()), Arc::new(Progress::default()));
    let ledger = Arc::new(Ledger::default());
    knowledge.begin_generation(vec![Arc::clone(&ledger)]);
    let watch = watch_queue(Arc::new(session), Arc::clone(&knowledge), Arc::clone(&progress));
    let limits = Limits {
        max_hold: Duration::from_secs(600),
        stall: Duration::from_secs(600),
    };
    let in_a_while = || Instant::now() + Duration::from_secs(61);
    let becomes = async |alarm: Option<Alarm>| {
        while progress.alarm(in_a_while(), None, limits) != alarm {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let noticed = async {
        becomes(Some(Alarm::Starved)).await;
        assert_eq!(progress.alarm(Instant::now(), None, limits), None);
        ledger.arrived(1, Instant::now());
        becomes(None).await;
    };
    tokio::select! {
        () = watch => panic!("the session died"),
        noticed = tokio::time::timeout(Duration::from_secs(20), noticed) => noticed.unwrap(),
    }
}

#[tokio::test]
async fn no_call_waits_for_ever() {
    let failures = [Act::BlackHole, Act::Ignore(CHANNEL_OPEN), Act::Ignore(CONSUME)].map(async |act| {
        let broker = Broker::play(act).await;
        let began = Instant::now();
        let error = open(&broker).await.err().unwrap();
        let time = began.elapsed();
        assert!(
            matches!(error.source, BrokerError::Deadline { .. }),
            "{act:?}: {error}"
        );
        assert_eq!(error.consuming, act == Act::Ignore(CONSUME));
        let deadline = if act == Act::Ignore(CONSUME) { 30 } else { 10 };
        assert!(time < Duration::from_secs(deadline + 3), "{act:?} took {time:?}");
    });
    futures_util::future::join_all(failures).await;
}

#[tokio::test]
async fn a_goodbye_that_is_not_answered_is_cut_short() {
    for act in [Act::Ignore(CANCEL), Act::Ignore(CHANNEL_CLOSE)] {
        let broker = Broker::play(act).await;
        let (session, consumers) = open(&broker).await.unwrap();
        let began = Instant::now();
        session.stop_consuming().await;
        assert_eq!(session.death.is_cancelled(), act == Act::Ignore(CANCEL));
        drop(consumers);
        assert!(!session.close().await);
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "{act:?}: {:?}",
            began.elapsed()
        );
    }
}

/// After the panic of the library's reader, its writer would keep the connection alive, and what it holds from
/// everybody.
#[tokio::test]
async fn a_session_that_died_lets_go_of_the_broker() {
    for act in [Act::UnknownChannel, Act::CloseChannel, Act::CancelConsumer] {
        let broker = Broker::play(act).await;
        let (session, mut consumers) = open(&broker).await.unwrap();
        let mut nothing = Vec::new();
        tokio::select! {
            () = session.death.cancelled() => {}
            _ = consumers[0].receive(&mut nothing, 10) => session.death.cancel(),
        }
        drop(consumers);
        assert!(!session.close().await);
        let ended = tokio::time::timeout(Duration::from_secs(5), broker.ended()).await;
        assert!(ended.is_ok(), "{act:?}: the broker still has the connection");
    }
}

#[tokio::test]
async fn after_a_cancel_what_has_arrived_is_received_and_can_be_acknowledged() {
    let broker = Broker::play(Act::Deliver).await;
    let (session, mut consumers) = open(&broker).await.unwrap();
    while consumers[0].is_drained() {
        tokio::task::yield_now().await;
    }
    session.stop_consuming().await;
    let (mut deliveries, mut count) = (Vec::new(), 1);
    while count > 0 {
        count = consumers[0].receive(&mut deliveries, 10).await;
    }
    let tags: Vec<u64> = deliveries.iter().map(|delivery| delivery.tag).collect();
    assert_eq!(tags, [1, 2, 3]);
    consumers[0].acker.ack_through(3).await.unwrap();
    assert!(session.close().await);
    // Acknowledgements are read before the goodbye is answered.
    assert_eq!(*broker.acks.lock().unwrap(), [(3, true)]);
}

#[tokio::test]
async fn acknowledging_on_a_dead_session_is_an_error_and_no_hang() {
    let broker = Broker::play(Act::HangUp).await;
    let (_session, mut consumers) = open(&broker).await.unwrap();
    assert_eq!(consumers[0].receive(&mut Vec::new(), 10).await, 0);
    // The library's writer ends a moment after its reader.
    let deadline = Instant::now() + Duration::from_secs(5);
    while consumers[0].acker.ack_through(1).await.is_ok() {
        assert!(
            Instant::now() < deadline,
            "acknowledgements go nowhere, without an error"
        );
        tokio::task::yield_now().await;
    }
}

/// A session that is dropped in the middle of everything, and with it the runtime: no panic.
#[test]
fn dropping_a_session_with_its_runtime_does_not_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let broker = Broker::play(Act::Deliver).await;
        let held = open(&broker).await.unwrap();
        // As a task that still runs when the process is told to stop.
        tokio::spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
    });
    drop(runtime);
}
