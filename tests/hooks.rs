//! straggler's hooks called from hooks of the program's own: all of them, some, and what a
//! forgotten one costs.
#![allow(clippy::unwrap_used)]
#![cfg(tokio_unstable)]

mod common;

use common::{FLAVOURS, Flavour, Gate, Truth, World, settle};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use straggler::{Hooks, ParentStatus, Snapshot, Source, State};
use tokio::runtime::{Builder, Runtime, TaskMeta};
use tokio::task::Id;
use tracing::dispatcher::{self, Dispatch};
use tracing::subscriber::NoSubscriber;
use tracing::{Instrument, Span};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    Spawn,
    Before,
    After,
    Terminate,
}

const ALL: [Hook; 4] = [Hook::Spawn, Hook::Before, Hook::After, Hook::Terminate];

fn without(forgotten: &[Hook]) -> Vec<Hook> {
    let mut kept = ALL.to_vec();
    kept.retain(|hook| !forgotten.contains(hook));
    kept
}

/// How often each hook of the program's own was called.
#[derive(Debug, Default)]
struct Own([AtomicU64; 4]);

impl Own {
    fn count(&self, hook: Hook) -> u64 {
        self.0[hook as usize].load(Ordering::SeqCst)
    }

    async fn reaches(&self, hook: Hook, count: u64) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.count(hook) < count {
            assert!(Instant::now() < deadline, "{hook:?} called {count} times");
            tokio::task::yield_now().await;
        }
    }
}

fn world(source: Source) -> World {
    World::with(|builder| builder.source(source))
}

fn builder(world: &World, flavour: Flavour) -> Builder {
    let mut builder = match flavour {
        Flavour::CurrentThread => Builder::new_current_thread(),
        Flavour::MultiThread => Builder::new_multi_thread(),
    };
    let dispatch = world.dispatch.clone();
    builder
        .worker_threads(2)
        // The default stays for as long as the thread does.
        .on_thread_start(move || {
            std::mem::forget(dispatcher::set_default(&dispatch));
        });
    builder
}

/// A runtime that has all four hooks of the program's own; those in `told` call straggler's.
fn hooked(world: &World, flavour: Flavour, told: &[Hook]) -> (Runtime, Arc<Own>) {
    let own = Arc::new(Own::default());
    let hook = |hook: Hook, tell: fn(&Hooks, &TaskMeta<'_>)| {
        let (own, hooks) = (Arc::clone(&own), world.tasks.hooks());
        let told = told.contains(&hook);
        move |meta: &TaskMeta<'_>| {
            if told {
                tell(&hooks, meta);
            }
            own.0[hook as usize].fetch_add(1, Ordering::SeqCst);
        }
    };
    let runtime = builder(world, flavour)
        .on_task_spawn(hook(Hook::Spawn, Hooks::on_task_spawn))
        .on_before_task_poll(hook(Hook::Before, Hooks::on_before_task_poll))
        .on_after_task_poll(hook(Hook::After, Hooks::on_after_task_poll))
        .on_task_terminate(hook(Hook::Terminate, Hooks::on_task_terminate))
        .build()
        .unwrap();
    (runtime, own)
}

/// What the sites count of tasks spawned here: spawned, polled, ended.
fn counted(snapshot: &Snapshot) -> [u64; 3] {
    let here = (snapshot.sites())
        .filter(|site| site.location().file() == file!() && site.kind() == straggler::Kind::Task);
    here.fold([0; 3], |[spawned, polled, ended], site| {
        let polls = site.poll().count();
        [
            spawned + site.spawned(),
            polled + polls,
            ended + site.ended(),
        ]
    })
}

fn codes(snapshot: &Snapshot) -> Vec<&'static str> {
    let diagnoses = snapshot.diagnoses().iter();
    diagnoses.map(|diagnosis| diagnosis.code()).collect()
}

/// What the one `missing-hook` of the diagnoses says is missing.
#[track_caller]
fn missing(snapshot: &Snapshot) -> Vec<Hook> {
    let said = (snapshot.diagnoses().iter())
        .find(|diagnosis| diagnosis.code() == "missing-hook")
        .unwrap_or_else(|| panic!("a hook is missing\n{snapshot}"));
    let said = said.to_string();
    let names = [
        "`on_task_spawn`",
        "`on_before_task_poll`",
        "`on_after_task_poll`",
        "`on_task_terminate`",
    ];
    (ALL.into_iter().zip(names))
        .filter_map(|(hook, name)| said.contains(name).then_some(hook))
        .collect()
}

