//! Code over environment over default.

use super::{Compression, Otlp, Protocol, Tls, endpoint, headers, resource};
use crate::Error;
use crate::export::InMemory;
use crate::export::env::{self, Env, METRICS, TRACES, Vars, millis, refused};
use http::header::HeaderMap;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::time::Duration;
use url::Url;

/// A queue or a table that is larger was never meant.
const MOST: usize = 1 << 20;
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What is exported, and how; valid where it exists.
#[derive(Debug)]
pub(crate) struct Settings {
    /// None where spans are off, or go through `tracer_provider`.
    pub(crate) traces: Option<Signal>,
    /// None where metrics are off. Beside a `meter_provider` it carries the histograms, which
    /// can't go through that.
    pub(crate) metrics: Option<Signal>,
    pub(crate) resource: Resource,
    /// Between two exports of metrics.
    pub(crate) interval: Duration,
    pub(crate) max_queued_spans: usize,
    /// Not above `max_queued_spans`.
    pub(crate) max_batch: usize,
    pub(crate) max_marked_orphans: usize,
    pub(crate) child_within: Duration,
    pub(crate) unsampled_parents: bool,
    pub(crate) tracer_provider: Option<SdkTracerProvider>,
    pub(crate) meter_provider: Option<SdkMeterProvider>,
    /// Where this is given nothing is sent, and the signals above say only whether there is
    /// something to keep.
    pub(crate) in_memory: Option<InMemory>,
}

/// How one signal is sent.
#[derive(Clone, Debug)]
pub(crate) struct Signal {
    pub(crate) protocol: Protocol,
    /// As it is sent to, the path of the signal included.
    pub(crate) endpoint: Url,
    /// All that are ours to choose, each with a value that `Debug` doesn't show.
    pub(crate) headers: HeaderMap,
    /// For all attempts together.
    pub(crate) timeout: Duration,
    pub(crate) compression: Compression,
    /// None for an endpoint without TLS.
    pub(crate) tls: Option<Tls>,
}

impl Signal {
    /// Whether one connection can serve both.
    pub(crate) fn same_peer(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.endpoint.origin() == other.endpoint.origin()
            && self.timeout == other.timeout
            && self.tls == other.tls
    }
}

/// Whether there is an endpoint for spans, and for metrics.
pub(super) fn endpoints_in(env: &Env<'_>) -> [bool; 2] {
    // What is neither true nor false is for `resolve` to refuse.
    let disabled = matches!(env.flag(env::SDK_DISABLED), Ok(Some(true)));
    [TRACES.endpoint, METRICS.endpoint]
        .map(|names| !disabled && names.into_iter().any(|name| env.has(name)))
}

impl Otlp {
    pub(super) fn resolve_in(&self, env: &Env<'_>) -> Result<Settings, Error> {
        if self.in_memory.is_some() {
            self.sent_nowhere()?;
        }
        let off = env.flag(env::SDK_DISABLED)? == Some(true);
        let spans = !off && on(self.spans, self.tracer_provider.is_some(), &TRACES, env)?;
        let metrics = !off && on(self.metrics, self.meter_provider.is_some(), &METRICS, env)?;
        let traces = if spans && self.tracer_provider.is_none() {
            self.followed_by_exporter(env)?;
            Some(self.signal_in(&TRACES, env)?)
        } else {
            None
        };
        let (max_queued_spans, max_batch) = self.queue_in(env)?;
        let max_marked_orphans = self.max_marked_orphans.unwrap_or(4_096);
        within("max_marked_orphans", max_marked_orphans, MOST)?;
        Ok(Settings {
            traces,
            metrics: if metrics {
                Some(self.signal_in(&METRICS, env)?)
            } else {
                None
            },
            resource: resource::resolve(self.resource.as_ref(), env)?,
            interval: self.interval_in(env)?,
            max_queued_spans,
            max_batch,
            max_marked_orphans,
            child_within: self.child_within.unwrap_or(Duration::from_secs(60 * 60)),
            unsampled_parents: self.unsampled_parents,
            tracer_provider: self.tracer_provider.clone().filter(|_| spans),
            meter_provider: self.meter_provider.clone().filter(|_| metrics),
            in_memory: self.in_memory.clone(),
        })
    }

    /// That nothing is said of how to send, where nothing is sent.
    fn sent_nowhere(&self) -> Result<(), Error> {
        const EXPECTED: &str = "in_memory keeps what is exported in this process and sends it \
            nowhere; leave one of the two out";
        let said = [
            ("endpoint", self.endpoint.as_deref().map(endpoint::shown)),
            ("protocol", self.protocol.map(|it| format!("{it:?}"))),
            ("timeout", self.timeout.map(|it| format!("{it:?}"))),
            ("compression", self.compression.map(|it| format!("{it:?}"))),
        ];
        let secret = [
            ("header", !self.headers.is_empty()),
            ("ca_certificate", self.ca_certificate.is_some()),
            ("client_identity", self.client_identity.is_some()),
        ];
        for (name, value) in said {
            if let Some(value) = value {
                return Err(Error::limit(name, value, EXPECTED));
            }
        }
        match secret.into_iter().find(|(_, is_said)| *is_said) {
            Some((name, _)) => Err(Error::secret(name, EXPECTED)),
            None => Ok(()),
        }
    }

