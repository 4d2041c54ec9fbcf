//! Traps 3, 8, 14 and 16 to 18: what a span can say of the work in it, and what a source
//! doesn't know.

use crate::common::{FLAVOURS, Flavour, Gate, Truth, World, expect_site, settle};
use futures_util::StreamExt;
use std::future::Future;
use std::sync::Arc;
use straggler::{Cause, Certainty, Kind, Orphaned, ParentStatus, Source, State};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinHandle};
use tracing::{Instrument, Span, info_span, instrument};

/// How the task of this id is an orphan while `work` waits for `gate` inside a task that
/// lives on. `work` gives the id of the task in question.
async fn judged<W, F>(world: &World, work: W) -> Option<Orphaned>
where
    W: FnOnce(Gate, oneshot::Sender<Id>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let gate = Gate::default();
    let (tell, told) = oneshot::channel();
    let home = tokio::spawn(work(gate.clone(), tell));
    let child = told.await.expect("the work spawns");
    settle().await;
    let snapshot = world.snapshot();
    assert!(
        snapshot.task(home.id()).is_some(),
        "its home lives\n{snapshot}"
    );
    snapshot.task(child).expect("it waits").orphaned().copied()
}

/// Polls the home task a few times more.
async fn live_on(gate: Gate) {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    gate.passed().await;
}

// 3
#[test]
fn in_current_span_orphans_are_likely_when_the_span_is_left() {
    let world = World::new();
    let orphaned = world.block_on(judged(&world, async |gate: Gate, tell| {
        let handle = async { tokio::spawn(gate.passed().in_current_span()) };
        let handle = handle.instrument(info_span!("request")).await;
        tell.send(handle.id()).unwrap();
        live_on(gate).await;
    }));
    let orphaned = orphaned.expect("the request is over");
    assert_eq!(orphaned.cause(), Cause::SpanLeft);
    assert_eq!(orphaned.certainty(), Certainty::Likely);
}

// 3: the same, where nothing holds the span
#[test]
fn an_orphan_of_a_closed_span_is_likely_while_its_task_lives() {
    let world = World::new();
    let orphaned = world.block_on(judged(&world, async |gate: Gate, tell| {
        let handle = async { tokio::spawn(gate.passed()) };
        let handle = handle.instrument(info_span!("request")).await;
        tell.send(handle.id()).unwrap();
        live_on(gate).await;
    }));
    let orphaned = orphaned.expect("the request is over");
    assert_eq!(orphaned.cause(), Cause::SpanClosed);
    assert_eq!(orphaned.certainty(), Certainty::Likely);
}

// 16
#[test]
fn in_scope_spawn_then_join_is_never_certain() {
    let world = World::new();
    let orphaned = world.block_on(judged(&world, async |gate: Gate, tell| {
        let request = info_span!("request");
        let handle = request.in_scope(|| tokio::spawn(gate.passed().in_current_span()));
        tell.send(handle.id()).unwrap();
        let joined = async move { handle.await.unwrap() };
        tokio::select! { () = joined => {}, () = live_on(gate) => {} }
    }));
    assert_ne!(
        orphaned.map(|orphaned| orphaned.certainty()),
        Some(Certainty::Certain)
    );
}

// 16
#[test]
fn instrumented_start_returning_a_join_handle_is_never_certain() {
    #[instrument(skip_all)]
    fn start(gate: &Gate) -> JoinHandle<()> {
        tokio::spawn(gate.passed())
    }
    let world = World::new();
    let orphaned = world.block_on(judged(&world, async |gate: Gate, tell| {
        let handle = start(&gate);
        tell.send(handle.id()).unwrap();
        let joined = async move { handle.await.unwrap() };
        tokio::select! { () = joined => {}, () = live_on(gate) => {} }
    }));
    let orphaned = orphaned.expect("its span closed");
    assert_eq!(orphaned.certainty(), Certainty::Likely);
}

// 16
#[test]
fn buffer_unordered_is_never_certain() {
    let world = World::new();
    world.block_on(async {
        let gates: Vec<_> = (0..8).map(|_| Gate::default()).collect();
        let (tell, mut told) = mpsc::unbounded_channel();
        let waiting = gates.clone();
        let home = tokio::spawn(async move {
            let requests = waiting.into_iter().map(|gate| {
                let tell = tell.clone();
                let request = async move {
                    let handle = tokio::spawn(gate.passed().in_current_span());
                    tell.send(handle.id()).unwrap();
                    handle.await.unwrap();
                };
                request.instrument(info_span!("request"))
            });
            futures_util::stream::iter(requests)
                .buffer_unordered(8)
                .count()
                .await
        });
        settle().await;
        let children: Vec<_> = std::iter::from_fn(|| told.try_recv().ok()).collect();
        assert_eq!(children.len(), 8);
        // Each that ends has the home task polled without the others' spans.
        for gate in &gates[..7] {
            gate.open();
            settle().await;
            let snapshot = world.snapshot();
            let certain = (snapshot.orphans())
                .filter(|task| task.orphaned().unwrap().certainty() == Certainty::Certain);
            assert_eq!(certain.count(), 0, "{snapshot}");
            assert!(snapshot.task(children[7]).is_some());
        }
        gates[7].open();
        assert_eq!(home.await.unwrap(), 8);
    });
}

