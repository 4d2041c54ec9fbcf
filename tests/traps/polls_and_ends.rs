//! Traps 1, 2, 4 to 7 and 9 to 13: whose poll it is, whose wake, and when it ends.

use crate::common::{FLAVOURS, Flavour, Gate, Truth, World, expect_site, settle};
use std::sync::Arc;
use straggler::{Cause, Certainty, Kind, ParentStatus, Source, State};
use tokio::sync::{mpsc, oneshot};
use tracing::{Instrument, Span};

// 1, 9
#[test]
fn the_parent_is_the_task_that_was_polled_though_the_span_has_none() {
    for flavour in FLAVOURS {
        let world = World::new();
        let runtime = world.runtime(flavour);
        let gate = Gate::default();
        let (parent, child) = runtime.block_on(async {
            let (tell, told) = oneshot::channel();
            let gate = gate.clone();
            let parent = tokio::spawn(async move {
                let child = tokio::spawn(gate.clone().passed());
                tell.send(child.id()).unwrap();
                gate.passed().await;
            });
            (parent.id(), told.await.unwrap())
        });
        let snapshot = world.snapshot();
        let seen = snapshot
            .task(child)
            .expect("it waits")
            .parent()
            .expect("a parent")
            .clone();
        assert_eq!(seen.task().unwrap(), parent);
        assert_eq!(seen.status(), ParentStatus::Live);
        assert!(snapshot.task(parent).is_some());
        let expected = Some(runtime.handle().id());
        assert_eq!(snapshot.task(parent).unwrap().runtime(), expected);
    }
}

// 1
#[test]
fn a_blocking_task_keeps_its_spawners_span_open_but_not_its_spawner() {
    let world = World::new();
    let runtime = world.runtime(Flavour::CurrentThread);
    // Dropped before the runtime, which waits for the closure.
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let (line, blocking) = runtime.block_on(async {
        let spawner = async { (line!(), tokio::task::spawn_blocking(move || wait.recv())) };
        tokio::spawn(spawner).await.unwrap()
    });
    let snapshot = world.eventually(|snapshot| snapshot.orphans().count() == 1);
    let task = snapshot.orphans().next().expect("the closure runs on");
    assert_eq!(
        (task.kind(), task.location().line()),
        (Kind::Blocking, line)
    );
    assert_eq!(task.orphaned().unwrap().certainty(), Certainty::Certain);
    assert_eq!(snapshot.loss().unconfirmed(), 0, "{snapshot}");
    drop(release);
    let _ = runtime.block_on(blocking).unwrap();
    let snapshot = world.eventually(|snapshot| expect_site(snapshot, line).ended() == 1);
    let site = expect_site(&snapshot, line);
    assert_eq!(
        (site.ended(), site.live(), site.poll().count()),
        (1, 0, 1),
        "{snapshot}"
    );
}

// 2
#[test]
fn close_is_not_the_end_of_a_task() {
    for source in [Source::Spans, Source::Both] {
        let world = World::with(|builder| builder.source(source));
        let gate = Gate::default();
        world.block_on(async {
            let work = gate.clone();
            let line = line!() + 1;
            let parent = tokio::spawn(async move {
                tokio::spawn(work.passed().instrument(Span::current())).id()
            });
            let child = parent.await.unwrap();
            settle().await;
            let snapshot = world.snapshot();
            let orphan = snapshot.task(child).expect("it waits").orphaned().cloned();
            let orphan = orphan.expect("its parent has ended, span or no span");
            assert_eq!(orphan.cause(), Cause::ParentEnded);
            assert_eq!(orphan.certainty(), Certainty::Certain, "{snapshot}");
            assert_eq!(
                expect_site(&snapshot, line).ended(),
                1,
                "{source:?}\n{snapshot}"
            );
        });
    }
}

// 2: the terminate hook also fires for blocking tasks, whose spawn hook does not
#[test]
fn blocking_tasks_terminate_for_hooks_that_never_saw_them_spawned() {
    for source in [Source::Hooks, Source::Both] {
        let world = World::with(|builder| builder.source(source));
        let runtime = world.runtime(Flavour::MultiThread);
        runtime.block_on(async {
            tokio::task::spawn_blocking(|| {}).await.unwrap();
        });
        drop(runtime);
        let snapshot = world.eventually(|snapshot| snapshot.tasks().len() == 0);
        assert_eq!(snapshot.tasks().len(), 0, "{snapshot}");
        for site in snapshot.sites() {
            assert_eq!(site.spawned(), site.ended(), "{snapshot}");
            assert_eq!(site.lifetime().count(), site.ended(), "{snapshot}");
        }
    }
}

