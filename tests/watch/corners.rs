//! Where it is hard to tell whose a task is, whether it was seen, and whether it has ended.

use crate::{SHORT, assert_clean, left, message_of, runtimes, until};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use straggler::testing::watch;
use tokio::runtime::Handle;
use tokio::task::{JoinSet, LocalSet, spawn_blocking, yield_now};
use tokio_util::sync::CancellationToken;

/// An output whose drop spawns a task, which tokio calls the ended task's.
struct Spawns(fn());

impl Drop for Spawns {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn spawn_one_that_ends() {
    tokio::spawn(async {});
}

fn spawn_one_that_stays() {
    tokio::spawn(pending::<()>());
}

#[test]
fn what_an_output_spawns_when_it_is_dropped() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch().settle(SHORT);
            drop(tokio::spawn(async { Spawns(spawn_one_that_ends) }));
            let mut set = JoinSet::new();
            set.spawn(async { Spawns(spawn_one_that_stays) });
            // The two, and the one that the first output spawns.
            until(|| watch.all().ended() == 3).await;
            drop(set);
            until(|| watch.all().spawned() == 4).await;
            assert_eq!(left(&watch).await.tasks().len(), 1);
        });
    }
}

#[test]
fn what_the_output_of_an_older_task_spawns() {
    let [runtime, _] = runtimes();
    let outer = watch();
    runtime.block_on(async {
        let older = tokio::spawn(async { Spawns(spawn_one_that_ends) });
        until(|| older.is_finished()).await;
        drop(outer);
        let watch = watch().settle(SHORT);
        drop(older);
        assert_clean(&watch.stragglers().await);
    });
}

#[test]
fn a_blocking_task_of_a_plain_thread() {
    for runtime in runtimes() {
        let (end, waits) = mpsc::channel::<()>();
        runtime.block_on(async {
            let watch = watch().settle(SHORT);
            let handle = Handle::current();
            let spawns = move || drop(handle.spawn_blocking(move || waits.recv()));
            std::thread::spawn(spawns).join().expect("no panic");
            let left = watch.stragglers().await;
            assert!(left.to_string().contains("[unseen-tasks]"), "{left}");
            drop(end);
            assert_clean(&watch.settle(Duration::from_secs(10)).stragglers().await);
        });
    }
}

#[test]
fn a_runtime_that_is_spawned_on_from_outside() {
    for runtime in runtimes() {
        let watch = watch().settle(SHORT);
        runtime.spawn(pending::<()>());
        runtime.block_on(yield_now());
        drop(runtime);
        let [other, _] = runtimes();
        let left = other.block_on(watch.stragglers());
        assert!(left.to_string().contains("[runtime-gone]"), "{left}");
    }
}

#[test]
fn a_runtime_on_which_nothing_is_spawned() {
    for runtime in runtimes() {
        let watch = watch().settle(SHORT);
        runtime.block_on(async {});
        runtime.block_on(watch.assert_no_stragglers());
    }
}

#[test]
fn a_runtime_that_nobody_runs_any_more() {
    let [runtime, other] = runtimes();
    let watch = runtime.block_on(async {
        let watch = watch().settle(SHORT);
        tokio::spawn(async {}).await.expect("no panic");
        watch
    });
    other.block_on(watch.assert_no_stragglers());
    other.block_on(watch.assert_no_stragglers());
}

#[test]
fn a_watch_that_one_block_on_gives_to_the_next() {
    for seen in [false, true] {
        let [runtime, _] = runtimes();
        let outer = seen.then(watch);
        let watch = runtime.block_on(async { watch().settle(SHORT) });
        runtime.block_on(async { drop(tokio::spawn(pending::<()>())) });
        assert!(
            !runtime.block_on(watch.stragglers()).passes(),
            "seen: {seen}"
        );
        drop(outer);
    }
}

#[test]
fn a_watch_in_a_task_that_nobody_saw() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let opens = tokio::spawn(async {
                let watch = watch().settle(SHORT);
                tokio::spawn(async {}).await.expect("no panic");
                watch.assert_no_stragglers().await;
            });
            opens.await.expect("no panic");
        });
    }
}

/// No runtime counts the one that opens it, so that it doesn't stand for another.
#[test]
fn a_watch_in_a_local_task_that_nobody_saw() {
    let [runtime, _] = runtimes();
    LocalSet::new().block_on(&runtime, async {
        let opens = tokio::task::spawn_local(async {
            let watch = watch().settle(SHORT);
            let handle = Handle::current();
            let spawns = move || drop(handle.spawn(pending::<()>()));
            std::thread::spawn(spawns).join().expect("no panic");
            watch.stragglers().await
        });
        let left = opens.await.expect("no panic");
        assert!(!left.passes(), "{left}");
    });
}

#[test]
fn a_block_on_in_a_blocking_task() {
    let [_, runtime] = runtimes();
    runtime.block_on(async {
        let watch = watch().settle(SHORT);
        let handle = Handle::current();
        let blocks = move || handle.block_on(async { drop(tokio::spawn(async {})) });
        spawn_blocking(blocks).await.expect("no panic");
        assert_clean(&watch.settle(Duration::from_secs(10)).stragglers().await);
    });
}

/// The runtime counts a task for a moment after its handle is done.
#[test]
fn no_time_to_settle() {
    let [_, runtime] = runtimes();
    runtime.block_on(async {
        for _ in 0..1_000 {
            let watch = watch().settle(Duration::ZERO);
            tokio::spawn(async {}).await.expect("no panic");
            assert_clean(&watch.stragglers().await);
        }
    });
}

#[test]
fn a_stop_of_many_steps() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch();
            let (ask, mut asked) = tokio::sync::mpsc::channel(1);
            tokio::spawn(async move {
                while let Some(answer) = asked.recv().await {
                    let answer: tokio::sync::oneshot::Sender<()> = answer;
                    answer.send(()).expect("somebody waits");
                }
            });
            let stop = async move {
                for _ in 0..1_000 {
                    let (answer, answered) = tokio::sync::oneshot::channel();
                    ask.send(answer).await.expect("it lives");
                    answered.await.expect("it answers");
                }
            };
            watch
                .assert_stops_within(Duration::from_secs(10), stop)
                .await;
        });
    }
}

#[test]
fn a_stop_that_needs_a_paused_clock_to_move() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let watch = watch();
        let stop = tokio::time::sleep(Duration::from_secs(3_600));
        watch
            .assert_stops_within(Duration::from_secs(10), stop)
            .await;
    });
}

#[test]
fn a_cancel_that_wakes_a_task_into_a_poll_without_end() {
    let [_, runtime] = runtimes();
    let stop = Arc::new(AtomicBool::new(false));
    let stops = Arc::clone(&stop);
    let (polls, is_polled) = mpsc::channel();
    let message = message_of(async move {
        let watch = watch();
        let token = CancellationToken::new();
        let cancelled = token.clone().cancelled_owned();
        runtime.spawn(async move {
            polls.send(()).expect("the test waits");
            cancelled.await;
            while !stops.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
        });
        is_polled.recv().expect("it is polled");
        let stopping = watch.assert_stops_within(Duration::from_millis(200), token);
        stopping.await;
        runtime.shutdown_background();
    });
    stop.store(true, Ordering::Relaxed);
    assert!(
        message.contains("in a poll that has not returned since\n"),
        "{message}"
    );
}
