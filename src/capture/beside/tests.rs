use super::{current_tasks, join, process};
use crate::{Snapshot, Tasks};
use std::future::pending;
use std::sync::mpsc;
use tokio::runtime::{Builder, Runtime};

fn multi_thread() -> Runtime {
    (Builder::new_multi_thread().worker_threads(2).enable_all())
        .build()
        .expect("a runtime")
}

fn current_thread() -> Runtime {
    (Builder::new_current_thread().enable_all())
        .build()
        .expect("a runtime")
}

fn tasks() -> &'static Tasks {
    process().expect("a valid configuration").tasks()
}

fn live_at(snapshot: &Snapshot, line: u32) -> usize {
    let here = |task: &&crate::Task| {
        task.location().line() == line && task.location().file().ends_with("beside/tests.rs")
    };
    snapshot.tasks().filter(here).count()
}

#[test]
fn a_task_spawned_after_joining_is_seen_and_before_and_after_not() {
    let runtime = current_thread();
    let spawn = || {
        runtime.block_on(async { drop(tokio::spawn(pending::<()>())) });
        line!() - 1
    };
    let line = spawn();
    assert!(current_tasks().is_none());
    let joined = join().expect("a valid configuration");
    assert!(current_tasks().is_some());
    spawn();
    assert_eq!(live_at(&tasks().snapshot(), line), 1);
    drop(joined);
    assert!(current_tasks().is_none());
    spawn();
    assert_eq!(live_at(&tasks().snapshot(), line), 1);
}

#[test]
fn what_a_task_spawns_on_a_worker_is_seen_with_its_parent() {
    let runtime = multi_thread();
    let joined = join().expect("a valid configuration");
    let (told, tell) = mpsc::channel();
    runtime.spawn(async move {
        let inner = tokio::spawn(async move {
            let innermost = tokio::spawn(pending::<()>());
            told.send(innermost.id()).expect("somebody waits");
            pending::<()>().await;
        });
        inner.await.expect("it is not aborted");
    });
    let id = tell.recv().expect("it is sent");
    let snapshot = tasks().snapshot();
    let innermost = snapshot.task(id).expect("it is seen");
    assert_eq!(snapshot.lineage(innermost).count(), 3, "{snapshot}");
    drop(joined);
}
