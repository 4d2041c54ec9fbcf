//! Every way a task can end, seen by every source, on every flavour: source × who spawns
//! × place × end × handle × who holds the task's span.
//!
//! The truth is what the future itself counts: its polls, and its drop.
// Helpers are tests too: who unwraps says what it expects.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Flavour, Gate, MS, Truth, World, expect_site, settle};
use std::future::Future;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use straggler::{Site, Snapshot, Source};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle, LocalSet};
use tracing::{Instrument, Span};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    CurrentThread,
    MultiThread,
    LocalSet,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    #[cfg(tokio_unstable)]
    Tokio,
    Straggler,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Ready,
    Panic,
    AbortIdle,
    AbortUnpolled,
    AbortWoken,
    Shutdown,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Held {
    Nobody,
    Child,
    Clone,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    source: Source,
    by: By,
    place: Place,
    end: End,
    keeps_handle: bool,
    held: Held,
}

#[cfg(tokio_unstable)]
const SOURCES: &[(Source, By)] = &[
    (Source::Spans, By::Tokio),
    (Source::Hooks, By::Tokio),
    (Source::Both, By::Tokio),
    (Source::Spans, By::Straggler),
    (Source::Hooks, By::Straggler),
    (Source::Both, By::Straggler),
];
#[cfg(not(tokio_unstable))]
const SOURCES: &[(Source, By)] = &[(Source::Spans, By::Straggler)];

impl Case {
    fn hooks_alone(self) -> bool {
        match self.by {
            #[cfg(tokio_unstable)]
            By::Tokio => self.source == Source::Hooks,
            By::Straggler => false,
        }
    }

    /// Whether nothing but its span tells of its end.
    fn spans_alone(self) -> bool {
        match self.by {
            #[cfg(tokio_unstable)]
            By::Tokio => self.source == Source::Spans || self.place == Place::LocalSet,
            By::Straggler => false,
        }
    }

    fn is_possible(self) -> bool {
        // Who was never polled can't have given its span away.
        (self.end != End::AbortUnpolled || self.held == Held::Nobody)
            // tokio has no hooks for a LocalSet.
            && !(self.hooks_alone() && self.place == Place::LocalSet)
    }

    /// No runtime counts the tasks of a `LocalSet`, so from spans alone the end of one
    /// whose span is held stays open until the span closes.
    fn is_open_while_held(self) -> bool {
        // A woken child may as well be the task that the runtime no longer counts.
        let ambiguous = self.end == End::AbortWoken && self.held == Held::Child;
        let open = self.place == Place::LocalSet || ambiguous;
        self.spans_alone() && open && self.held != Held::Nobody
    }

    fn is_aborted(self) -> bool {
        matches!(
            self.end,
            End::AbortIdle | End::AbortUnpolled | End::AbortWoken
        )
    }
}

fn cases(place: Place) -> impl Iterator<Item = Case> {
    let ends = [
        End::Ready,
        End::Panic,
        End::AbortIdle,
        End::AbortUnpolled,
        End::AbortWoken,
        End::Shutdown,
    ];
    let held = [Held::Nobody, Held::Child, Held::Clone];
    SOURCES.iter().flat_map(move |&(source, by)| {
        ends.into_iter().flat_map(move |end| {
            held.into_iter().flat_map(move |held| {
                [true, false].into_iter().map(move |keeps_handle| Case {
                    source,
                    by,
                    place,
                    end,
                    keeps_handle,
                    held,
                })
            })
        })
    })
}

fn run_all(place: Place) {
    let cases: Vec<_> = cases(place).filter(|case| case.is_possible()).collect();
    assert!(cases.len() >= 32, "only {} cases", cases.len());
    // Each failure has printed its own story; all are told.
    let failed: Vec<_> = (cases.iter())
        .filter(|&&case| std::panic::catch_unwind(|| Run::new(case).run()).is_err())
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {}: {failed:#?}",
        failed.len(),
        cases.len()
    );
}

#[test]
fn every_end_on_a_current_thread_runtime() {
    run_all(Place::CurrentThread);
}

#[test]
fn every_end_on_a_multi_thread_runtime() {
    run_all(Place::MultiThread);
}

#[test]
fn every_end_on_a_local_set() {
    run_all(Place::LocalSet);
}

/// One case, with what its task shares with it.
struct Run {
    case: Case,
    world: World,
    truth: Arc<Truth>,
    go: Gate,
    child: Gate,
    span: Arc<Mutex<Option<Span>>>,
    line: std::cell::Cell<u32>,
}

struct Spawned {
    handle: Option<JoinHandle<()>>,
    abort: AbortHandle,
    dropped: oneshot::Receiver<()>,
    started: oneshot::Receiver<()>,
}

impl Run {
    fn new(case: Case) -> Self {
        Self {
            case,
            world: World::with(|builder| builder.source(case.source)),
            truth: Arc::default(),
            go: Gate::default(),
            child: Gate::default(),
            span: Arc::default(),
            line: 0.into(),
        }
    }

