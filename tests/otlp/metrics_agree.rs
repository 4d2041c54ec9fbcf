//! Every metric says what a snapshot of the same moment says.

use super::agreement::Pair;
use super::common::{FLAVOURS, Flavour, Gate, MS, settle};
use super::exporting::{
    audit, context, endless, flush, orphan, otlp, presume_ended, until, world_with,
};
use super::receiver::{PROTOCOLS, Protocol, Receiver};
use std::future::pending;
use std::panic::resume_unwind;
use std::sync::mpsc;
use std::time::Duration;
use straggler::{Kind, ManualClock, Snapshot, Source, State};
use tokio::task::{LocalSet, spawn_blocking, spawn_local, yield_now};
use tracing::{Instrument, info_span};

const SOURCES: [Source; 3] = [Source::Spans, Source::Hooks, Source::Both];

/// Some turns of some length, and then a wait.
async fn work(clock: ManualClock, gate: Gate) {
    for length in [2, 7, 60] {
        clock.advance(Duration::from_millis(length));
        yield_now().await;
    }
    gate.passed().await;
    clock.advance(3 * MS);
}

/// Tasks of each sort, alive, then ended in each way.
async fn all_sorts(pair: &Pair) {
    let (world, gate) = (&pair.world, Gate::default());
    let sees_blocking = world.snapshot().source() != Source::Hooks;
    pair.check();
    let doing = || work(world.clock.clone(), gate.clone());
    let mut handles: Vec<_> = (0..3).map(|_| tokio::spawn(doing())).collect();
    handles.push(straggler::spawn(doing()));
    handles.push(straggler::task("by us").spawn(doing()));
    let named = tokio::task::Builder::new().name("by tokio");
    handles.push(named.spawn(doing()).unwrap());
    handles.push(spawn_local(doing()));
    handles.push(straggler::spawn_local(doing()));
    // New, and waiting for their first poll.
    world.clock.advance(4 * MS);
    pair.check();
    settle().await;
    world.clock.advance(500 * MS);
    pair.check();

    let (open, opened) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let closure = move || {
        tell.send(()).unwrap();
        opened.recv().unwrap_or_default();
    };
    let blocking = spawn_blocking(closure);
    while told.try_recv().is_err() {
        yield_now().await;
    }
    world.clock.advance(9 * MS);
    pair.check();

    gate.nudge();
    pair.check();
    gate.open();
    for handle in handles {
        handle.await.unwrap();
    }
    drop(open);
    blocking.await.unwrap();
    if sees_blocking {
        until(world, |snapshot| {
            snapshot.sites().all(|site| site.ending() == 0) && snapshot.tasks().len() == 1
        })
        .await;
    }
    pair.check();
}

async fn bad_ends(pair: &Pair) {
    let line = line!();
    let panics = async { resume_unwind(Box::new("meant to")) };
    let doomed: Vec<_> = [
        tokio::spawn(panics),
        straggler::spawn(async { resume_unwind(Box::new("meant to")) }),
    ]
    .into();
    let aborted = [
        tokio::spawn(pending()),
        straggler::spawn(pending()),
        tokio::spawn(pending()),
    ];
    settle().await;
    pair.check();
    pair.world.clock.advance(20 * MS);
    aborted.iter().for_each(|handle| handle.abort());
    for handle in doomed.into_iter().chain(aborted) {
        let ended: Result<(), _> = handle.await;
        ended.unwrap_err();
    }
    let snapshot = pair.check();
    let sum = |of: fn(&straggler::Site) -> u64| -> u64 {
        let sites = snapshot.sites();
        sites
            .filter(|site| site.location().line() > line)
            .map(of)
            .sum()
    };
    // Else nothing was compared.
    assert_eq!(sum(straggler::Site::ended), 5, "{snapshot}");
    assert!(sum(straggler::Site::panicked) > 0, "{snapshot}");
    assert!(sum(straggler::Site::aborted) > 0, "{snapshot}");
}

