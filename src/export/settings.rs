//! What a program may say about the export, and what is made of it with the environment.

mod endpoint;
mod headers;
mod resolve;
mod resource;
#[cfg(test)]
mod tests;
mod tls;

pub(super) use endpoint::shown;
pub(super) use resolve::{Settings, Signal};
#[cfg(feature = "otlp-tls")]
pub(super) use tls::Pem;
pub(super) use tls::Tls;

use super::env::Env;
use super::memory::InMemory;
use crate::Error;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::fmt;
use std::time::Duration;

/// How OTLP travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// `grpc`: protobuf over gRPC, at `http://localhost:4317` by default.
    Grpc,
    /// `http/protobuf`: protobuf over HTTP, at `http://localhost:4318` by default.
    #[default]
    HttpProtobuf,
}

/// How a request is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// `gzip`.
    Gzip,
    /// `none`.
    #[default]
    None,
}

/// Where to send metrics and the spans of orphans, and how.
///
/// Each method names its variable in the environment. What is set in code wins; of the
/// variables, that of the signal (`OTEL_EXPORTER_OTLP_TRACES_…`,
/// `OTEL_EXPORTER_OTLP_METRICS_…`) wins over the general one (`OTEL_EXPORTER_OTLP_…`), and an
/// empty one counts as unset. `OTEL_SDK_DISABLED=true` switches the export off. The rest is
/// as in the [specification](https://opentelemetry.io/docs/specs/otel/protocol/exporter/),
/// but for one thing: what can't be used is an [`Error`] when straggler is set up, never
/// ignored.
///
/// The values of headers, certificates and keys are in no error and not in `Debug`.
#[derive(Clone, Default)]
pub struct Otlp {
    endpoint: Option<String>,
    protocol: Option<Protocol>,
    headers: Vec<(String, String)>,
    timeout: Option<Duration>,
    compression: Option<Compression>,
    ca_certificate: Option<Vec<u8>>,
    client_identity: Option<(Vec<u8>, Vec<u8>)>,
    resource: Option<Resource>,
    interval: Option<Duration>,
    metrics: Option<bool>,
    spans: Option<bool>,
    max_queued_spans: Option<usize>,
    max_batch: Option<usize>,
    max_marked_orphans: Option<usize>,
    child_within: Option<Duration>,
    unsampled_parents: bool,
    tracer_provider: Option<SdkTracerProvider>,
    meter_provider: Option<SdkMeterProvider>,
    in_memory: Option<InMemory>,
}

impl Otlp {
    /// Everything from the environment, or else OpenTelemetry's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The base URL of the receiver, for both signals. Over HTTP `/v1/traces` and `/v1/metrics`
    /// are appended.
    ///
    /// `https` needs the cargo feature `otlp-tls`. Credentials belong in a
    /// [`header`](Self::header), a URL that has any is refused. A gRPC endpoint has no path.
    /// No proxy of the environment is used.
    ///
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`; `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and
    /// `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` are used as they are, nothing is appended. A gRPC
    /// endpoint there may have no scheme where `OTEL_EXPORTER_OTLP_INSECURE`,
    /// `OTEL_EXPORTER_OTLP_TRACES_INSECURE` or `OTEL_EXPORTER_OTLP_METRICS_INSECURE` is `true`
    /// (`http`) or `false` (`https`). By default that of the [`protocol`](Self::protocol).
    pub fn endpoint(mut self, url: &str) -> Self {
        self.endpoint = Some(url.to_owned());
        self
    }