// 8
#[test]
fn a_layer_installed_inside_tokio_main_has_unknown_not_gone_parents() {
    for flavour in FLAVOURS {
        let runtime = match flavour {
            Flavour::CurrentThread => tokio::runtime::Builder::new_current_thread(),
            Flavour::MultiThread => tokio::runtime::Builder::new_multi_thread(),
        }
        .build()
        .unwrap();
        let snapshot = runtime.block_on(async {
            // What tokio::spawn started before the layer is seen by nobody, its children are.
            let (start, started) = oneshot::channel::<tracing::Dispatch>();
            let (tell, told) = oneshot::channel();
            let before = tokio::spawn(async move {
                let dispatch = started.await.unwrap();
                let _default = tracing::dispatcher::set_default(&dispatch);
                tell.send(tokio::spawn(std::future::pending::<()>()).id())
                    .unwrap();
            });
            let world = World::new();
            assert!(start.send(world.dispatch.clone()).is_ok());
            let child = told.await.unwrap();
            let id = before.id();
            before.await.unwrap();
            let direct = tokio::spawn(std::future::pending::<()>()).id();
            let snapshot = world.snapshot();
            let parent = snapshot
                .task(child)
                .unwrap()
                .parent()
                .expect("unknown")
                .clone();
            assert_eq!(parent.status(), ParentStatus::Unknown);
            assert_eq!(parent.task().unwrap(), id);
            assert!(
                snapshot.task(direct).unwrap().parent().is_none(),
                "{snapshot}"
            );
            snapshot
        });
        assert_eq!(snapshot.orphans().count(), 0, "{snapshot}");
        assert_eq!(snapshot.loss().unseen_parents(), 1, "{snapshot}");
    }
}

// 14
#[test]
fn hooks_know_no_wakes() {
    let world = World::with(|builder| builder.source(Source::Hooks));
    let gate = Gate::default();
    world.block_on(async {
        let task = tokio::spawn(gate.passed());
        assert_eq!(world.expect_task(task.id()).state(), State::Scheduled);
        settle().await;
        gate.nudge();
        settle().await;
        let task = world.expect_task(task.id());
        assert_eq!(task.polls(), 2);
        assert_eq!(
            (task.wakes(), task.self_wakes(), task.wakers()),
            (None, None, None)
        );
        assert_eq!(
            (task.scheduled(), task.idle(), task.state()),
            (None, None, None)
        );
        assert_eq!(task.size(), None);
    });
}

// 14: `Both` knows what the spans know
#[test]
fn both_know_wakes_and_exact_ends() {
    let world = World::with(|builder| builder.source(Source::Both));
    let gate = Gate::default();
    let truth = Arc::new(Truth::default());
    world.block_on(async {
        let line = line!() + 1;
        let handle = tokio::spawn(truth.count(gate.passed()));
        settle().await;
        gate.nudge();
        settle().await;
        let task = world.expect_task(handle.id());
        assert_eq!(
            (task.polls(), task.wakes(), task.wakers()),
            (2, Some(1), Some(1))
        );
        gate.open();
        handle.await.unwrap();
        settle().await;
        let site = world.expect_site(line);
        assert_eq!(
            (site.spawned(), site.ended(), site.poll().count()),
            (1, 1, truth.polls())
        );
    });
}

#[test]
fn a_runtime_that_is_not_hooked_is_a_diagnosis_not_silence() {
    let world = World::with(|builder| builder.source(Source::Hooks));
    let codes = || {
        world
            .tasks
            .diagnose()
            .iter()
            .map(|d| d.code())
            .collect::<Vec<_>>()
    };
    assert_eq!(codes(), ["no-hooked-runtime"]);
    let hooked = world.runtime(Flavour::CurrentThread);
    assert_eq!(codes(), [""; 0]);
    let unhooked = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    unhooked.block_on(async {
        tokio::spawn(async { drop(info_span!("anything")) })
            .await
            .unwrap();
    });
    assert_eq!(codes(), ["unhooked-runtime"]);
    assert_eq!(world.snapshot().loss().unseen_tasks(), 1);
    drop(hooked);
}

