//! Metrics through the program's own provider or reader: each point by one way, and nothing twice.

use super::agreement::agree;
use super::answer::Answer;
use super::common::{Gate, MS, World, settle};
use super::exporting::{LONG, audit, context, flush, orphan, otlp, within, world};
use super::received::Signal;
use super::receiver::{PROTOCOLS, Protocol, Receiver};
use super::view::{self, Point};
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;
use straggler::otlp::MetricExporter;

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