// 4
#[test]
fn waker_events_name_the_span_and_not_the_task() {
    let world = World::new();
    world.block_on(async {
        let (first, second) = (Gate::default(), Gate::default());
        let a = tokio::spawn(first.passed());
        let b = tokio::spawn(second.passed());
        settle().await;
        (0..3).for_each(|_| second.nudge());
        assert_eq!(world.expect_task(a.id()).wakes(), Some(0));
        assert_eq!(world.expect_task(b.id()).wakes(), Some(3));
        assert_eq!(world.expect_task(b.id()).wakers(), Some(1), "the gate's");
    });
}

// 4
#[test]
fn a_wake_after_close_falls_on_nobody() {
    let world = World::new();
    world.block_on(async {
        let (tell, told) = oneshot::channel();
        let mut tell = Some(tell);
        let done = tokio::spawn(std::future::poll_fn(move |cx| {
            tell.take().unwrap().send(cx.waker().clone()).unwrap();
            std::task::Poll::Ready(())
        }));
        let waker = told.await.unwrap();
        done.await.unwrap();
        // Spans and slots are used again.
        let gate = Gate::default();
        let next: Vec<_> = (0..64).map(|_| tokio::spawn(gate.passed()).id()).collect();
        settle().await;
        waker.wake_by_ref();
        waker.wake();
        for id in next {
            let task = world.expect_task(id);
            assert_eq!((task.wakes(), task.wakers()), (Some(0), Some(1)));
            assert_eq!(task.state(), State::Idle);
        }
    });
}

// 5
#[test]
fn span_ids_are_reused() {
    let world = World::new();
    let truth = Arc::new(Truth::default());
    world.block_on(async {
        let line = line!() + 3;
        for round in 1..=200 {
            let future = truth.count(tokio::task::yield_now());
            let task = tokio::spawn(future);
            let id = task.id();
            assert_eq!(world.expect_task(id).polls(), 0, "round {round}");
            task.await.unwrap();
            settle().await;
            assert!(world.snapshot().task(id).is_none(), "round {round}");
        }
        let site = world.expect_site(line);
        assert_eq!((site.ended(), site.poll().count()), (200, truth.polls()));
    });
}

// 6
#[test]
fn the_kind_and_name_are_words_and_an_empty_name_is_none() {
    let world = World::new();
    world.block_on(async {
        let named = tokio::task::Builder::new()
            .name("re\"fresh")
            .spawn(std::future::pending::<()>());
        let unnamed = tokio::spawn(std::future::pending::<()>());
        let task = world.expect_task(named.unwrap().id());
        assert_eq!((task.name(), task.kind()), (Some("re\"fresh"), Kind::Task));
        assert_eq!(world.expect_task(unnamed.id()).name(), None);
        let ours = straggler::task("ours").spawn(std::future::pending::<()>());
        let task = world.expect_task(ours.id());
        assert_eq!(
            (task.name(), task.location().file()),
            (Some("ours"), file!())
        );
    });
}

// 7
#[test]
fn workers_and_block_on_are_no_orphans() {
    let world = World::new();
    let outer = world.runtime(Flavour::CurrentThread);
    let inner = outer.block_on(async {
        // Built within a task that ends: its workers outlive it, as they should.
        tokio::spawn(async { build_elsewhere() }).await.unwrap()
    });
    let kinds = |kind| move |task: &&straggler::Task| task.kind() == kind;
    let snapshot =
        world.eventually(|snapshot| snapshot.tasks().filter(kinds(Kind::Blocking)).count() == 2);
    assert_eq!(
        snapshot.tasks().filter(kinds(Kind::Blocking)).count(),
        2,
        "{snapshot}"
    );
    assert!(
        snapshot
            .tasks()
            .filter(kinds(Kind::Blocking))
            .all(|task| task.is_daemon())
    );
    assert_eq!(snapshot.orphans().count(), 0, "{snapshot}");
    inner.block_on(async {
        let snapshot = world.snapshot();
        assert_eq!(
            snapshot.tasks().filter(kinds(Kind::BlockOn)).count(),
            1,
            "{snapshot}"
        );
        assert_eq!(snapshot.orphans().count(), 0, "{snapshot}");
    });
    drop(inner);
}

fn build_elsewhere() -> tokio::runtime::Runtime {
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(move || {
            std::mem::forget(tracing::dispatcher::set_default(&dispatch));
        })
        .build()
        .unwrap()
}

// 10
#[test]
fn dropping_a_runtime_cancels_its_tasks_and_that_is_no_leak() {
    for flavour in FLAVOURS {
        let world = World::new();
        let runtime = world.runtime(flavour);
        let line = line!() + 2;
        for _ in 0..10 {
            runtime.spawn(std::future::pending::<()>());
        }
        drop(runtime);
        let snapshot = world.eventually(|snapshot| snapshot.tasks().len() == 0);
        let site = expect_site(&snapshot, line);
        assert_eq!(
            (site.live(), site.ended(), site.panicked()),
            (0, 10, 0),
            "{snapshot}"
        );
    }
}

