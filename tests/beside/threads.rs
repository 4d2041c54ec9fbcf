//! The thread's subscriber before, during and after a watch.

use crate::recorder::Recorder;
use std::future::pending;
use std::time::Duration;
use straggler::testing::watch;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tracing::dispatcher;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::{NoSubscriber, set_default};
use tracing::{debug_span, info, info_span};
use tracing_subscriber::Registry;
use tracing_subscriber::prelude::*;

/// What an assertion waits where something is left.
const SHORT: Duration = Duration::from_millis(20);

fn runtime() -> Runtime {
    (tokio::runtime::Builder::new_current_thread().enable_all())
        .build()
        .expect("a runtime")
}

fn has_none() -> bool {
    dispatcher::get_default(|default| default.is::<NoSubscriber>())
}

fn said(recorder: &Recorder, what: &str) -> bool {
    recorder.lines().iter().any(|line| line.contains(what))
}

#[test]
fn a_thread_is_left_as_it_was_and_can_be_watched_again() {
    for _ in 0..3 {
        assert!(has_none());
        let runtime = runtime();
        let watch = watch();
        assert!(!has_none());
        runtime.block_on(async {
            tokio::spawn(pending::<()>());
            assert_eq!(watch.stragglers().await.tasks().len(), 1);
        });
        drop(watch);
        assert!(has_none());
    }
}

#[test]
fn a_watch_that_is_dropped_elsewhere_leaves_its_thread_later() {
    let first = watch();
    std::thread::spawn(move || drop(first))
        .join()
        .expect("no panic");
    let second = watch();
    drop(second);
    assert!(has_none());
}

#[test]
fn watches_that_are_dropped_in_the_wrong_order_leave_together() {
    let first = watch();
    let second = watch();
    drop(first);
    let runtime = runtime();
    runtime.block_on(async {
        tokio::spawn(pending::<()>());
        assert_eq!(second.stragglers().await.tasks().len(), 1);
    });
    drop(second);
    assert!(has_none());
}

#[test]
fn a_scoped_subscriber_is_told_and_comes_back() {
    let recorder = Recorder::new("scoped");
    let _scoped = set_default(Registry::default().with(recorder.clone()));
    let watch = watch();
    info!("while it is watched");
    drop(watch);
    info!("afterwards");
    assert!(said(&recorder, "while it is watched") && said(&recorder, "afterwards"));
    assert!(dispatcher::get_default(|default| default.is::<Recorder>()));
}

#[test]
fn a_subscriber_that_is_set_inside_has_the_thread_to_itself_but_for_our_tasks() {
    let runtime = runtime();
    let watch = watch();
    let recorder = Recorder::new("inside");
    let inside = set_default(Registry::default().with(recorder.clone()));
    info!("inside");
    drop(inside);
    info!("outside");
    assert!(said(&recorder, "inside") && !said(&recorder, "outside"));
    runtime.block_on(async {
        let _inside = set_default(Registry::default().with(recorder.clone()));
        info!("once more");
    });
    assert!(said(&recorder, "once more"));
    drop(watch);
    assert!(has_none());
}

/// A wake is told of on the thread that wakes, and a worker's driver may wake a task of ours
/// before that worker has met any. So wakes may be missed, but no task.
#[test]
fn a_task_that_a_workers_clock_woke_is_still_there() {
    for _ in 0..5 {
        let runtime = (tokio::runtime::Builder::new_multi_thread().worker_threads(2))
            .enable_all()
            .build()
            .expect("a runtime");
        let watch = watch().settle(SHORT);
        runtime.block_on(async {
            let (told, tell) = oneshot::channel();
            tokio::spawn(async {
                for _ in 0..10 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                told.send(()).expect("somebody waits");
                pending::<()>().await;
            });
            tell.await.expect("it is sent");
            let left = watch.stragglers().await;
            assert_eq!(left.tasks().len(), 1, "{left}");
            assert!(left.completeness().is_complete(), "{left}");
        });
    }
}

#[test]
fn user_spans_are_parents_with_a_neighbour_and_without() {
    for neighbour in [false, true] {
        let recorder = Recorder::new("scoped");
        let warns = recorder.with_filter(LevelFilter::WARN);
        let _scoped = neighbour.then(|| set_default(Registry::default().with(warns)));
        let runtime = runtime();
        let watch = watch().settle(SHORT);
        runtime.block_on(async {
            info_span!("request").in_scope(|| {
                debug_span!("below").in_scope(|| {
                    straggler::spawn(pending::<()>());
                    tokio::spawn(pending::<()>());
                });
            });
            let left = watch.stragglers().await;
            let spans = left.tasks().iter().map(|task| task.parent()?.span());
            let names: Vec<_> = spans.map(|span| Some(span?.name())).collect();
            assert_eq!(names, [Some("request"); 2], "{left}");
        });
    }
}

/// What a future's drop spawns, when its runtime is gone but for that, or it is aborted.
#[test]
fn what_is_spawned_where_a_task_is_dropped_is_seen() {
    struct Spawns(Handle);
    impl Drop for Spawns {
        fn drop(&mut self) {
            self.0.spawn(pending::<()>());
        }
    }
    for worker_threads in [0, 2] {
        let runtime = match worker_threads {
            0 => runtime(),
            many => (tokio::runtime::Builder::new_multi_thread().worker_threads(many))
                .build()
                .expect("a runtime"),
        };
        let watch = watch().settle(SHORT);
        runtime.block_on(async {
            let spawns = Spawns(Handle::current());
            let task = tokio::spawn(async move {
                let _spawns = spawns;
                pending::<()>().await;
            });
            tokio::task::yield_now().await;
            task.abort();
            task.await.expect_err("it was aborted");
            let left = watch.stragglers().await;
            assert_eq!(left.tasks().len(), 1, "{left}");
        });
    }
}

#[test]
fn each_span_closes_once_wherever_its_handles_go() {
    const SPANS: usize = 200;
    let recorder = Recorder::new("scoped");
    let _scoped = set_default(Registry::default().with(recorder.clone()));
    let watch = watch();
    for _ in 0..SPANS {
        let outer = info_span!("outer");
        let inner = outer.in_scope(|| debug_span!("inner"));
        let threads = (0..4).map(|_| {
            let (outer, inner) = (outer.clone(), inner.clone());
            std::thread::spawn(move || {
                let clone = inner.clone();
                drop(inner);
                outer.in_scope(|| clone.in_scope(|| {}));
                drop((outer, clone));
            })
        });
        let threads: Vec<_> = threads.collect();
        drop((outer, inner));
        for thread in threads {
            thread.join().expect("no panic");
        }
    }
    drop(watch);
    let lines = recorder.lines();
    let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    for span in ["outer", "inner"] {
        assert_eq!(count(&format!("new {span}")), SPANS);
        assert_eq!(count(&format!("close {span}")), SPANS);
        assert_eq!(
            count(&format!("enter {span}")),
            count(&format!("exit {span}"))
        );
    }
}
