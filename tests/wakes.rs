//! Who woke a task, how long it waited for its poll, and how long its polls took.
// Helpers are tests too: who unwraps says what it expects.
#![allow(clippy::unwrap_used)]
#![cfg(tokio_unstable)]

mod common;

use common::{Gate, MS, World, expect_site, settle};
use std::cell::RefCell;
use std::task::{Poll, Waker};
use std::time::Duration;
use straggler::{Snapshot, State};
use tokio::sync::oneshot;

/// The wakers of a task whose future hands out as many as it is asked for.
async fn hold_wakers(world: &World, count: usize) -> (tokio::task::Id, Vec<Waker>) {
    let (tell, told) = oneshot::channel();
    let mut tell = Some(tell);
    let task = tokio::spawn(std::future::poll_fn(move |cx| {
        if let Some(tell) = tell.take() {
            let wakers = (0..count).map(|_| cx.waker().clone()).collect::<Vec<_>>();
            tell.send(wakers).unwrap();
        }
        Poll::<()>::Pending
    }));
    let wakers = told.await.unwrap();
    assert_eq!(world.expect_task(task.id()).wakers(), Some(count as u64));
    (task.id(), wakers)
}

#[test]
fn wakers_balance() {
    let world = World::new();
    world.block_on(async {
        let (id, mut wakers) = hold_wakers(&world, 5).await;
        let expect = |count| assert_eq!(world.expect_task(id).wakers(), Some(count));
        drop(wakers.pop());
        expect(4);
        wakers.push(wakers[0].clone());
        expect(5);
        wakers.pop().unwrap().wake();
        expect(4);
        wakers[0].wake_by_ref();
        expect(4);
        wakers.clear();
        expect(0);
        settle().await;
        expect(0);
        assert!(world.snapshot().loss().is_empty());
    });
}

#[test]
fn every_use_of_a_waker_is_a_wake_and_a_burst_is_one_poll() {
    let world = World::new();
    world.block_on(async {
        let (id, wakers) = hold_wakers(&world, 3).await;
        wakers[0].wake_by_ref();
        wakers[0].wake_by_ref();
        wakers.into_iter().for_each(Waker::wake);
        let task = world.expect_task(id);
        assert_eq!((task.wakes(), task.self_wakes()), (Some(5), Some(0)));
        assert_eq!((task.polls(), task.state()), (1, Some(State::Scheduled)));
        settle().await;
        let task = world.expect_task(id);
        assert_eq!((task.polls(), task.state()), (2, Some(State::Idle)));
    });
}

#[test]
fn a_task_that_wakes_itself_is_told_from_one_that_others_wake() {
    let world = World::new();
    world.block_on(async {
        let gate = Gate::default();
        let waiting = gate.clone();
        let task = tokio::spawn(async move {
            for _ in 0..3 {
                let mut again = true;
                std::future::poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    if std::mem::take(&mut again) {
                        Poll::Pending
                    } else {
                        Poll::Ready(())
                    }
                })
                .await;
            }
            waiting.passed().await;
        });
        settle().await;
        let own = world.expect_task(task.id());
        // Each turn of the loop wakes twice, and tokio polls once more for the last.
        assert_eq!((own.wakes(), own.self_wakes()), (Some(6), Some(6)));
        gate.nudge();
        settle().await;
        let task = world.expect_task(task.id());
        assert_eq!((task.wakes(), task.self_wakes()), (Some(7), Some(6)));
        assert_eq!(task.polls(), own.polls() + 1);
    });
}

#[test]
fn wakes_from_other_threads_are_none_of_its_own() {
    let world = World::new();
    world.block_on(async {
        let (id, wakers) = hold_wakers(&world, 4).await;
        let dispatch = &world.dispatch;
        std::thread::scope(|scope| {
            for waker in wakers {
                scope.spawn(move || tracing::dispatcher::with_default(dispatch, || waker.wake()));
            }
        });
        let task = world.expect_task(id);
        assert_eq!(
            (task.wakes(), task.self_wakes(), task.wakers()),
            (Some(4), Some(0), Some(0))
        );
    });
}

