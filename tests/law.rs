//! What holds whatever a program does: random programs on real runtimes.
//!
//! 1. At rest, live + ending + ended + refused is what was truly spawned; where nothing was
//!    refused, the live are those whose future is not dropped, and polls are true polls.
//! 2. A site's live tasks are the snapshot's tasks of that site.
//! 3. A parent is in the snapshot, or marked ended or unknown.
//! 4. Amid the churn a snapshot still agrees with itself.
// Helpers are tests too: who unwraps says what it expects.
#![allow(clippy::unwrap_used)]

mod common;

use common::{FLAVOURS, Flavour, Gate, Truth, World, settle};
use proptest::prelude::*;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use straggler::{Builder, Kind, ParentStatus, Snapshot, Source};
use tokio::task::{AbortHandle, JoinHandle};
use tracing::{Instrument, Span};

#[derive(Clone, Copy, Debug)]
enum Op {
    /// A task that spawns so many children in its first poll, which hold its span or not.
    Spawn {
        children: u8,
        hold: bool,
        wrapped: bool,
    },
    Wake(u8),
    WakeThenAbort(u8),
    Finish(u8),
    Panic(u8),
    Abort(u8),
    DropHandle(u8),
    Join(u8),
    Yield,
}

fn op() -> impl Strategy<Value = Op> {
    let spawn =
        (0..3u8, any::<bool>(), any::<bool>()).prop_map(|(children, hold, wrapped)| Op::Spawn {
            children,
            hold,
            wrapped,
        });
    prop_oneof![
        4 => spawn,
        3 => any::<u8>().prop_map(Op::Wake),
        1 => any::<u8>().prop_map(Op::WakeThenAbort),
        2 => any::<u8>().prop_map(Op::Finish),
        1 => any::<u8>().prop_map(Op::Panic),
        2 => any::<u8>().prop_map(Op::Abort),
        1 => any::<u8>().prop_map(Op::DropHandle),
        2 => any::<u8>().prop_map(Op::Join),
        3 => Just(Op::Yield),
    ]
}

#[derive(Clone, Debug)]
struct Program {
    source: Source,
    max_live: usize,
    ops: Vec<Op>,
}

fn program() -> impl Strategy<Value = Program> {
    #[cfg(tokio_unstable)]
    let sources = vec![Source::Spans, Source::Hooks, Source::Both];
    #[cfg(not(tokio_unstable))]
    let sources = vec![Source::Spans];
    let limits = prop_oneof![2 => Just(1_000usize), 1 => 1..20usize];
    let ops = prop::collection::vec(op(), 1..80);
    (prop::sample::select(sources), limits, ops).prop_map(|(source, max_live, ops)| Program {
        source,
        max_live,
        ops,
    })
}

/// All tasks of a run, with what they truly did.
#[derive(Default)]
struct Ledger {
    truth: Arc<Truth>,
    spawned: AtomicU64,
    /// Those that got to their end themselves, by a panic or without.
    finished: AtomicU64,
    /// The block_on, and the workers.
    others: u64,
    members: Mutex<Vec<Arc<Member>>>,
}

