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
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use parking_lot::Mutex;
use retry::Undelivered;
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

/// Connects when it is first needed, and again after a connection was lost or fell silent.
pub(crate) struct Wire {
    traces: Option<Signal>,
    metrics: Option<Signal>,
    resource: Resource,
    rejected_spans: Arc<AtomicU64>,
    lines: Mutex<Arc<Lines>>,
}

/// What is sent by.
struct Lines {
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
        let (traces, metrics) = (settings.traces.clone(), settings.metrics.clone());
        let resource = settings.resource.clone();
        let lines = Lines::new(
            traces.as_ref(),
            metrics.as_ref(),
            &resource,
            &rejected_spans,
        )?;
        Ok(Self {
            traces,
            metrics,
            resource,
            rejected_spans,
            lines: Mutex::new(Arc::new(lines)),
        })
    }

    pub(crate) async fn send_spans(&self, spans: Vec<SpanData>) -> Sent {
        let lines = Arc::clone(&self.lines.lock());
        match &lines.spans {
            Some(wire) => self.sent(wire.send(spans).await, &lines),
            None => Sent::failed("spans are not sent over OTLP".into()),
        }
    }

    pub(crate) async fn send_metrics(&self, request: ExportMetricsServiceRequest) -> Sent {
        let lines = Arc::clone(&self.lines.lock());
        match &lines.metrics {
            Some(wire) => self.sent(wire.send(request).await, &lines),
            None => Sent::failed("metrics are not sent over OTLP".into()),
        }
    }

    fn sent(&self, outcome: Result<u64, Undelivered>, by: &Arc<Lines>) -> Sent {
        let undelivered = match outcome {
            Ok(rejected) => {
                return Sent {
                    rejected,
                    failure: None,
                };
            }
            Err(undelivered) => undelivered,
        };
        let mut text = undelivered.text;
        // A connection to a host that went away without a word looks well for a quarter of an
        // hour, and a channel keeps it; asking it to answer pings is held against clients.
        if undelivered.is_silent
            && let Err(error) = self.reconnect(by)
        {
            text = format!("{text}; {error}");
        }
        Sent::failed(text)
    }

    fn reconnect(&self, silent: &Arc<Lines>) -> Result<(), Error> {
        let mut lines = self.lines.lock();
        if Arc::ptr_eq(&lines, silent) {
            let (traces, metrics) = (self.traces.as_ref(), self.metrics.as_ref());
            let new = Lines::new(traces, metrics, &self.resource, &self.rejected_spans)?;
            *lines = Arc::new(new);
        }
        Ok(())
    }
}

impl Lines {
    fn new(
        traces: Option<&Signal>,
        metrics: Option<&Signal>,
        resource: &Resource,
        rejected_spans: &Arc<AtomicU64>,
    ) -> Result<Self, Error> {
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
                let rejected = Arc::clone(rejected_spans);
                Some(Spans::new(signal, line, resource, rejected)?)
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
