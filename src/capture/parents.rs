//! The user spans around a spawn.

use super::is_task_span;
use crate::capture::local::Local;
use crate::table::{Fate, Key, SpanFate, Spawner, Table, traits};
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
    pub(crate) trace_context: fn() -> Option<opentelemetry::trace::SpanContext>,
    /// Looks the current span up in a subscriber of the type that `build` was told.
    pub(crate) around_current: fn(&Dispatch, &Table, &ParentRules) -> Around,
}

/// What is around a spawn, without the trace.
#[derive(Debug, Default)]
pub(crate) struct Around {
    innermost: Option<ParentSpan>,
    outermost: Option<Arc<SpanFate>>,
}

/// The task in which a user span was created.
#[derive(Clone)]
struct Home {
    key: Key,
    fate: Arc<Fate>,
}

/// Kept in the extensions of a user span whose place in the registry's tree doesn't
/// tell in which task it was created.
struct NotedHome(Option<Home>);

impl ParentRules {
    pub(crate) fn may_be_parent(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span()
            && !is_tokios(metadata)
            && (self.targets).would_enable(metadata.target(), metadata.level())
    }

    /// Adds the trace to what is around.
    pub(crate) fn spans(&self, around: Around) -> Option<Spans> {
        #[cfg(feature = "opentelemetry")]
        let context = (self.trace_context)();
        #[cfg(feature = "opentelemetry")]
        let none = context.is_none();
        #[cfg(not(feature = "opentelemetry"))]
        let none = true;
        if none && around.innermost.is_none() {
            return None;
        }
        Some(Spans {
            outermost: around.outermost,
            innermost: around.innermost,
            #[cfg(feature = "opentelemetry")]
            context,
        })
    }
}

/// tokio's own spans are never parents.
fn is_tokios(metadata: &Metadata<'_>) -> bool {
    is_task_span(metadata) || metadata.name().starts_with("runtime.resource")
}

/// The trace that is current for this version of the `opentelemetry` crate.
#[cfg(feature = "opentelemetry")]
pub(crate) fn current_trace() -> Option<opentelemetry::trace::SpanContext> {
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
        let noted = (outermost.extensions().get::<NotedHome>()).map(|home| home.0.clone());
        let home = noted.unwrap_or_else(|| {
            let key = home_span.and_then(|span| table.by_span(span))?;
            Home::of(table, key)
        });
        if let Some(home) = &home {
            // From now on the enters and exits of this task's user spans matter.
            table.slot(home.key).add_traits(traits::HOSTS_SPANS);
        }
        let span = ParentSpan::new(outermost.metadata());
        table.span_fate(id, || SpanFate::new(span, home.map(|home| home.fate)))
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
pub(crate) fn note_home<'a, R>(span: &SpanRef<'a, R>, local: &Local, table: &Table)
where
    R: LookupSpan<'a>,
{
    let home = match local.spawner(table) {
        Spawner::Task(key) => Home::of(table, key),
        Spawner::None | Spawner::Unknown(_) => None,
    };
    span.extensions_mut().replace(NotedHome(home));
}

impl Home {
    fn of(table: &Table, key: Key) -> Option<Self> {
        let slot = table.slot(key);
        let id = slot.id();
        let fate = slot.with_record(key.generation, |record| record.fate(id))?;
        Some(Self { key, fate })
    }
}
