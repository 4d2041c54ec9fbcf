//! What the spans of an orphan say of it.

use super::common::{Gate, MS, settle};
use super::exporting::{LONG, audit, context, flush, orphan, within};
use super::placing::{end, is_child, pair};
use super::receiver::{PROTOCOLS, Protocol};
use super::view::{Span, SpanKind, StatusCode, Value};
use std::time::Duration;
use tokio::task::yield_now;
use tracing::{Instrument, info_span};

/// The names of attributes that a span has.
fn keys(span: &Span) -> Vec<&str> {
    span.attributes.keys().map(String::as_str).collect()
}

#[test]
fn each_span_says_what_is_known_of_its_task() {
    for protocol in PROTOCOLS {
        let (world, receiver) = pair(protocol, |otlp| otlp);
        let (parent, ended, alive) = world.block_on(async {
            let (gate, clock) = (Gate::default(), world.clock.clone());
            let request = context(1, true);
            let passed = gate.passed();
            let work = async move {
                clock.advance(30 * MS);
                passed.await;
            };
            let around = request.clone();
            let parent = tokio::spawn(
                async move {
                    yield_now().await;
                    within(Some(&around), || straggler::task("leaked").spawn(work))
                }
                .instrument(info_span!("request")),
            );
            let parent_id = straggler::TaskId::from(parent.id()).as_u64() as i64;
            let leaked = parent.await.unwrap();
            let leaked_id = straggler::TaskId::from(leaked.id()).as_u64() as i64;
            settle().await;
            world.clock.advance(10 * MS);
            flush(&world);
            world.clock.advance(10 * MS);
            gate.open();
            leaked.await.unwrap();
            let gate = Gate::default();
            let staying = orphan("staying", &gate, Some(request)).await;
            let staying = straggler::TaskId::from(staying.id()).as_u64() as i64;
            settle().await;
            world.clock.advance(10 * MS);
            flush(&world);
            world.clock.advance(10 * MS);
            world.tasks.shutdown(LONG).unwrap();
            (parent_id, leaked_id, staying)
        });
        let received = receiver.received();
        let of_all = [
            "code.column.number",
            "code.file.path",
            "code.line.number",
            "tokio.task.busy_time",
            "tokio.task.id",
            "tokio.task.kind",
            "tokio.task.lineage",
            "tokio.task.name",
            "tokio.task.orphan.cause",
            "tokio.task.orphan.certainty",
            "tokio.task.parent.id",
            "tokio.task.parent.span.name",
            "tokio.task.poll.count",
            "tokio.task.root.id",
            "tokio.task.size",
        ];
        let with = |more: &[&'static str], without: &str| {
            let mut all = of_all.to_vec();
            all.extend(more);
            all.retain(|name| *name != without);
            all.sort_unstable();
            all
        };
        let marker = received.span("orphan leaked");
        assert_eq!(
            keys(&marker),
            with(&["tokio.task.age", "tokio.task.state"], "")
        );
        assert_eq!(marker.attributes["tokio.task.age"], 0.04);
        assert_eq!(marker.attributes["tokio.task.state"], "idle");
        assert_eq!(marker.duration(), Duration::ZERO);
        let whole = received.span("task leaked");
        assert_eq!(keys(&whole), with(&["tokio.task.outcome"], ""));
        assert_eq!(whole.attributes["tokio.task.outcome"], "completed");
        assert_eq!(whole.duration(), 50 * MS);
        let root = whole.attributes["tokio.task.root.id"].clone();
        for (span, polls) in [(&marker, 1), (&whole, 2)] {
            let of = &span.attributes;
            assert_eq!(of["tokio.task.poll.count"], polls);
            assert_eq!(of["tokio.task.busy_time"], 0.03);
            assert_eq!(of["tokio.task.id"], ended);
            assert_eq!(of["tokio.task.parent.id"], parent);
            assert_eq!(of["tokio.task.root.id"], root);
            assert_eq!(of["tokio.task.parent.span.name"], "request");
            assert_eq!(of["tokio.task.orphan.cause"], "parent_ended");
            assert_eq!(of["tokio.task.orphan.certainty"], "certain");
            assert_eq!(of["tokio.task.name"], "leaked");
            let Value::List(lineage) = &of["tokio.task.lineage"] else {
                panic!("{of:#?}");
            };
            assert_eq!(
                lineage.len(),
                3,
                "itself, its parent, the block_on: {lineage:?}"
            );
        }
        // With no span around its parent.
        let no_span = "tokio.task.parent.span.name";
        let closing = received.span("task staying");
        assert_eq!(
            keys(&closing),
            with(&["tokio.task.live", "tokio.task.state"], no_span)
        );
        assert_eq!(closing.attributes["tokio.task.live"], true);
        assert_eq!(closing.attributes["tokio.task.id"], alive);
        assert_eq!(closing.duration(), 20 * MS);
        assert_eq!(
            closing.links[0].span_id,
            received.span("orphan staying").span_id
        );
        for span in received.spans() {
            assert_eq!(span.kind, SpanKind::Internal);
            assert_eq!(span.status, (StatusCode::Unset, String::new()));
            assert_eq!(span.scope.name, "straggler");
            assert!(is_child(&span, &context(1, true)), "{span:#?}");
        }
        audit(&received);
    }
}

#[test]
fn the_event_says_when_what_started_it_ended() {
    let (world, receiver) = pair(Protocol::Grpc, |otlp| otlp);
    world.block_on(async {
        let gate = Gate::default();
        world.clock.advance(10 * MS);
        let leaked = orphan("leaked", &gate, None).await;
        let since = world.snapshot().taken_at();
        world.clock.advance(10 * MS);
        flush(&world);
        world.clock.advance(10 * MS);
        end(leaked).await;
        flush(&world);
        let whole = receiver.received().span("task leaked");
        assert_eq!(whole.events.len(), 1, "{whole:#?}");
        let event = &whole.events[0];
        assert_eq!((&*event.name, event.time), ("orphaned", since));
        assert_eq!(event.attributes["tokio.task.orphan.cause"], "parent_ended");
        assert_eq!(event.attributes["tokio.task.orphan.certainty"], "certain");
        assert!(receiver.received().span("orphan leaked").events.is_empty());
    });
    audit(&receiver.received());
}
