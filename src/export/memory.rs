//! What is exported, kept in the process: for tests, in the place of the network.
//!
//! It is put where the network begins: drafts, ids, queues, batches and OTLP's messages of
//! metrics are made as for a receiver, by the same threads.

use super::catalog;
use super::encode::Which;
use super::exported::{self, Metric};
use super::wire::Sent;
use crate::Error;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_sdk::trace::SpanData;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;

/// Keeps what straggler exports in this process, so that a test can look at it: no receiver, no
/// network, no waiting.
///
/// Given to [`Otlp::in_memory`](super::Otlp::in_memory), it takes the place of the network and of
/// nothing else. After [`Tasks::flush`](crate::Tasks::flush) everything up to then is here: the
/// spans of orphans, and the metrics as of that flush. straggler looks for orphans each second
/// as well, so a span may be here before. Cloning it gives another handle to the same, and each
/// [`build`](crate::Builder::build) needs one of its own.
///
/// ```
/// use std::time::Duration;
/// use straggler::otlp::{InMemory, Otlp};
/// use tracing_subscriber::prelude::*;
///
/// let exported = InMemory::new();
/// let (layer, tasks) = straggler::Builder::new()
///     .orphan_grace(Duration::ZERO)
///     .warn_on_orphans(false)
///     .otlp(Otlp::new().in_memory(&exported))
///     .build()?;
/// let _guard = tracing_subscriber::registry().with(layer).set_default();
///
/// let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// runtime.block_on(async {
///     let request = straggler::spawn(async {
///         straggler::task("leaked").spawn(std::future::pending::<()>());
///     });
///     request.await.unwrap();
///     tasks.flush(Duration::from_secs(5))
/// })?;
///
/// let names: Vec<_> = exported.spans().into_iter().map(|span| span.name).collect();
/// assert_eq!(names, ["orphan leaked"]);
/// let orphans = exported.metric("tokio.task.orphan.count").expect("a metric of straggler's");
/// assert_eq!(orphans.with("tokio.task.name", "leaked").total(), Some(1.0));
/// # Ok::<(), straggler::Error>(())
/// ```
///
/// # Cost
///
/// The spans, as the SDK's [`SpanData`], up to a [limit](Self::with_max_spans), and one export of
/// metrics: the newest, as they are cumulative. To ask copies what is given.
#[derive(Clone)]
pub struct InMemory {
    kept: Arc<Mutex<Kept>>,
}

struct Kept {
    max_spans: usize,
    spans: Vec<SpanData>,
    /// The newest.
    metrics: Option<ExportMetricsServiceRequest>,
    /// Which of straggler's own metrics come here.
    which: Option<Which>,
    is_taken: bool,
}

/// More than may be alive and marked at a time, by default.
const MAX_SPANS: usize = 16_384;

impl Default for InMemory {
    fn default() -> Self {
        Self::new()
    }
}

impl InMemory {
    /// With room for 16,384 spans.
    pub fn new() -> Self {
        Self::with_max_spans(MAX_SPANS)
    }

    /// With room for so many spans. Those that come later are dropped and counted as
    /// `spans_lost`: in [`Loss`](crate::Loss), and in the metric `straggler.loss`.
    pub fn with_max_spans(max: usize) -> Self {
        let kept = Kept {
            max_spans: max,
            spans: Vec::new(),
            metrics: None,
            which: None,
            is_taken: false,
        };
        Self {
            kept: Arc::new(Mutex::new(kept)),
        }
    }

    /// All spans that were exported, oldest first. They come as they are made, and those of what
    /// happened before a [`flush`](crate::Tasks::flush) are here after it.
    ///
    /// Those that go through [`Otlp::tracer_provider`](super::Otlp::tracer_provider) are not here,
    /// but with that provider's exporter.
    pub fn spans(&self) -> Vec<SpanData> {
        self.kept.lock().spans.clone()
    }

    /// All metrics of the newest export that have points. None before the first.
    ///
    /// An export is made by [`Tasks::flush`](crate::Tasks::flush) and
    /// [`Tasks::shutdown`](crate::Tasks::shutdown), by a [`MetricExporter`](super::MetricExporter)
    /// with the program's own metrics, and at an [interval](super::Otlp::interval) where one was
    /// set in code. Exemplars are given once: they are in the first export after their end.
    pub fn metrics(&self) -> Vec<Metric> {
        let kept = self.kept.lock();
        let metrics = kept.metrics.as_ref().map(exported::metrics);
        metrics.unwrap_or_default()
    }

    /// The metric of that name in the newest export.
    ///
    /// One of straggler's own that has no points yet, as the count of orphans before there was
    /// any, is there without points. `None` for a name that straggler doesn't have (or a program,
    /// with a [`MetricExporter`](super::MetricExporter)), for what goes through
    /// [`Otlp::meter_provider`](super::Otlp::meter_provider), and before the first export.
    pub fn metric(&self, name: &str) -> Option<Metric> {
        let kept = self.kept.lock();
        let all = exported::metrics(kept.metrics.as_ref()?);
        let found = all.into_iter().find(|metric| metric.name() == name);
        found.or_else(|| {
            let which = kept.which?;
            let mut known = catalog::ALL.into_iter();
            let instrument = known.find(|one| one.name == name && which.has(one))?;
            Some(Metric::without_points(instrument))
        })
    }

    /// Forgets what is here, which makes room. Counters go on from where they were, and the next
    /// export has them.
    pub fn clear(&self) {
        let mut kept = self.kept.lock();
        kept.spans = Vec::new();
        kept.metrics = None;
    }

    /// For a sender, and for no other: what two tables say in turns can't be told apart.
    pub(super) fn take(&self, which: Option<Which>) -> Result<(), Error> {
        let mut kept = self.kept.lock();
        if kept.is_taken {
            return Err(Error::exporter(
                "this InMemory was given to another Builder, or was built with before, and the \
                 two would mix; give each build an InMemory::new() of its own",
            ));
        }
        kept.is_taken = true;
        kept.which = which;
        Ok(())
    }

    pub(super) fn keep_spans(&self, spans: Vec<SpanData>) -> Sent {
        let mut kept = self.kept.lock();
        let room = kept.max_spans.saturating_sub(kept.spans.len());
        let rejected = spans.len().saturating_sub(room);
        kept.spans.extend(spans.into_iter().take(room));
        Sent {
            rejected: rejected as u64,
            failure: None,
        }
    }

    pub(super) fn keep_metrics(&self, request: ExportMetricsServiceRequest) -> Sent {
        self.kept.lock().metrics = Some(request);
        Sent::default()
    }
}

/// How much there is of each.
impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.kept.lock();
        f.debug_struct("InMemory")
            .field("max_spans", &kept.max_spans)
            .field("spans", &kept.spans.len())
            .field("has_metrics", &kept.metrics.is_some())
            .finish()
    }
}
