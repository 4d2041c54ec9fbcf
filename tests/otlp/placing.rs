//! Where in which trace an orphan is told of.
#![allow(unreachable_pub)]

use super::common::{Gate, MS, World, settle};
use super::exporting::{
    audit, context, endless, flush, one, orphan, otlp, presume_ended, until, world, world_with,
};
use super::receiver::{PROTOCOLS, Protocol, Receiver};
use super::view::{Span, Value};
use opentelemetry::trace::SpanContext;
use std::collections::BTreeSet;
use std::time::Duration;
use straggler::otlp::Otlp;
use tokio::task::{JoinHandle, yield_now};
use tracing::{Instrument, info_span};

const HOUR: Duration = Duration::from_secs(60 * 60);

pub fn pair(protocol: Protocol, options: impl FnOnce(Otlp) -> Otlp) -> (World, Receiver) {
    let receiver = Receiver::start(protocol);
    (world(options(otlp(&receiver))), receiver)
}

pub async fn end(handle: JoinHandle<()>) {
    handle.abort();
    handle.await.unwrap_err();
    settle().await;
}

fn orphaned(receiver: &Receiver) -> f64 {
    let points = receiver.received().points("tokio.task.orphaned");
    points.iter().map(|point| point.number()).sum()
}

pub fn is_child(span: &Span, parent: &SpanContext) -> bool {
    span.trace_id == parent.trace_id() && span.parent_span_id == Some(parent.span_id())
}

/// Whether it is the first of a trace of its own, with these links.
#[track_caller]
fn assert_root(span: &Span, links: &[(&str, &SpanContext)]) {
    assert_eq!(span.parent_span_id, None, "{span:#?}");
    let linked: Vec<_> = (span.links.iter())
        .map(|link| {
            (
                link.attributes["straggler.link"].clone(),
                link.trace_id,
                link.span_id,
            )
        })
        .collect();
    let wanted: Vec<_> = (links.iter())
        .map(|(what, to)| (Value::from(*what), to.trace_id(), to.span_id()))
        .collect();
    assert_eq!(linked, wanted);
    for (_, to) in links {
        assert_ne!(span.trace_id, to.trace_id());
    }
}

fn context_of(span: &Span) -> SpanContext {
    SpanContext::new(
        span.trace_id,
        span.span_id,
        opentelemetry::trace::TraceFlags::SAMPLED,
        false,
        opentelemetry::trace::TraceState::NONE,
    )
}

#[test]
fn a_child_of_its_parent_up_to_an_age_and_then_a_trace_of_its_own() {
    for protocol in PROTOCOLS {
        let (world, receiver) = pair(protocol, |otlp| otlp.child_within(HOUR));
        world.block_on(async {
            let (gate, request) = (Gate::default(), context(1, true));
            let young = orphan("young", &gate, Some(request.clone())).await;
            let aging = orphan("aging", &gate, Some(request.clone())).await;
            world.clock.advance(HOUR);
            flush(&world);
            let spans = receiver.spans();
            assert_eq!(spans.len(), 2);
            assert!(
                spans.iter().all(|span| is_child(span, &request)),
                "{spans:#?}"
            );
            end(young).await;
            flush(&world);
            let spans = receiver.spans();
            let whole = one(&spans, "task young");
            assert!(
                is_child(whole, &request),
                "the very last moment: {whole:#?}"
            );

            world.clock.advance(MS);
            let old = orphan("old", &gate, Some(request.clone())).await;
            world.clock.advance(HOUR + MS);
            end(aging).await;
            flush(&world);
            let spans = receiver.spans();
            let marker = context_of(one(&spans, "orphan aging"));
            let both = [("marker", &marker), ("parent", &request)];
            assert_root(one(&spans, "task aging"), &both);
            assert_root(one(&spans, "orphan old"), &[("parent", &request)]);
            end(old).await;
        });
        audit(&receiver.received());
    }
}

