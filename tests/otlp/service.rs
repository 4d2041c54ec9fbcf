//! What a receiver does to each request: the routes of both protocols, and the answers.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Extension, State};
use axum::http::{HeaderMap, Request as HttpRequest, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server as metrics_server;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server as trace_server;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;

use super::answer::{Answer, grpc_code};
use super::received::{self, Arrival, Signal};
use super::receiver::{Protocol, Shared};
use super::wire::Connection;

const HTTP_LIMIT_BYTES: usize = 20 * 1024 * 1024;

/// A request's way through the router.
#[derive(Clone)]
pub struct Arrived {
    pub arrival: Arrival,
    pub decoded: Arc<AtomicBool>,
}

pub fn router(protocol: Protocol, shared: Arc<Shared>) -> Router {
    let services = match protocol {
        Protocol::Http => Router::new()
            .route("/v1/traces", post(http_traces))
            .route("/v1/metrics", post(http_metrics))
            .with_state(Arc::clone(&shared)),
        Protocol::Grpc => {
            let service = Service(Arc::clone(&shared));
            let traces = trace_server::TraceServiceServer::new(service.clone())
                .accept_compressed(CompressionEncoding::Gzip);
            let metrics = metrics_server::MetricsServiceServer::new(service)
                .accept_compressed(CompressionEncoding::Gzip);
            Routes::new(traces).add_service(metrics).into_axum_router()
        }
    };
    // `behave` has its own.
    let services = services.layer(DefaultBodyLimit::disable());
    services.layer(from_fn_with_state((protocol, shared), behave))
}

async fn behave(
    State((protocol, shared)): State<(Protocol, Arc<Shared>)>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: HttpRequest<Body>,
    next: Next,
) -> Response {
    let line = format!("{} {}", request.method(), request.uri().path());
    let (mut parts, body) = request.into_parts();
    let bytes = match axum::body::to_bytes(body, HTTP_LIMIT_BYTES).await {
        Ok(bytes) => bytes,
        Err(error) => {
            shared.stray(format!("{line}: {error}"));
            return StatusCode::PAYLOAD_TOO_LARGE.into_response();
        }
    };
    let signal = match parts.uri.path() {
        "/v1/traces" | "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => {
            Signal::Traces
        }
        "/v1/metrics" | "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => {
            Signal::Metrics
        }
        _ => {
            shared.stray(line);
            return StatusCode::NOT_FOUND.into_response();
        }
    };
    let arrived = Arrived {
        arrival: Arrival {
            signal,
            answer: shared.take_answer(signal),
            time: SystemTime::now(),
            connection: connection.number(),
            headers: readable(&parts.headers),
            bytes_on_wire: bytes.len(),
            gzip: match protocol {
                // A frame's first byte says whether it is compressed.
                Protocol::Grpc => bytes.first() == Some(&1),
                Protocol::Http => bytes.starts_with(&[0x1f, 0x8b]),
            },
        },
        decoded: Arc::default(),
    };
    let (answer, decoded) = (arrived.arrival.answer.clone(), Arc::clone(&arrived.decoded));
    parts.extensions.insert(arrived);
    let response = next
        .run(HttpRequest::from_parts(parts, Body::from(bytes)))
        .await;
    if !decoded.load(Ordering::SeqCst) {
        shared.stray(format!("{line}: {response:?}"));
        return response;
    }
    match answer {
        Answer::Hang => std::future::pending().await,
        Answer::Reset => {
            connection.reset();
            std::future::pending().await
        }
        Answer::Slow(wait) => {
            tokio::time::sleep(wait).await;
            response
        }
        Answer::Garbage => garbage(protocol),
        _ => response,
    }
}

fn garbage(protocol: Protocol) -> Response {
    let media = match protocol {
        Protocol::Grpc => "application/grpc",
        Protocol::Http => "application/x-protobuf",
    };
    let bytes: &[u8] = b"\xff\xfe<html>no message of any protocol</html>";
    ([(header::CONTENT_TYPE, media)], bytes).into_response()
}

