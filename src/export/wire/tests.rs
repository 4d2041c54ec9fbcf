mod failures;
mod receiver;
#[cfg(feature = "otlp-tls")]
mod tls;

use super::*;
use crate::export::settings::{Compression, Otlp};
use futures_util::future::join_all;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status as SpanStatus, TraceFlags, TraceId, TraceState,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use prost::Message as _;
use receiver::{grpc, http};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use tokio::time::timeout;
use tracing_core::dispatcher::DefaultGuard;
use tracing_core::field::{Field, Visit};
use tracing_core::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Long enough for what succeeds on the slowest machine.
const LONG: Duration = Duration::from_secs(60);
/// For what fails: no retry begins that would end after it.
const SHORT: Duration = Duration::from_millis(90);
/// What takes longer has no end.
const HANGS: Duration = Duration::from_secs(20);

fn wire(otlp: Otlp) -> Wire {
    Wire::new(&otlp.resolve().unwrap(), Arc::default()).unwrap()
}

fn over(protocol: Protocol, endpoint: &str) -> Otlp {
    Otlp::new()
        .endpoint(endpoint)
        .protocol(protocol)
        .timeout(LONG)
}

fn span() -> Vec<SpanData> {
    let id = |n: u8| SpanId::from_bytes([n; 8]);
    vec![SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes([1; 16]),
            id(2),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: id(3),
        parent_span_is_remote: true,
        span_kind: SpanKind::Internal,
        name: "orphan".into(),
        start_time: SystemTime::UNIX_EPOCH,
        end_time: SystemTime::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: Default::default(),
        links: Default::default(),
        status: SpanStatus::Unset,
        instrumentation_scope: Default::default(),
    }]
}

fn metric() -> ExportMetricsServiceRequest {
    let metrics = vec![Metric {
        name: "tokio.task.count".into(),
        ..Metric::default()
    }];
    let scope_metrics = vec![ScopeMetrics {
        metrics,
        ..ScopeMetrics::default()
    }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics,
            ..ResourceMetrics::default()
        }],
    }
}

/// Both signals, one after the other.
async fn send(wire: &Wire) -> [Sent; 2] {
    let both = async {
        let spans = wire.send_spans(span()).await;
        [spans, wire.send_metrics(metric()).await]
    };
    timeout(HANGS, both).await.expect("it ends by itself")
}

/// Each of the settings fails for both signals, at an endpoint and with a reason in the text.
/// All at once, for each is tried again with growing delays.
async fn fail(cases: Vec<(Otlp, String, &str)>) {
    let sent = cases.iter().map(async |(otlp, endpoint, why)| {
        let wire = wire(otlp.clone());
        let (spans, metrics) = tokio::join!(wire.send_spans(span()), wire.send_metrics(metric()));
        for sent in [spans, metrics] {
            let text = failure(&sent, endpoint);
            assert!(text.to_lowercase().contains(why), "{text}");
        }
    });
    timeout(HANGS, join_all(sent))
        .await
        .expect("they end by themselves");
}

/// The text of a failure, which names signal and receiver.
fn failure(sent: &Sent, endpoint: &str) -> String {
    let text = sent.failure.clone().expect("a failure");
    assert!(text.contains(endpoint), "{text}");
    assert!(
        text.starts_with("spans were") || text.starts_with("metrics were"),
        "{text}"
    );
    text
}

#[tokio::test]
async fn over_http_both_signals_arrive_once_with_our_headers() {
    let (receiver, endpoint) = http([]).await;
    for compression in [Compression::None, Compression::Gzip] {
        let otlp = over(Protocol::HttpProtobuf, &format!("{endpoint}/base"))
            .compression(compression)
            .header("api-key", "k");
        assert_eq!(send(&wire(otlp)).await, [Sent::default(), Sent::default()]);
        let got = receiver.take();
        let paths: Vec<&str> = got.iter().map(|got| got.path.as_str()).collect();
        assert_eq!(paths, ["/base/v1/traces", "/base/v1/metrics"]);
        for got in &got {
            assert_eq!(got.all("api-key"), ["k"]);
            assert_eq!(got.all("content-type"), ["application/x-protobuf"]);
            let gzip = compression == Compression::Gzip;
            assert_eq!(
                got.all("content-encoding"),
                if gzip { vec!["gzip"] } else { vec![] }
            );
            assert_eq!(
                got.all("user-agent"),
                [concat!("straggler/", env!("CARGO_PKG_VERSION"))]
            );
        }
        arrived(&got);
    }
}

#[tokio::test]
async fn over_grpc_both_signals_arrive_once_with_our_headers() {
    let (receiver, endpoint) = grpc([]).await;
    for compression in [Compression::None, Compression::Gzip] {
        let otlp = over(Protocol::Grpc, &endpoint)
            .compression(compression)
            .header("api-key", "k");
        assert_eq!(send(&wire(otlp)).await, [Sent::default(), Sent::default()]);
        let got = receiver.take();
        for got in &got {
            assert_eq!(got.all("api-key"), ["k"]);
            let gzip = compression == Compression::Gzip;
            assert_eq!(
                got.all("grpc-encoding"),
                if gzip { vec!["gzip"] } else { vec![] }
            );
            let [agent] = got.all("user-agent")[..] else {
                panic!("one user agent: {:?}", got.headers);
            };
            assert!(
                agent.starts_with("straggler/") && !agent.contains("OTel-OTLP"),
                "{agent}"
            );
        }
        arrived(&got);
    }
}

