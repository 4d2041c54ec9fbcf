//! Against a snapshot, and against what arrives over the network.

use super::{metric, one};
use crate::agreement::agree;
use crate::common::{Gate, MS};
use crate::exporting::{context, flush, orphan, otlp, world, world_with};
use crate::receiver::{Protocol, Receiver};
use crate::view;
use opentelemetry::Value;
use std::collections::{BTreeMap, BTreeSet};
use straggler::Source;
use straggler::otlp::exported::{InstrumentKind, Metric, Point};
use straggler::otlp::{InMemory, Otlp};

/// As the other tests read them.
fn viewed(exported: &InMemory) -> Vec<view::Point> {
    let metrics = exported.metrics();
    let points = metrics
        .iter()
        .flat_map(|metric| metric.points().iter().map(move |point| (metric, point)));
    points
        .map(|(metric, point)| view_of(metric, point))
        .collect()
}

fn view_of(metric: &Metric, point: &Point) -> view::Point {
    let data = match (metric.kind(), point.value(), point.histogram()) {
        (InstrumentKind::Histogram, None, Some(values)) => view::Data::Histogram {
            cumulative: true,
            histogram: view::Histogram {
                count: values.count(),
                sum: values.sum(),
                bounds: values.bounds().to_vec(),
                counts: values.counts().to_vec(),
                ..view::Histogram::default()
            },
        },
        (_, Some(value), None) => view::Data::Gauge(view::Number::Double(value)),
        _ => panic!("neither nor: {point:#?}"),
    };
    let attributes = point.attributes().iter().map(|attribute| {
        let value = match &attribute.value {
            Value::Bool(value) => (*value).into(),
            Value::I64(value) => (*value).into(),
            Value::F64(value) => (*value).into(),
            Value::String(value) => value.as_str().into(),
            other => panic!("no attribute of a metric is a list: {other:?}"),
        };
        (attribute.key.to_string(), value)
    });
    view::Point {
        name: metric.name().to_owned(),
        description: metric.description().to_owned(),
        unit: metric.unit().to_owned(),
        data,
        attributes: attributes.collect::<BTreeMap<_, _>>(),
        start: point.start(),
        time: point.time(),
        exemplars: Vec::new(),
        resource: view::Attributes::new(),
        scope: view::Scope::default(),
    }
}

#[test]
fn every_metric_says_what_a_snapshot_says() {
    for source in [Source::Spans, Source::Hooks, Source::Both] {
        let exported = InMemory::new();
        let otlp = Otlp::new().in_memory(&exported);
        let world = world_with(otlp, |builder| builder.source(source));
        world.block_on(async {
            let gate = Gate::default();
            let ends = tokio::spawn(gate.passed());
            let stays = Gate::default();
            orphan("leaked", &stays, None).await;
            for _ in 0..3 {
                world.clock.advance(20 * MS);
                stays.nudge();
                tokio::task::yield_now().await;
                let snapshot = world.snapshot();
                flush(&world);
                agree(&snapshot, &viewed(&exported));
            }
            gate.open();
            ends.await.expect("it ends");
            let snapshot = world.snapshot();
            flush(&world);
            agree(&snapshot, &viewed(&exported));
            assert!(metric(&exported, "tokio.task.orphan.count").total() >= Some(1.0));
        });
    }
}

#[test]
fn a_receiver_gets_the_same() {
    let (receiver, exported) = (Receiver::start(Protocol::Grpc), InMemory::new());
    for otlp in [otlp(&receiver), Otlp::new().in_memory(&exported)] {
        let world = world(otlp);
        world.block_on(async {
            orphan("leaked", &Gate::default(), Some(context(3, true))).await;
            flush(&world);
        });
    }
    let (sent, kept) = (receiver.received().span("orphan leaked"), exported.spans());
    let kept = one(&kept, "orphan leaked");
    let keys: BTreeSet<_> = (kept.attributes.iter())
        .map(|attribute| attribute.key.as_str())
        .collect();
    assert!(sent.attributes.keys().eq(keys), "{kept:#?}");
    assert_eq!(sent.scope.name, kept.instrumentation_scope.name());
    assert_eq!(sent.trace_id, kept.span_context.trace_id());
    let series = |points: Vec<view::Point>| -> BTreeSet<String> {
        let series = |it: view::Point| format!("{} {:?}", it.name, it.attributes.keys());
        points.into_iter().map(series).collect()
    };
    assert_eq!(series(viewed(&exported)), series(receiver.metrics()));
}
