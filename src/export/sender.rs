//! The thread that talks to the network, and what it does when it is told to.
//!
//! Everything that waits, waits here: no poll, no spawn and no look of the monitor's ever
//! does. What comes faster than it goes out is bounded and counted.

use super::collect::Collector;
use super::desk::Desk;
use super::encode;
use super::memory::InMemory;
use super::out::{Outbox, Ready};
use super::quiet::Quiet;
use super::settings::Settings;
use super::wire::{Sent, Wire};
use crate::Error;
use crate::monitor::Outlet;
use crate::table::Table;
use crate::worker::{Order, Worker};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_sdk::trace::SpanData;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout_at};

/// The parts of the thread's work, which don't wait for each other.
const SPANS: usize = 0;
const METRICS: usize = 1;

/// How long a sender that nobody waits for tries to deliver the rest.
const FAREWELL: Duration = Duration::from_secs(5);

/// Handle to the thread. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Sender {
    worker: Arc<Worker>,
    outbox: Arc<Outbox>,
    desk: Arc<Desk>,
    stopping: Arc<Stopping>,
}

/// What there is to send.
#[derive(Debug)]
pub(crate) struct Jobs {
    pub(crate) table: Weak<Table>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) max_batch: usize,
    pub(crate) interval: Duration,
    pub(crate) collector: Arc<Collector>,
    pub(crate) desk: Arc<Desk>,
    /// Of our own points, and the schema that it goes by.
    pub(crate) resource: Resource,
    pub(crate) schema_url: String,
}

impl Sender {
    /// Starts the thread, and gives it back once it has what it needs to connect.
    pub(crate) fn start(
        settings: Settings,
        outlet: Arc<Outlet>,
        jobs: Jobs,
    ) -> Result<Self, Error> {
        let worker = Worker::new(2);
        let stopping = Arc::<Stopping>::default();
        let sender = Self {
            worker: Arc::clone(&worker),
            outbox: Arc::clone(&jobs.outbox),
            desk: Arc::clone(&jobs.desk),
            stopping: Arc::clone(&stopping),
        };
        let (ready, is_ready) = mpsc::channel();
        thread::Builder::new()
            .name("straggler-otlp".into())
            .spawn(move || {
                let running = worker.running();
                let rejected = Arc::new(AtomicU64::new(0));
                let quiet = Quiet::new(outlet, Arc::clone(&rejected));
                quiet.enter();
                let orders = Orders { worker, stopping };
                run(&settings, &quiet, rejected, jobs, orders, &ready);
                Quiet::leave();
                drop(running);
            })
            .map_err(Error::thread)?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(sender),
            Ok(Err(error)) => Err(error),
            Err(mpsc::RecvError) => Err(Error::thread(std::io::Error::other(
                "it ended before it was ready",
            ))),
        }
    }

    /// Sends what there is now. False where that was not done at the deadline.
    pub(crate) fn flush(&self, deadline: Option<Instant>) -> bool {
        let round = self.worker.ask_round();
        self.wake();
        self.worker.wait_round(round, deadline)
    }

    /// Sends what there is, and ends. False where it was not done at the deadline; true where
    /// it had ended before.
    pub(crate) fn stop(&self, deadline: Option<Instant>) -> bool {
        if self.worker.wait_stopped(Some(Instant::now())) {
            return true;
        }
        self.ask_stop(deadline);
        // A thread that gives up at the deadline may be gone a moment after.
        let stopped = self.worker.wait_stopped(deadline);
        stopped && !self.stopping.cut_short.load(Ordering::Relaxed)
    }

    fn ask_stop(&self, deadline: Option<Instant>) {
        self.worker.ask_stop(deadline);
        self.stopping.asked.notify_waiters();
        self.wake();
    }

    fn wake(&self) {
        self.outbox.filled.notify_one();
        self.desk.changed.notify_one();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // Not waited for: this may be a poll.
        self.ask_stop(Instant::now().checked_add(FAREWELL));
    }
}