    fn signal_in(&self, vars: &Vars, env: &Env<'_>) -> Result<Signal, Error> {
        let protocol = self.protocol_in(vars, env)?;
        let endpoint = endpoint::resolve(self.endpoint.as_deref(), protocol, vars, env)?;
        let tls = match endpoint.scheme() {
            "https" => Some(Tls::resolve(
                self.ca_certificate.as_deref(),
                self.client_identity.as_ref(),
                vars,
                env,
            )?),
            _ => None,
        };
        Ok(Signal {
            protocol,
            endpoint,
            headers: headers::resolve(&self.headers, vars, env)?,
            timeout: self.timeout_in(vars, env)?,
            compression: self.compression_in(vars, env)?,
            tls,
        })
    }

    fn protocol_in(&self, vars: &Vars, env: &Env<'_>) -> Result<Protocol, Error> {
        if let Some(protocol) = self.protocol {
            return Ok(protocol);
        }
        let Some((name, value)) = env.first(vars.protocol)? else {
            return Ok(Protocol::default());
        };
        match value.to_ascii_lowercase().as_str() {
            "grpc" => Ok(Protocol::Grpc),
            "http/protobuf" => Ok(Protocol::HttpProtobuf),
            _ => Err(refused(
                name,
                &value,
                "supported are http/protobuf and grpc",
            )),
        }
    }

    fn timeout_in(&self, vars: &Vars, env: &Env<'_>) -> Result<Duration, Error> {
        if let Some(timeout) = self.timeout {
            return span("timeout", timeout);
        }
        match env.first(vars.timeout)? {
            Some(found) => span(found.0, millis(&found)?),
            None => Ok(Duration::from_secs(10)),
        }
    }

    fn compression_in(&self, vars: &Vars, env: &Env<'_>) -> Result<Compression, Error> {
        if let Some(compression) = self.compression {
            return Ok(compression);
        }
        let Some((name, value)) = env.first(vars.compression)? else {
            return Ok(Compression::None);
        };
        match value.to_ascii_lowercase().as_str() {
            "gzip" => Ok(Compression::Gzip),
            "none" => Ok(Compression::None),
            _ => Err(refused(name, &value, "supported are gzip and none")),
        }
    }

    /// `opentelemetry-otlp`'s exporter, which sends the spans, can be told to compress, but not
    /// to leave it: it asks the environment then.
    fn followed_by_exporter(&self, env: &Env<'_>) -> Result<(), Error> {
        if self.compression != Some(Compression::None) {
            return Ok(());
        }
        match env.first(TRACES.compression)? {
            Some((name, value)) if value.eq_ignore_ascii_case("gzip") => Err(refused(
                "compression",
                "None",
                format!(
                    "the exporter of spans would follow {name} = {value} all the same; unset \
                     that or set {} to none",
                    TRACES.compression[0]
                ),
            )),
            _ => Ok(()),
        }
    }

    fn interval_in(&self, env: &Env<'_>) -> Result<Duration, Error> {
        if let Some(interval) = self.interval {
            return span("interval", interval);
        }
        match env.get(env::METRIC_INTERVAL)? {
            Some(value) => span(
                env::METRIC_INTERVAL,
                millis(&(env::METRIC_INTERVAL, value))?,
            ),
            // An export that no test asked for would take the exemplars away from the next.
            None if self.in_memory.is_some() => Ok(LONGEST),
            None => Ok(Duration::from_secs(60)),
        }
    }

    /// The most spans that wait, and the most that go in one request.
    fn queue_in(&self, env: &Env<'_>) -> Result<(usize, usize), Error> {
        let (name, queue) = match self.max_queued_spans {
            Some(max) => ("max_queued_spans", max),
            None => (env::MAX_QUEUE, env.number(env::MAX_QUEUE)?.unwrap_or(2_048)),
        };
        within(name, queue, MOST)?;
        let (name, batch) = match self.max_batch {
            Some(max) => ("max_batch", max),
            None => (
                env::MAX_BATCH,
                env.number(env::MAX_BATCH)?.unwrap_or(queue.min(512)),
            ),
        };
        if batch > queue {
            let expected = format!("only max_queued_spans = {queue} spans can wait; give less");
            return Err(Error::limit(name, batch, expected));
        }
        within(name, batch, queue)?;
        Ok((queue, batch))
    }
}

/// Whether a signal is exported. A provider of the program's own was given to be used.
fn on(chosen: Option<bool>, provider: bool, vars: &Vars, env: &Env<'_>) -> Result<bool, Error> {
    if let Some(chosen) = chosen {
        return Ok(chosen);
    }
    if provider {
        return Ok(true);
    }
    let Some(value) = env.get(vars.exporter)? else {
        return Ok(true);
    };
    let listed = |name: &str| {
        value
            .split(',')
            .any(|one| one.trim().eq_ignore_ascii_case(name))
    };
    match (listed("otlp"), listed("none")) {
        (true, _) => Ok(true),
        (false, true) => Ok(false),
        (false, false) => Err(refused(
            vars.exporter,
            &value,
            "straggler has no other exporter than otlp; list that too, or choose by spans(…) \
             and metrics(…) in code",
        )),
    }
}

fn within(name: &'static str, value: usize, most: usize) -> Result<(), Error> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    let expected = format!("give a number from 1 to {most}");
    Err(Error::limit(name, value, expected))
}

fn span(name: &'static str, time: Duration) -> Result<Duration, Error> {
    if (Duration::from_millis(1)..=LONGEST).contains(&time) {
        return Ok(time);
    }
    let value = format!("{time:?}");
    Err(Error::limit(name, value, "give a time from 1 ms to 24 h"))
}
