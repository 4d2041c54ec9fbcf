//! Through the program's own providers: each span and each point by one way, and nothing twice.

use super::agreement::agree;
use super::answer::Answer;
use super::common::{Gate, MS, World, settle};
use super::exporting::{LONG, audit, context, flush, orphan, otlp, within, world};
use super::received::Signal;
use super::receiver::{PROTOCOLS, Protocol, Receiver};
use super::view::{self, Point};
use opentelemetry::metrics::MeterProvider;
use opentelemetry::{Context, KeyValue};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::{
    Sampler, SdkTracerProvider, Span, SpanData, SpanProcessor, TracerProviderBuilder,
};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;
use straggler::otlp::MetricExporter;

/// Keeps the spans that the program's provider is handed, and may have a bug.
#[derive(Clone, Debug, Default)]
struct Theirs {
    spans: Arc<Mutex<Vec<SpanData>>>,
    panics_at_start: Arc<AtomicBool>,
    panics_at_end: Arc<AtomicBool>,
}

impl Theirs {
    fn provider(&self) -> TracerProviderBuilder {
        SdkTracerProvider::builder().with_span_processor(self.clone())
    }

    fn names(&self) -> Vec<String> {
        let spans = self.spans.lock().unwrap();
        spans.iter().map(|span| span.name.to_string()).collect()
    }
}

fn may_panic(does: &AtomicBool) {
    if does.load(Ordering::SeqCst) {
        // Without the panic hook and its output.
        std::panic::resume_unwind(Box::new("a processor's bug"));
    }
}

impl SpanProcessor for Theirs {
    fn on_start(&self, _: &mut Span, _: &Context) {
        may_panic(&self.panics_at_start);
    }

