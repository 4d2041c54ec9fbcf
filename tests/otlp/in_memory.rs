//! What is kept in the process is what a receiver would get.

mod compared;
mod settings;

use super::common::{FLAVOURS, Gate, MS, World};
use super::exporting::{LONG, context, flush, orphan, within, world};
use opentelemetry::metrics::MeterProvider;
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use std::time::Duration;
use straggler::otlp::exported::{InstrumentKind, Metric};
use straggler::otlp::{InMemory, MetricExporter, Otlp};

fn kept(exported: &InMemory) -> World {
    world(Otlp::new().in_memory(exported))
}

#[track_caller]
fn metric(exported: &InMemory, name: &str) -> Metric {
    let found = exported.metric(name);
    found.unwrap_or_else(|| panic!("no {name} in {:#?}", exported.metrics()))
}

#[track_caller]
fn total(exported: &InMemory, name: &str, task: &str) -> Option<f64> {
    metric(exported, name)
        .with("tokio.task.name", task.to_owned())
        .total()
}

#[track_caller]
fn one(spans: &[SpanData], name: &str) -> SpanData {
    let named: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(named.len(), 1, "spans named {name:?} in {spans:#?}");
    named[0].clone()
}

fn names(exported: &InMemory) -> Vec<String> {
    let spans = exported.spans();
    spans.iter().map(|span| span.name.to_string()).collect()
}

fn attribute<'a>(of: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let found = of.iter().find(|attribute| attribute.key.as_str() == key);
    found.map(|attribute| &attribute.value)
}

#[test]
fn an_orphan_has_a_marker_while_it_lives_and_a_span_after_its_end() {
    for flavour in FLAVOURS {
        let exported = InMemory::new();
        let world = kept(&exported);
        let (gate, request) = (Gate::default(), context(1, true));
        world.runtime(flavour).block_on(async {
            let leaked = orphan("leaked", &gate, Some(request.clone())).await;
            let id = world.snapshot().orphans().next().expect("it is one").id();
            world.clock.advance(10 * MS);
            flush(&world);
            let marker = one(&exported.spans(), "orphan leaked");
            assert_eq!(marker.start_time, marker.end_time);
            assert_eq!(marker.start_time, world.snapshot().taken_at());
            assert_eq!(
                attribute(&marker.attributes, "tokio.task.age"),
                Some(&0.01.into())
            );

            gate.open();
            leaked.await.expect("it ends");
            world.clock.advance(10 * MS);
            flush(&world);
            let spans = exported.spans();
            assert_eq!(spans.len(), 2, "{spans:#?}");
            let whole = one(&spans, "task leaked");
            assert_eq!(whole.end_time, marker.end_time);
            assert_eq!(whole.end_time - 10 * MS, whole.start_time);
            assert_eq!(
                attribute(&whole.attributes, "tokio.task.outcome"),
                Some(&"completed".into())
            );
            for span in [&marker, &whole] {
                assert_eq!(span.span_context.trace_id(), request.trace_id());
                assert_eq!(span.parent_span_id, request.span_id());
                let of = |key| attribute(&span.attributes, key);
                let id = i64::try_from(id.as_u64()).expect("a small number");
                assert_eq!(of("tokio.task.id"), Some(&id.into()));
                assert_eq!(of("tokio.task.orphan.cause"), Some(&"parent_ended".into()));
                assert_eq!(of("tokio.task.name"), Some(&"leaked".into()));
            }
            let [link] = &whole.links.links[..] else {
                panic!("one link: {whole:#?}");
            };
            assert_eq!(link.span_context, marker.span_context);
            let [event] = &whole.events.events[..] else {
                panic!("one event: {whole:#?}");
            };
            assert_eq!(event.name, "orphaned");
            assert_eq!(
                event.timestamp, whole.start_time,
                "as the clock stood still"
            );
        });
        assert!(world.snapshot().loss().is_empty(), "{}", world.snapshot());
    }
}