    fn run(self) {
        let flavour = match self.case.place {
            Place::MultiThread => Flavour::MultiThread,
            Place::CurrentThread | Place::LocalSet => Flavour::CurrentThread,
        };
        let runtime = self.world.runtime(flavour);
        let local = LocalSet::new();
        runtime.block_on(async {
            match self.case.place {
                Place::LocalSet => local.run_until(self.drive(&runtime)).await,
                _ => self.drive(&runtime).await,
            }
        });
        self.world.clock.advance(MS * 5);
        drop(local);
        drop(runtime);
        if self.case.end == End::Shutdown {
            self.world.clock.advance(Duration::from_secs(1));
            if self.case.held != Held::Clone || !self.case.is_open_while_held() {
                self.expect_ended(15);
            }
        }
        self.span.lock().unwrap().take();
        let lifetime = if self.case.end == End::Shutdown {
            15
        } else {
            10
        };
        if !self.case.is_open_while_held() {
            self.expect_ended(lifetime);
        }
        self.expect_no_double_count();
    }

    async fn drive(&self, runtime: &Runtime) {
        let mut spawned = if self.case.end == End::AbortUnpolled {
            let spawned = {
                let _workers = self.occupy(runtime);
                let spawned = self.spawn();
                self.world.clock.advance(MS * 10);
                spawned.abort.abort();
                spawned
            };
            assert_eq!(self.truth.polls(), 0, "{:?}", self.case);
            spawned
        } else {
            let mut spawned = self.spawn();
            (&mut spawned.started).await.expect("it starts");
            settle().await;
            // Its poll is over where no worker is left to do it.
            let _workers = self.occupy(runtime);
            self.world.clock.advance(MS * 10);
            self.act(&spawned.abort);
            spawned
        };
        if self.case.end == End::Shutdown {
            return;
        }
        (&mut spawned.dropped).await.expect("it tells of its drop");
        if let Some(handle) = spawned.handle.take() {
            self.expect_result(handle.await);
        }
        if self.case.place != Place::MultiThread {
            // Whatever is told from now on is not its lifetime.
            self.world.clock.advance(Duration::from_secs(1));
        }
        self.child.nudge();
        settle().await;
        if self.case.is_open_while_held() {
            self.expect_no_ghost();
        } else {
            self.expect_ended(10);
        }
        self.child.open();
        settle().await;
    }

    fn spawn(&self) -> Spawned {
        let (started_tx, started) = oneshot::channel();
        let (end, held) = (self.case.end, self.case.held);
        let (go, child, span) = (self.go.clone(), self.child.clone(), Arc::clone(&self.span));
        let (future, dropped) = self.truth.watch(async move {
            hold(held, &child, &span).await;
            started_tx.send(()).expect("the test waits");
            go.passed().await;
            if end == End::Panic {
                // Without the panic hook and its output.
                std::panic::resume_unwind(Box::new("meant to"));
            }
        });
        let is_local = self.case.place == Place::LocalSet;
        let handle = match (self.case.by, is_local) {
            #[cfg(tokio_unstable)]
            (By::Tokio, false) => self.at(line!(), tokio::spawn(future)),
            #[cfg(tokio_unstable)]
            (By::Tokio, true) => self.at(line!(), tokio::task::spawn_local(future)),
            (By::Straggler, false) => self.at(line!(), straggler::spawn(future)),
            (By::Straggler, true) => self.at(line!(), straggler::spawn_local(future)),
        };
        Spawned {
            abort: handle.abort_handle(),
            handle: self.case.keeps_handle.then_some(handle),
            dropped,
            started,
        }
    }

    fn at(&self, line: u32, handle: JoinHandle<()>) -> JoinHandle<()> {
        self.line.set(line);
        handle
    }

    fn act(&self, abort: &AbortHandle) {
        match self.case.end {
            End::Ready | End::Panic => self.go.open(),
            End::AbortIdle => abort.abort(),
            End::AbortWoken => {
                self.go.nudge();
                abort.abort();
            }
            End::AbortUnpolled | End::Shutdown => {}
        }
    }

    /// Keeps both workers of a multi-thread runtime busy until dropped.
    fn occupy(&self, runtime: &Runtime) -> Vec<mpsc::Sender<()>> {
        if self.case.place != Place::MultiThread {
            return Vec::new();
        }
        let busy = |_| {
            let (release, wait) = mpsc::channel::<()>();
            let (tell, told) = mpsc::channel();
            runtime.spawn(async move {
                tell.send(()).unwrap();
                wait.recv().unwrap_err();
            });
            // A worker on its way to sleep is not told of new work while another is
            // awake, though that one be blocked: so it is told again.
            let deadline = Instant::now() + Duration::from_secs(20);
            while told.recv_timeout(MS).is_err() {
                assert!(Instant::now() < deadline, "no worker is free");
                runtime.spawn(async {});
            }
            release
        };
        (0..2).map(busy).collect()
    }