/// A task that is polled twice and completes.
async fn ends() {
    let task = tokio::spawn(tokio::task::yield_now());
    task.await.unwrap();
}

/// The parent has ended, and the child that it left behind holds its span.
async fn leaves_one_behind() -> (Id, Id) {
    let parent = tokio::spawn(async {
        let child = std::future::pending::<()>().instrument(Span::current());
        tokio::spawn(child).id()
    });
    let id = parent.id();
    (id, parent.await.unwrap())
}

#[test]
fn hooks_can_go_wherever_closures_do() {
    fn anywhere<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}
    let hooks = world(Source::Hooks).tasks.hooks();
    anywhere(&hooks);
    assert!(format!("{hooks:?}").contains("Hooks"), "{hooks:?}");
}

#[test]
fn the_programs_own_hooks_and_stragglers_count_the_same() {
    for flavour in FLAVOURS {
        for source in [Source::Hooks, Source::Both] {
            let world = world(source);
            let (runtime, own) = hooked(&world, flavour, &ALL);
            let truth = Arc::new(Truth::default());
            runtime.block_on(async {
                let tasks: Vec<_> = (0..40)
                    .map(|n| {
                        let yields = async move {
                            for _ in 0..n % 5 {
                                tokio::task::yield_now().await;
                            }
                        };
                        tokio::spawn(truth.count(yields))
                    })
                    .collect();
                for task in tasks {
                    task.await.unwrap();
                }
            });
            let snapshot = world.eventually(|snapshot| counted(snapshot)[2] == 40);
            let polls = truth.polls();
            assert_eq!(polls, 8 * (1 + 2 + 3 + 4 + 5));
            assert_eq!(
                counted(&snapshot),
                [40, polls, 40],
                "{source:?} {flavour:?}"
            );
            // The program's part of a hook comes after straggler's: the last may be under way.
            drop(runtime);
            assert_eq!(own.count(Hook::Spawn), 40);
            assert_eq!(own.count(Hook::Before), polls);
            assert!(own.count(Hook::Terminate) >= 40, "blocking tasks end too");
            assert!(snapshot.loss().is_empty(), "{snapshot}");
            assert_eq!(codes(&snapshot), [""; 0], "{source:?} {flavour:?}");
        }
    }
}

#[test]
fn a_spawn_by_hooks_knows_its_parent() {
    for flavour in FLAVOURS {
        let world = world(Source::Hooks);
        let (runtime, _) = hooked(&world, flavour, &ALL);
        let (parent, child) = runtime.block_on(leaves_one_behind());
        let snapshot = world.eventually(|snapshot| snapshot.task(parent).is_none());
        let found = snapshot.task(child).unwrap().parent().unwrap();
        assert_eq!(found.task().unwrap(), parent);
        assert_eq!(found.status(), ParentStatus::Ended);
    }
}

#[test]
fn both_needs_no_poll_hooks() {
    for flavour in FLAVOURS {
        let world = world(Source::Both);
        let (runtime, own) = hooked(&world, flavour, &without(&[Hook::Before, Hook::After]));
        let (parent, _) = runtime.block_on(leaves_one_behind());
        let snapshot = world.eventually(|snapshot| snapshot.task(parent).is_none());
        assert!(own.count(Hook::Before) > 0);
        assert!(snapshot.loss().is_empty(), "{snapshot}");
        assert_eq!(codes(&snapshot), [""; 0]);
    }
}

/// Spawns a task that no span shows, and lets it be polled.
fn polls_unseen(runtime: &Runtime, own: &Own) -> Id {
    let blind = Dispatch::new(NoSubscriber::default());
    dispatcher::with_default(&blind, || {
        let task = runtime.spawn(std::future::pending::<()>());
        runtime.block_on(own.reaches(Hook::After, 1));
        task.id()
    })
}

#[test]
fn with_both_the_poll_hooks_do_nothing() {
    for flavour in FLAVOURS {
        let world = world(Source::Both);
        let (runtime, own) = hooked(&world, flavour, &ALL);
        let task = polls_unseen(&runtime, &own);
        assert_eq!(world.expect_task(task).polls(), 0, "{flavour:?}");
    }
}

#[test]
fn with_spans_alone_they_do_nothing() {
    for flavour in FLAVOURS {
        let world = world(Source::Spans);
        let (runtime, own) = hooked(&world, flavour, &ALL);
        runtime.block_on(ends());
        let snapshot = world.eventually(|snapshot| counted(snapshot)[2] == 1);
        assert_eq!(counted(&snapshot), [1, 2, 1]);
        assert_eq!(codes(&snapshot), [""; 0]);
        let task = polls_unseen(&runtime, &own);
        let snapshot = world.snapshot();
        assert!(snapshot.task(task).is_none(), "{snapshot}");
    }
}

