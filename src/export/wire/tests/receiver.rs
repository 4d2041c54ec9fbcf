//! Receivers on loopback that keep what they get and answer what they are told to.

use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::{Router, serve::Listener};
use flate2::read::GzDecoder;
use futures_util::Stream;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpIncoming};
use tonic::{Response, Status};

pub(super) struct Got {
    /// Over gRPC the name of the signal.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) traces: Option<ExportTraceServiceRequest>,
    pub(super) metrics: Option<ExportMetricsServiceRequest>,
}

impl Got {
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        (self.headers.get_all(name).iter())
            .map(|value| value.to_str().unwrap())
            .collect()
    }
}

/// What came, in order, and what is still to be answered; then everything is taken.
pub(super) struct Receiver<R> {
    got: Arc<Mutex<Vec<Got>>>,
    script: Arc<Mutex<VecDeque<R>>>,
}

impl<R> Clone for Receiver<R> {
    fn clone(&self) -> Self {
        Self {
            got: Arc::clone(&self.got),
            script: Arc::clone(&self.script),
        }
    }
}

impl<R> Receiver<R> {
    pub(super) fn new(script: impl IntoIterator<Item = R>) -> Self {
        Self {
            got: Arc::default(),
            script: Arc::new(Mutex::new(script.into_iter().collect())),
        }
    }

    pub(super) fn take(&self) -> Vec<Got> {
        std::mem::take(&mut self.got.lock().unwrap())
    }

    pub(super) fn got(&self) -> Arc<Mutex<Vec<Got>>> {
        Arc::clone(&self.got)
    }

    fn next(&self, got: Got) -> Option<R> {
        self.got.lock().unwrap().push(got);
        self.script.lock().unwrap().pop_front()
    }
}

pub(super) async fn loopback() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

pub(super) type Reply = (u16, Vec<(&'static str, &'static str)>, Vec<u8>);

pub(super) async fn http(script: impl IntoIterator<Item = Reply>) -> (Receiver<Reply>, String) {
    let (listener, address) = loopback().await;
    let receiver = http_on(listener, script);
    (receiver, format!("http://{address}"))
}

pub(super) fn http_on<L>(listener: L, script: impl IntoIterator<Item = Reply>) -> Receiver<Reply>
where
    L: Listener<Addr: std::fmt::Debug>,
{
    let receiver = Receiver::new(script);
    let there = receiver.clone();
    let router = Router::new().fallback(move |request: Request| answer(there.clone(), request));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    receiver
}

async fn answer(receiver: Receiver<Reply>, request: Request) -> (StatusCode, HeaderMap, Bytes) {
    let (parts, body) = request.into_parts();
    let mut body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    if parts
        .headers
        .get("content-encoding")
        .is_some_and(|value| value == "gzip")
    {
        let mut plain = Vec::new();
        GzDecoder::new(body.as_slice())
            .read_to_end(&mut plain)
            .unwrap();
        body = plain;
    }
    let path = parts.uri.path().to_owned();
    let got = Got {
        traces: (path.ends_with("/traces"))
            .then(|| ExportTraceServiceRequest::decode(body.as_slice()).unwrap()),
        metrics: (path.ends_with("/metrics"))
            .then(|| ExportMetricsServiceRequest::decode(body.as_slice()).unwrap()),
        headers: parts.headers,
        path,
    };
    let (status, headers, body) = receiver.next(got).unwrap_or((200, Vec::new(), Vec::new()));
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(name, value.parse().unwrap());
    }
    (StatusCode::from_u16(status).unwrap(), map, body.into())
}

/// How many are rejected, or a failure.
pub(super) type GrpcReply = Result<i64, Status>;

pub(super) async fn grpc(
    script: impl IntoIterator<Item = GrpcReply>,
) -> (Receiver<GrpcReply>, String) {
    let (listener, address) = loopback().await;
    let receiver = grpc_on(TcpIncoming::from(listener), script);
    (receiver, format!("http://{address}"))
}

pub(super) fn grpc_on<C>(
    incoming: impl Stream<Item = io::Result<C>> + Send + 'static,
    script: impl IntoIterator<Item = GrpcReply>,
) -> Receiver<GrpcReply>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let receiver = Receiver::new(script);
    let traces = TraceServiceServer::new(receiver.clone());
    let metrics = MetricsServiceServer::new(receiver.clone());
    let router = Server::builder()
        .add_service(traces.accept_compressed(CompressionEncoding::Gzip))
        .add_service(metrics.accept_compressed(CompressionEncoding::Gzip));
    tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
    receiver
}

#[tonic::async_trait]
impl TraceService for Receiver<GrpcReply> {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, traces) = request.into_parts();
        let rejected = self.next(Got {
            path: "traces".into(),
            headers: metadata.into_headers(),
            traces: Some(traces),
            metrics: None,
        });
        let rejected_spans = rejected.unwrap_or(Ok(0))?;
        Ok(Response::new(ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans,
                error_message: "a reason".into(),
            }),
        }))
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver<GrpcReply> {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let (metadata, _, metrics) = request.into_parts();
        let rejected = self.next(Got {
            path: "metrics".into(),
            headers: metadata.into_headers(),
            traces: None,
            metrics: Some(metrics),
        });
        let rejected_data_points = rejected.unwrap_or(Ok(0))?;
        Ok(Response::new(ExportMetricsServiceResponse {
            partial_success: Some(ExportMetricsPartialSuccess {
                rejected_data_points,
                error_message: "a reason".into(),
            }),
        }))
    }
}