    fn expect_result(&self, result: Result<(), tokio::task::JoinError>) {
        match self.case.end {
            End::Ready => assert!(result.is_ok(), "{:?}", self.case),
            End::Panic => assert!(result.unwrap_err().is_panic(), "{:?}", self.case),
            _ => assert!(result.unwrap_err().is_cancelled(), "{:?}", self.case),
        }
    }

    /// Neither live nor an orphan, though its end is not certain.
    fn expect_no_ghost(&self) {
        let counts = |snapshot: &Snapshot| {
            let site = expect_site(snapshot, self.line.get());
            let over = site.ending() + site.ended();
            (site.spawned(), site.live(), site.orphans(), over)
        };
        if self.case.end == End::AbortWoken && self.case.place == Place::LocalSet {
            // A wake and then the drop look like one more poll, and no count of the
            // runtime's can tell: live in all respects, until the span closes.
            let (_, live, _, over) = counts(&self.world.snapshot());
            assert_eq!(live + over, 1, "{:?}", self.case);
            return;
        }
        let expected = (1, 0, 0, 1);
        // A runtime with other workers may not rest at the first look.
        let settled = |snapshot: &Snapshot| counts(snapshot) == expected;
        let snapshot = self.world.eventually(settled);
        assert_eq!(counts(&snapshot), expected, "{:?}\n{snapshot}", self.case);
    }

    fn expect_ended(&self, lifetime_millis: u32) {
        let line = self.line.get();
        let over = |site: &Site| site.ended() == 1 && site.live() + site.ending() == 0;
        let snapshot = self.world.eventually(|snapshot| {
            snapshot.loss().unconfirmed() == 0 && over(&expect_site(snapshot, line))
        });
        let case = self.case;
        let site = expect_site(&snapshot, line);
        assert!(over(&site), "{case:?}\n{snapshot}");
        assert_eq!(snapshot.loss().unconfirmed(), 0, "{case:?}\n{snapshot}");
        assert_eq!(snapshot.loss().out_of_order(), 0, "{case:?}\n{snapshot}");
        self.expect_counts(&site, &snapshot);
        assert_eq!(site.lifetime().sum(), MS * lifetime_millis, "{case:?}");
    }

    fn expect_counts(&self, site: &Site, snapshot: &Snapshot) {
        let case = self.case;
        assert_eq!(self.truth.dropped(), 1, "{case:?}");
        assert_eq!(site.spawned(), 1, "{case:?}\n{snapshot}");
        assert_eq!(site.ended(), 1, "{case:?}\n{snapshot}");
        assert_eq!(site.lifetime().count(), 1, "{case:?}\n{snapshot}");
        let polls = site.poll().count();
        // Documented: to hooks the turn in which an aborted task is dropped is a poll.
        let one_more = u64::from(case.hooks_alone() && case.is_aborted());
        assert_eq!(polls, self.truth.polls() + one_more, "{case:?}");
        let panicked = u64::from(case.end == End::Panic && !case.hooks_alone());
        assert_eq!(site.panicked(), panicked, "{case:?}");
        self.expect_outcomes(site);
    }

    fn expect_outcomes(&self, site: &Site) {
        let case = self.case;
        let ready = u64::from(case.end == End::Ready);
        let dropped = u64::from(case.is_aborted() || case.end == End::Shutdown);
        if case.by == By::Straggler {
            assert_eq!(
                (site.completed(), site.aborted()),
                (ready, dropped),
                "{case:?}"
            );
        } else {
            // Only where certain.
            assert!(site.completed() <= ready, "{case:?}");
            assert!(site.aborted() <= dropped, "{case:?}");
        }
    }

    /// Once nobody holds the span any more, and the runtime is gone.
    fn expect_no_double_count(&self) {
        let line = self.line.get();
        let snapshot = self.world.eventually(|snapshot| {
            snapshot.tasks().len() == 0 && expect_site(snapshot, line).ended() == 1
        });
        assert_eq!(snapshot.tasks().len(), 0, "{:?}\n{snapshot}", self.case);
        self.expect_counts(&expect_site(&snapshot, line), &snapshot);
    }
}

/// Gives the span of the task that runs this to somebody who outlives it.
async fn hold(held: Held, child: &Gate, span: &Mutex<Option<Span>>) {
    match held {
        Held::Nobody => {}
        Held::Clone => *span.lock().unwrap() = Some(Span::current()),
        Held::Child => {
            let (child, (tell, told)) = (child.clone(), oneshot::channel());
            let wait: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
                tell.send(()).expect("the parent waits");
                child.passed().await;
            });
            tokio::spawn(wait.instrument(Span::current()));
            told.await.expect("the child starts");
        }
    }
}