// 17
#[test]
fn dependency_paths_are_normalised() {
    let world = World::new();
    let runtime = world.runtime(Flavour::MultiThread);
    runtime.block_on(async {
        let _ = tokio::net::lookup_host("localhost:1").await;
    });
    let snapshot = world.snapshot();
    let files: Vec<_> = snapshot
        .sites()
        .map(|site| site.location().file())
        .collect();
    let tokios = files.iter().filter(|file| file.starts_with("tokio-1."));
    assert!(tokios.count() >= 2, "workers and a look-up: {files:?}");
    assert!(files.iter().all(|file| !file.starts_with('/')), "{files:?}");
}

// 18
#[test]
fn a_local_set_is_not_in_the_runtimes_count_and_its_tasks_are_not_taken_for_ended() {
    let world = World::new();
    let runtime = world.runtime(Flavour::CurrentThread);
    let local = tokio::task::LocalSet::new();
    let handle = local.spawn_local(std::future::pending::<()>());
    let line = line!() + 1;
    let waiting = runtime.spawn(std::future::pending::<()>());
    local.block_on(&runtime, settle());
    for _ in 0..5 {
        let snapshot = world.snapshot();
        assert_eq!(
            snapshot.task(handle.id()).expect("it lives").kind(),
            Kind::Local
        );
        assert_eq!(snapshot.task(handle.id()).unwrap().polls(), 1);
        assert!(snapshot.task(waiting.id()).is_some(), "{snapshot}");
        assert_eq!(expect_site(&snapshot, line).live(), 1);
        assert!(snapshot.loss().is_empty(), "{snapshot}");
    }
}

// 13: where the child itself was refused, only `try_id` tells it from its parent
#[test]
fn a_refused_child_entering_its_parents_span_is_no_poll_of_the_parent() {
    let world = World::with(|builder| builder.max_live_tasks(2));
    world.block_on(async {
        let (gate, child_truth) = (Gate::default(), Arc::new(Truth::default()));
        let (waiting, truth) = (gate.clone(), Arc::clone(&child_truth));
        let parent = tokio::spawn(async move {
            tokio::spawn(truth.count(waiting.passed()).instrument(Span::current()));
            std::future::pending::<()>().await;
        });
        settle().await;
        gate.nudge();
        settle().await;
        assert_eq!(world.snapshot().loss().refused(), 1);
        assert_eq!(child_truth.polls(), 2);
        assert_eq!(world.expect_task(parent.id()).polls(), 1);
    });
}

// H: tokio refuses it only after its span was made
#[test]
fn a_block_on_that_tokio_refuses_does_not_end_the_one_around_it() {
    let world = World::new();
    world.block_on(async {
        let child = tokio::spawn(std::future::pending::<()>());
        let wrong = tokio::spawn(async {
            let inner = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let refused = std::panic::AssertUnwindSafe(|| inner.block_on(async {}));
            assert!(std::panic::catch_unwind(refused).is_err());
            inner.shutdown_background();
        });
        wrong.await.unwrap();
        settle().await;
        let snapshot = world.snapshot();
        let main = snapshot.tasks().find(|task| task.kind() == Kind::BlockOn);
        assert!(main.is_some(), "{snapshot}");
        let child = snapshot.task(child.id()).unwrap();
        assert_eq!(child.orphaned(), None);
        assert_eq!(child.parent().unwrap().status(), ParentStatus::Live);
    });
}

// H: nothing of ours lies where the other layer looks
#[test]
fn two_layers_in_one_subscriber_keep_their_tables_apart() {
    use tracing_subscriber::prelude::*;
    let builder = || straggler::Builder::new().warn_on_orphans(false);
    let (small, few) = builder().max_live_tasks(2).build().unwrap();
    let (large, all) = builder().build().unwrap();
    let both = tracing_subscriber::registry().with(small).with(large);
    let _default = both.set_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        for _ in 0..300 {
            tokio::spawn(std::future::pending::<()>());
        }
        let host = tokio::spawn(async {
            let request = info_span!(parent: None, "request").entered();
            tokio::spawn(std::future::pending::<()>());
            drop(request);
        });
        host.await.expect("nothing of ours panics");
        let live = |tasks: &straggler::Tasks| tasks.snapshot().tasks().len();
        assert_eq!((live(&few), live(&all)), (2, 302));
        assert_eq!(few.snapshot().loss().refused(), 301);
    });
}