#[test]
fn an_unsampled_parent_keeps_its_orphan_out_of_the_traces_but_not_of_the_metrics() {
    for (unsampled_parents, spans) in [(false, 0), (true, 3)] {
        let (world, receiver) = pair(Protocol::Grpc, |otlp| {
            otlp.unsampled_parents(unsampled_parents)
        });
        world.block_on(async {
            let (gate, request) = (Gate::default(), context(1, false));
            let handle = orphan("leaked", &gate, Some(request.clone())).await;
            flush(&world);
            end(handle).await;
            // Another, between two looks.
            end(orphan("short", &gate, Some(request.clone())).await).await;
            flush(&world);
            let received = receiver.received();
            assert_eq!(received.span_count(), spans, "{received}");
            assert_eq!(orphaned(&receiver), 2.0);
            if unsampled_parents {
                let marker = received.span("orphan leaked");
                assert_root(&marker, &[("parent", &request)]);
                let both = [("marker", &context_of(&marker)), ("parent", &request)];
                assert_root(&received.span("task leaked"), &both);
                assert_root(&received.span("task short"), &[("parent", &request)]);
            }
        });
        let snapshot = world.snapshot();
        assert!(snapshot.loss().is_empty(), "{snapshot}");
        audit(&receiver.received());
    }
}

#[test]
fn without_a_trace_it_begins_one() {
    let (world, receiver) = pair(Protocol::Http, |otlp| otlp);
    world.block_on(async {
        let gate = Gate::default();
        let handle = orphan("leaked", &gate, None).await;
        flush(&world);
        let marker = receiver.received().span("orphan leaked");
        assert_root(&marker, &[]);
        end(handle).await;
        flush(&world);
        let whole = receiver.received().span("task leaked");
        assert_root(&whole, &[("marker", &context_of(&marker))]);
        assert_ne!(whole.trace_id, marker.trace_id);
    });
    audit(&receiver.received());
}

#[test]
fn no_span_id_is_used_twice() {
    let (world, receiver) = pair(Protocol::Grpc, |otlp| otlp.child_within(5 * MS));
    world.block_on(async {
        for round in 0..4_u64 {
            let gate = Gate::default();
            let mut handles = Vec::new();
            for number in 0..50 {
                let parent = (number % 3 > 0).then(|| context(number % 7, true));
                handles.push(orphan("leaked", &gate, parent).await);
            }
            world.clock.advance(Duration::from_millis(round * 2));
            flush(&world);
            world.clock.advance(MS);
            gate.open();
            for handle in handles {
                handle.await.unwrap();
            }
            flush(&world);
        }
        for _ in 0..10 {
            orphan("to the last", &Gate::default(), None).await;
        }
        world.tasks.shutdown(super::exporting::LONG).unwrap();
    });
    let spans = receiver.spans();
    assert_eq!(
        spans.len(),
        4 * 50 * 2 + 10 * 2,
        "else fewer ids prove less"
    );
    let ids: BTreeSet<_> = spans.iter().map(|span| span.span_id.to_bytes()).collect();
    assert_eq!(ids.len(), spans.len());
    for link in spans.iter().flat_map(|span| &span.links) {
        let is_marker = link.attributes["straggler.link"] == "marker";
        assert_eq!(
            is_marker,
            ids.contains(&link.span_id.to_bytes()),
            "{link:#?}"
        );
    }
    audit(&receiver.received());
}

#[test]
fn what_comes_and_goes_between_two_looks_is_told_and_counted() {
    for protocol in PROTOCOLS {
        let (world, receiver) = pair(protocol, |otlp| otlp);
        world.block_on(async {
            let (gate, request) = (Gate::default(), context(1, true));
            let short = orphan("short", &gate, Some(request.clone())).await;
            world.clock.advance(10 * MS);
            end(short).await;
            // Under a span that closed, in a task that lives.
            let passed = gate.passed();
            let spawn = async { straggler::task("spanned").spawn(passed) };
            let spanned = spawn.instrument(info_span!("request")).await;
            end(spanned).await;
            flush(&world);
            let spans = receiver.spans();
            assert_eq!(spans.len(), 2, "no markers: {spans:#?}");
            let whole = one(&spans, "task short");
            assert!(is_child(whole, &request));
            assert!(whole.links.is_empty());
            assert_eq!(whole.duration(), 10 * MS);
            let spanned = one(&spans, "task spanned");
            assert_eq!(spanned.attributes["tokio.task.orphan.cause"], "span_closed");
            assert_eq!(spanned.attributes["tokio.task.orphan.certainty"], "likely");
            assert_eq!(orphaned(&receiver), 2.0);
            let received = receiver.received();
            let live = received.points("tokio.task.orphan.count");
            assert!(live.is_empty(), "it never was there: {live:#?}");
        });
        audit(&receiver.received());
    }
}

