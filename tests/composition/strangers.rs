//! Tasks that were spawned where we could not see it: before the layer, or under another
//! subscriber. And programs in which all were seen.

use crate::common::{FLAVOURS, Flavour, Gate, settle};
use crate::program::{runtime, straggler, until};
use std::sync::mpsc;
use straggler::{Source, Tasks};
use tracing::dispatcher::{self, Dispatch};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry;

const SOURCES: [Source; 2] = [Source::Spans, Source::Both];

fn world(source: Source) -> (Dispatch, Tasks) {
    let (layer, tasks) = straggler().source(source).build().unwrap();
    (Dispatch::new(registry().with(layer)), tasks)
}

fn codes(tasks: &Tasks) -> Vec<&'static str> {
    tasks.diagnose().iter().map(|found| found.code()).collect()
}

fn expect(tasks: &Tasks, code: &str, runtime: tokio::runtime::Id) {
    let found = tasks.diagnose();
    assert_eq!(found.len(), 1, "{}", tasks.snapshot());
    assert_eq!(found[0].code(), code, "{}", tasks.snapshot());
    let text = found[0].to_string();
    assert!(text.contains(&format!("(id {runtime})")), "{text}");
}

#[test]
fn idle_tasks_from_before_the_layer_are_named() {
    let (dispatch, tasks) = world(Source::Spans);
    let runtime = runtime(&dispatch, Flavour::CurrentThread, None);
    let gate = Gate::default();
    runtime.spawn(gate.passed());
    let _default = dispatcher::set_default(&dispatch);
    runtime.block_on(async {
        tokio::spawn(async {}).await.unwrap();
        settle().await;
        let id = tokio::runtime::Handle::current().id();
        expect(&tasks, "runtime-before-layer", id);
        gate.open();
    });
}

#[test]
fn a_runtime_of_which_nothing_was_seen_is_named() {
    let (dispatch, tasks) = world(Source::Spans);
    let runtime = runtime(&dispatch, Flavour::CurrentThread, None);
    runtime.block_on(async {
        let gate = Gate::default();
        tokio::spawn(gate.passed());
        settle().await;
        assert_eq!(
            codes(&tasks),
            [""; 0],
            "turned away from us, it is nobody's business"
        );
        let _default = dispatcher::set_default(&dispatch);
        let id = tokio::runtime::Handle::current().id();
        expect(&tasks, "runtime-before-layer", id);
    });
}

#[test]
fn the_layer_installed_among_tasks_says_so() {
    let nobody = Dispatch::none();
    runtime(&nobody, Flavour::CurrentThread, None).block_on(async {
        let gate = Gate::default();
        tokio::spawn(gate.passed());
        let (_dispatch, tasks) = world(Source::Spans);
        let id = tokio::runtime::Handle::current().id();
        // Asked where there is no runtime to look at.
        let asked = tasks.clone();
        let elsewhere = std::thread::spawn(move || expect(&asked, "runtime-before-layer", id));
        elsewhere.join().unwrap();
    });
}

#[test]
fn a_parent_from_before_the_layer_is_named_by_its_child() {
    let (dispatch, tasks) = world(Source::Spans);
    let runtime = runtime(&dispatch, Flavour::CurrentThread, None);
    let gate = Gate::default();
    let passed = gate.passed();
    let parent = runtime.spawn(async {
        passed.await;
        tokio::spawn(async {}).await.unwrap();
    });
    let _default = dispatcher::set_default(&dispatch);
    runtime.block_on(async {
        gate.open();
        parent.await.unwrap();
        settle().await;
        // It is gone, and was there.
        let id = tokio::runtime::Handle::current().id();
        expect(&tasks, "runtime-before-layer", id);
        assert_eq!(tasks.snapshot().loss().unseen_parents(), 1);
    });
}

#[test]
fn idle_tasks_of_another_subscriber_are_named() {
    for source in SOURCES {
        for flavour in FLAVOURS {
            let (dispatch, tasks) = world(source);
            let _default = dispatcher::set_default(&dispatch);
            let runtime = runtime(&dispatch, flavour, Some(&tasks));
            runtime.block_on(async {
                let gate = Gate::default();
                let seen = tokio::spawn(gate.passed());
                until(&tasks, "it is polled", |tasks| {
                    (tasks.snapshot().task(seen.id())).is_some_and(|task| task.polls() > 0)
                })
                .await;
                assert_eq!(codes(&tasks), [""; 0], "{source:?} {flavour:?}");
                dispatcher::with_default(&Dispatch::none(), || tokio::spawn(gate.passed()));
                settle().await;
                if source == Source::Spans {
                    let id = tokio::runtime::Handle::current().id();
                    expect(&tasks, "thread-subscriber", id);
                } else {
                    // The hook told of it.
                    assert_eq!(codes(&tasks), [""; 0], "{}", tasks.snapshot());
                }
                gate.open();
            });
        }
    }
}

