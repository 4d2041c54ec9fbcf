//! Who is an orphan: alive past the grace after what started it ended, how surely, and
//! who never is.
// Helpers are tests too: who unwraps says what it expects.
#![allow(clippy::unwrap_used)]
// A block that gives a handle does so on purpose.
#![allow(clippy::async_yields_async)]
#![cfg(tokio_unstable)]

mod common;

use common::{Gate, MS, World, settle};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use straggler::{Builder, Cause, Certainty, Orphaned, ParentStatus, Source};
use tokio::sync::oneshot;
use tokio::task::Id;
use tracing::{Instrument, info_span};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// A task that waits for `gate`, spawned by a task that then ends.
async fn orphan(gate: &Gate) -> (Id, Id) {
    let gate = gate.clone();
    let parent = tokio::spawn(async move { tokio::spawn(gate.passed()).id() });
    let id = parent.id();
    let child = parent.await.unwrap();
    settle().await;
    (child, id)
}

fn orphaned(world: &World, id: Id) -> Option<Orphaned> {
    world.expect_task(id).orphaned().copied()
}

#[test]
fn a_task_is_an_orphan_once_the_grace_is_over_and_not_before() {
    let grace = Duration::from_secs(5);
    let world = World::with(|builder| builder.orphan_grace(grace));
    world.block_on(async {
        world.clock.advance(MS * 50);
        let gate = Gate::default();
        let (child, parent) = orphan(&gate).await;
        assert_eq!(orphaned(&world, child), None);
        world.clock.advance(grace - Duration::from_nanos(1));
        assert_eq!(orphaned(&world, child), None, "just below");
        world.clock.advance(Duration::from_nanos(1));
        let found = orphaned(&world, child).expect("exactly the grace");
        assert_eq!(
            (found.cause(), found.certainty()),
            (Cause::ParentEnded, Certainty::Certain)
        );
        assert_eq!(found.elapsed(), grace);
        let task = world.expect_task(child);
        assert_eq!(
            found.since(),
            task.spawned_at(),
            "the clock stood still between"
        );
        let seen = task.parent().unwrap();
        assert_eq!(seen.status(), ParentStatus::Ended);
        assert_eq!(seen.task().unwrap(), parent);
        gate.open();
        settle().await;
        assert_eq!(world.snapshot().orphans().count(), 0, "it ended");
    });
}

#[test]
fn a_child_of_a_living_parent_is_no_orphan_and_a_root_never_is() {
    for source in [Source::Spans, Source::Hooks, Source::Both] {
        let world = World::with(|builder| builder.source(source));
        world.block_on(async {
            let gate = Gate::default();
            let (tell, told) = oneshot::channel();
            let waiting = gate.clone();
            let parent = tokio::spawn(async move {
                tell.send(tokio::spawn(waiting.clone().passed()).id())
                    .unwrap();
                waiting.passed().await;
            });
            let child = told.await.unwrap();
            world.clock.advance(Duration::from_secs(3600));
            assert_eq!(orphaned(&world, child), None, "{source:?}");
            assert_eq!(orphaned(&world, parent.id()), None, "{source:?}");
            parent.abort();
            parent.await.unwrap_err();
            settle().await;
            let found = orphaned(&world, child).expect("its parent was aborted");
            assert_eq!(found.certainty(), Certainty::Certain, "{source:?}");
        });
    }
}

#[test]
fn a_daemon_is_a_root_of_its_own_and_its_descendants_are_judged_as_any() {
    let world = World::new();
    world.block_on(async {
        let gate = Gate::default();
        let (tell, told) = oneshot::channel();
        let waiting = gate.clone();
        let request = tokio::spawn(async move {
            let daemon = straggler::daemon(|| {
                tokio::spawn(async move {
                    let child = tokio::spawn({
                        let waiting = waiting.clone();
                        async move { tokio::spawn(waiting.passed()).id() }
                    });
                    let direct = tokio::spawn(waiting.clone().passed()).id();
                    tell.send((direct, child.await.unwrap())).unwrap();
                    waiting.passed().await;
                })
            });
            daemon.id()
        });
        let daemon = request.await.unwrap();
        let (direct, grandchild) = told.await.unwrap();
        settle().await;
        let task = world.expect_task(daemon);
        assert!(task.is_daemon() && task.orphaned().is_none() && task.parent().is_none());
        assert_eq!(task.root(), daemon);
        assert_eq!(
            orphaned(&world, direct),
            None,
            "its parent, the daemon, lives"
        );
        assert_eq!(world.expect_task(direct).root(), daemon);
        let found = orphaned(&world, grandchild).expect("the daemon's child has ended");
        assert_eq!(found.certainty(), Certainty::Certain);
    });
}