// 11
#[test]
fn a_wake_event_can_precede_the_poll_it_does_not_cause() {
    // Two wakes and one poll, then a poll with no wake event before it that was taken:
    // the task is not taken for dead, and its one end is counted once.
    let world = World::new();
    let truth = Arc::new(Truth::default());
    let runtime = world.runtime(Flavour::MultiThread);
    let (sender, mut receiver) = mpsc::unbounded_channel::<u32>();
    let line = line!() + 1;
    let task = runtime.spawn(truth.count(async move { while receiver.recv().await.is_some() {} }));
    for number in 0..20_000 {
        sender.send(number).unwrap();
        if number % 100 == 0 {
            // However the wake and the poll met, it is there, and it is not two.
            let snapshot = world.snapshot();
            let site = expect_site(&snapshot, line);
            assert_eq!(
                (site.live() + site.ending(), site.ended()),
                (1, 0),
                "{snapshot}"
            );
        }
    }
    drop(sender);
    runtime.block_on(task).unwrap();
    let snapshot = world.eventually(|snapshot| expect_site(snapshot, line).ended() == 1);
    let site = expect_site(&snapshot, line);
    assert_eq!(
        (site.ended(), site.lifetime().count(), site.live()),
        (1, 1, 0),
        "{snapshot}"
    );
    assert_eq!(site.poll().count(), truth.polls());
}

// 12
#[test]
fn a_lost_waker_is_not_taken_for_the_end() {
    for flavour in FLAVOURS {
        let world = World::new();
        let runtime = world.runtime(flavour);
        let task = runtime.spawn(std::future::pending::<()>());
        runtime.block_on(settle());
        let snapshot = world.eventually(|snapshot| {
            (snapshot.task(task.id())).is_some_and(|task| task.state() == State::Idle)
        });
        for _ in 0..5 {
            assert!(snapshot.task(task.id()).is_some(), "{snapshot}");
            assert_eq!(snapshot.loss().unconfirmed(), 0, "{snapshot}");
            world.snapshot();
        }
        let task = world.expect_task(task.id());
        assert_eq!((task.wakers(), task.polls()), (Some(0), 1));
    }
}

// 12: a waker that somebody keeps makes the ghost look like any idle task
#[test]
fn a_ghost_whose_waker_is_kept_is_settled_or_unaccounted() {
    // A bystander that was woken once may as well be the one that is missing.
    expect_ghost_with_waker(false, (1, 0));
    expect_ghost_with_waker(true, (0, 1));
}

fn expect_ghost_with_waker(bystander_was_woken: bool, ended_and_unaccounted: (u64, u64)) {
    let world = World::new();
    world.block_on(async {
        let (tell, told) = oneshot::channel();
        let gate = Gate::default();
        let mut tell = Some(tell);
        let ghost = tokio::spawn(std::future::poll_fn(move |cx| {
            if let Some(tell) = tell.take() {
                tell.send((cx.waker().clone(), Span::current())).unwrap();
            }
            std::task::Poll::<()>::Pending
        }));
        let _bystander = tokio::spawn(gate.passed());
        let (waker, _span) = told.await.unwrap();
        settle().await;
        if bystander_was_woken {
            gate.nudge();
            settle().await;
        }
        waker.wake_by_ref();
        ghost.abort();
        ghost.await.unwrap_err();
        settle().await;
        let snapshot = world.snapshot();
        let ended = snapshot.sites().map(straggler::Site::ended).sum::<u64>();
        let found = (ended, snapshot.loss().unaccounted());
        assert_eq!(found, ended_and_unaccounted, "{snapshot}");
    });
}

// H: neither a task whose wakes were not seen nor one that lost its waker is taken for a
// ghost beside it; one that was comes back
#[test]
fn a_living_task_beside_a_ghost_is_not_lost() {
    let world = World::new();
    world.block_on(async {
        let gate = Gate::default();
        let again = gate.clone();
        let living = tokio::spawn(async move {
            loop {
                again.passed().await;
            }
        });
        let lost = tokio::spawn(std::future::pending::<()>());
        // Wakes itself in its last poll, and its span is kept.
        let (tell, told) = oneshot::channel();
        let ghost = tokio::spawn(async move {
            let mut tell = Some(tell);
            let last = std::future::poll_fn(move |cx| {
                cx.waker().wake_by_ref();
                tell.take().unwrap().send(Span::current()).unwrap();
                std::task::Poll::Ready(())
            });
            last.await;
        });
        let _span = told.await.unwrap();
        ghost.await.unwrap();
        settle().await;
        // A thread that reports to nobody wakes it: a poll without a wake, like a drop.
        tracing::dispatcher::with_default(&tracing::Dispatch::none(), || gate.nudge());
        settle().await;
        for _ in 0..3 {
            assert!(world.snapshot().task(lost.id()).is_some());
        }
        gate.nudge();
        settle().await;
        let snapshot = world.snapshot();
        let task = snapshot.task(living.id()).expect("it was polled again");
        assert_eq!(task.polls(), 3);
        let site = snapshot.site_of(task).unwrap();
        assert_eq!(
            (site.live(), site.ended(), site.lifetime().count()),
            (1, 0, 0)
        );
    });
}