/// The span with its resource, then the metric as it was made.
fn arrived(got: &[receiver::Got]) {
    let [traces, metrics] = got else {
        panic!("{} requests", got.len());
    };
    let [resource_spans] = &traces.traces.as_ref().unwrap().resource_spans[..] else {
        panic!("one resource");
    };
    let attributes = &resource_spans.resource.as_ref().unwrap().attributes;
    assert!(
        attributes
            .iter()
            .any(|attribute| attribute.key == "process.pid")
    );
    assert_eq!(resource_spans.scope_spans[0].spans[0].name, "orphan");
    assert_eq!(metrics.metrics.as_ref(), Some(&metric()));
}

/// opentelemetry-otlp reads the environment itself: it may neither add to what we decided
/// nor win over it. A process can't set its own safely, so another runs the test.
#[tokio::test]
async fn the_environment_is_read_once() {
    const CHILD: &str = "STRAGGLER_TEST_CHILD";
    if std::env::var_os(CHILD).is_none() {
        let status = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "export::wire::tests::the_environment_is_read_once",
            ])
            .env(CHILD, "1")
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-both=env,x-env=e%20e")
            .env("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "")
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
            .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
            .env("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none")
            .env(
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "http://127.0.0.1:1/nowhere",
            )
            .status()
            .unwrap();
        assert!(status.success(), "see above");
        return;
    }
    let (over_http, http_endpoint) = http([]).await;
    let (over_grpc, grpc_endpoint) = grpc([]).await;
    let otlp = |protocol, endpoint| over(protocol, endpoint).header("x-both", "code");
    let http = wire(otlp(Protocol::HttpProtobuf, &http_endpoint));
    let grpc = wire(otlp(Protocol::Grpc, &grpc_endpoint));
    for (wire, got) in [(http, over_http.got()), (grpc, over_grpc.got())] {
        assert_eq!(send(&wire).await, [Sent::default(), Sent::default()]);
        let got = std::mem::take(&mut *got.lock().unwrap());
        assert_eq!(got.len(), 2);
        for got in &got {
            assert_eq!(got.all("x-both"), ["code"], "{}", got.path);
            assert_eq!(got.all("x-env"), ["e e"], "{}", got.path);
        }
        let encodings =
            |name| -> Vec<usize> { got.iter().map(|got| got.all(name).len()).collect() };
        assert!([encodings("grpc-encoding"), encodings("content-encoding")].contains(&vec![0, 1]));
    }
}

/// As the export thread's dispatcher hears opentelemetry-otlp.
struct Ear(Arc<AtomicU64>);

impl<S: Subscriber> Layer<S> for Ear {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target() == "opentelemetry-otlp" && metadata.name().ends_with(".PartialSuccess")
        {
            event.record(&mut Rejected(&self.0));
        }
    }
}

struct Rejected<'a>(&'a AtomicU64);

impl Visit for Rejected<'_> {
    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "rejected_spans" {
            self.0
                .fetch_add(value.try_into().unwrap(), Ordering::Relaxed);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

fn listen() -> (Arc<AtomicU64>, DefaultGuard) {
    let counter = Arc::default();
    let subscriber = tracing_subscriber::registry().with(Ear(Arc::clone(&counter)));
    let guard = tracing_core::dispatcher::set_default(&subscriber.into());
    (counter, guard)
}

#[tokio::test]
async fn a_partial_success_is_counted_and_not_tried_again() {
    let (counter, _guard) = listen();
    let partial = |n| Sent {
        rejected: n,
        failure: None,
    };
    let (receiver, endpoint) = grpc([Ok(3), Ok(4), Ok(5), Ok(-6)]).await;
    let settings = over(Protocol::Grpc, &endpoint).resolve().unwrap();
    let wire = Wire::new(&settings, Arc::clone(&counter)).unwrap();
    assert_eq!(send(&wire).await, [partial(3), partial(4)]);
    assert_eq!(send(&wire).await, [partial(5), partial(0)]);
    assert_eq!(receiver.take().len(), 4);

    let traces = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 7,
            error_message: String::new(),
        }),
    };
    let metrics = ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess {
            rejected_data_points: 8,
            error_message: "too old".into(),
        }),
    };
    let script = [traces.encode_to_vec(), metrics.encode_to_vec()];
    let (receiver, endpoint) = http(script.map(|body| (200, Vec::new(), body))).await;
    let settings = over(Protocol::HttpProtobuf, &endpoint).resolve().unwrap();
    let wire = Wire::new(&settings, counter).unwrap();
    assert_eq!(send(&wire).await, [partial(7), partial(8)]);
    assert_eq!(receiver.take().len(), 2);
}