#[test]
fn daemon_covers_what_is_spawned_inside_it_and_nothing_after() {
    let world = World::new();
    world.block_on(async {
        let gate = Gate::default();
        let waiting = gate.clone();
        let ids = tokio::spawn(async move {
            let panicked = std::panic::catch_unwind(|| {
                straggler::daemon(|| std::panic::resume_unwind(Box::new(())))
            });
            assert!(panicked.is_err());
            let after = tokio::spawn(waiting.clone().passed()).id();
            let nested = straggler::daemon(|| {
                straggler::daemon(|| ());
                tokio::spawn(waiting.clone().passed()).id()
            });
            let wrapped = straggler::daemon(|| straggler::spawn(waiting.passed()).id());
            (after, nested, wrapped)
        });
        let (after, nested, wrapped) = ids.await.unwrap();
        settle().await;
        assert!(orphaned(&world, after).is_some());
        assert!(world.expect_task(nested).is_daemon());
        assert!(world.expect_task(wrapped).is_daemon());
        assert_eq!(orphaned(&world, wrapped), None);
    });
}

#[test]
fn a_daemon_can_be_told_by_its_file() {
    for (glob, daemon) in [("tests/orph*.rs", true), ("tests/*/orphans.rs", false)] {
        let world = World::with(|builder| builder.daemon_spawned_at(glob));
        world.block_on(async {
            let (child, _) = orphan(&Gate::default()).await;
            let task = world.expect_task(child);
            assert_eq!(
                (task.is_daemon(), task.orphaned().is_none()),
                (daemon, daemon),
                "{glob}"
            );
        });
    }
}

#[test]
fn a_parent_that_was_refused_is_unknown_and_makes_no_orphan() {
    for source in [Source::Spans, Source::Both] {
        let world = World::with(|builder| builder.source(source).max_live_tasks(2));
        world.block_on(async {
            let gate = Gate::default();
            let waiting = gate.clone();
            let first = tokio::spawn(gate.passed());
            // The block_on and the first are the two: this one is refused.
            let (go, went) = oneshot::channel();
            let refused = tokio::spawn(async move {
                went.await.unwrap();
                tokio::spawn(waiting.passed()).id()
            });
            first.abort();
            first.await.unwrap_err();
            settle().await;
            go.send(()).unwrap();
            let id = refused.id();
            let child = refused.await.unwrap();
            settle().await;
            world.clock.advance(Duration::from_secs(60));
            let task = world.expect_task(child);
            let parent = task.parent().expect("unknown, not none");
            assert_eq!(parent.status(), ParentStatus::Unknown);
            assert_eq!(parent.task().unwrap(), id);
            assert_eq!(task.orphaned(), None);
            let loss = *world.snapshot().loss();
            assert_eq!((loss.refused(), loss.unseen_parents()), (1, 1), "{loss}");
        });
    }
}

#[test]
fn a_block_on_inside_a_task_is_its_child_and_never_an_orphan() {
    let world = World::new();
    let dispatch = world.dispatch.clone();
    world.block_on(async {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let (tell, told) = oneshot::channel();
        let spawner = tokio::spawn(async move {
            tokio::task::spawn_blocking(move || {
                let _default = tracing::dispatcher::set_default(&dispatch);
                let inner = tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap();
                inner.block_on(async move {
                    tell.send(()).unwrap();
                    let _ = wait.recv();
                });
            })
        });
        let blocking = spawner.await.unwrap();
        told.await.unwrap();
        world.clock.advance(Duration::from_secs(60));
        let snapshot = world.snapshot();
        let block_on = |task: &&straggler::Task| task.kind() == straggler::Kind::BlockOn;
        let block_ons: Vec<_> = snapshot.tasks().filter(block_on).collect();
        assert_eq!(block_ons.len(), 2, "{snapshot}");
        assert!(
            block_ons.iter().all(|task| task.orphaned().is_none()),
            "{snapshot}"
        );
        let inner = block_ons[1];
        let parent = inner.parent().expect("the blocking task").task();
        assert_eq!(parent.unwrap(), blocking.id());
        drop(release);
        blocking.await.unwrap();
    });
}

#[test]
fn the_outermost_and_the_innermost_span_are_named() {
    let world = World::with(|builder| {
        let spans = Targets::new()
            .with_default(LevelFilter::INFO)
            .with_target("quiet", LevelFilter::OFF);
        builder.parent_spans(spans)
    });
    world.block_on(async {
        let spawn = async {
            let request = info_span!(target: "http", "request").entered();
            let handler = info_span!("handler").entered();
            let query = info_span!(target: "db", "query").entered();
            let fine = tracing::debug_span!("too_fine").entered();
            let quiet = info_span!(target: "quiet", "not_a_parent").entered();
            let id = tokio::spawn(std::future::pending::<()>()).id();
            drop((quiet, fine, query, handler, request));
            id
        };
        let id = tokio::spawn(spawn).await.unwrap();
        let task = world.expect_task(id);
        let parent = task.parent().unwrap();
        let named = |span: straggler::ParentSpan| (span.name(), span.target());
        assert_eq!(
            parent.outermost_span().map(named),
            Some(("request", "http"))
        );
        assert_eq!(parent.span().map(named), Some(("query", "db")));
    });
}