#[test]
fn the_counts_and_lifetimes_are_those_of_a_snapshot() {
    for flavour in FLAVOURS {
        let exported = InMemory::new();
        let world = kept(&exported);
        let gate = Gate::default();
        let runtime = world.runtime(flavour);
        let stay = Gate::default();
        runtime.block_on(async {
            let spawn = |gate: &Gate| straggler::task("worker").spawn(gate.passed());
            let ends = [spawn(&gate), spawn(&gate)];
            spawn(&stay);
            flush(&world);
            assert_eq!(total(&exported, "tokio.task.count", "worker"), Some(3.0));
            assert_eq!(total(&exported, "tokio.task.ended", "worker"), Some(0.0));
            world.clock.advance(40 * MS);
            gate.open();
            for task in ends {
                task.await.expect("it ends");
            }
            world.clock.advance(MS);
            flush(&world);
        });
        let snapshot = world.snapshot();
        let mut sites = snapshot.sites();
        let worker = sites.find(|site| site.name() == Some("worker"));
        let worker = worker.expect("a site");
        assert_eq!((worker.live(), worker.ended()), (1, 2));
        assert_eq!(total(&exported, "tokio.task.count", "worker"), Some(1.0));
        assert_eq!(total(&exported, "tokio.task.spawned", "worker"), Some(3.0));
        assert_eq!(total(&exported, "tokio.task.ended", "worker"), Some(2.0));
        assert_eq!(total(&exported, "tokio.task.oldest", "worker"), Some(0.041));

        let lifetimes = metric(&exported, "tokio.task.lifetime").with("tokio.task.name", "worker");
        assert_eq!(lifetimes.kind(), InstrumentKind::Histogram);
        assert_eq!((lifetimes.unit(), lifetimes.total()), ("s", None));
        let [point] = lifetimes.points() else {
            panic!("one site: {lifetimes:#?}");
        };
        assert_eq!(point.time(), snapshot.taken_at());
        assert_eq!(point.value(), None);
        let (kept, known) = (point.histogram().expect("it is one"), worker.lifetime());
        assert_eq!(kept.count(), 2);
        assert_eq!(kept.sum(), Some(0.08));
        let counts: Vec<_> = known.buckets().map(|(_, count)| count).collect();
        assert_eq!(kept.counts(), counts);
        let bounds = known.buckets().filter_map(|(bound, _)| bound);
        let bounds: Vec<_> = bounds.map(|bound| bound.as_secs_f64()).collect();
        assert_eq!(kept.bounds(), bounds);
    }
}

#[test]
fn two_in_one_process_dont_mix() {
    let (first, second) = (InMemory::new(), InMemory::new());
    for (name, exported) in [("first", &first), ("second", &second)] {
        let world = kept(exported);
        world.block_on(async {
            orphan(name, &Gate::default(), None).await;
            flush(&world);
        });
    }
    assert_eq!(names(&first), ["orphan first"]);
    assert_eq!(names(&second), ["orphan second"]);
    for (exported, own, other) in [(&first, "first", "second"), (&second, "second", "first")] {
        assert_eq!(total(exported, "tokio.task.spawned", own), Some(1.0));
        let others = metric(exported, "tokio.task.spawned").with("tokio.task.name", other);
        assert!(others.points().is_empty(), "{others:#?}");
    }
}

#[test]
fn what_lives_at_the_shutdown_is_told_of_and_stays_to_be_looked_at() {
    let exported = InMemory::new();
    let world = kept(&exported);
    world.block_on(async {
        orphan("leaked", &Gate::default(), None).await;
        world.tasks.shutdown(LONG).expect("in time");
    });
    drop(world);
    let spans = exported.spans();
    assert_eq!(names(&exported), ["orphan leaked", "task leaked"]);
    let whole = one(&spans, "task leaked");
    assert_eq!(
        attribute(&whole.attributes, "tokio.task.live"),
        Some(&true.into())
    );
    assert_eq!(total(&exported, "tokio.task.orphaned", "leaked"), Some(1.0));
}

#[test]
fn spans_beyond_the_limit_are_counted_until_there_is_room() {
    let exported = InMemory::with_max_spans(2);
    let world = kept(&exported);
    world.block_on(async {
        for name in ["one", "two", "three", "four"] {
            orphan(name, &Gate::default(), None).await;
            flush(&world);
        }
        assert_eq!(names(&exported), ["orphan one", "orphan two"]);
        assert_eq!(world.snapshot().loss().spans_lost(), 2);
        flush(&world);
        let lost = metric(&exported, "straggler.loss");
        let lost = lost.with("straggler.loss.reason", "spans_lost");
        assert_eq!(lost.total(), Some(2.0));

        exported.clear();
        assert!(exported.spans().is_empty() && exported.metrics().is_empty());
        orphan("five", &Gate::default(), None).await;
        flush(&world);
        assert_eq!(names(&exported), ["orphan five"]);
        assert_eq!(world.snapshot().loss().spans_lost(), 2);
        assert_eq!(total(&exported, "tokio.task.orphaned", "one"), Some(1.0));
    });
}