/// One orphan for each cause; hooks alone know of spans too, as the layer is there.
async fn all_causes(pair: &Pair) {
    let (world, gate) = (&pair.world, Gate::default());
    let orphan = orphan("parent ended", &gate, None).await;
    let (passed, stay) = (gate.passed(), gate.clone());
    let closed = async move { tokio::spawn(passed) };
    let home = tokio::spawn(async move {
        let closed = closed.instrument(info_span!("closed")).await;
        let passed = stay.passed();
        let left = async { tokio::spawn(passed.in_current_span()) };
        let left = left.instrument(info_span!("left")).await;
        yield_now().await;
        stay.passed().await;
        (closed, left)
    });
    let (passed, around) = (gate.passed(), info_span!("elsewhere"));
    let held = around.clone();
    let other_home = async move { tokio::spawn(async move { spawn_under(&around, passed) }).await };
    let elsewhere = other_home.await.unwrap();
    settle().await;
    world.clock.advance(10 * MS);
    let snapshot = pair.check();
    assert!(snapshot.orphans().count() >= 2, "{snapshot}");
    flush(world);
    let now = snapshot.orphans().count() as f64;
    assert_eq!(pair.total("tokio.task.orphaned"), now);
    let series = pair.points("tokio.task.orphan.count").len();

    world.clock.advance(10 * MS);
    gate.open();
    orphan.await.unwrap();
    let (closed, left) = home.await.unwrap();
    for handle in [closed, left, elsewhere] {
        handle.await.unwrap();
    }
    drop(held);
    let snapshot = pair.check();
    assert_eq!(snapshot.orphans().count(), 0, "{snapshot}");
    // Zero is a value; a series that vanishes leaves its last one standing.
    assert_eq!(pair.points("tokio.task.orphan.count").len(), series);
    assert_eq!(pair.total("tokio.task.orphan.count"), 0.0);
    assert_eq!(pair.total("tokio.task.orphaned"), now);
}

fn spawn_under(span: &tracing::Span, passed: super::common::Passed) -> tokio::task::JoinHandle<()> {
    span.in_scope(|| tokio::spawn(passed))
}

#[test]
fn whatever_the_program_and_the_source() {
    for protocol in PROTOCOLS {
        for source in SOURCES {
            let pair = Pair::new(protocol, source);
            let runtime = pair.world.runtime(Flavour::CurrentThread);
            let all = async {
                all_sorts(&pair).await;
                bad_ends(&pair).await;
                all_causes(&pair).await;
            };
            runtime.block_on(LocalSet::new().run_until(all));
            drop(runtime);
            pair.check();
            audit(&pair.receiver.received());
        }
    }
}

/// Whether all workers are there, and each task waits.
fn is_at_rest(snapshot: &Snapshot) -> bool {
    snapshot.tasks().all(|task| match task.state() {
        Some(State::Running) => task.kind() == Kind::Blocking,
        Some(State::Scheduled) => false,
        Some(State::Idle) | None => true,
    })
}

#[test]
fn with_workers() {
    for source in SOURCES {
        let pair = Pair::new(Protocol::Http, source);
        let runtime = pair.world.runtime(Flavour::MultiThread);
        let gate = Gate::default();
        let tasks = (0..64).map(|_| work(pair.world.clock.clone(), gate.clone()));
        let tasks: Vec<_> = tasks.map(|task| runtime.spawn(task)).collect();
        pair.world.eventually(|snapshot| {
            let polled = snapshot.tasks().filter(|task| task.polls() == 4);
            polled.count() == 64 && is_at_rest(snapshot)
        });
        pair.check();
        gate.open();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        drop(runtime);
        let snapshot = pair
            .world
            .eventually(|snapshot| snapshot.tasks().len() == 0);
        assert_eq!(snapshot.sites().map(|site| site.ended()).max(), Some(64));
        pair.check();
        audit(&pair.receiver.received());
    }
}

#[test]
fn a_series_starts_with_the_first_spawn_of_its_site() {
    let pair = Pair::new(Protocol::Grpc, Source::Spans);
    pair.world.block_on(async {
        let spawned =
            |handle: tokio::task::JoinHandle<()>| pair.world.expect_task(handle.id()).spawned_at();
        pair.world.clock.advance(5 * MS);
        let spawn = || tokio::spawn(pending());
        let first = spawned(spawn());
        pair.world.clock.advance(10 * MS);
        let second = spawned(straggler::task("later").spawn(pending()));
        spawn();
        assert!(second > first);
        for _ in 0..3 {
            pair.world.clock.advance(10 * MS);
            pair.check();
            for point in pair.points("tokio.task.spawned") {
                let start = match point.attributes["tokio.task.kind"] == "block_on" {
                    true => continue,
                    false if point.attributes.contains_key("tokio.task.name") => second,
                    false => first,
                };
                assert_eq!(point.start, Some(start), "{point:#?}");
            }
        }
    });
    let series = audit(&pair.receiver.received());
    assert!(series.values().any(|it| it.is_histogram()));
}

