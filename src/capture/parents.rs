//! The user spans around a spawn.

use super::beside::Beside;
use super::{behind, is_task_span};
use crate::capture::local::Local;
use crate::table::{Key, SpanFate, Spawner, Table, traits};
use crate::task::{ParentSpan, Spans};
use std::sync::Arc;
use tracing_core::{Dispatch, Metadata};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

/// Which user spans may be parents, and how the OpenTelemetry span is found.
#[derive(Debug)]
pub(crate) struct ParentRules {
    pub(crate) targets: Targets,
    #[cfg(feature = "opentelemetry")]
    /// `None` for that of our own version of the crate.
    pub(crate) trace_context: Option<fn() -> Option<opentelemetry::trace::SpanContext>>,
    #[cfg(feature = "opentelemetry")]
    pub(crate) foreign: super::Foreign,
    /// Looks the current span up in a subscriber of the type that `build` was told.
    pub(crate) around_current: fn(&Dispatch, &Table, &ParentRules) -> Around,
}

/// What is around a spawn, without the trace.
#[derive(Debug, Default)]
pub(crate) struct Around {
    innermost: Option<ParentSpan>,
    outermost: Option<Arc<SpanFate>>,
}

impl ParentRules {
    pub(crate) fn may_be_parent(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span()
            && !is_tokios(metadata)
            && (self.targets).would_enable(metadata.target(), metadata.level())
    }

    /// Adds the trace to what is around.
    pub(crate) fn spans(&self, around: Around) -> Option<Spans> {
        #[cfg(feature = "opentelemetry")]
        let context = self.trace();
        #[cfg(feature = "opentelemetry")]
        let none = context.is_none();
        #[cfg(not(feature = "opentelemetry"))]
        let none = true;
        if none && around.innermost.is_none() {
            return None;
        }
        #[cfg(feature = "opentelemetry")]
        self.foreign.spawned(!none);
        Some(Spans {
            outermost: around.outermost,
            innermost: around.innermost,
            #[cfg(feature = "opentelemetry")]
            context,
        })
    }
}

#[cfg(feature = "opentelemetry")]
impl ParentRules {
    fn trace(&self) -> Option<opentelemetry::trace::SpanContext> {
        // The host's code, and on a thread that is ending its storage may be gone.
        let context = self.trace_context.unwrap_or(current_trace);
        let current = std::panic::catch_unwind(context).unwrap_or(None);
        // What bridges to another version gives an empty one where there is none.
        current.filter(opentelemetry::trace::SpanContext::is_valid)
    }
}

/// tokio's own spans are never parents.
fn is_tokios(metadata: &Metadata<'_>) -> bool {
    is_task_span(metadata) || metadata.name().starts_with("runtime.resource")
}

/// The trace that is current for this version of the `opentelemetry` crate.
#[cfg(feature = "opentelemetry")]
fn current_trace() -> Option<opentelemetry::trace::SpanContext> {
    use opentelemetry::trace::TraceContextExt;
    opentelemetry::Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| span.clone())
    })
}

/// The innermost and the outermost user span from `current` outwards, up to the task
/// in which the outermost was created.
pub(crate) fn around<'a, R>(
    current: Option<SpanRef<'a, R>>,
    table: &Table,
    rules: &ParentRules,
) -> Around
where
    R: LookupSpan<'a>,
{
    let Some(current) = current else {
        return Around::default();
    };
    let mut innermost = None;
    let mut outermost = None;
    let mut home_span = None;
    for span in current.scope() {
        if is_task_span(span.metadata()) {
            home_span = Some(span.id().into_u64());
            break;
        }
        if rules.may_be_parent(span.metadata()) {
            innermost.get_or_insert(ParentSpan::new(span.metadata()));
            outermost = Some(span);
        }
    }
    let Some(outermost) = outermost else {
        return Around::default();
    };
    let id = outermost.id().into_u64();
    let fate = table.known_span_fate(id).unwrap_or_else(|| {
        let home = home_span
            .and_then(|span| table.by_span(span))
            .map(|(key, _)| key);
        span_fate(table, id, outermost.metadata(), home)
    });
    Around {
        innermost,
        outermost: Some(fate),
    }
}

/// The same, found through a subscriber of type `S`: for the spawn hook, which is
/// called without a layer's context.
pub(crate) fn around_current<S>(dispatch: &Dispatch, table: &Table, rules: &ParentRules) -> Around
where
    S: tracing_core::Subscriber + for<'a> LookupSpan<'a>,
{
    // Elsewhere nobody would tell us that the span has closed, nor whose number it is.
    if !behind::is_in(dispatch, table) {
        return Around::default();
    }
    if let Some(beside) = dispatch.downcast_ref::<Beside>() {
        return around(beside.current(), table, rules);
    }
    let current = dispatch.current_span();
    let Some(id) = current.id() else {
        return Around::default();
    };
    let Some(registry) = dispatch.downcast_ref::<S>() else {
        return Around::default();
    };
    around(registry.span(id), table, rules)
}

/// Notes in which task a user span was created, where its parents won't tell.
///
/// In the table, not in the span's extensions: a layer of the host's may hold their
/// lock while it spawns, and another straggler's layer would find our keys in them.
pub(crate) fn note_home(
    span: u64,
    metadata: &'static Metadata<'static>,
    local: &Local,
    table: &Table,
) {
    let home = match local.spawner(table) {
        Spawner::Task(key) => Some(key),
        Spawner::None | Spawner::Unknown(_) => None,
    };
    span_fate(table, span, metadata, home);
}

fn span_fate(
    table: &Table,
    span: u64,
    metadata: &'static Metadata<'static>,
    home: Option<Key>,
) -> Arc<SpanFate> {
    let fate = home.and_then(|key| {
        let slot = table.slot(key);
        let fate = slot.with_record(key.generation, |record| slot.fate(record))?;
        // From now on the enters and exits of this task's user spans matter.
        slot.add_traits(traits::HOSTS_SPANS);
        Some(fate)
    });
    table.span_fate(span, || SpanFate::new(ParentSpan::new(metadata), fate))
}
