//! Which tasks belong to a watch.

use crate::{SHORT, assert_clean, left, lines, runtimes};
use std::future::pending;
use std::sync::{Arc, Barrier};
use straggler::testing::{check, watch};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet, spawn_blocking};

#[test]
fn what_the_test_spawns() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch().settle(SHORT);
            let line = line!() + 1;
            tokio::spawn(pending::<()>());
            tokio::spawn(async {}).await.expect("no panic");
            assert_eq!(lines(&left(&watch).await), [line]);
        });
    }
}

#[test]
fn what_its_descendants_spawn_in_every_way() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch().settle(SHORT);
            let (kept, waits) = std::sync::mpsc::channel::<()>();
            let child = tokio::spawn(async {
                let grandchild = async {
                    tokio::spawn(pending::<()>());
                    Handle::current().spawn(pending::<()>());
                    straggler::spawn(pending::<()>());
                    let mut set = JoinSet::new();
                    set.spawn(pending::<()>());
                    set.detach_all();
                    spawn_blocking(|| drop(Handle::current().spawn(pending::<()>())));
                    spawn_blocking(move || waits.recv().expect_err("nothing is sent"));
                };
                tokio::spawn(grandchild).await.expect("no panic");
            });
            child.await.expect("no panic");
            assert_eq!(left(&watch).await.tasks().len(), 6);
            drop(kept);
        });
    }
}

#[test]
fn tasks_of_a_local_set() {
    for runtime in runtimes() {
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let watch = watch().settle(SHORT);
            tokio::task::spawn_local(async { drop(tokio::task::spawn_local(pending::<()>())) })
                .await
                .expect("no panic");
            assert_eq!(left(&watch).await.tasks().len(), 1);
        });
    }
}

/// An actor that is older than the watch, and does what it is asked to.
fn actor() -> mpsc::Sender<oneshot::Sender<()>> {
    let (ask, mut asked) = mpsc::channel::<oneshot::Sender<()>>(1);
    tokio::spawn(async move {
        while let Some(done) = asked.recv().await {
            tokio::spawn(pending::<()>());
            done.send(()).expect("somebody waits");
        }
    });
    ask
}

#[test]
fn not_the_child_of_an_older_task() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let outer = watch().settle(SHORT);
            let actor = actor();
            let inner = watch();
            let (done, is_done) = oneshot::channel();
            actor.send(done).await.expect("it lives");
            is_done.await.expect("it answers");
            assert_clean(&inner.stragglers().await);
            assert_eq!(
                left(&outer).await.tasks().len(),
                2,
                "the actor and its child"
            );
        });
    }
}

#[test]
fn a_watch_in_a_watch_and_after_it() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let outer = watch().settle(SHORT);
            let first = line!() + 1;
            tokio::spawn(pending::<()>());
            let inner = watch().settle(SHORT);
            let second = line!() + 1;
            tokio::spawn(pending::<()>());
            assert_eq!(lines(&left(&inner).await), [second]);
            assert_eq!(lines(&left(&outer).await), [first, second]);
            drop(inner);
            let third = line!() + 1;
            tokio::spawn(pending::<()>());
            let next = watch().settle(SHORT);
            let fourth = line!() + 1;
            tokio::spawn(pending::<()>());
            assert_eq!(lines(&left(&next).await), [fourth]);
            assert_eq!(lines(&left(&outer).await), [first, second, third, fourth]);
        });
    }
}

#[test]
fn the_outer_may_be_dropped_first() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let outer = watch();
            let inner = watch().settle(SHORT);
            drop(outer);
            tokio::spawn(pending::<()>());
            assert_eq!(left(&inner).await.tasks().len(), 1);
        });
    }
}