/// What the thread is asked for.
#[derive(Clone, Debug)]
struct Orders {
    worker: Arc<Worker>,
    stopping: Arc<Stopping>,
}

#[derive(Debug, Default)]
struct Stopping {
    /// Tells those who are sending.
    asked: Notify,
    /// Something was given up at the deadline.
    cut_short: AtomicBool,
}

impl Orders {
    /// Sends, but once a stop is asked for no longer than until its deadline.
    async fn obey(&self, what: &str, part: usize, sending: impl Future<Output = Sent>) -> Sent {
        let mut sending = pin!(sending);
        let mut too_late = pin!(self.too_late(part));
        poll_fn(|cx| {
            if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                return Poll::Ready(sent);
            }
            too_late.as_mut().poll(cx).map(|()| {
                self.stopping.cut_short.store(true, Ordering::Relaxed);
                let failure = format!("{what} were not taken in the time for the shutdown");
                Sent {
                    rejected: 0,
                    failure: Some(failure),
                }
            })
        })
        .await
    }

    async fn too_late(&self, part: usize) {
        let stopping = self.stopping.asked.notified();
        if !matches!(self.worker.order(part), Order::Stop(_)) {
            stopping.await;
        }
        match self.worker.order(part) {
            Order::Stop(Some(deadline)) => sleep_until(deadline.into()).await,
            _ => std::future::pending().await,
        }
    }
}

fn run(
    settings: &Settings,
    quiet: &Quiet,
    rejected: Arc<AtomicU64>,
    jobs: Jobs,
    orders: Orders,
    ready: &mpsc::Sender<Result<(), Error>>,
) {
    let runtime = match quiet.runtime().map_err(Error::thread) {
        Ok(runtime) => runtime,
        Err(error) => return tell(ready, Err(error)),
    };
    let entered = runtime.enter();
    let way = match Way::new(settings, rejected, &jobs.desk) {
        Ok(way) => Arc::new(way),
        Err(error) => return tell(ready, Err(error)),
    };
    drop(entered);
    tell(ready, Ok(()));
    let _open = Open {
        table: Weak::clone(&jobs.table),
        outbox: Arc::clone(&jobs.outbox),
        desk: Arc::clone(&jobs.desk),
    };
    let jobs = Arc::new(jobs);
    let spans = runtime.spawn(spans(Arc::clone(&jobs), Arc::clone(&way), orders.clone()));
    let joined = runtime.block_on(async {
        metrics(&jobs, &way, &orders).await;
        spans.await
    });
    // Not waited for: a name look-up may hang for as long as it likes.
    runtime.shutdown_background();
    if let Err(panicked) = joined {
        std::panic::resume_unwind(panicked.into_panic());
    }
}

/// Where it all goes.
enum Way {
    Network(Box<Wire>),
    Memory(InMemory),
}

impl Way {
    fn new(settings: &Settings, rejected: Arc<AtomicU64>, desk: &Desk) -> Result<Self, Error> {
        match &settings.in_memory {
            Some(memory) => {
                memory.take(desk.own())?;
                Ok(Self::Memory(memory.clone()))
            }
            None => Ok(Self::Network(Box::new(Wire::new(settings, rejected)?))),
        }
    }

    async fn send_spans(&self, spans: Vec<SpanData>) -> Sent {
        match self {
            Self::Network(wire) => wire.send_spans(spans).await,
            Self::Memory(memory) => memory.keep_spans(spans),
        }
    }

    async fn send_metrics(&self, request: ExportMetricsServiceRequest) -> Sent {
        match self {
            Self::Network(wire) => wire.send_metrics(request).await,
            Self::Memory(memory) => memory.keep_metrics(request),
        }
    }
}

/// Closes both, however the thread ends.
struct Open {
    table: Weak<Table>,
    outbox: Arc<Outbox>,
    desk: Arc<Desk>,
}