/// Advances the clock within a poll, and looks from there too.
struct Busy {
    world: World,
    seen: RefCell<Option<Snapshot>>,
}

#[test]
fn times_add_up_by_the_manual_clock() {
    let busy = std::rc::Rc::new(Busy {
        world: World::new(),
        seen: RefCell::default(),
    });
    let world = &busy.world;
    let gate = Gate::default();
    let local = tokio::task::LocalSet::new();
    let runtime = world.runtime(common::Flavour::CurrentThread);
    let (inside, waiting) = (std::rc::Rc::clone(&busy), gate.clone());
    let task = local.spawn_local(async move {
        inside.world.clock.advance(MS * 30);
        inside.seen.replace(Some(inside.world.snapshot()));
        waiting.passed().await;
        inside.world.clock.advance(MS * 20);
    });
    let id = task.id();
    let now = || world.expect_task(id);
    world.clock.advance(MS * 7);
    let seen = now();
    assert_eq!(seen.state(), State::Scheduled, "not yet polled");
    assert_eq!(
        (seen.scheduled(), seen.busy(), seen.last_polled()),
        (Some(MS * 7), Duration::ZERO, None)
    );

    local.block_on(&runtime, settle());
    let seen = busy.seen.take().unwrap().task(id).unwrap().clone();
    assert_eq!((seen.state(), seen.polls()), (Some(State::Running), 1));
    assert_eq!(
        (seen.busy(), seen.longest_poll()),
        (MS * 30, MS * 30),
        "the present poll too"
    );
    assert_eq!(seen.last_polled(), Some(seen.spawned_at() + MS * 37));

    world.clock.advance(MS * 100);
    let seen = now();
    assert_eq!(
        (seen.state(), seen.idle()),
        (Some(State::Idle), Some(MS * 100))
    );
    assert_eq!((seen.busy(), seen.scheduled()), (MS * 30, Some(MS * 7)));
    gate.nudge();
    world.clock.advance(MS * 5);
    let seen = now();
    assert_eq!(
        (seen.state(), seen.scheduled()),
        (Some(State::Scheduled), Some(MS * 12))
    );
    assert_eq!((seen.idle(), seen.age()), (Some(MS * 100), MS * 142));
    assert_eq!(seen.last_polled(), Some(seen.spawned_at() + MS * 37));

    local.block_on(&runtime, settle());
    let seen = now();
    assert_eq!(
        (seen.polls(), seen.longest_poll(), seen.busy()),
        (2, MS * 30, MS * 30)
    );
    assert_eq!(seen.last_polled(), Some(seen.spawned_at() + MS * 142));

    let line = seen.location().line();
    gate.open();
    world.clock.advance(MS);
    local.block_on(&runtime, task).unwrap();
    let site = expect_site(&world.snapshot(), line);
    assert_eq!(site.poll().sum(), MS * 50);
    assert_eq!(
        (site.schedule().count(), site.schedule().sum()),
        (3, MS * 13)
    );
    assert_eq!(site.lifetime().sum(), MS * 163);
}

#[test]
fn a_wake_within_the_poll_counts_as_scheduled_from_its_end() {
    let world = World::new();
    world.block_on(async {
        let clock = world.clock.clone();
        let mut polls = 0;
        let task = tokio::spawn(std::future::poll_fn(move |cx| {
            polls += 1;
            if polls == 1 {
                cx.waker().wake_by_ref();
                clock.advance(MS * 40);
            }
            Poll::<()>::Pending
        }));
        settle().await;
        let task = world.expect_task(task.id());
        assert_eq!((task.polls(), task.wakes()), (2, Some(1)));
        assert_eq!(
            (task.busy(), task.scheduled()),
            (MS * 40, Some(Duration::ZERO))
        );
        assert_eq!(task.longest_poll(), MS * 40);
    });
}