#[test]
fn a_parent_of_another_subscriber_is_named_by_its_child() {
    let (dispatch, tasks) = world(Source::Spans);
    let _default = dispatcher::set_default(&dispatch);
    runtime(&dispatch, Flavour::CurrentThread, None).block_on(async {
        tokio::spawn(async {}).await.unwrap();
        let elsewhere = || tokio::spawn(async { tokio::spawn(async {}).await });
        let parent = dispatcher::with_default(&Dispatch::none(), elsewhere);
        parent.await.unwrap().unwrap();
        let id = tokio::runtime::Handle::current().id();
        expect(&tasks, "thread-subscriber", id);
        assert_eq!(tasks.snapshot().loss().unseen_parents(), 1);
    });
}

/// With one subscriber in the process, tracing asks the thread that first comes to a callsite.
#[test]
fn a_thread_that_switches_tokio_off_for_all_is_not_silent() {
    const NAME: &str = "strangers::a_thread_that_switches_tokio_off_for_all_is_not_silent";
    if !crate::program::alone(NAME, &[]) {
        return;
    }
    let straggler = straggler::init().unwrap();
    let spawn = || {
        let nobody = Dispatch::none();
        let _default = dispatcher::set_default(&nobody);
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.build().unwrap();
        runtime.block_on(async { tokio::spawn(async {}).await.unwrap() });
    };
    std::thread::spawn(spawn).join().unwrap();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.build().unwrap().block_on(async {
        let gate = Gate::default();
        tokio::spawn(gate.passed());
        settle().await;
        let tasks = straggler.tasks();
        assert_eq!(tasks.snapshot().tasks().count(), 0);
        assert_eq!(tasks.diagnose().len(), 1, "{}", tasks.snapshot());
    });
}

/// What a task gave is dropped in the name of the task, though it has ended.
#[test]
fn what_an_ended_task_gave_may_spawn() {
    struct Spawns;
    impl Drop for Spawns {
        fn drop(&mut self) {
            tokio::spawn(async {});
        }
    }
    for flavour in FLAVOURS {
        let (dispatch, tasks) = world(Source::Spans);
        let _default = dispatcher::set_default(&dispatch);
        runtime(&dispatch, flavour, None).block_on(async {
            // Nobody waits: dropped after the last turn.
            tokio::spawn(async { Spawns });
            // Somebody does, and drops the handle: in there.
            let handle = tokio::spawn(async { Spawns });
            until(&tasks, "it ends", |_| handle.is_finished()).await;
            drop(handle);
            let inside = tokio::spawn(async { Spawns });
            let other = tokio::spawn(async move {
                while !inside.is_finished() {
                    tokio::task::yield_now().await;
                }
                drop(inside);
            });
            other.await.unwrap();
            settle().await;
            until(&tasks, "all spawned", |tasks| {
                tasks
                    .snapshot()
                    .sites()
                    .map(|site| site.spawned())
                    .sum::<u64>()
                    >= 8
            })
            .await;
            assert_eq!(codes(&tasks), [""; 0], "{flavour:?}\n{}", tasks.snapshot());
        });
    }
}

#[test]
fn a_busy_program_that_was_seen_from_the_start_is_clean() {
    for source in SOURCES {
        for flavour in FLAVOURS {
            let (dispatch, tasks) = world(source);
            let _default = dispatcher::set_default(&dispatch);
            let runtime = runtime(&dispatch, flavour, Some(&tasks));
            let (done, is_done) = mpsc::channel::<()>();
            let watched = tasks.clone();
            let watcher = std::thread::spawn(move || {
                let mut looks = 0;
                while is_done.try_recv() == Err(mpsc::TryRecvError::Empty) {
                    let snapshot = watched.snapshot();
                    assert_eq!(snapshot.diagnoses(), [], "{snapshot}");
                    looks += 1;
                }
                looks
            });
            runtime.block_on(async {
                for round in 0..200 {
                    let tasks: Vec<_> = (0..20)
                        .map(|_| {
                            tokio::spawn(async {
                                tokio::spawn(tokio::task::yield_now()).await.unwrap();
                            })
                        })
                        .collect();
                    for (at, task) in tasks.into_iter().enumerate() {
                        if (at + round) % 3 == 0 {
                            task.abort();
                        } else {
                            task.await.unwrap();
                        }
                    }
                    tokio::task::spawn_blocking(|| {}).await.unwrap();
                }
            });
            drop(done);
            assert!(watcher.join().expect("clean at every look") > 0);
        }
    }
}

#[test]
fn local_tasks_are_no_strangers() {
    let (dispatch, tasks) = world(Source::Spans);
    let _default = dispatcher::set_default(&dispatch);
    let local = tokio::task::LocalSet::new();
    let runtime = runtime(&dispatch, Flavour::CurrentThread, None);
    local.block_on(&runtime, async {
        let gate = Gate::default();
        tokio::task::spawn_local(gate.passed());
        tokio::spawn(gate.passed());
        settle().await;
        assert_eq!(codes(&tasks), [""; 0], "{}", tasks.snapshot());
        gate.open();
    });
}