#[test]
fn the_end_of_the_spans_home_task_is_certain() {
    let world = World::new();
    world.block_on(async {
        let (tell, told) = oneshot::channel();
        let (gate, leave) = (Gate::default(), Gate::default());
        let (waiting, leaving) = (gate.clone(), leave.clone());
        // The span is created in one task and carried into another, which lives on.
        let home = tokio::spawn(async move {
            let carried = async move {
                tell.send(tokio::spawn(waiting.clone().passed()).id())
                    .unwrap();
                waiting.passed().await;
            };
            let carrier = tokio::spawn(carried.instrument(info_span!("request")));
            leaving.passed().await;
            drop(carrier);
        });
        let child = told.await.unwrap();
        settle().await;
        assert_eq!(orphaned(&world, child), None, "carrier and home live");
        leave.open();
        home.await.unwrap();
        settle().await;
        let found = orphaned(&world, child).expect("the request's task has ended");
        assert_eq!(
            (found.cause(), found.certainty()),
            (Cause::SpanTaskEnded, Certainty::Certain)
        );
    });
}

#[cfg(feature = "opentelemetry")]
#[test]
fn the_trace_at_the_spawn_is_kept() {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    fn context() -> Option<SpanContext> {
        let (trace, span) = (TraceId::from_bytes([7; 16]), SpanId::from_bytes([9; 8]));
        let none = TraceState::default();
        Some(SpanContext::new(
            trace,
            span,
            TraceFlags::SAMPLED,
            true,
            none,
        ))
    }
    for source in [Source::Spans, Source::Hooks] {
        let world = World::with(|builder| builder.source(source).trace_context(context));
        world.block_on(async {
            let (child, _) = orphan(&Gate::default()).await;
            let task = world.expect_task(child);
            assert_eq!(task.parent().unwrap().span_context(), context().as_ref());
        });
    }
}

#[cfg(feature = "opentelemetry")]
#[test]
fn the_current_opentelemetry_span_is_found_without_being_told() {
    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId};
    let (trace, span) = (TraceId::from_bytes([3; 16]), SpanId::from_bytes([5; 8]));
    let context = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, Default::default());
    for source in [Source::Spans, Source::Hooks, Source::Both] {
        let world = World::with(|builder| builder.source(source));
        world.block_on(async {
            let outside = tokio::spawn(std::future::pending::<()>()).id();
            let inside = {
                let remote = opentelemetry::Context::new();
                let _attached = remote.with_remote_span_context(context.clone()).attach();
                tokio::spawn(std::future::pending::<()>()).id()
            };
            let trace = |id| {
                let task = world.expect_task(id);
                let found = task.parent().and_then(straggler::Parent::span_context);
                found.cloned()
            };
            assert_eq!(trace(outside), None, "{source:?}");
            assert_eq!(trace(inside), Some(context.clone()), "{source:?}");
        });
    }
}

/// The WARN events of target `straggler` that reach the layer it is part of.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if event.metadata().target() == "straggler" {
            assert_eq!(*event.metadata().level(), tracing::Level::WARN);
            let thread = std::thread::current().name().unwrap_or_default().to_owned();
            self.0.lock().unwrap().push(thread);
        }
    }
}

/// Runs two episodes of one site; gives the threads that warned in each.
fn warnings(builder: Builder) -> [Vec<String>; 2] {
    let warnings = Warnings::default();
    let (layer, tasks) = builder.orphan_grace(Duration::ZERO).build().unwrap();
    let subscriber = tracing_subscriber::registry()
        .with(layer)
        .with(warnings.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    [3, 2].map(|count| {
        let gate = Gate::default();
        runtime.block_on(async {
            for _ in 0..count {
                orphan(&gate).await;
            }
        });
        assert_eq!(tasks.snapshot().orphans().count(), count);
        // The monitor looks once a second: what it warns of twice would come in three.
        let deadline = Instant::now() + Duration::from_millis(3_300);
        while Instant::now() < deadline {
            std::thread::park_timeout(MS * 50);
        }
        gate.open();
        runtime.block_on(settle());
        assert_eq!(tasks.snapshot().orphans().count(), 0);
        let deadline = Instant::now() + Duration::from_millis(1_300);
        while Instant::now() < deadline {
            std::thread::park_timeout(MS * 50);
        }
        std::mem::take(&mut *warnings.0.lock().unwrap())
    })
}

#[test]
fn one_warning_an_episode_from_a_thread_of_our_own() {
    let expected = ["straggler".to_owned()];
    assert_eq!(warnings(Builder::new()), [expected.clone(), expected]);
}

#[test]
fn warnings_can_be_turned_off() {
    let none = [Vec::<String>::new(), Vec::new()];
    assert_eq!(warnings(Builder::new().warn_on_orphans(false)), none);
}
