//! Tasks that were spawned where we could not see it: before the layer, or under another
//! subscriber. And programs in which all were seen.

use crate::common::{FLAVOURS, Flavour, Gate, settle};
use crate::program::{runtime, straggler, until};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use straggler::{Source, Tasks};
use tracing::dispatcher::{self, Dispatch};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry;

/// After so long a process's state of callsites is what it stays.
const SETTLES: Duration = Duration::from_millis(150);

const SOURCES: [Source; 2] = [Source::Spans, Source::Both];

fn world(source: Source) -> (Dispatch, Tasks) {
    let (layer, tasks) = straggler().source(source).build().unwrap();
    (Dispatch::new(registry().with(layer)), tasks)
}

fn codes(tasks: &Tasks) -> Vec<&'static str> {
    tasks.diagnose().iter().map(|found| found.code()).collect()
}

/// What it takes to be sure of strangers.
fn twice(tasks: &Tasks) -> Vec<&'static str> {
    tasks.snapshot();
    codes(tasks)
}

fn expect(tasks: &Tasks, code: &str, runtime: tokio::runtime::Id) {
    tasks.snapshot();
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
fn a_program_of_which_nothing_was_seen_is_told_so() {
    let (dispatch, tasks) = world(Source::Spans);
    assert_eq!(codes(&tasks), [""; 0], "it has just been installed");
    std::thread::sleep(SETTLES);
    assert_eq!(codes(&tasks), ["nothing-announced"]);
    let runtime = runtime(&dispatch, Flavour::CurrentThread, None);
    runtime.block_on(async {
        let gate = Gate::default();
        tokio::spawn(gate.passed());
        settle().await;
        let _default = dispatcher::set_default(&dispatch);
        assert_eq!(twice(&tasks), ["nothing-announced"]);
        tokio::spawn(async {}).await.unwrap();
        settle().await;
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
        let (dispatch, tasks) = world(Source::Spans);
        let id = tokio::runtime::Handle::current().id();
        // Asked where there is no runtime to look at, while this one rests.
        let asked = tasks.clone();
        tokio::task::spawn_blocking(move || {
            let _default = dispatcher::set_default(&dispatch);
            runtime(&dispatch, Flavour::CurrentThread, None).block_on(async {
                tokio::spawn(async {}).await.unwrap();
            });
            std::thread::sleep(SETTLES);
            let elsewhere = std::thread::spawn(move || expect(&asked, "runtime-before-layer", id));
            elsewhere.join().unwrap();
        })
        .await
        .unwrap();
        drop(tasks);
    });
}

#[test]
fn tasks_that_ended_before_they_could_be_counted_are_not_told_of() {
    runtime(&Dispatch::none(), Flavour::CurrentThread, None).block_on(async {
        let gate = Gate::default();
        let older = tokio::spawn(gate.passed());
        let (dispatch, tasks) = world(Source::Spans);
        let _default = dispatcher::set_default(&dispatch);
        gate.open();
        older.await.unwrap();
        tokio::spawn(async {}).await.unwrap();
        settle().await;
        assert_eq!(twice(&tasks), [""; 0], "{}", tasks.snapshot());
    });
}

#[test]
fn a_note_goes_with_its_runtime() {
    let (dispatch, tasks) = world(Source::Spans);
    let _default = dispatcher::set_default(&dispatch);
    let gone = runtime(&dispatch, Flavour::CurrentThread, None);
    let id = gone.handle().id();
    let gate = Gate::default();
    gone.block_on(async {
        tokio::spawn(async {}).await.unwrap();
        settle().await;
        for _ in 0..3 {
            dispatcher::with_default(&Dispatch::none(), || tokio::spawn(gate.passed()));
        }
        expect(&tasks, "thread-subscriber", id);
    });
    // Two looks let go of a runtime without a task of ours, but not of what was told.
    for _ in 0..3 {
        expect(&tasks, "thread-subscriber", id);
    }
    drop(gone);
    twice(&tasks);
    assert_eq!(twice(&tasks), [""; 0], "{}", tasks.snapshot());
}

/// Of a runtime that never rests there is one measure: more than could be coming or going.
#[test]
fn a_busy_runtime_is_not_waited_for() {
    let (dispatch, tasks) = world(Source::Spans);
    let _default = dispatcher::set_default(&dispatch);
    let runtime = runtime(&dispatch, Flavour::MultiThread, None);
    let gate = Gate::default();
    let busy = runtime.spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    while tasks
        .snapshot()
        .task(busy.id())
        .is_none_or(|task| task.polls() == 0)
    {
        std::thread::yield_now();
    }
    let stray = || dispatcher::with_default(&Dispatch::none(), || runtime.spawn(gate.passed()));
    stray();
    let took = |_| {
        let began = Instant::now();
        assert_eq!(codes(&tasks), [""; 0], "it may be ending");
        began.elapsed()
    };
    let quickest = (0..20).map(took).min().unwrap();
    assert!(quickest < Duration::from_millis(10), "{quickest:?}");
    for _ in 0..3 {
        stray();
    }
    expect(&tasks, "thread-subscriber", runtime.handle().id());
    busy.abort();
}

/// The runtime counts them all, and the subscriber that would know them has gone.
#[test]
fn a_layer_that_was_taken_out_says_nothing_of_strangers() {
    type Any = Box<dyn tracing_subscriber::Layer<tracing_subscriber::Registry> + Send + Sync>;
    let (layer, tasks) = straggler().build().unwrap();
    let (layer, handle) = tracing_subscriber::reload::Layer::new(Box::new(layer) as Any);
    let dispatch = Dispatch::new(registry().with(layer));
    let _default = dispatcher::set_default(&dispatch);
    runtime(&dispatch, Flavour::CurrentThread, None).block_on(async {
        let gate = Gate::default();
        tokio::spawn(gate.passed());
        settle().await;
        let nothing = tracing_subscriber::layer::Identity::new();
        handle.reload(Box::new(nothing) as Any).unwrap();
        tokio::spawn(gate.passed());
        settle().await;
        let found = twice(&tasks);
        assert!(!found.contains(&"thread-subscriber"), "{found:?}");
    });
}

#[test]
fn a_subscriber_that_is_gone_has_no_strangers() {
    let (dispatch, tasks) = world(Source::Spans);
    let runtime = runtime(&Dispatch::none(), Flavour::CurrentThread, None);
    let gate = Gate::default();
    dispatcher::with_default(&dispatch, || {
        runtime.block_on(async {
            // A live one's span would keep it.
            tokio::spawn(async {}).await.unwrap();
            settle().await;
        });
    });
    drop(dispatch);
    runtime.block_on(async {
        tokio::spawn(gate.passed());
        settle().await;
        assert_eq!(twice(&tasks), [""; 0], "{}", tasks.snapshot());
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
                    // Two looks in a row must meet both workers at rest.
                    until(&tasks, "it is told", |tasks| !codes(tasks).is_empty()).await;
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
        std::thread::sleep(SETTLES);
        assert_eq!(twice(tasks), ["nothing-announced"], "{}", tasks.snapshot());
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
            // On a thread that polls nothing.
            let unwanted = tokio::spawn(async { Spawns });
            until(&tasks, "it ends", |_| unwanted.is_finished()).await;
            let (ours, here) = (dispatch.clone(), tokio::runtime::Handle::current());
            let elsewhere = std::thread::spawn(move || {
                let _default = dispatcher::set_default(&ours);
                let _in = here.enter();
                drop(unwanted);
            });
            elsewhere.join().unwrap();
            settle().await;
            until(&tasks, "all spawned", |tasks| {
                tasks
                    .snapshot()
                    .sites()
                    .map(|site| site.spawned())
                    .sum::<u64>()
                    >= 10
            })
            .await;
            assert_eq!(twice(&tasks), [""; 0], "{flavour:?}\n{}", tasks.snapshot());
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
        assert_eq!(twice(&tasks), [""; 0], "{}", tasks.snapshot());
        gate.open();
    });
}
