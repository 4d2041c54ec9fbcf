//! Who started a task, and what it means that they are gone.

use super::TaskId;
use crate::table::SpanFate;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What a task was spawned from: the task that was being polled, the user spans that
/// were current, the trace they belong to.
#[derive(Clone)]
pub struct Parent {
    /// Of no meaning where its status is `None`.
    task: TaskId,
    status: ParentStatus,
    spans: Option<Arc<Spans>>,
}

/// What was around the spawn besides the task. Shared by the record and the snapshot.
#[derive(Debug)]
pub(crate) struct Spans {
    pub(crate) outermost: Option<Arc<SpanFate>>,
    pub(crate) innermost: Option<ParentSpan>,
    #[cfg(feature = "opentelemetry")]
    pub(crate) context: Option<opentelemetry::trace::SpanContext>,
}

impl Parent {
    /// Nothing for a root.
    pub(crate) fn new(
        task: Option<TaskId>,
        status: ParentStatus,
        spans: Option<Arc<Spans>>,
    ) -> Option<Self> {
        if task.is_none() && spans.is_none() {
            return None;
        }
        Some(Self {
            task: task.unwrap_or(TaskId::from_u64(0)),
            status,
            spans,
        })
    }

    /// The innermost task at the spawn.
    pub fn task(&self) -> Option<TaskId> {
        (self.status != ParentStatus::None).then_some(self.task)
    }

    /// What has become of that task.
    pub fn status(&self) -> ParentStatus {
        self.status
    }

    /// The innermost user span at the spawn, of those that
    /// [`Builder::parent_spans`](crate::Builder::parent_spans) lets be parents.
    pub fn span(&self) -> Option<ParentSpan> {
        self.spans.as_ref()?.innermost
    }

    /// The outermost user span at the spawn: as a rule the request. Its end is what
    /// the task is judged by.
    pub fn outermost_span(&self) -> Option<ParentSpan> {
        let outermost = self.spans.as_ref()?.outermost.as_ref()?;
        Some(outermost.span())
    }

    /// The OpenTelemetry span that was current at the spawn.
    #[cfg(feature = "opentelemetry")]
    pub fn span_context(&self) -> Option<&opentelemetry::trace::SpanContext> {
        self.spans.as_ref()?.context.as_ref()
    }
}

impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parent")
            .field("task", &self.task())
            .field("status", &self.status)
            .field("spans", &self.spans)
            .finish()
    }
}

/// What has become of a task's parent task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParentStatus {
    /// It has none; the parent is a span only.
    None,
    /// It is alive, and in the same snapshot.
    Live,
    /// It ended.
    Ended,
    /// It was never seen: older than the layer, refused at a limit, or of a kind that
    /// the source doesn't see. An unknown parent makes no orphans.
    Unknown,
}

impl fmt::Display for ParentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Live => "live",
            Self::Ended => "ended",
            Self::Unknown => "unknown",
        })
    }
}

/// The name and target of a user span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParentSpan {
    name: &'static str,
    target: &'static str,
}

impl ParentSpan {
    pub(crate) fn new(metadata: &'static tracing_core::Metadata<'static>) -> Self {
        Self {
            name: metadata.name(),
            target: metadata.target(),
        }
    }

    #[cfg(all(test, not(straggler_loom)))]
    pub(crate) fn for_tests(name: &'static str) -> Self {
        Self { name, target: "" }
    }

    /// The span's name, as in `info_span!("name")`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The span's target, as a rule the module that made it.
    pub fn target(&self) -> &'static str {
        self.target
    }
}

/// Why a task is an orphan, since when, and how surely.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Orphaned {
    /// Nanoseconds after 1970, which no clock of a running program is behind.
    since: u64,
    /// Nanoseconds, too.
    elapsed: u64,
    cause: Cause,
    certainty: Certainty,
}

impl Orphaned {
    pub(crate) fn new(since: SystemTime, elapsed: u64, cause: Cause, certainty: Certainty) -> Self {
        let since = since.duration_since(SystemTime::UNIX_EPOCH);
        Self {
            since: since.map_or(0, crate::clock::nanos),
            elapsed,
            cause,
            certainty,
        }
    }

    /// When what started it ended.
    pub fn since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.since)
    }

    /// How long ago that was.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed)
    }

    /// What ended.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Whether what ended surely ended.
    pub fn certainty(&self) -> Certainty {
        self.certainty
    }
}

impl fmt::Debug for Orphaned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orphaned")
            .field("since", &self.since())
            .field("elapsed", &self.elapsed())
            .field("cause", &self.cause)
            .field("certainty", &self.certainty)
            .finish()
    }
}

/// What ended before the orphan did. `Display` gives the value of
/// `tokio.task.orphan.cause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Cause {
    /// The task that spawned it.
    ParentEnded,
    /// The task in which the outermost user span at the spawn was created.
    SpanTaskEnded,
    /// The outermost user span at the spawn was closed.
    SpanClosed,
    /// The outermost user span was left: the task it was created in has been polled
    /// since without entering it. The orphan itself may be what keeps it open.
    SpanLeft,
}

impl Cause {
    #[cfg(feature = "otlp")]
    pub(crate) const ALL: [Self; 4] = [
        Self::ParentEnded,
        Self::SpanTaskEnded,
        Self::SpanClosed,
        Self::SpanLeft,
    ];

    /// The value of `tokio.task.orphan.cause`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ParentEnded => "parent_ended",
            Self::SpanTaskEnded => "span_task_ended",
            Self::SpanClosed => "span_closed",
            Self::SpanLeft => "span_left",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How surely what started an orphan has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Certainty {
    /// Only a span closed or was left, while its task lives on: the work may be over,
    /// or merely handed on. Also: the parent task is *ending, unconfirmed*.
    Likely,
    /// A task ended.
    Certain,
}

impl Certainty {
    /// `likely` or `certain`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

impl fmt::Display for Certainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