#[test]
fn hooks_that_were_taken_and_not_set_are_not_silence() {
    let world = world(Source::Hooks);
    let hooks = world.tasks.hooks();
    assert_eq!(codes(&world.snapshot()), ["no-hooked-runtime"]);
    let runtime = builder(&world, Flavour::CurrentThread).build().unwrap();
    runtime.block_on(async {
        tokio::spawn(async {}).await.unwrap();
        tokio::spawn(std::future::pending::<()>());
        let expected = ["no-hooked-runtime", "unhooked-runtime"];
        assert_eq!(codes(&world.snapshot()), expected);
    });
    drop(hooks);
}

#[test]
fn hooks_that_were_set_are_known_from_the_first_spawn() {
    for flavour in FLAVOURS {
        let world = world(Source::Hooks);
        let (runtime, _) = hooked(&world, flavour, &ALL);
        assert_eq!(codes(&world.snapshot()), ["no-hooked-runtime"]);
        let tasks = world.tasks.clone();
        let asks = async move { codes(&tasks.snapshot()) };
        let asked = async { tokio::spawn(asks).await.unwrap() };
        // In the first poll of all, whose end nobody has told of yet.
        assert_eq!(runtime.block_on(asked), [""; 0], "{flavour:?}");
    }
}

#[test]
fn a_forgotten_spawn_hook_is_named() {
    for flavour in FLAVOURS {
        let world = world(Source::Hooks);
        let (runtime, _) = hooked(&world, flavour, &without(&[Hook::Spawn]));
        runtime.block_on(ends());
        let snapshot = world.snapshot();
        assert_eq!(counted(&snapshot), [0, 0, 0]);
        assert_eq!(codes(&snapshot), ["no-hooked-runtime", "missing-hook"]);
        assert_eq!(missing(&snapshot), [Hook::Spawn]);
    }
}

#[test]
fn without_the_spawn_hook_both_knows_what_the_spans_show() {
    let world = world(Source::Both);
    let (runtime, _) = hooked(&world, Flavour::CurrentThread, &without(&[Hook::Spawn]));
    let (parent, child) = runtime.block_on(leaves_one_behind());
    let snapshot = world.snapshot();
    assert_eq!(counted(&snapshot), [2, 2, 1], "the terminate hook tells");
    let of = snapshot.task(child).unwrap().parent().unwrap();
    assert_eq!(
        (of.status(), of.task().unwrap() == parent),
        (ParentStatus::Ended, true)
    );
    assert_eq!(codes(&snapshot), ["no-hooked-runtime", "missing-hook"]);
    assert_eq!(missing(&snapshot), [Hook::Spawn]);
}

#[test]
fn a_forgotten_terminate_hook_is_named() {
    for flavour in FLAVOURS {
        for source in [Source::Hooks, Source::Both] {
            let world = world(source);
            let (runtime, _) = hooked(&world, flavour, &without(&[Hook::Terminate]));
            let (parent, _) = runtime.block_on(leaves_one_behind());
            let said = |snapshot: &Snapshot| codes(snapshot) == ["missing-hook"];
            let snapshot = world.eventually(said);
            assert_eq!(missing(&snapshot), [Hook::Terminate], "{source:?}");
            assert!(snapshot.task(parent).is_some(), "it stays\n{snapshot}");
            drop(runtime);
        }
    }
}

#[test]
fn a_forgotten_hook_before_polls_is_named() {
    for forgotten in [&[Hook::Before][..], &[Hook::Before, Hook::After]] {
        for flavour in FLAVOURS {
            let world = world(Source::Hooks);
            let (runtime, _) = hooked(&world, flavour, &without(forgotten));
            let (parent, child) = runtime.block_on(leaves_one_behind());
            let snapshot = world.eventually(|snapshot| snapshot.task(parent).is_none());
            assert_eq!(counted(&snapshot), [2, 0, 1], "{snapshot}");
            assert_eq!(missing(&snapshot), forgotten, "{snapshot}");
            let child = snapshot.task(child).unwrap();
            let of = child.parent().unwrap();
            assert_eq!(of.task().unwrap(), parent);
            assert_eq!(child.polls(), 0, "{snapshot}");
        }
    }
}