#[test]
fn a_metric_without_points_is_told_from_a_name_that_is_none() {
    let exported = InMemory::new();
    let world = kept(&exported);
    assert!(exported.metric("tokio.task.orphan.count").is_none());
    world.block_on(async {
        tokio::spawn(async {}).await.expect("it ends");
        flush(&world);
    });
    let orphans = metric(&exported, "tokio.task.orphan.count");
    assert_eq!(orphans.total(), Some(0.0));
    assert_eq!(orphans.kind(), InstrumentKind::UpDownCounter);
    assert!(exported.metric("tokio.task.orphans").is_none());
    let none = metric(&exported, "tokio.task.spawned").with("tokio.task.name", "nobody");
    assert_eq!(none.total(), Some(0.0));
    assert!(none.points().is_empty());
}

#[test]
fn an_exemplar_leads_to_its_span() {
    let exported = InMemory::new();
    let world = kept(&exported);
    world.block_on(async {
        let request = context(4, true);
        let task = within(Some(&request), || tokio::spawn(async {}));
        world.clock.advance(3 * MS);
        task.await.expect("it ends");
        orphan("leaked", &Gate::default(), Some(request.clone())).await;
        flush(&world);
        let all = |name: &str| {
            let metric = metric(&exported, name);
            let points = metric.points().iter();
            let exemplars = points.flat_map(|point| point.exemplars().to_vec());
            exemplars.collect::<Vec<_>>()
        };
        let lifetimes = all("tokio.task.lifetime");
        let [lifetime] = &lifetimes[..] else {
            panic!("one: {lifetimes:#?}");
        };
        assert_eq!(lifetime.value(), Some(0.003));
        assert_eq!(lifetime.trace_id(), request.trace_id());
        assert_eq!(lifetime.span_id(), request.span_id());
        let marker = one(&exported.spans(), "orphan leaked").span_context;
        assert_eq!(all("tokio.task.orphaned")[0].span_id(), marker.span_id());
    });
}

#[test]
fn what_goes_through_the_programs_providers_is_not_here() {
    let exported = InMemory::new();
    let (traces, metrics) = (
        SdkTracerProvider::builder().build(),
        SdkMeterProvider::builder().build(),
    );
    let otlp = Otlp::new().in_memory(&exported);
    let world = world(otlp.tracer_provider(traces).meter_provider(metrics));
    world.block_on(async {
        orphan("leaked", &Gate::default(), None).await;
        flush(&world);
    });
    assert_eq!(names(&exported), [""; 0]);
    let is_histogram = |metric: &Metric| metric.kind() == InstrumentKind::Histogram;
    assert!(exported.metrics().iter().all(is_histogram));
    assert_eq!(metric(&exported, "tokio.task.lifetime").total(), None);
    assert!(exported.metric("tokio.task.orphan.count").is_none());
}

#[test]
fn the_programs_own_metrics_are_here_by_its_reader() {
    let exported = InMemory::new();
    let world = kept(&exported);
    let exporter = MetricExporter::new(&world.tasks).expect("it exports");
    let reader = PeriodicReader::builder(exporter).with_interval(Duration::from_secs(60 * 60));
    let provider = SdkMeterProvider::builder()
        .with_reader(reader.build())
        .build();
    let orders = provider.meter("shop").u64_counter("shop.orders").build();
    let sizes: Array = vec![1_i64, 2].into();
    orders.add(3, &[KeyValue::new("sizes", Value::Array(sizes.clone()))]);
    world.block_on(async {
        tokio::spawn(async {}).await.expect("it ends");
        provider.force_flush().expect("it is kept");
    });
    let orders = metric(&exported, "shop.orders");
    assert_eq!((orders.scope(), orders.total()), ("shop", Some(3.0)));
    assert_eq!(orders.kind(), InstrumentKind::Counter);
    assert_eq!(orders.with("sizes", Value::Array(sizes)).points().len(), 1);
    let spawned = metric(&exported, "tokio.task.spawned");
    assert_eq!(spawned.scope(), "straggler");
    assert!(spawned.total() >= Some(1.0));
}