struct Member {
    gate: Gate,
    panics: AtomicBool,
    over: AtomicBool,
    abort: AbortHandle,
    handle: Mutex<Option<JoinHandle<()>>>,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Ledger {
    fn spawn(self: &Arc<Self>, children: u8, hold: bool, wrapped: bool, around: Option<Span>) {
        let gate = Gate::default();
        let me: Arc<std::sync::OnceLock<Arc<Member>>> = Arc::default();
        let (ledger, passed, known) = (Arc::clone(self), gate.passed(), Arc::clone(&me));
        let counted = self.truth.count(async move {
            for _ in 0..children {
                ledger.spawn(0, false, wrapped, hold.then(Span::current));
            }
            passed.await;
            ledger.finished.fetch_add(1, Ordering::SeqCst);
            if known
                .get()
                .is_some_and(|me| me.panics.load(Ordering::SeqCst))
            {
                // Without the panic hook and its output.
                std::panic::resume_unwind(Box::new("meant to"));
            }
        });
        let work: Work = match around {
            Some(span) => Box::pin(counted.instrument(span)),
            None => Box::pin(counted),
        };
        self.spawned.fetch_add(1, Ordering::SeqCst);
        let plain = cfg!(tokio_unstable) && !wrapped;
        let handle = if plain {
            tokio::spawn(work)
        } else {
            straggler::spawn(work)
        };
        let member = Arc::new(Member {
            gate,
            panics: false.into(),
            over: false.into(),
            abort: handle.abort_handle(),
            handle: Some(handle).into(),
        });
        let _ = me.set(Arc::clone(&member));
        self.members.lock().unwrap().push(member);
    }

    fn member(&self, number: u8) -> Option<Arc<Member>> {
        let members = self.members.lock().unwrap();
        let at = usize::from(number).checked_rem(members.len())?;
        Some(Arc::clone(&members[at]))
    }

    async fn run(self: &Arc<Self>, op: Op) {
        let (Op::Wake(number)
        | Op::WakeThenAbort(number)
        | Op::Finish(number)
        | Op::Panic(number)
        | Op::Abort(number)
        | Op::DropHandle(number)
        | Op::Join(number)) = op
        else {
            match op {
                Op::Spawn {
                    children,
                    hold,
                    wrapped,
                } => self.spawn(children, hold, wrapped, None),
                _ => tokio::task::yield_now().await,
            }
            return;
        };
        let Some(member) = self.member(number) else {
            return;
        };
        match op {
            Op::Wake(_) => member.gate.nudge(),
            Op::DropHandle(_) => drop(member.handle.lock().unwrap().take()),
            Op::Join(_) => {
                let handle = member.handle.lock().unwrap().take();
                if let Some(handle) = handle.filter(|_| member.over.load(Ordering::SeqCst)) {
                    let _ = handle.await;
                }
            }
            _ => self.end(op, &member),
        }
    }

    fn end(&self, op: Op, member: &Member) {
        member.over.store(true, Ordering::SeqCst);
        match op {
            Op::Finish(_) => member.gate.open(),
            Op::Panic(_) => {
                member.panics.store(true, Ordering::SeqCst);
                member.gate.open();
            }
            _ => {
                if matches!(op, Op::WakeThenAbort(_)) {
                    member.gate.nudge();
                }
                member.abort.abort();
            }
        }
    }

    /// Whether a snapshot at rest is the truth.
    fn agrees(&self, snapshot: &Snapshot, source: Source) -> Result<(), String> {
        let ours = || snapshot.sites().filter(|site| is_ours(site));
        let sum = |of: fn(&straggler::Site) -> u64| ours().map(of).sum::<u64>();
        let is = |what, found: u64, truth: std::ops::RangeInclusive<u64>| {
            let holds = truth.contains(&found);
            holds
                .then_some(())
                .ok_or(format!("{what}: {found}, in truth {truth:?}"))
        };
        let same = |what, found, truth| is(what, found, truth..=truth);
        let (live, ended) = (sum(|site| site.live()), sum(|site| site.ended()));
        let known = live + sum(|site| site.ending()) + ended;
        let spawned = self.spawned.load(Ordering::SeqCst);
        let refused = snapshot.loss().refused();
        same("lifetimes", sum(|site| site.lifetime().count()), ended)?;
        if refused > 0 {
            // The runtime's own tasks are seen too, or refused.
            let other = snapshot.sites().filter(|site| !is_ours(site));
            let other: u64 = other
                .map(|site| site.live() + site.ending() + site.ended())
                .sum();
            return same(
                "known and refused",
                known + other + refused,
                spawned + self.others,
            );
        }
        same("known", known, spawned)?;
        same("live", live, spawned - self.truth.dropped())?;
        // To hooks the drop of a task that was aborted, or was in the queue of a runtime
        // that is shut down, may be one poll more.
        let slack = match source {
            Source::Hooks => self.truth.dropped() - self.finished.load(Ordering::SeqCst),
            _ => 0,
        };
        let polls = self.truth.polls();
        is(
            "polls",
            sum(|site| site.poll().count()),
            polls..=polls + slack,
        )
    }
}

/// tokio itself tells of an end some time after it.
fn expect_truth(world: &World, ledger: &Ledger, source: Source) {
    let deadline = std::time::Instant::now() + Duration::from_secs(3);
    loop {
        let snapshot = world.snapshot();
        expect_self_consistent(&snapshot);
        let Err(lie) = ledger.agrees(&snapshot, source) else {
            return;
        };
        assert!(std::time::Instant::now() < deadline, "{lie}\n{snapshot}");
        std::thread::yield_now();
    }
}

fn is_ours(site: &straggler::Site) -> bool {
    site.location().file() == file!() && site.kind() == Kind::Task
}

/// What any snapshot can be asked, at any moment.
fn expect_self_consistent(snapshot: &Snapshot) {
    let mut live = std::collections::HashMap::new();
    for task in snapshot.tasks() {
        let site = snapshot.site_of(task).expect("every task has a site");
        *live.entry(std::ptr::from_ref(site)).or_insert(0) += 1;
        if let (Some(scheduled), Some(idle)) = (task.scheduled(), task.idle()) {
            let sum = task.busy() + scheduled + idle;
            assert!(
                sum.abs_diff(task.age()) <= Duration::from_micros(1),
                "{task:?}"
            );
        }
        assert!(task.longest_poll() <= task.busy(), "{task:?}");
        assert_eq!(task.polls() == 0, task.last_polled().is_none(), "{task:?}");
        let Some(parent) = task.parent() else {
            continue;
        };
        let present = parent.task().is_some_and(|id| snapshot.task(id).is_some());
        assert_eq!(
            parent.status() == ParentStatus::Live,
            present,
            "{task:?}\n{snapshot}"
        );
    }
    for site in snapshot.sites() {
        let counted = live.get(&std::ptr::from_ref(site)).copied().unwrap_or(0);
        assert_eq!(site.live(), counted, "{snapshot}");
        let known = site.live() + site.ending() + site.ended();
        assert!(known <= site.spawned(), "{snapshot}");
        assert!(site.orphans() <= site.live(), "{snapshot}");
        assert_eq!(site.oldest().is_none(), site.live() == 0, "{snapshot}");
    }
}

/// A world on the real clock, for what depends on it.
fn world(program: &Program) -> World {
    World::on_real_time(|builder: Builder| {
        builder
            .source(program.source)
            .max_live_tasks(program.max_live)
    })
}

fn obey(program: &Program, flavour: Flavour) {
    let world = world(program);
    let runtime = world.runtime(flavour);
    let others = match (program.source, flavour) {
        _ if !cfg!(tokio_unstable) => 0,
        (Source::Hooks, _) => 0,
        (_, Flavour::CurrentThread) => 1,
        (_, Flavour::MultiThread) => 3,
    };
    let ledger = Arc::new(Ledger {
        others,
        ..Ledger::default()
    });
    let churning = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut looks = 0;
            while churning.load(Ordering::SeqCst) || looks == 0 {
                expect_self_consistent(&world.tasks.snapshot());
                looks += 1;
            }
        });
        runtime.block_on(async {
            for &op in &program.ops {
                ledger.run(op).await;
            }
            settle().await;
        });
        churning.store(false, Ordering::SeqCst);
        watcher.join().expect("every look agrees with itself");
    });
    expect_truth(&world, &ledger, program.source);
    drop(runtime);
    expect_truth(&world, &ledger, program.source);
    let snapshot = world.eventually(|snapshot| snapshot.tasks().len() == 0);
    assert_eq!(snapshot.loss().unconfirmed(), 0, "{snapshot}");
    assert_eq!(
        ledger.truth.dropped(),
        ledger.spawned.load(Ordering::SeqCst)
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 100,
        max_shrink_time: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_task_is_accounted_for_on_one_thread(program in program()) {
        obey(&program, FLAVOURS[0]);
    }

    #[test]
    fn every_task_is_accounted_for_on_many_threads(program in program()) {
        obey(&program, FLAVOURS[1]);
    }
}
