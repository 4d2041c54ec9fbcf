mod receiver;
#[cfg(feature = "otlp-tls")]
mod tls;

use super::*;
use crate::export::settings::{Compression, Otlp};
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
use receiver::{Reply, grpc, grpc_on, http, http_on, loopback};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::server::TcpIncoming;
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

fn reply(status: u16) -> Reply {
    (status, Vec::new(), Vec::new())
}

#[tokio::test]
async fn what_is_refused_for_good_is_not_tried_again_and_says_why() {
    let body = format!("bad token tok-3n ({}) s", "x".repeat(500)).into_bytes();
    let plain = || (401, vec![("content-type", "text/plain")], body.clone());
    let (receiver, endpoint) = http([plain(), plain()]).await;
    let otlp = over(Protocol::HttpProtobuf, &endpoint).header("authorization", "Bearer tok-3n");
    for sent in send(&wire(otlp)).await {
        let text = failure(&sent, &endpoint);
        assert!(text.contains("401 Unauthorized: bad token …"), "{text}");
        assert!(!text.contains("tok-3n") && text.len() < 400, "{text}");
    }
    assert_eq!(receiver.take().len(), 2);

    let refused = || Err(Status::unauthenticated("bad token tok-3n"));
    let (receiver, endpoint) = grpc([refused(), refused()]).await;
    let otlp = over(Protocol::Grpc, &endpoint).header("authorization", "Bearer tok-3n");
    for sent in send(&wire(otlp)).await {
        let text = failure(&sent, &endpoint);
        assert!(
            text.contains("Unauthenticated") && !text.contains("tok-3n"),
            "{text}"
        );
    }
    assert_eq!(receiver.take().len(), 2);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (elsewhere, target) = http([]).await;
    let to: &'static str = Box::leak(target.into_boxed_str());
    let moved = || (307, vec![("location", to)], Vec::new());
    let (_, endpoint) = http([moved(), moved()]).await;
    for sent in send(&wire(over(Protocol::HttpProtobuf, &endpoint))).await {
        let text = failure(&sent, &endpoint);
        assert!(
            text.contains("307") && text.contains("redirects are not followed"),
            "{text}"
        );
    }
    assert!(elsewhere.take().is_empty());
}

#[tokio::test]
async fn a_receiver_that_is_busy_is_tried_again() {
    let busy = || [reply(503), reply(502), reply(200)];
    let (receiver, endpoint) = http(busy().into_iter().chain(busy())).await;
    let sent = send(&wire(over(Protocol::HttpProtobuf, &endpoint))).await;
    assert_eq!(sent, [Sent::default(), Sent::default()]);
    let paths: Vec<String> = receiver.take().into_iter().map(|got| got.path).collect();
    let (traces, metrics) = ("/v1/traces", "/v1/metrics");
    assert_eq!(paths, [traces, traces, traces, metrics, metrics, metrics]);

    let busy = || {
        [
            Err(Status::unavailable("")),
            Err(Status::aborted("")),
            Ok(0),
        ]
    };
    let (receiver, endpoint) = grpc(busy().into_iter().chain(busy())).await;
    let sent = send(&wire(over(Protocol::Grpc, &endpoint))).await;
    assert_eq!(sent, [Sent::default(), Sent::default()]);
    assert_eq!(receiver.take().len(), 6);
}

#[tokio::test]
async fn a_receiver_says_when_to_come_back() {
    let throttled = || (429, vec![("retry-after", "1")], Vec::new());
    let (receiver, endpoint) = http([throttled(), throttled()]).await;
    let wire = wire(over(Protocol::HttpProtobuf, &endpoint));
    let began = Instant::now();
    let (spans, metrics) = tokio::join!(wire.send_spans(span()), wire.send_metrics(metric()));
    assert_eq!([spans, metrics], [Sent::default(), Sent::default()]);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(receiver.take().len(), 4);
}

#[tokio::test]
async fn nobody_listens() {
    let (listener, address) = loopback().await;
    drop(listener);
    for protocol in [Protocol::HttpProtobuf, Protocol::Grpc] {
        let endpoint = format!("http://{address}");
        let wire = wire(over(protocol, &endpoint).timeout(SHORT));
        for sent in send(&wire).await {
            let text = failure(&sent, &endpoint);
            assert!(text.to_lowercase().contains("refused"), "{text}");
        }
    }
}

/// Answers each connection with `bytes` when it has sent something, and then hangs, or else
/// closes it.
async fn raw(bytes: &'static [u8], hangs: bool) -> String {
    let (listener, address) = loopback().await;
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut first = [0; 64];
            let read = stream.read(&mut first).await;
            assert!(read.is_ok_and(|bytes| bytes > 0));
            stream.write_all(bytes).await.unwrap();
            if hangs {
                open.push(stream);
            }
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn a_receiver_that_hangs_costs_the_timeout_and_no_more() {
    let half: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    for (protocol, bytes) in [
        (Protocol::HttpProtobuf, &b""[..]),
        (Protocol::HttpProtobuf, half),
        (Protocol::Grpc, b""),
    ] {
        let endpoint = raw(bytes, true).await;
        let wire = wire(over(protocol, &endpoint).timeout(SHORT));
        for _ in 0..2 {
            let began = Instant::now();
            for sent in send(&wire).await {
                let text = failure(&sent, &endpoint);
                assert!(text.contains("no answer within 90ms"), "{text}");
            }
            assert!(began.elapsed() >= 2 * SHORT);
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_and_garbage_are_failures() {
    for protocol in [Protocol::HttpProtobuf, Protocol::Grpc] {
        for bytes in [&b""[..], b"\x00\x01SSH-2.0-OpenSSH\r\n\r\n"] {
            let endpoint = raw(bytes, false).await;
            let wire = wire(over(protocol, &endpoint).timeout(SHORT));
            for sent in send(&wire).await {
                failure(&sent, &endpoint);
            }
        }
    }
}

#[tokio::test]
async fn a_success_is_one_whatever_its_body_and_an_endless_body_is_none() {
    let garbage = || (200, Vec::new(), vec![0xff; 64]);
    let (_, endpoint) = http([garbage(), garbage()]).await;
    let sent = send(&wire(over(Protocol::HttpProtobuf, &endpoint))).await;
    assert_eq!(sent, [Sent::default(), Sent::default()]);

    let large = || (200, Vec::new(), vec![0; 5 << 20]);
    let (receiver, endpoint) = http([large(), large()]).await;
    for sent in send(&wire(over(Protocol::HttpProtobuf, &endpoint))).await {
        let text = failure(&sent, &endpoint);
        assert!(text.contains("over 4 MiB"), "{text}");
    }
    assert_eq!(receiver.take().len(), 2, "it would be as large again");
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_again() {
    for protocol in [Protocol::HttpProtobuf, Protocol::Grpc] {
        let (listener, address) = loopback().await;
        let wire = wire(over(protocol, &format!("http://{address}")));
        let break_the_first = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 16]).await.unwrap();
            // What was not read makes it a reset.
            drop(stream);
            match protocol {
                Protocol::Grpc => grpc_on(TcpIncoming::from(listener), []).got(),
                Protocol::HttpProtobuf => http_on(listener, []).got(),
            }
        };
        let (sent, got) = tokio::join!(wire.send_metrics(metric()), break_the_first);
        assert_eq!(sent, Sent::default());
        assert_eq!(got.lock().unwrap().len(), 1);
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