    fn on_end(&self, span: SpanData) {
        may_panic(&self.panics_at_end);
        self.spans.lock().unwrap().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[test]
fn spans_arrive_at_the_programs_provider_and_nowhere_else() {
    let (receiver, theirs) = (Receiver::start(Protocol::Http), Theirs::default());
    let provider = theirs.provider().build();
    let world = world(otlp(&receiver).tracer_provider(provider.clone()));
    world.block_on(async {
        let (gate, request) = (Gate::default(), context(1, true));
        let leaked = orphan("leaked", &gate, Some(request.clone())).await;
        let lonely = orphan("lonely", &gate, None).await;
        world.clock.advance(10 * MS);
        flush(&world);
        assert_eq!(theirs.names(), ["orphan leaked", "orphan lonely"]);
        gate.open();
        leaked.await.unwrap();
        lonely.await.unwrap();
        settle().await;
        flush(&world);
        let spans = theirs.spans.lock().unwrap().clone();
        assert_eq!(spans.len(), 4, "{spans:#?}");
        let of = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
        let (marker, whole) = (of("orphan leaked"), of("task leaked"));
        for span in [marker, whole] {
            assert_eq!(span.span_context.trace_id(), request.trace_id());
            assert_eq!(span.parent_span_id, request.span_id());
            assert_eq!(span.instrumentation_scope.name(), "straggler");
        }
        assert_eq!(marker.start_time, marker.end_time);
        assert_eq!(
            whole.end_time.duration_since(whole.start_time).unwrap(),
            10 * MS
        );
        assert_eq!(whole.links.links[0].span_context, marker.span_context);
        assert_eq!(whole.events.events[0].name, "orphaned");
        assert_ne!(
            of("orphan lonely").span_context.trace_id(),
            request.trace_id()
        );
    });
    world.tasks.shutdown(LONG).unwrap();
    let received = receiver.received();
    assert_eq!(received.of(Signal::Traces).count(), 0, "{received}");
    assert!(received.of(Signal::Metrics).count() > 0, "those go our way");
    assert!(world.snapshot().loss().is_empty(), "{}", world.snapshot());
    audit(&received);
    provider.shutdown().unwrap();
}

#[test]
fn the_programs_sampler_decides() {
    for (sampler, wanted) in [
        (Sampler::AlwaysOff, vec![]),
        (
            Sampler::ParentBased(Box::new(Sampler::AlwaysOff)),
            vec!["orphan sampled"],
        ),
        (
            Sampler::AlwaysOn,
            vec!["orphan sampled", "orphan unsampled", "orphan lonely"],
        ),
    ] {
        let (receiver, theirs) = (Receiver::start(Protocol::Http), Theirs::default());
        let provider = theirs.provider().with_sampler(sampler).build();
        let otlp = otlp(&receiver)
            .tracer_provider(provider)
            .unsampled_parents(true);
        let world = world(otlp);
        world.block_on(async {
            let gate = Gate::default();
            orphan("sampled", &gate, Some(context(1, true))).await;
            orphan("unsampled", &gate, Some(context(2, false))).await;
            orphan("lonely", &gate, None).await;
            flush(&world);
            assert_eq!(theirs.names(), wanted);
            gate.open();
            settle().await;
            flush(&world);
            // Who has no marker has no other span either.
            assert_eq!(theirs.names().len(), 2 * wanted.len());
            let orphaned = receiver.received().points("tokio.task.orphaned");
            assert_eq!(orphaned.iter().map(Point::number).sum::<f64>(), 3.0);
        });
        assert!(world.snapshot().loss().is_empty(), "{}", world.snapshot());
    }
}

#[test]
fn a_bug_in_the_programs_processor_is_survived_and_counted() {
    let (receiver, theirs) = (Receiver::start(Protocol::Http), Theirs::default());
    let world = world(otlp(&receiver).tracer_provider(theirs.provider().build()));
    world.block_on(async {
        let gate = Gate::default();
        for (lost, bug) in [(1, &theirs.panics_at_start), (2, &theirs.panics_at_end)] {
            bug.store(true, Ordering::SeqCst);
            orphan("lost", &gate, Some(context(1, true))).await;
            flush(&world);
            let snapshot = world.snapshot();
            assert_eq!(snapshot.loss().spans_lost(), lost, "{snapshot}");
            bug.store(false, Ordering::SeqCst);
        }
        // A span whose start fails half-way is the SDK's to drop or to send.
        theirs.spans.lock().unwrap().clear();
        orphan("heard", &gate, Some(context(1, true))).await;
        flush(&world);
        assert_eq!(theirs.names(), ["orphan heard"]);
    });
    world.tasks.shutdown(LONG).unwrap();
    assert_eq!(theirs.names(), ["orphan heard", "task heard"]);
}

/// An exporter of the program's own.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<ExportMetricsServiceRequest>>>);

impl Kept {
    fn latest(&self) -> Vec<Point> {
        view::points(self.0.lock().unwrap().last().unwrap())
    }
}

impl PushMetricExporter for Kept {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.0.lock().unwrap().push(metrics.into());
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

/// Never by itself within a test.
fn reader<E: PushMetricExporter>(exporter: E) -> PeriodicReader<E> {
    let hour = Duration::from_secs(60 * 60);
    PeriodicReader::builder(exporter)
        .with_interval(hour)
        .build()
}

fn their_resource() -> Resource {
    let name = KeyValue::new("service.name", "theirs");
    Resource::builder_empty().with_attribute(name).build()
}

/// Two tasks that ended, one in a sampled trace, one that waits and one that leaked.
async fn some_tasks(world: &World) -> Gate {
    let gate = Gate::default();
    let traced = within(Some(&context(7, true)), || tokio::spawn(async {}));
    world.clock.advance(3 * MS);
    traced.await.unwrap();
    orphan("leaked", &gate, None).await;
    tokio::spawn(gate.passed());
    settle().await;
    world.clock.advance(10 * MS);
    gate
}

fn exemplars(points: &[Point]) -> usize {
    let lifetimes = points.iter().filter(|it| it.name == "tokio.task.lifetime");
    lifetimes.map(|point| point.exemplars.len()).sum()
}

#[test]
fn counters_and_gauges_through_the_programs_provider_and_histograms_through_ours() {
    for protocol in PROTOCOLS {
        let (receiver, kept) = (Receiver::start(protocol), Kept::default());
        let builder = SdkMeterProvider::builder().with_resource(their_resource());
        let provider = builder.with_reader(reader(kept.clone())).build();
        let world = world(otlp(&receiver).meter_provider(provider.clone()));
        world.block_on(async {
            let gate = some_tasks(&world).await;
            let both = || {
                let snapshot = world.snapshot();
                flush(&world);
                provider.force_flush().unwrap();
                let (mut theirs, ours) = (kept.latest(), receiver.metrics());
                assert!(
                    theirs.iter().all(|point| !point.is_histogram()),
                    "{theirs:#?}"
                );
                assert!(ours.iter().all(Point::is_histogram), "{ours:#?}");
                for point in &mut theirs {
                    assert_eq!(point.resource["service.name"], "theirs");
                    assert_eq!(point.scope.name, "straggler");
                    // The SDK has its own clock.
                    point.time = snapshot.taken_at();
                }
                theirs.extend(ours);
                agree(&snapshot, &theirs);
                theirs
            };
            // A reader that comes first takes no exemplar away: it could not carry it.
            provider.force_flush().unwrap();
            assert_eq!(exemplars(&both()), 1);
            let orphaned = |points: &[Point]| {
                let points = points.iter().filter(|it| it.name == "tokio.task.orphaned");
                points.map(Point::number).sum::<f64>()
            };
            assert_eq!(orphaned(&both()), 1.0);
            // What is asked for at once is of now all the same.
            orphan("leaked too", &gate, None).await;
            let points = both();
            assert_eq!(orphaned(&points), 2.0);
            gate.open();
            settle().await;
            assert_eq!(exemplars(&both()), 0);
        });
        provider.shutdown().unwrap();
        let received = receiver.received();
        for request in received.of(Signal::Metrics) {
            assert!(
                request.points().iter().all(Point::is_histogram),
                "{received}"
            );
        }
        audit(&received);
    }
}

#[test]
fn kinds_and_units_are_the_same_either_way() {
    let (receiver, kept) = (Receiver::start(Protocol::Http), Kept::default());
    let described = |points: Vec<Point>| -> BTreeSet<String> {
        let kind = |point: &Point| {
            (
                point.is_counter(),
                point.is_up_down_counter(),
                point.is_gauge(),
            )
        };
        let points = points.iter().filter(|point| !point.is_histogram());
        points
            .map(|it| format!("{} {:?} {} {}", it.name, kind(it), it.unit, it.description))
            .collect()
    };
    let of_theirs = {
        let provider = SdkMeterProvider::builder()
            .with_reader(reader(kept.clone()))
            .build();
        let world = world(otlp(&receiver).meter_provider(provider.clone()));
        world.block_on(async {
            let _gate = some_tasks(&world).await;
            flush(&world);
            provider.force_flush().unwrap();
        });
        described(kept.latest())
    };
    let world = world(otlp(&receiver));
    world.block_on(async {
        let _gate = some_tasks(&world).await;
        flush(&world);
    });
    assert_eq!(described(receiver.metrics()), of_theirs);
    assert!(of_theirs.len() >= 8, "{of_theirs:#?}");
}

/// Fails where it takes long, as in a deadlock.
fn within_time<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(f()));
    told.recv_timeout(LONG).expect("it doesn't hang")
}

#[test]
fn all_of_ours_with_the_programs_own_in_one_request() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        let world = world(otlp(&receiver));
        let exporter = MetricExporter::new(&world.tasks).unwrap();
        let builder = SdkMeterProvider::builder().with_resource(their_resource());
        let provider = builder.with_reader(reader(exporter)).build();
        let requests = provider.meter("theirs").u64_counter("requests").build();
        requests.add(5, &[]);
        let gate = world.block_on(async {
            let gate = some_tasks(&world).await;
            // Ours are not sent beside that any more.
            flush(&world);
            assert_eq!(receiver.received().of(Signal::Metrics).count(), 0);
            let snapshot = world.snapshot();
            // On the only thread of a runtime.
            provider.force_flush().unwrap();
            let received = receiver.received();
            assert_eq!(received.of(Signal::Metrics).count(), 1, "{received}");
            let mut points = received.metrics();
            assert!(
                points
                    .iter()
                    .all(|it| it.resource["service.name"] == "theirs")
            );
            assert_eq!(exemplars(&points), 1);
            let theirs: Vec<_> = points
                .extract_if(.., |it| it.scope.name == "theirs")
                .collect();
            assert_eq!(theirs.len(), 1);
            assert_eq!((&*theirs[0].name, theirs[0].number()), ("requests", 5.0));
            agree(&snapshot, &points);
            gate
        });
        let (here, theirs) = (Arc::new(provider), requests);
        let provider = Arc::clone(&here);
        within_time(move || provider.force_flush()).unwrap();
        assert_eq!(exemplars(&receiver.metrics()), 0, "given once");
        gate.open();
        theirs.add(1, &[]);
        let provider = Arc::clone(&here);
        within_time(move || provider.shutdown()).unwrap();
        let received = receiver.received();
        assert_eq!(
            received.of(Signal::Metrics).count(),
            3,
            "the last at the shutdown"
        );
        assert_eq!(received.point("requests", &[]).number(), 6.0);
        world.tasks.shutdown(LONG).unwrap();
        assert_eq!(receiver.received().of(Signal::Metrics).count(), 3);
        audit(&receiver.received());
    }
}

