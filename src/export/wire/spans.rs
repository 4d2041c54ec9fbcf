//! Spans, by `opentelemetry-otlp`'s exporter over our connections.
//!
//! It reads `OTEL_EXPORTER_OTLP_…` by itself, whatever it is given: headers of the environment
//! replace ours of the same name. So what goes out is put right behind it, in an interceptor
//! and in an HTTP client of our own.
//!
//! It returns `Ok` when the receiver took a part only, and reports that part by an event
//! instead, emitted where it is polled, on the export thread:
//!
//! - target `opentelemetry-otlp`, level WARN;
//! - named `TonicTracesClient.PartialSuccess` over gRPC and `HttpTraceClient.PartialSuccess`
//!   over HTTP, in the metadata and in a field `name` (a string);
//! - with `rejected_spans` (`i64`; 0 where the receiver only warns) and `error_message` (a
//!   string).
//!
//! The export thread's dispatcher adds the first to a counter that is read here.

use super::http::{Answer, Http, Refusal};
use super::retry::Undelivered;
use super::text::{chain, quote};
use super::{Line, Signal, grpc, retry};
use crate::Error;
use crate::export::settings::Compression;
use http::header::{CONTENT_ENCODING, RETRY_AFTER};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, ResponseBodyTooLarge};
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::timeout;

pub(super) struct Spans {
    exporter: SpanExporter,
    signal: Signal,
    /// Why the last HTTP request failed; the exporter itself says only that it did.
    refused: Arc<Mutex<Option<String>>>,
    rejected: Arc<AtomicU64>,
}

impl Spans {
    pub(super) fn new(
        signal: &Signal,
        line: Line,
        resource: &Resource,
        rejected: Arc<AtomicU64>,
    ) -> Result<Self, Error> {
        let refused = Arc::new(Mutex::new(None));
        let built = match line {
            Line::Grpc(channel) => over_grpc(channel, signal),
            Line::Http(client) => over_http(
                Relay {
                    http: Http::new(*client, signal)?,
                    refused: Arc::clone(&refused),
                },
                signal,
            ),
        };
        let mut exporter = built.map_err(|error| Error::exporter(chain(&error)))?;
        exporter.set_resource(resource);
        Ok(Self {
            exporter,
            signal: signal.clone(),
            refused,
            rejected,
        })
    }

    /// How many spans were rejected.
    pub(super) async fn send(&self, spans: Vec<SpanData>) -> Result<u64, Undelivered> {
        // Counter and text are of the thread that polls this, one batch at a time.
        let before = self.rejected.load(Ordering::Relaxed);
        *self.refused.lock() = None;
        let time = self.signal.timeout;
        // The exporter's own timeout ends retries, but no request that is under way.
        let done = timeout(time, self.exporter.export(spans)).await;
        let refused = self.refused.lock().take();
        let why = match done {
            Ok(Ok(())) => {
                let after = self.rejected.load(Ordering::Relaxed);
                return Ok(after.saturating_sub(before));
            }
            Ok(Err(error)) => refused.unwrap_or_else(|| self.describe(&error)).into(),
            Err(_) => retry::timed_out(time, refused),
        };
        Err(why.of("spans", &self.signal))
    }

    fn describe(&self, error: &OTelSdkError) -> String {
        let text = match error {
            OTelSdkError::InternalFailure(text) => text.clone(),
            other => other.to_string(),
        };
        quote(&text, &self.signal.headers)
    }
}

fn over_grpc(
    channel: tonic::transport::Channel,
    signal: &Signal,
) -> Result<SpanExporter, ExporterBuildError> {
    let metadata = grpc::metadata(signal);
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_channel(channel)
        .with_timeout(signal.timeout)
        .with_interceptor(move |mut request: tonic::Request<()>| {
            // Instead of what the exporter made of the environment.
            *request.metadata_mut() = metadata.clone();
            Ok(request)
        });
    if signal.compression == Compression::Gzip {
        builder = WithTonicConfig::with_compression(builder, opentelemetry_otlp::Compression::Gzip);
    }
    builder.build()
}

fn over_http(relay: Relay, signal: &Signal) -> Result<SpanExporter, ExporterBuildError> {
    let mut builder = SpanExporter::builder()
        .with_http()
        .with_http_client(relay)
        // Or else it would refuse to be built where the environment says `grpc`.
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_endpoint(signal.endpoint.as_str())
        .with_timeout(signal.timeout);
    if signal.compression == Compression::Gzip {
        builder = WithHttpConfig::with_compression(builder, opentelemetry_otlp::Compression::Gzip);
    }
    builder.build()
}

/// Takes the body from the exporter, and nothing else: headers and endpoint are ours.
#[derive(Debug)]
struct Relay {
    http: Http,
    refused: Arc<Mutex<Option<String>>>,
}

impl Relay {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let encoding = request.headers().get(CONTENT_ENCODING).cloned();
        let refusal = match self.http.post(request.into_body(), encoding).await {
            Ok(Answer { body }) => return Ok(Response::new(body)),
            Err(refusal) => refusal,
        };
        *self.refused.lock() = Some(refusal.text().to_owned());
        match refusal {
            Refusal::Network(text) => Err(text.into()),
            // The exporter knows this one, and doesn't try again.
            Refusal::TooLarge(_) => Err(Box::new(ResponseBodyTooLarge::new())),
            Refusal::Status {
                status,
                retry_after,
                ..
            } => {
                let mut response = Response::new(Bytes::new());
                *response.status_mut() = status;
                if let Some(value) = retry_after {
                    response.headers_mut().insert(RETRY_AFTER, value);
                }
                Ok(response)
            }
        }
    }
}

impl HttpClient for Relay {
    // Written out as `#[async_trait]` has it in the trait.
    fn send_bytes<'a, 'f>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'a: 'f,
        Self: 'f,
    {
        Box::pin(self.send(request))
    }
}