    /// How OTLP travels. [`Protocol::HttpProtobuf`] by default.
    ///
    /// `OTEL_EXPORTER_OTLP_PROTOCOL`, `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`,
    /// `OTEL_EXPORTER_OTLP_METRICS_PROTOCOL`: `grpc` or `http/protobuf`. There is no
    /// `http/json`.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// Adds a header to each request; over gRPC it is metadata. Those of the environment stay,
    /// but for one of the same name. Of two of the same name here, the later one is sent.
    ///
    /// `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_TRACES_HEADERS`,
    /// `OTEL_EXPORTER_OTLP_METRICS_HEADERS`: `name=value,name=value`, where a value may be
    /// percent-encoded.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// How long a batch may take to be sent, all attempts together. 10 s by default; from 1 ms
    /// to 24 h.
    ///
    /// `OTEL_EXPORTER_OTLP_TIMEOUT`, `OTEL_EXPORTER_OTLP_TRACES_TIMEOUT`,
    /// `OTEL_EXPORTER_OTLP_METRICS_TIMEOUT`, in milliseconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How requests are compressed. [`Compression::None`] by default.
    ///
    /// `OTEL_EXPORTER_OTLP_COMPRESSION`, `OTEL_EXPORTER_OTLP_TRACES_COMPRESSION`,
    /// `OTEL_EXPORTER_OTLP_METRICS_COMPRESSION`: `gzip` or `none`. [`Compression::None`] here
    /// against `gzip` there is refused for spans: `opentelemetry-otlp`, which sends them, would
    /// follow the environment.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// The certificates, as PEM, that the receiver's is checked against, instead of those that
    /// the system trusts. For `https` only.
    ///
    /// `OTEL_EXPORTER_OTLP_CERTIFICATE`, `OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE`,
    /// `OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE`: the path of a file.
    pub fn ca_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_certificate = Some(pem.into());
        self
    }

    /// The certificate, with its chain, and the private key that we show to the receiver, both
    /// as PEM. For `https` only.
    ///
    /// `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE` and `OTEL_EXPORTER_OTLP_CLIENT_KEY`, with
    /// `TRACES_` or `METRICS_` before `CLIENT_` for one signal: the paths of files.
    pub fn client_identity(
        mut self,
        cert_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        self.client_identity = Some((cert_pem.into(), key_pem.into()));
        self
    }

    /// What describes this process. `host.name`, `process.pid` and a random
    /// `service.instance.id` are added where they are missing.
    ///
    /// By default `OTEL_RESOURCE_ATTRIBUTES` (`key=value,key=value`, where a value may be
    /// percent-encoded) and `OTEL_SERVICE_NAME`; with a resource given here, neither is read.
    pub fn resource(mut self, resource: Resource) -> Self {
        self.resource = Some(resource);
        self
    }

    /// How often metrics are sent. 60 s by default, with [`in_memory`](Self::in_memory) 24 h;
    /// from 1 ms to 24 h.
    ///
    /// `OTEL_METRIC_EXPORT_INTERVAL`, in milliseconds.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// Whether metrics are sent. They are by default.
    ///
    /// `OTEL_METRICS_EXPORTER`: a list with `otlp` in it, or `none`.
    pub fn metrics(mut self, metrics: bool) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Whether orphans are sent as spans. They are by default.
    ///
    /// `OTEL_TRACES_EXPORTER`: a list with `otlp` in it, or `none`.
    pub fn spans(mut self, spans: bool) -> Self {
        self.spans = Some(spans);
        self
    }

    /// How many spans may wait to be sent; those beyond are dropped and counted. 2,048 by
    /// default; from 1 to 2²⁰.
    ///
    /// `OTEL_BSP_MAX_QUEUE_SIZE`.
    pub fn max_queued_spans(mut self, max: usize) -> Self {
        self.max_queued_spans = Some(max);
        self
    }

    /// How many spans are sent in one request. 512 by default, or as many as may wait if those
    /// are fewer; from 1 to [`max_queued_spans`](Self::max_queued_spans).
    ///
    /// `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`.
    pub fn max_batch(mut self, max: usize) -> Self {
        self.max_batch = Some(max);
        self
    }

    /// How many live orphans may have a span of their own at a time; those beyond are counted.
    /// 4,096 by default; from 1 to 2²⁰. A limit of straggler's own, in no variable.
    pub fn max_marked_orphans(mut self, max: usize) -> Self {
        self.max_marked_orphans = Some(max);
        self
    }

    /// Up to which age an orphan becomes part of the trace it was spawned in. One that is older
    /// gets a trace of its own with a link, for backends close a trace some time after its last
    /// span. 1 h by default; in no variable.
    pub fn child_within(mut self, age: Duration) -> Self {
        self.child_within = Some(age);
        self
    }

    /// Whether an orphan whose parent was not sampled is sent too, in a trace of its own with a
    /// link. It is not by default; in no variable.
    pub fn unsampled_parents(mut self, export: bool) -> Self {
        self.unsampled_parents = export;
        self
    }

    /// Hands the spans of orphans to the program's own provider, with its sampler, processors
    /// and exporter. Of the settings here, only those of orphans apply to them then, and
    /// `OTEL_TRACES_EXPORTER` doesn't.
    pub fn tracer_provider(mut self, provider: SdkTracerProvider) -> Self {
        self.tracer_provider = Some(provider);
        self
    }

    /// Hands counters and gauges to the program's own provider, with its reader and exporter.
    /// Histograms can't go that way: OpenTelemetry's SDK takes none that is already counted.
    pub fn meter_provider(mut self, provider: SdkMeterProvider) -> Self {
        self.meter_provider = Some(provider);
        self
    }

    /// Keeps what is exported in this process, for a test to look at, instead of sending it. How
    /// much waits, which orphans are told of, and the program's providers stay as they are set
    /// here.
    ///
    /// No variable counts then, `OTEL_SDK_DISABLED` included: what the shell of a developer or a
    /// CI has set changes no test, and nothing leaves. In code, all that says how to send
    /// ([`endpoint`](Self::endpoint), [`protocol`](Self::protocol), [`header`](Self::header),
    /// [`timeout`](Self::timeout), [`compression`](Self::compression) and those of TLS) can't be
    /// used beside it and is refused. So is an [`InMemory`] that was built with before.
    pub fn in_memory(mut self, exported: &InMemory) -> Self {
        self.in_memory = Some(exported.clone());
        self
    }

    /// What is exported by the environment alone: the signals that have an endpoint there.
    pub(crate) fn named_in_env() -> Option<Self> {
        let [spans, metrics] = resolve::endpoints_in(&Env::process());
        // The others would go to a receiver on this host that nobody spoke of.
        let off = |named: bool| (!named).then_some(false);
        (spans || metrics).then(|| Self {
            spans: off(spans),
            metrics: off(metrics),
            ..Self::default()
        })
    }

    /// Everything decided.
    ///
    /// # Errors
    ///
    /// The first setting that can't be used, with its name and what to write instead.
    pub(crate) fn resolve(&self) -> Result<Settings, Error> {
        let env = match self.in_memory {
            Some(_) => Env::empty(),
            None => Env::process(),
        };
        self.resolve_in(&env)
    }
}

/// Without the values that may be secret.
impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Otlp")
            .field("endpoint", &self.endpoint.as_deref().map(endpoint::shown))
            .field("protocol", &self.protocol)
            .field("headers", &headers)
            .field("timeout", &self.timeout)
            .field("compression", &self.compression)
            .field("ca_certificate", &self.ca_certificate.is_some())
            .field("client_identity", &self.client_identity.is_some())
            .field("resource", &self.resource)
            .field("interval", &self.interval)
            .field("metrics", &self.metrics)
            .field("spans", &self.spans)
            .field("max_queued_spans", &self.max_queued_spans)
            .field("max_batch", &self.max_batch)
            .field("max_marked_orphans", &self.max_marked_orphans)
            .field("child_within", &self.child_within)
            .field("unsampled_parents", &self.unsampled_parents)
            .field("tracer_provider", &self.tracer_provider.is_some())
            .field("meter_provider", &self.meter_provider.is_some())
            .field("in_memory", &self.in_memory)
            .finish()
    }
}