#[test]
fn what_fails_is_told_to_the_sdk() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        let world = world(otlp(&receiver));
        let exporter = MetricExporter::new(&world.tasks).unwrap();
        let provider = SdkMeterProvider::builder()
            .with_reader(reader(exporter))
            .build();
        provider
            .meter("theirs")
            .u64_counter("requests")
            .build()
            .add(1, &[]);
        receiver.answer(Signal::Metrics, Answer::status(400).times(1));
        provider.force_flush().unwrap_err();
        assert!(
            world.snapshot().loss().points_lost() > 0,
            "{}",
            world.snapshot()
        );
        provider.force_flush().unwrap();
        // Who stops straggler first gets an error, not a wait without an end.
        world.tasks.shutdown(LONG).unwrap();
        let provider = Arc::new(provider);
        let here = Arc::clone(&provider);
        within_time(move || here.force_flush()).unwrap_err();
        within_time(move || provider.shutdown()).unwrap_err();
        assert_eq!(receiver.received().of(Signal::Metrics).count(), 2);
    }
}

#[test]
fn without_an_export_there_is_no_exporter() {
    let receiver = Receiver::start(Protocol::Http);
    let worlds = [World::new(), world(otlp(&receiver).metrics(false))];
    for world in worlds {
        let error = MetricExporter::new(&world.tasks).unwrap_err();
        assert!(error.is_invalid_config(), "{error}");
    }
}

