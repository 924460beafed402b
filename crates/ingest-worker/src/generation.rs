//! One generation: a session with the broker, from its first delivery to its death or to the last
//! acknowledgement. Connection, channels, receivers, ledgers and batches live and die together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::amqp::{Consumer, Session};
use crate::brake::Brake;
use crate::budget::Budget;
use crate::caution::Window;
use crate::config::WorkerConfig;
use crate::consumer::{self, Gate, Reader};
use crate::lane::{self, BatchLimits, Return};
use crate::ledger::Ledger;
use crate::metrics;
use crate::progress::{Alarm, Limits, Progress};
use crate::report::{self, Knowledge};
use crate::sink::Sink;

/// How long everything that was received may take to be stored once it is to end in order; within the ten
/// seconds that the whole exit may take. What is not stored by then comes again, to somebody else.
const DRAIN_DEADLINE: Duration = Duration::from_secs(7);
/// How long the lanes may be silent beyond the deadline of a batch: a new connection has a minute.
const STALL: Duration = Duration::from_secs(90);
/// What closes a batch of a narrow generation: it waits for the commit, and there are many of them.
const NARROW_AGE: Duration = Duration::from_millis(5);
/// How often it is asked whether anything moves.
const WATCH: Duration = Duration::from_secs(1);

/// What outlives the generations.
pub struct Surroundings {
    /// The settings.
    pub config: WorkerConfig,
    /// What is held and has been seen of the queue.
    pub knowledge: Arc<Knowledge>,
    /// What the lanes achieve.
    pub progress: Arc<Progress>,
    /// Notified when a row finds no partition.
    pub missing_partition: Arc<Notify>,
    /// Pulled when too much is malformed.
    pub brake: Arc<Brake>,
    /// The memory of messages.
    pub budget: Arc<Budget>,
    /// The worker is asked to stop.
    pub stop: CancellationToken,
}

/// What a generation may hold.
pub struct Plan {
    /// One that is narrow ends after its first commit.
    pub window: Window,
    /// Deliveries.
    pub deliveries: u32,
    /// What its consumers wait for, in the first generation of a process.
    pub gate: Option<Arc<Gate>>,
}

/// How a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The worker is asked to stop.
    Stopped,
    /// A narrow one has committed what it was for.
    Committed,
    /// Messages have become so small that many more can be held.
    Outgrown,
    /// Messages take more memory than they may.
    OverBudget,
    /// The session died.
    Died,
    /// It had to be ended.
    Alarm(Alarm),
    /// The brake was pulled.
    Braked,
}

impl Surroundings {
    /// A lane's way to the database.
    pub fn sink(&self) -> Sink {
        Sink::new(
            self.config.database.clone(),
            self.config.queue.clone(),
            Arc::clone(&self.missing_partition),
        )
        .telling(Arc::clone(&self.progress))
        .deadline(self.config.batch_deadline)
    }

    /// Runs a session to its end. The sinks stay the caller's: their connections outlive it.
    pub async fn generation(
        &self,
        session: Session,
        consumers: Vec<Consumer>,
        plan: &Plan,
        sinks: &mut Vec<Sink>,
    ) -> End {
        let session = Arc::new(session);
        let ledgers: Vec<Arc<Ledger>> = consumers.iter().map(|_| Arc::new(Ledger::default())).collect();
        self.knowledge.begin_generation(ledgers.clone());
        self.progress.begin_generation();
        let watch = tokio::spawn(report::watch_queue(
            Arc::clone(&session),
            Arc::clone(&self.knowledge),
            Arc::clone(&self.progress),
        ));
        let mut commits = self.progress.commits();
        // What is held can go back although the session lives.
        let abandon = session.death.child_token();
        let mut crew = Crew::start(self, (&abandon, &session.death), consumers, ledgers, plan, sinks);

        let end = tokio::select! {
            () = session.death.cancelled() => End::Died,
            () = self.stop.cancelled() => End::Stopped,
            () = self.brake.pulled.cancelled() => End::Braked,
            () = plan.committed(&mut commits) => End::Committed,
            () = self.outgrown(plan) => End::Outgrown,
            () = self.budget.exceeded(), if plan.deliveries > 1 => End::OverBudget,
            alarm = self.alarm() => End::Alarm(alarm),
            () = crew.ended_by_itself(sinks) => End::Died,
        };
        match end {
            // What has arrived is stored and acknowledged before the goodbye.
            End::Stopped | End::Committed | End::Outgrown => session.stop_consuming().await,
            End::Died | End::OverBudget => session.death.cancel(),
            // What is held goes back: the goodbye does that at once.
            End::Alarm(_) | End::Braked => abandon.cancel(),
        }
        if !crew.finish(sinks).await {
            tracing::warn!("not everything that was received could be stored in time; it will come again");
            abandon.cancel();
        }
        // From here on nothing is acknowledged any more; the goodbye lets the broker read what was.
        crew.dismiss(watch).await;
        let died_late = session.death.is_cancelled() && matches!(end, End::Committed | End::Outgrown);
        let in_order = match Arc::into_inner(session) {
            Some(session) => session.close().await,
            None => false,
        };
        self.knowledge.end_generation(in_order);
        self.show_held();
        sinks.resize_with(self.config.lanes, || self.sink());
        if died_late { End::Died } else { end }
    }