#[test]
fn a_test_with_a_runtime_of_its_own() {
    for multi in [false, true] {
        let watch = watch().settle(SHORT);
        let [current_thread, multi_thread] = runtimes();
        let runtime = if multi { multi_thread } else { current_thread };
        let _entered = runtime.enter();
        let before = line!() + 1;
        tokio::spawn(pending::<()>());
        let leaves = async {
            tokio::spawn(pending::<()>());
        };
        runtime.block_on(async { tokio::spawn(leaves).await.expect("no panic") });
        let found = runtime.block_on(left(&watch));
        assert_eq!(found.tasks().len(), 2, "{found}");
        assert!(lines(&found).contains(&before));
    }
}

#[test]
fn tests_side_by_side() {
    const TESTS: usize = 8;
    let together = Arc::new(Barrier::new(TESTS));
    let tests = (0..TESTS).map(|number| {
        let together = Arc::clone(&together);
        std::thread::spawn(move || {
            for runtime in runtimes() {
                runtime.block_on(async {
                    let watch = watch().settle(SHORT);
                    together.wait();
                    for _ in 0..number {
                        let spawns = async { drop(tokio::spawn(pending::<()>())) };
                        tokio::spawn(spawns).await.expect("no panic");
                    }
                    let (left, all) = (watch.stragglers().await, watch.all());
                    // Before an assertion fails, for which the others would wait.
                    together.wait();
                    assert_eq!(left.tasks().len(), number, "{left}");
                    assert!(left.completeness().is_complete(), "{left}");
                    assert_eq!(all.spawned(), 2 * number as u64);
                });
            }
        })
    });
    for test in tests.collect::<Vec<_>>() {
        test.join().expect("no panic");
    }
}

#[test]
fn a_dropped_watch_does_nothing() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch();
            tokio::spawn(pending::<()>());
            drop(watch);
        });
    }
}

#[test]
fn who_asks_and_those_above_are_not_asked_about() {
    for runtime in runtimes() {
        let watch = Arc::new(watch().settle(SHORT));
        let asks = Arc::clone(&watch);
        runtime.block_on(async {
            let above = tokio::spawn(async move {
                let below = tokio::spawn(async move {
                    tokio::spawn(pending::<()>());
                    left(&asks).await.tasks().len()
                });
                below.await.expect("no panic")
            });
            assert_eq!(above.await.expect("no panic"), 1);
        });
    }
}

#[test]
fn a_watch_goes_with_the_task_that_opened_it() {
    let [_, runtime] = runtimes();
    runtime.block_on(async {
        let outer = watch();
        let opens = tokio::spawn(async {
            let watch = watch().settle(SHORT);
            for _ in 0..20 {
                // Other threads take it on.
                tokio::time::sleep(std::time::Duration::from_micros(100)).await;
                tokio::spawn(pending::<()>());
            }
            left(&watch).await.tasks().len()
        });
        assert_eq!(opens.await.expect("no panic"), 20);
        drop(outer);
    });
}

#[test]
fn daemons_are_left_out_and_what_they_spawn_is_not() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch().settle(SHORT);
            let (tell, spawned) = oneshot::channel();
            straggler::daemon(|| {
                tokio::spawn(async {
                    tokio::spawn(pending::<()>());
                    tell.send(()).expect("the test waits");
                    pending::<()>().await;
                })
            });
            spawned.await.expect("it is sent");
            let left = left(&watch).await;
            assert_eq!(left.tasks().len(), 1, "{left}");
            assert!(!left.tasks()[0].is_daemon());
        });
    }
}

#[test]
fn a_future_that_leaves_nothing() {
    for runtime in runtimes() {
        let output = runtime.block_on(check(async {
            tokio::spawn(async { 7 }).await.expect("no panic")
        }));
        assert_eq!(output, 7);
    }
}

#[test]
fn a_future_that_leaves_a_task() {
    let message = crate::message_of(check(async {
        tokio::spawn(pending::<()>());
    }));
    assert!(
        message.starts_with("straggler: 1 task is still there"),
        "{message}"
    );
    assert!(message.contains("tests/watch/scope.rs:"), "{message}");
}