impl Drop for Open {
    fn drop(&mut self) {
        let rest = self.outbox.close();
        if let Some(table) = self.table.upgrade() {
            table.loss.spans_lost(rest as u64);
        }
        self.desk.close();
    }
}

fn tell(ready: &mpsc::Sender<Result<(), Error>>, outcome: Result<(), Error>) {
    // Who started the thread waits for it; had they not, there would be nobody to tell.
    ready.send(outcome).unwrap_or_default();
}

/// Sends spans as they come.
async fn spans(jobs: Arc<Jobs>, way: Arc<Way>, orders: Orders) {
    loop {
        // Before the outbox is looked at: what is asked covers what was put before.
        let order = orders.worker.order(SPANS);
        loop {
            let batch = match order {
                Order::Stop(_) => jobs.outbox.take_to_the_last(jobs.max_batch),
                Order::Rest | Order::Round(_) => jobs.outbox.take(jobs.max_batch),
            };
            if batch.is_empty() {
                break;
            }
            send_spans(&jobs, &way, batch, &orders).await;
        }
        match order {
            Order::Stop(_) => return,
            Order::Round(round) => orders.worker.done(SPANS, round),
            Order::Rest => jobs.outbox.filled.notified().await,
        }
    }
}

async fn send_spans(jobs: &Jobs, way: &Way, batch: Vec<Ready>, orders: &Orders) {
    let marked: Vec<u64> = batch.iter().filter_map(|ready| ready.marks).collect();
    let spans: Vec<_> = batch.into_iter().map(|ready| ready.span).collect();
    let count = spans.len() as u64;
    let sent = orders.obey("spans", SPANS, way.send_spans(spans)).await;
    if sent.failure.is_some() {
        jobs.outbox.not_delivered(marked);
    }
    if let Some(table) = jobs.table.upgrade() {
        table.loss.spans_lost(lost(&sent, count));
        table.delivery.note("spans", sent.failure);
    }
}

/// Sends our own metrics at each interval, and those handed in at once.
async fn metrics(jobs: &Jobs, way: &Way, orders: &Orders) {
    let mut next = tokio::time::Instant::now() + jobs.interval;
    loop {
        let order = orders.worker.order(METRICS);
        while let Some(request) = jobs.desk.next() {
            let sent = send_metrics(jobs, way, request.metrics, orders).await;
            request.reply.write(Some(sent));
        }
        let is_time = tokio::time::Instant::now() >= next;
        if is_time || order != Order::Rest {
            let which = jobs.desk.own();
            if let Some(which) = which
                && let Some(collection) = jobs.collector.collect()
            {
                let request =
                    encode::request(&collection, which, jobs.resource.clone(), &jobs.schema_url);
                send_metrics(jobs, way, request, orders).await;
            }
        }
        if is_time {
            next = tokio::time::Instant::now() + jobs.interval;
        }
        match order {
            Order::Stop(_) => return,
            Order::Round(round) => orders.worker.done(METRICS, round),
            Order::Rest => {
                let asked = timeout_at(next, jobs.desk.changed.notified());
                match asked.await {
                    Ok(()) | Err(_) => {}
                }
            }
        }
    }
}

async fn send_metrics(
    jobs: &Jobs,
    way: &Way,
    request: ExportMetricsServiceRequest,
    orders: &Orders,
) -> Sent {
    let count = encode::points(&request);
    if count == 0 {
        return Sent::default();
    }
    let sent = (orders.obey("metrics", METRICS, way.send_metrics(request))).await;
    if let Some(table) = jobs.table.upgrade() {
        table.loss.points_lost(lost(&sent, count));
        table.delivery.note("metrics", sent.failure.clone());
    }
    sent
}

/// How many of so many did not arrive.
fn lost(sent: &Sent, of: u64) -> u64 {
    match sent.failure {
        Some(_) => of,
        None => sent.rejected.min(of),
    }
}