#[test]
fn a_forgotten_hook_after_polls_is_named() {
    for flavour in FLAVOURS {
        let world = world(Source::Hooks);
        let (runtime, own) = hooked(&world, flavour, &without(&[Hook::After]));
        runtime.block_on(async {
            let gate = Gate::default();
            let task = tokio::spawn(gate.passed());
            own.reaches(Hook::After, 1).await;
            assert_eq!(codes(&world.snapshot()), [""; 0], "nothing shows it yet");
            for polls in [2, 3] {
                gate.nudge();
                own.reaches(Hook::After, polls).await;
                let snapshot = world.snapshot();
                let task = snapshot.task(task.id()).unwrap();
                assert_eq!((task.polls(), task.state()), (polls, Some(State::Running)));
            }
            gate.open();
            task.await.unwrap();
        });
        let snapshot = world.eventually(|snapshot| counted(snapshot)[2] == 1);
        assert_eq!(missing(&snapshot), [Hook::After], "{snapshot}");
        assert_eq!(counted(&snapshot), [1, 4, 1], "each began\n{snapshot}");
    }
}

#[test]
fn a_hook_set_after_stragglers_replaces_it_and_that_is_named() {
    let world = world(Source::Hooks);
    let mut builder = builder(&world, Flavour::CurrentThread);
    world.tasks.hook(&mut builder);
    let runtime = builder.on_task_spawn(|_| {}).build().unwrap();
    runtime.block_on(ends());
    let snapshot = world.snapshot();
    assert_eq!(codes(&snapshot), ["missing-hook"]);
    assert_eq!(missing(&snapshot), [Hook::Spawn]);
}

#[test]
fn blocking_tasks_alone_are_no_sign_of_a_missing_hook() {
    for source in [Source::Hooks, Source::Both] {
        let world = world(source);
        let mut builder = builder(&world, Flavour::CurrentThread);
        world.tasks.hook(&mut builder);
        let runtime = builder.build().unwrap();
        runtime.block_on(async {
            let blocking = tokio::task::spawn_blocking(|| ());
            blocking.await.unwrap();
            settle().await;
        });
        drop(runtime);
        assert_eq!(codes(&world.snapshot()), [""; 0], "{source:?}");
    }
}

/// tokio calls the hook after a poll when the task is free to be polled again.
#[test]
fn the_end_of_a_poll_that_is_told_late_is_not_that_of_the_next() {
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    static TOLD: AtomicU64 = AtomicU64::new(0);
    static TASK: AtomicU64 = AtomicU64::new(0);
    let is_it = |meta: &TaskMeta<'_>| {
        TASK.load(Ordering::SeqCst) == straggler::TaskId::from(meta.id()).as_u64()
    };
    let until = |counter: &AtomicU64, count: u64| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while counter.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < deadline, "{count} times");
            std::thread::yield_now();
        }
    };
    let world = world(Source::Hooks);
    let mut builder = Builder::new_multi_thread();
    let hooks = world.tasks.hooks();
    let of = || hooks.clone();
    builder.worker_threads(2);
    let told = of();
    builder.on_task_spawn(move |meta| {
        TASK.store(
            straggler::TaskId::from(meta.id()).as_u64(),
            Ordering::SeqCst,
        );
        told.on_task_spawn(meta);
    });
    let told = of();
    builder.on_before_task_poll(move |meta| {
        told.on_before_task_poll(meta);
        BEGUN.fetch_add(u64::from(is_it(meta)), Ordering::SeqCst);
    });
    let told = of();
    builder.on_after_task_poll(move |meta| {
        if is_it(meta) {
            // The first is told when the second poll is under way, on the other worker.
            until(&BEGUN, 2);
        }
        told.on_after_task_poll(meta);
        TOLD.fetch_add(u64::from(is_it(meta)), Ordering::SeqCst);
    });
    let told = of();
    builder.on_task_terminate(move |meta| told.on_task_terminate(meta));
    let runtime = builder.build().unwrap();
    let snapshot = runtime.block_on(async {
        let tasks = world.tasks.clone();
        let mut polls = 0;
        let task = tokio::spawn(std::future::poll_fn(move |cx| {
            polls += 1;
            if polls == 1 {
                cx.waker().wake_by_ref();
                return std::task::Poll::Pending;
            }
            until(&TOLD, 1);
            std::task::Poll::Ready(tasks.snapshot())
        }));
        let id = task.id();
        (id, task.await.unwrap())
    });
    let (id, during) = snapshot;
    let task = during.task(id).unwrap();
    assert_eq!((task.polls(), task.state()), (2, Some(State::Running)));
    let after = world.eventually(|snapshot| counted(snapshot)[2] == 1);
    assert_eq!(counted(&after), [1, 2, 1], "{after}");
    assert!(after.loss().is_empty(), "{}", after.loss());
}