#[test]
fn sites_beyond_the_limit_are_one_point_of_each_metric() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        let world = world_with(otlp(&receiver), |builder| builder.max_spawn_sites(1));
        let pair = Pair { world, receiver };
        pair.world.block_on(async {
            let gate = Gate::default();
            orphan("one", &gate, Some(context(1, true))).await;
            orphan("two", &gate, Some(context(2, true))).await;
            let under = tokio::spawn({
                let passed = gate.passed();
                async { tokio::spawn(passed) }.instrument(info_span!("request"))
            });
            under.await.unwrap();
            let aborted = straggler::spawn(pending::<()>());
            let completed = straggler::task("well").spawn(async {});
            settle().await;
            aborted.abort();
            aborted.await.unwrap_err();
            completed.await.unwrap();
            settle().await;
            pair.world.clock.advance(10 * MS);
            let snapshot = pair.check();
            assert!(snapshot.loss().site_overflow() >= 5, "{snapshot}");
            let received = pair.receiver.received();
            let mut beyond = received.metrics();
            beyond.retain(|it| it.attributes.contains_key("otel.metric.overflow"));
            assert!(
                beyond.iter().all(|it| it.attributes.len() == 1),
                "{beyond:#?}"
            );
            let mut metrics: Vec<_> = beyond.iter().map(|it| &*it.name).collect();
            let all = metrics.len();
            metrics.sort_unstable();
            metrics.dedup();
            assert_eq!(metrics.len(), all, "{beyond:#?}");
            let per_site = received.metrics().into_iter().map(|it| it.name);
            for metric in per_site.filter(|name| name.starts_with("tokio.")) {
                let never = metric == "tokio.task.unconfirmed.count";
                assert!(
                    never || metrics.contains(&&*metric),
                    "{metric}: {metrics:?}"
                );
            }
            assert_eq!(pair.total("tokio.task.orphaned"), 3.0);
            // Each is still told by its own name and place.
            received.span("orphan one");
            received.span("orphan two");
        });
        audit(&pair.receiver.received());
    }
}

#[test]
fn two_sites_on_one_line_are_two_series() {
    let pair = Pair::new(Protocol::Http, Source::Both);
    pair.world.block_on(async {
        let (one, two) = (tokio::spawn(async {}), tokio::spawn(pending::<()>()));
        one.await.unwrap();
        pair.check();
        let mut points = pair.points("tokio.task.spawned");
        points.retain(|point| point.attributes["tokio.task.kind"] == "task");
        assert_eq!(points.len(), 2, "{points:#?}");
        let of = |name: &str| [0, 1].map(|at: usize| points[at].attributes[name].clone());
        let [line, other] = of("code.line.number");
        assert_eq!(line, other);
        let [column, other] = of("code.column.number");
        assert_ne!(column, other);
        drop(two);
    });
    audit(&pair.receiver.received());
}

#[test]
fn what_was_lost_is_counted_as_it_is_in_process() {
    for flavour in FLAVOURS {
        let receiver = Receiver::start(Protocol::Http);
        let world = world_with(otlp(&receiver), |builder| builder.max_live_tasks(4));
        let pair = Pair { world, receiver };
        let runtime = pair.world.runtime(flavour);
        for _ in 0..9 {
            runtime.spawn(pending::<()>());
        }
        let snapshot = pair
            .world
            .eventually(|snapshot| is_at_rest(snapshot) || flavour == Flavour::CurrentThread);
        assert!(snapshot.loss().refused() >= 5, "{snapshot}");
        pair.check();
        let of = [("straggler.loss.reason", "refused".into())];
        let refused = pair.receiver.received().point("straggler.loss", &of);
        assert_eq!(refused.number(), snapshot.loss().refused() as f64);
        drop(runtime);
        pair.world
            .eventually(|snapshot| snapshot.tasks().len() == 0);
        pair.check();
        audit(&pair.receiver.received());
    }
}

#[test]
fn an_end_that_is_taken_back_moves_no_series_down() {
    let pair = Pair::new(Protocol::Http, Source::Spans);
    pair.world.block_on(async {
        let gate = Gate::default();
        let living = tokio::spawn(endless(gate.clone()));
        settle().await;
        pair.world.clock.advance(10 * MS);
        let ghost = presume_ended(&pair.world, &gate, living.id()).await;
        flush(&pair.world);
        let ended = pair.total("tokio.task.ended");
        assert_eq!(ended, 1.0, "the wrong one");
        gate.nudge();
        settle().await;
        assert!(pair.world.snapshot().task(living.id()).is_some());
        flush(&pair.world);
        assert_eq!(pair.total("tokio.task.ended"), ended);
        pair.world.clock.advance(10 * MS);
        drop(ghost);
        living.abort();
        living.await.unwrap_err();
        flush(&pair.world);
        let snapshot = pair.world.snapshot();
        let in_process: u64 = snapshot.sites().map(|site| site.ended()).sum();
        assert_eq!(in_process, 2, "{snapshot}");
        // What was inferred stands, without an outcome, beside what came to pass.
        assert_eq!(pair.total("tokio.task.ended"), 3.0);
    });
    audit(&pair.receiver.received());
}