/// The provider must be there before straggler, and straggler before its exporter.
#[derive(Clone, Debug, Default)]
struct Late(Arc<OnceLock<MetricExporter>>);

impl Late {
    fn get(&self) -> &MetricExporter {
        self.0.get().expect("set before the first export")
    }
}

impl PushMetricExporter for Late {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.get().export(metrics).await
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.get().force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.get().shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

#[test]
fn where_the_provider_has_the_rest_only_histograms_are_added() {
    for protocol in PROTOCOLS {
        let (receiver, late) = (Receiver::start(protocol), Late::default());
        let provider = SdkMeterProvider::builder()
            .with_reader(reader(late.clone()))
            .build();
        let world = world(otlp(&receiver).meter_provider(provider.clone()));
        let exporter = MetricExporter::new(&world.tasks).unwrap();
        late.0.set(exporter).unwrap();
        world.block_on(async {
            let _gate = some_tasks(&world).await;
            flush(&world);
            assert_eq!(receiver.received().of(Signal::Metrics).count(), 0);
            let snapshot = world.snapshot();
            provider.force_flush().unwrap();
            // That no series comes twice is looked at wherever points are.
            let mut points = receiver.metrics();
            assert_eq!(exemplars(&points), 1);
            points
                .iter_mut()
                .for_each(|it| it.time = snapshot.taken_at());
            agree(&snapshot, &points);
        });
        provider.shutdown().unwrap();
        let received = receiver.received();
        assert_eq!(received.of(Signal::Metrics).count(), 2, "{received}");
    }
}