// 13
#[test]
fn a_child_entering_its_parents_span_is_no_poll_of_the_parent() {
    for flavour in FLAVOURS {
        let world = World::new();
        let runtime = world.runtime(flavour);
        let (go, child_go) = (Gate::default(), Gate::default());
        let (child_truth, waiting) = (Arc::new(Truth::default()), child_go.clone());
        let (tell, told) = oneshot::channel();
        let (truth, gate) = (Arc::clone(&child_truth), go.clone());
        let parent = runtime.spawn(async move {
            tell.send(tokio::spawn(
                truth.count(waiting.passed()).instrument(Span::current()),
            ))
            .unwrap();
            gate.passed().await;
        });
        let child = runtime.block_on(told).unwrap();
        for round in 1..20 {
            runtime.block_on(settle());
            let snapshot = world.eventually(|snapshot| {
                let child = snapshot.task(child.id()).unwrap();
                child_truth.polls() >= round && child.state() == State::Idle
            });
            assert_eq!(
                snapshot.task(child.id()).unwrap().polls(),
                child_truth.polls()
            );
            child_go.nudge();
        }
        assert_eq!(world.expect_task(parent.id()).polls(), 1);
    }
}

// 13
#[test]
fn an_instrument_nested_inside_the_task_is_no_poll() {
    let world = World::new();
    let truth = Arc::new(Truth::default());
    world.block_on(async {
        let nested = async { tokio::task::yield_now().instrument(Span::current()).await };
        let line = line!() + 1;
        tokio::spawn(truth.count(nested)).await.unwrap();
        settle().await;
        assert_eq!(world.expect_site(line).poll().count(), truth.polls());
        assert_eq!(truth.polls(), 2);
    });
}

// 10: tokio drops such a task, and runs the terminate hook, before the spawn hook
#[test]
fn a_task_spawned_into_a_closed_runtime_is_no_ghost() {
    for source in [Source::Spans, Source::Hooks, Source::Both] {
        for flavour in FLAVOURS {
            let world = World::with(|builder| builder.source(source));
            let truth = Arc::new(Truth::default());
            let runtime = world.runtime(flavour);
            let handle = runtime.handle().clone();
            drop(runtime);
            handle.spawn(truth.count(std::future::pending::<()>()));
            {
                let _inside = handle.enter();
                straggler::spawn(truth.count(std::future::pending::<()>()));
            }
            assert_eq!(truth.dropped(), 2);
            let snapshot = world.snapshot();
            assert_eq!(
                snapshot.tasks().len(),
                0,
                "{source:?} {flavour:?}\n{snapshot}"
            );
            let sites = snapshot.sites().filter(|site| site.kind() == Kind::Task);
            let counts = sites.map(|site| (site.spawned(), site.ended(), site.aborted()));
            assert_eq!(
                counts.collect::<Vec<_>>(),
                [(1, 1, 1); 2],
                "{source:?}\n{snapshot}"
            );
        }
    }
}

#[test]
fn a_spawn_that_fails_leaves_no_mark_on_the_next() {
    let world = World::with(|builder| builder.source(Source::Hooks));
    let truth = Arc::new(Truth::default());
    std::panic::catch_unwind(|| straggler::task("lost").spawn(async {})).unwrap_err();
    world.block_on(async {
        let task = tokio::spawn(truth.count(std::future::pending::<()>()));
        settle().await;
        let task = world.expect_task(task.id());
        assert_eq!((task.name(), task.polls()), (None, truth.polls()));
    });
}

#[test]
fn a_spawn_that_fails_inside_a_task_does_not_end_that_task() {
    let world = World::new();
    world.block_on(async {
        let parent = straggler::spawn(async {
            let outside = || straggler::spawn_local(async {});
            assert!(
                std::panic::catch_unwind(outside).is_err(),
                "no LocalSet here"
            );
            std::future::pending::<()>().await;
        });
        settle().await;
        assert_eq!(world.expect_task(parent.id()).polls(), 1);
    });
}
