//! What watches the tasks, or doesn't.

use crate::floor::{self, Callsites, Nothing};
use crate::shared::Failure;
use crate::shared::work::Spawn;
use serde::{Deserialize, Serialize};
use straggler::{Source, Tasks};
use tokio::task::JoinHandle;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Variant {
    /// tokio with no subscriber. Its spans are compiled in, as for all others.
    #[serde(rename = "bare")]
    Bare,
    #[serde(rename = "layer-floor")]
    LayerFloor,
    #[serde(rename = "hook-floor")]
    HookFloor,
    #[serde(rename = "spans")]
    Spans,
    #[serde(rename = "hooks")]
    Hooks,
    #[serde(rename = "both")]
    Both,
    #[serde(rename = "spans+otlp")]
    Otlp,
    #[serde(rename = "console-subscriber")]
    Console,
    #[serde(rename = "tokio-metrics")]
    Metrics,
    #[serde(rename = "tracing-opentelemetry")]
    OpenTelemetry,
}

impl Variant {
    pub(crate) const ALL: [Self; 10] = [
        Self::Bare,
        Self::LayerFloor,
        Self::HookFloor,
        Self::Spans,
        Self::Hooks,
        Self::Both,
        Self::Otlp,
        Self::Console,
        Self::Metrics,
        Self::OpenTelemetry,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::LayerFloor => "layer-floor",
            Self::HookFloor => "hook-floor",
            Self::Spans => "spans",
            Self::Hooks => "hooks",
            Self::Both => "both",
            Self::Otlp => "spans+otlp",
            Self::Console => "console-subscriber",
            Self::Metrics => "tokio-metrics",
            Self::OpenTelemetry => "tracing-opentelemetry",
        }
    }

    /// Whether it is there in a build with all features only.
    pub(crate) fn needs_features(self) -> bool {
        matches!(self, Self::Otlp | Self::Console)
    }

    /// How many parked tasks it can be given: console-subscriber takes some 50 kB for each.
    pub(crate) fn most_parked(self) -> Option<u64> {
        (self == Self::Console).then_some(20_000)
    }

    /// Installs it for the whole process, and gives straggler's handle if there is one.
    pub(crate) fn install(self, sink: Option<&str>) -> Result<Option<Tasks>, Failure> {
        match self {
            Self::Bare | Self::HookFloor | Self::Metrics => Ok(None),
            Self::LayerFloor => {
                let layer = Nothing.with_filter(Callsites);
                tracing_subscriber::registry().with(layer).try_init()?;
                Ok(None)
            }
            Self::Spans => straggler(builder(Source::Spans)),
            Self::Hooks => straggler(builder(Source::Hooks)),
            Self::Both => straggler(builder(Source::Both)),
            Self::Otlp => exporting(sink),
            Self::Console => console(),
            Self::OpenTelemetry => opentelemetry(),
        }
    }

    /// Sets the hooks on the runtime that is measured, where there are any.
    pub(crate) fn hook(self, tasks: Option<&Tasks>, builder: &mut tokio::runtime::Builder) {
        if self == Self::HookFloor {
            floor::hook(builder);
        }
        if let Some(tasks) = tasks {
            tasks.hook(builder);
        }
    }
}

/// As a service would have it: everything else is left at its default.
fn builder(source: Source) -> straggler::Builder {
    straggler::Builder::new().source(source)
}

fn straggler(builder: straggler::Builder) -> Result<Option<Tasks>, Failure> {
    let (layer, tasks) = builder.build::<Registry>()?;
    tracing_subscriber::registry().with(layer).try_init()?;
    Ok(Some(tasks))
}

#[cfg(feature = "otlp")]
fn exporting(sink: Option<&str>) -> Result<Option<Tasks>, Failure> {
    use std::time::Duration;
    use straggler::otlp::{Otlp, Protocol};

    /// The default is a minute, in which a process of ours has long ended.
    const INTERVAL: Duration = Duration::from_millis(100);
    let sink = sink.ok_or("the job names no sink to export to")?;
    let otlp = Otlp::new()
        .endpoint(sink)
        .protocol(Protocol::HttpProtobuf)
        .interval(INTERVAL);
    straggler(builder(Source::Spans).otlp(otlp))
}

#[cfg(not(feature = "otlp"))]
fn exporting(_: Option<&str>) -> Result<Option<Tasks>, Failure> {
    Err("this copy was built without the feature `otlp`".into())
}

#[cfg(feature = "console")]
fn console() -> Result<Option<Tasks>, Failure> {
    let layer = console_subscriber::ConsoleLayer::builder()
        .server_addr(([127, 0, 0, 1], 0))
        .spawn();
    tracing_subscriber::registry().with(layer).try_init()?;
    Ok(None)
}

#[cfg(not(feature = "console"))]
fn console() -> Result<Option<Tasks>, Failure> {
    Err("this copy was built without the feature `console`".into())
}

/// Through the SDK's batch processor, as in a service, to an exporter that drops what it gets.
/// With the floor's filter, so that it sees the same spans and events and no more.
fn opentelemetry() -> Result<Option<Tasks>, Failure> {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(Dropped)
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("overhead"))
        .with_filter(Callsites);
    tracing_subscriber::registry().with(layer).try_init()?;
    // For as long as the process: dropping the last one would stop it.
    opentelemetry::global::set_tracer_provider(provider);
    Ok(None)
}

#[derive(Debug)]
struct Dropped;

impl opentelemetry_sdk::trace::SpanExporter for Dropped {
    async fn export(
        &self,
        batch: Vec<opentelemetry_sdk::trace::SpanData>,
    ) -> opentelemetry_sdk::error::OTelSdkResult {
        drop(batch);
        Ok(())
    }
}

/// `tokio-metrics`, which sees what is wrapped by hand.
#[derive(Clone, Debug)]
pub(crate) struct Metered(pub(crate) tokio_metrics::TaskMonitor);

impl Spawn for Metered {
    #[track_caller]
    fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        tokio::spawn(self.0.instrument(future))
    }
}