#[test]
fn within_the_grace_nothing_is_an_orphan() {
    let receiver = Receiver::start(Protocol::Http);
    let grace = 50 * MS;
    let world = world_with(otlp(&receiver), |builder| builder.orphan_grace(grace));
    world.block_on(async {
        let gate = Gate::default();
        let short = orphan("short", &gate, None).await;
        let long = orphan("long", &gate, None).await;
        world.clock.advance(grace - Duration::from_nanos(1));
        end(short).await;
        flush(&world);
        assert_eq!((receiver.spans().len(), orphaned(&receiver)), (0, 0.0));
        world.clock.advance(Duration::from_nanos(1));
        flush(&world);
        receiver.received().span("orphan long");
        assert_eq!(orphaned(&receiver), 1.0);
        end(long).await;
    });
    audit(&receiver.received());
}

#[test]
fn one_whose_span_is_entered_again_is_no_orphan_for_as_long() {
    let (world, receiver) = pair(Protocol::Grpc, |otlp| otlp);
    world.block_on(async {
        let (gate, turn) = (Gate::default(), Gate::default());
        let (passed, waits) = (gate.passed(), turn.clone());
        let home = tokio::spawn(
            async move {
                let request = info_span!("request");
                let child = request.in_scope(|| straggler::task("child").spawn(passed));
                yield_now().await;
                waits.passed().await;
                let _entered = request.enter();
                child.await.unwrap();
            }
            .instrument(tracing::Span::none()),
        );
        settle().await;
        flush(&world);
        let count = || {
            let points = receiver.received().points("tokio.task.orphan.count");
            points.iter().map(|point| point.number()).sum::<f64>()
        };
        assert_eq!((count(), orphaned(&receiver)), (1.0, 1.0));
        let marker = receiver.received().span("orphan child");
        assert_eq!(marker.attributes["tokio.task.orphan.cause"], "span_left");
        turn.open();
        settle().await;
        flush(&world);
        gate.open();
        home.await.unwrap();
        flush(&world);
        assert_eq!((count(), orphaned(&receiver)), (0.0, 1.0));
        let whole = receiver.received().span("task child");
        assert_eq!(whole.links[0].span_id, marker.span_id);
        assert_eq!(receiver.spans().len(), 2);
    });
    audit(&receiver.received());
}

#[test]
fn one_that_was_taken_for_ended_and_comes_back_is_counted_once() {
    for marked_before in [false, true] {
        let (world, receiver) = pair(Protocol::Http, |otlp| otlp);
        world.block_on(async {
            let gate = Gate::default();
            let waits = gate.clone();
            let parent = tokio::spawn(async move { tokio::spawn(endless(waits)) });
            let leaked = parent.await.unwrap();
            settle().await;
            if marked_before {
                flush(&world);
                assert_eq!(receiver.spans().len(), 1);
            }
            let ghost = presume_ended(&world, &gate, leaked.id()).await;
            flush(&world);
            let told = receiver.spans().len();
            assert_eq!(
                told,
                1 + usize::from(marked_before),
                "its end, to all appearances"
            );
            gate.nudge();
            settle().await;
            assert!(
                world
                    .snapshot()
                    .task(leaked.id())
                    .unwrap()
                    .orphaned()
                    .is_some()
            );
            flush(&world);
            assert_eq!(receiver.spans().len(), told + 1, "a marker, as it lives");
            assert_eq!(orphaned(&receiver), 1.0);
            flush(&world);
            assert_eq!(receiver.spans().len(), told + 1, "one is enough");
            drop(ghost);
            end(leaked).await;
            flush(&world);
            let spans = receiver.spans();
            assert_eq!(spans.len(), told + 2);
            let (marker, whole) = (&spans[told], &spans[told + 1]);
            assert_eq!(whole.links[0].span_id, marker.span_id);
            assert_eq!(whole.attributes["tokio.task.outcome"], "aborted");
            assert_eq!(orphaned(&receiver), 1.0);
            until(&world, |snapshot| snapshot.orphans().count() == 0).await;
        });
        audit(&receiver.received());
    }
}