    fn show_held(&self) -> Option<Instant> {
        let held_since = self.knowledge.oldest_held();
        let age = held_since.map_or(0.0, |since| since.elapsed().as_secs_f64());
        ::metrics::gauge!(metrics::OLDEST_UNACKED).set(age);
        ::metrics::gauge!(metrics::UNACKED).set(metrics::as_f64(self.knowledge.held()));
        ::metrics::gauge!(metrics::HELD_BYTES).set(metrics::as_f64(self.budget.held()));
        held_since
    }

    /// Returns once a much wider window would be right.
    async fn outgrown(&self, plan: &Plan) {
        let full = self.config.most_held();
        loop {
            tokio::time::sleep(WATCH).await;
            if plan.window == Window::Full && plan.is_open() && self.budget.is_outgrown(plan.deliveries, full)
            {
                return;
            }
        }
    }

    async fn alarm(&self) -> Alarm {
        let limits = Limits {
            max_hold: self.config.max_hold,
            stall: self.config.batch_deadline + STALL,
        };
        loop {
            tokio::time::sleep(WATCH).await;
            let held_since = self.show_held();
            let alarm = self.progress.alarm(Instant::now(), held_since, limits);
            if let Some(alarm) = alarm {
                ::metrics::counter!(metrics::ALARMS, "kind" => alarm.name()).increment(1);
                return alarm;
            }
        }
    }
}

impl Plan {
    fn is_open(&self) -> bool {
        self.gate.as_ref().is_none_or(|gate| gate.is_open())
    }

    /// Returns after a commit with which the generation has done what it was for.
    async fn committed(&self, commits: &mut watch::Receiver<u64>) {
        while commits.changed().await.is_ok() {
            if self.window != Window::Full || !self.is_open() {
                return;
            }
        }
        std::future::pending().await
    }
}

/// The tasks of a generation.
struct Crew {
    readers: JoinSet<()>,
    lanes: JoinSet<Sink>,
}

impl Crew {
    fn start(
        around: &Surroundings,
        (abandon, death): (&CancellationToken, &CancellationToken),
        consumers: Vec<Consumer>,
        ledgers: Vec<Arc<Ledger>>,
        plan: &Plan,
        sinks: &mut Vec<Sink>,
    ) -> Self {
        let config = &around.config;
        // Where less than a batch and the next one fit into the window, batches of the half of it keep it moving.
        let half = usize::try_from(plan.deliveries).unwrap_or(usize::MAX) / (2 * sinks.len().max(1));
        let size = config.batch_size.min(match plan.window {
            Window::Full => half.max(1),
            Window::Narrow(window) => usize::from(window),
        });
        // About one batch waits read while one is written; the rest waits as it came.
        let waiting = (size * sinks.len() / consumer::CHUNK).max(1);
        let (senders, receivers): (Vec<_>, Vec<_>) = sinks.iter().map(|_| mpsc::channel(waiting)).unzip();
        let mut returns = Vec::with_capacity(consumers.len());
        let mut readers = JoinSet::new();
        for (number, (consumer, ledger)) in consumers.into_iter().zip(ledgers).enumerate() {
            returns.push(Return::new(consumer.acker.clone(), Arc::clone(&ledger)));
            let reader = Reader {
                number,
                consumer,
                ledger,
                lanes: senders.clone(),
                brake: Arc::clone(&around.brake),
                budget: Arc::clone(&around.budget),
                gate: plan.gate.clone(),
            };
            readers.spawn(reader.run());
        }
        let returns = Arc::new(returns);
        let max_age = match plan.window {
            Window::Full => config.batch_max_age,
            Window::Narrow(_) => config.batch_max_age.min(NARROW_AGE),
        };
        let limits = BatchLimits::of_lanes(size, max_age, sinks.len());
        let mut lanes = JoinSet::new();
        for ((arrivals, sink), limits) in receivers.into_iter().zip(sinks.drain(..)).zip(limits) {
            lanes.spawn(lane::run(
                arrivals,
                limits,
                sink,
                Arc::clone(&returns),
                abandon.clone(),
                death.clone(),
            ));
        }
        Self { readers, lanes }
    }

    /// Returns when a task ends that should not: a receiver that ends although nobody cancelled its consumer
    /// is a death that amqprs did not report, and a lane ends by itself only by a panic: what it held would
    /// pin the watermarks for ever.
    async fn ended_by_itself(&mut self, sinks: &mut Vec<Sink>) {
        tokio::select! {
            _ = self.readers.join_next() => tracing::warn!("a consumer ended without being cancelled"),
            ended = self.lanes.join_next() => sinks.extend(ended.and_then(Result::ok)),
        }
    }

    /// Waits for the lanes to store all that they have; false if that takes too long.
    async fn finish(&mut self, sinks: &mut Vec<Sink>) -> bool {
        let all_returned = async {
            while let Some(sink) = self.lanes.join_next().await {
                match sink {
                    Ok(sink) => sinks.push(sink),
                    Err(error) => tracing::error!(%error, "a lane ended by a panic"),
                }
            }
        };
        tokio::time::timeout(DRAIN_DEADLINE, all_returned).await.is_ok()
    }

    async fn dismiss(mut self, watch: JoinHandle<()>) {
        self.lanes.shutdown().await;
        watch.abort();
        let _ = watch.await;
        self.readers.shutdown().await;
    }
}