fn readable(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut readable = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        readable
            .entry(name.as_str().to_owned())
            .and_modify(|before| {
                before.push_str(", ");
                before.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    readable
}

#[derive(Clone)]
struct Service(Arc<Shared>);

impl Service {
    fn take<T>(
        &self,
        mut request: tonic::Request<T>,
        body: impl FnOnce(T) -> received::Body,
    ) -> Result<Answer, tonic::Status> {
        let arrived = request.extensions_mut().remove::<Arrived>();
        let arrived = arrived.expect("every request comes by `behave`");
        let answer = arrived.arrival.answer.clone();
        self.0.record(arrived, body(request.into_inner()));
        answer.grpc().map_or(Ok(answer), Err)
    }
}

#[tonic::async_trait]
impl trace_server::TraceService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let answer = self.take(request, received::Body::Traces)?;
        Ok(tonic::Response::new(traces_response(&answer)))
    }
}

#[tonic::async_trait]
impl metrics_server::MetricsService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        let answer = self.take(request, received::Body::Metrics)?;
        Ok(tonic::Response::new(metrics_response(&answer)))
    }
}

fn traces_response(answer: &Answer) -> ExportTraceServiceResponse {
    ExportTraceServiceResponse {
        partial_success: answer.rejected().map(|(rejected_spans, error_message)| {
            ExportTracePartialSuccess {
                rejected_spans,
                error_message,
            }
        }),
    }
}

fn metrics_response(answer: &Answer) -> ExportMetricsServiceResponse {
    ExportMetricsServiceResponse {
        partial_success: answer
            .rejected()
            .map(
                |(rejected_data_points, error_message)| ExportMetricsPartialSuccess {
                    rejected_data_points,
                    error_message,
                },
            ),
    }
}

async fn http_traces(
    State(shared): State<Arc<Shared>>,
    Extension(arrived): Extension<Arrived>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    let answer = arrived.arrival.answer.clone();
    match decode(&headers, &bytes) {
        Ok(request) => shared.record(arrived, received::Body::Traces(request)),
        Err(response) => return response,
    }
    http_response(&answer, &traces_response(&answer))
}

async fn http_metrics(
    State(shared): State<Arc<Shared>>,
    Extension(arrived): Extension<Arrived>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    let answer = arrived.arrival.answer.clone();
    match decode(&headers, &bytes) {
        Ok(request) => shared.record(arrived, received::Body::Metrics(request)),
        Err(response) => return response,
    }
    http_response(&answer, &metrics_response(&answer))
}

#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn decode<T: Message + Default>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, Response> {
    let refuse = |status: StatusCode, why: String| Err((status, why).into_response());
    let media = headers.get(header::CONTENT_TYPE);
    if media.is_none_or(|it| it != "application/x-protobuf") {
        let why = format!("content-type: {media:?}");
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, why);
    }
    let mut plain = Vec::new();
    let body = match headers.get(header::CONTENT_ENCODING) {
        None => bytes,
        Some(coding) if coding == "gzip" => {
            let decoder = flate2::read::GzDecoder::new(bytes);
            let limit = HTTP_LIMIT_BYTES as u64 + 1;
            if let Err(error) = decoder.take(limit).read_to_end(&mut plain) {
                return refuse(StatusCode::BAD_REQUEST, error.to_string());
            }
            &plain
        }
        Some(coding) => {
            let why = format!("content-encoding: {coding:?}");
            return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, why);
        }
    };
    if body.len() > HTTP_LIMIT_BYTES {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, body.len().to_string());
    }
    T::decode(body).or_else(|error| refuse(StatusCode::BAD_REQUEST, error.to_string()))
}

/// An error's body is a `google.rpc.Status`, as OTLP says.
fn http_response(answer: &Answer, success: &impl Message) -> Response {
    let media = [(header::CONTENT_TYPE, "application/x-protobuf")];
    let Answer::Status(status, retry_after) = answer else {
        return (media, success.encode_to_vec()).into_response();
    };
    let details = tonic_types::Status {
        code: grpc_code(*status) as i32,
        message: format!("the test answers {status}"),
        details: Vec::new(),
    };
    let status = StatusCode::from_u16(*status).expect("a status of HTTP");
    let mut response = (status, media, details.encode_to_vec()).into_response();
    if let Some(wait) = retry_after {
        // In whole seconds; up, so that no sender comes too early.
        let seconds = wait.as_millis().div_ceil(1000) as u64;
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
