//! What the integration tests share: a subscriber and a table for each test, runtimes
//! whose every thread reports to it, and futures that keep their own count of the truth.
// Each test file uses a part, and is a crate of its own.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use straggler::{Builder, ManualClock, Site, Snapshot, Task, Tasks};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tracing::dispatcher::{self, DefaultGuard, Dispatch};
use tracing::subscriber::NoSubscriber;
use tracing_subscriber::prelude::*;

pub const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    CurrentThread,
    MultiThread,
}

pub const FLAVOURS: [Flavour; 2] = [Flavour::CurrentThread, Flavour::MultiThread];

/// One table, and a subscriber that is this thread's default for as long as it lives.
pub struct World {
    pub tasks: Tasks,
    pub clock: ManualClock,
    pub dispatch: Dispatch,
    _default: DefaultGuard,
}

/// While a process has one subscriber at most, tracing asks the *calling thread's* whether a
/// callsite is of interest, for all threads; a test on a thread without any then switches
/// tokio's spans off for the test beside it. Two that see nothing, kept, prevent that.
pub static MORE_THAN_ONE: LazyLock<[Dispatch; 2]> =
    LazyLock::new(|| [(); 2].map(|()| Dispatch::new(NoSubscriber::default())));

impl World {
    /// With a manual clock, no grace, and no monitor whose looks could meet the test's.
    pub fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub fn with(options: impl FnOnce(Builder) -> Builder) -> Self {
        let clock = ManualClock::new();
        let builder = Builder::new()
            .clock(clock.clone())
            .orphan_grace(Duration::ZERO);
        Self::build(options(builder), clock)
    }

    /// For what depends on the real clock.
    pub fn on_real_time(options: impl FnOnce(Builder) -> Builder) -> Self {
        Self::build(
            options(Builder::new()).orphan_grace(Duration::ZERO),
            ManualClock::new(),
        )
    }

    fn build(builder: Builder, clock: ManualClock) -> Self {
        LazyLock::force(&MORE_THAN_ONE);
        let (layer, tasks) = builder
            .warn_on_orphans(false)
            .build()
            .expect("a valid configuration");
        let dispatch = Dispatch::new(tracing_subscriber::registry().with(layer));
        Self {
            tasks,
            clock,
            _default: dispatcher::set_default(&dispatch),
            dispatch,
        }
    }

    /// A runtime whose threads report to this world, hooked where hooks are a source.
    pub fn runtime(&self, flavour: Flavour) -> Runtime {
        let mut builder = match flavour {
            Flavour::CurrentThread => tokio::runtime::Builder::new_current_thread(),
            Flavour::MultiThread => tokio::runtime::Builder::new_multi_thread(),
        };
        let dispatch = self.dispatch.clone();
        builder
            .worker_threads(2)
            .enable_all()
            // The default stays for as long as the thread does.
            .on_thread_start(move || std::mem::forget(dispatcher::set_default(&dispatch)));
        self.tasks.hook(&mut builder);
        builder.build().expect("a runtime")
    }

    pub fn snapshot(&self) -> Snapshot {
        self.tasks.snapshot()
    }

    /// Runs `f` as the body of a current-thread runtime.
    pub fn block_on<F: Future>(&self, f: F) -> F::Output {
        self.runtime(Flavour::CurrentThread).block_on(f)
    }

    /// Waits until a snapshot satisfies `done`; tokio's own end of a task is asynchronous.
    #[track_caller]
    pub fn eventually(&self, done: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let deadline = Instant::now() + Duration::from_secs(3);
        loop {
            let snapshot = self.snapshot();
            if done(&snapshot) {
                return snapshot;
            }
            assert!(Instant::now() < deadline, "it stays so:\n{snapshot}");
            std::thread::yield_now();
        }
    }

    /// The live task of this id.
    #[track_caller]
    pub fn expect_task(&self, id: tokio::task::Id) -> Task {
        let snapshot = self.snapshot();
        let task = snapshot.task(id);
        task.unwrap_or_else(|| panic!("task {id} is not live in\n{snapshot}"))
            .clone()
    }

    /// The spawn site at a line of a test file.
    #[track_caller]
    pub fn expect_site(&self, line: u32) -> Site {
        expect_site(&self.snapshot(), line)
    }
}

pub fn site_at(snapshot: &Snapshot, line: u32) -> Option<&Site> {
    snapshot
        .sites()
        .find(|site| site.location().line() == line && site.location().file().starts_with("tests/"))
}

#[track_caller]
pub fn expect_site(snapshot: &Snapshot, line: u32) -> Site {
    site_at(snapshot, line)
        .unwrap_or_else(|| panic!("no spawn site at line {line} in\n{snapshot}"))
        .clone()
}

/// What futures know of themselves.
#[derive(Debug, Default)]
pub struct Truth {
    polls: AtomicU64,
    dropped: AtomicU64,
}

impl Truth {
    pub fn polls(&self) -> u64 {
        self.polls.load(Ordering::SeqCst)
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::SeqCst)
    }

    /// Counts the polls and the drop of `future`.
    pub fn count<F: Future + 'static>(self: &Arc<Self>, future: F) -> Counted<F> {
        Counted {
            inner: Box::pin(future),
            life: Life {
                truth: Arc::clone(self),
                tell: None,
            },
        }
    }

    /// The same, and tells of the drop.
    pub fn watch<F: Future + 'static>(
        self: &Arc<Self>,
        future: F,
    ) -> (Counted<F>, oneshot::Receiver<()>) {
        let (tell, told) = oneshot::channel();
        let mut counted = self.count(future);
        counted.life.tell = Some(tell);
        (counted, told)
    }
}

/// The inner future goes before the life that counts its end.
pub struct Counted<F> {
    inner: Pin<Box<F>>,
    life: Life,
}

struct Life {
    truth: Arc<Truth>,
    tell: Option<oneshot::Sender<()>>,
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        this.life.truth.polls.fetch_add(1, Ordering::SeqCst);
        this.inner.as_mut().poll(cx)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.truth.dropped.fetch_add(1, Ordering::SeqCst);
        if let Some(tell) = self.tell.take() {
            // Nobody may be waiting.
            let _ = tell.send(());
        }
    }
}

/// Pending until opened. Who stops waiting leaves no waker behind.
#[derive(Clone, Default)]
pub struct Gate(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    open: bool,
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Gate {
    /// Lets through who waits and who comes.
    pub fn open(&self) {
        let wakers = {
            let mut waiting = self.0.lock().expect("no panic under the lock");
            waiting.open = true;
            std::mem::take(&mut waiting.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }

    /// Wakes who waits without letting them through.
    pub fn nudge(&self) {
        let wakers: Vec<_> = self
            .0
            .lock()
            .expect("no panic under the lock")
            .wakers
            .values()
            .cloned()
            .collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    pub fn passed(&self) -> Passed {
        let mut waiting = self.0.lock().expect("no panic under the lock");
        waiting.next += 1;
        Passed {
            gate: self.clone(),
            number: waiting.next,
        }
    }
}

pub struct Passed {
    gate: Gate,
    number: u64,
}

impl Future for Passed {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.gate.0.lock().unwrap();
        if waiting.open {
            return Poll::Ready(());
        }
        let known = waiting.wakers.get(&self.number);
        if !known.is_some_and(|waker| waker.will_wake(cx.waker())) {
            waiting.wakers.insert(self.number, cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        let waker = self.gate.0.lock().unwrap().wakers.remove(&self.number);
        drop(waker);
    }
}

/// Lets every task that is ready have its turn, on a current-thread runtime.
pub async fn settle() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}
