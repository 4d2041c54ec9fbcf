//! When a look proves nothing: that is said, and is no pass.

use crate::{SHORT, message_of, own_layer, runtimes};
use std::future::pending;
use straggler::Kind;
use straggler::testing::{Completeness, watch};
use tokio::runtime::Handle;
use tokio::task::{LocalSet, spawn_blocking};
use tracing::dispatcher::{self, Dispatch};
use tracing::subscriber::NoSubscriber;

fn codes(completeness: &Completeness) -> Vec<&'static str> {
    let reasons = completeness.reasons().iter();
    reasons.map(straggler::testing::Reason::code).collect()
}

#[test]
fn tasks_that_were_there_before() {
    for runtime in runtimes() {
        runtime.block_on(async {
            tokio::spawn(pending::<()>());
            let watch = watch().settle(SHORT);
            let left = watch.stragglers().await;
            assert_eq!(codes(left.completeness()), ["unseen-before"], "{left}");
            assert!(left.tasks().is_empty() && !left.passes());
        });
    }
}

#[test]
fn the_message_is_of_its_own_kind() {
    let message = message_of(async {
        tokio::spawn(pending::<()>());
        watch().settle(SHORT).assert_no_stragglers().await;
    });
    assert!(
        message.starts_with("straggler: inconclusive: "),
        "{message}"
    );
    assert!(
        message.contains("[unseen-before] 1 task was spawned on this runtime"),
        "{message}"
    );
    assert!(message.contains("call `ignore_current()`"), "{message}");
    assert!(!message.contains("Await them"), "{message}");
}

/// With another subscriber round a spawn nobody tells of it; the runtime counts it all the same.
#[test]
fn tasks_that_were_not_seen_spawned() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch().settle(SHORT);
            let nobody = Dispatch::new(NoSubscriber::default());
            dispatcher::with_default(&nobody, || tokio::spawn(pending::<()>()));
            let left = watch.stragglers().await;
            assert_eq!(codes(left.completeness()), ["unseen-tasks"], "{left}");
        });
    }
}

#[test]
fn children_of_tasks_that_were_not_seen() {
    let [runtime, _] = runtimes();
    runtime.block_on(async {
        let watch = watch().settle(SHORT);
        let nobody = Dispatch::new(NoSubscriber::default());
        let spawns = async { drop(tokio::spawn(async {})) };
        let unseen = dispatcher::with_default(&nobody, || tokio::spawn(spawns));
        unseen.await.expect("no panic");
        let left = watch.stragglers().await;
        assert_eq!(codes(left.completeness()), ["unseen-parents"], "{left}");
    });
}

#[test]
fn tasks_that_ended_unseen_leave_no_doubt() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch();
            let nobody = Dispatch::new(NoSubscriber::default());
            let unseen = dispatcher::with_default(&nobody, || tokio::spawn(async {}));
            unseen.await.expect("no panic");
            crate::assert_clean(&watch.stragglers().await);
        });
    }
}

#[test]
fn a_plain_threads_tasks_are_named_where_they_are_seen() {
    let (_, dispatch, _) = own_layer(|builder| builder);
    let _guard = dispatcher::set_default(&dispatch);
    let [runtime, _] = runtimes();
    runtime.block_on(async {
        let watch = watch().settle(SHORT);
        let (handle, to_thread) = (Handle::current(), dispatch.clone());
        let spawns = move || {
            dispatcher::with_default(&to_thread, || drop(handle.spawn(pending::<()>())));
        };
        std::thread::spawn(spawns).join().expect("no panic");
        tokio::task::yield_now().await;
        let left = watch.stragglers().await;
        assert!(left.passes(), "{left}");
        let note = "note: 1 live task spawned from outside of every task";
        assert!(left.to_string().contains(note), "{left}");
    });
}

#[test]
fn tasks_that_were_refused() {
    let (_, dispatch, _) = own_layer(|builder| builder.max_live_tasks(2));
    let _guard = dispatcher::set_default(&dispatch);
    let [runtime, _] = runtimes();
    runtime.block_on(async {
        let watch = watch().settle(SHORT);
        for _ in 0..4 {
            tokio::spawn(pending::<()>());
        }
        let left = watch.stragglers().await;
        assert!(
            codes(left.completeness()).contains(&"tasks-refused"),
            "{left}"
        );
        let watch = watch.ignore_current();
        assert!(!watch.stragglers().await.passes());
    });
}

#[test]
fn a_runtime_that_is_gone() {
    for runtime in runtimes() {
        let watch = watch();
        runtime.block_on(async { drop(tokio::spawn(pending::<()>())) });
        drop(runtime);
        let [other, _] = runtimes();
        let left = other.block_on(watch.stragglers());
        assert_eq!(codes(left.completeness()), ["runtime-gone"], "{left}");
    }
}

#[test]
fn a_watch_that_is_carried_out_of_its_runtime() {
    for runtime in runtimes() {
        let watch = runtime.block_on(async {
            let watch = watch();
            tokio::spawn(pending::<()>());
            watch
        });
        drop(runtime);
        let message = message_of(async move { watch.assert_no_stragglers().await });
        assert!(
            message.contains("[runtime-gone] the runtime was shut down"),
            "{message}"
        );
    }
}

#[test]
fn a_runtime_within_the_test_may_go() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch();
            let inner = tokio::task::spawn_blocking(|| {
                let [inner, _] = runtimes();
                inner.block_on(async { drop(tokio::spawn(pending::<()>())) });
            });
            inner.await.expect("no panic");
            crate::assert_clean(&watch.stragglers().await);
        });
    }
}

/// No runtime counts the tasks of a `LocalSet`, so that a held span leaves the end of one open. A
/// blocking task holds the span of the task that spawned it.
#[test]
fn ends_that_nothing_confirms() {
    let [runtime, _] = runtimes();
    LocalSet::new().block_on(&runtime, async {
        let (end, waits) = std::sync::mpsc::channel::<()>();
        let watch = watch()
            .settle(SHORT)
            .ignore(|task| task.kind() == Kind::Blocking);
        let parent = tokio::task::spawn_local(async {
            drop(spawn_blocking(move || waits.recv()));
        });
        parent.await.expect("no panic");
        let left = watch.stragglers().await;
        assert!(left.tasks().is_empty(), "{left}");
        assert_eq!(codes(left.completeness()), ["unconfirmed"], "{left}");
        drop(end);
    });
}
