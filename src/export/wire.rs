//! Sends spans and metrics over OTLP, once they are made.
//!
//! All of it runs on the export thread: what is sent is polled there, and what tonic and
//! hyper spawn is spawned on that thread's runtime.

mod grpc;
mod http;
mod metrics;
mod retry;
mod spans;
#[cfg(test)]
mod tests;
mod text;
#[cfg(feature = "otlp-tls")]
mod tls;

#[cfg(feature = "otlp-tls")]
pub(super) use tls::check as check_tls;

use super::settings::{Protocol, Settings, Signal};
use crate::Error;
use metrics::Metrics;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_sdk::trace::SpanData;
use spans::Spans;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tonic::transport::Channel;

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Spans or data points that the receiver took note of and refused (a partial success).
    pub(crate) rejected: u64,
    /// Why nothing of the batch was taken.
    pub(crate) failure: Option<String>,
}

impl Sent {
    fn failed(why: String) -> Self {
        Self {
            rejected: 0,
            failure: Some(why),
        }
    }
}

/// Connects when it is first needed, and again after a connection was lost.
pub(crate) struct Wire {
    spans: Option<Spans>,
    metrics: Option<Metrics>,
}

impl Wire {
    /// To be called in the context of the runtime that polls it, with I/O and time enabled;
    /// tonic panics where there is none.
    ///
    /// # Errors
    ///
    /// TLS that can't be set up. Whether anybody listens shows only when something is sent.
    pub(crate) fn new(settings: &Settings, rejected_spans: Arc<AtomicU64>) -> Result<Self, Error> {
        let (traces, metrics) = (settings.traces.as_ref(), settings.metrics.as_ref());
        let traces_line = traces.map(Line::to).transpose()?;
        let metrics_line = match (traces, metrics, &traces_line) {
            // One connection, if it leads to the same place.
            (Some(traces), Some(metrics), Some(line)) if metrics.same_peer(traces) => {
                Some(line.clone())
            }
            _ => metrics.map(Line::to).transpose()?,
        };
        let spans = match (traces, traces_line) {
            (Some(signal), Some(line)) => {
                let resource = &settings.resource;
                Some(Spans::new(signal, line, resource, rejected_spans)?)
            }
            _ => None,
        };
        let metrics = metrics.zip(metrics_line);
        let metrics = metrics.map(|(signal, line)| Metrics::new(signal, line));
        Ok(Self {
            spans,
            metrics: metrics.transpose()?,
        })
    }

    pub(crate) async fn send_spans(&self, spans: Vec<SpanData>) -> Sent {
        match &self.spans {
            Some(wire) => wire.send(spans).await,
            None => Sent::failed("spans are not sent over OTLP".into()),
        }
    }

    pub(crate) async fn send_metrics(&self, request: ExportMetricsServiceRequest) -> Sent {
        match &self.metrics {
            Some(wire) => wire.send(request).await,
            None => Sent::failed("metrics are not sent over OTLP".into()),
        }
    }
}

/// What requests go through: a connection, or a pool of them.
#[derive(Clone)]
enum Line {
    Grpc(Channel),
    Http(Box<http::Client>),
}

impl Line {
    fn to(signal: &Signal) -> Result<Self, Error> {
        match signal.protocol {
            Protocol::Grpc => grpc::channel(signal).map(Self::Grpc),
            Protocol::HttpProtobuf => {
                http::client(signal).map(|client| Self::Http(Box::new(client)))
            }
        }
    }
}
