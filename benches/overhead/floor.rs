//! What a filtered layer or a hook costs that does nothing: what tokio, `tracing` and the Registry
//! do before the first line of straggler's runs. The layer is behind `with_filter`, as any filtered
//! layer is. straggler's own passes the filter by on enter, exit and close, so that beside user
//! spans it can cost less than this floor.

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer};

/// A layer that does nothing.
#[derive(Debug)]
pub(crate) struct Nothing;

impl<S: Subscriber> Layer<S> for Nothing {}

/// Switches on what straggler's own filter does with `Source::Spans`: tokio's task spans and
/// waker events, and the spans that may be parents. Decided once a callsite, as there.
#[derive(Debug)]
pub(crate) struct Callsites;

fn wanted(metadata: &Metadata<'_>) -> bool {
    if metadata.is_event() {
        return metadata.target() == "tokio::task::waker";
    }
    match metadata.name() {
        "runtime.spawn" => matches!(metadata.target(), "tokio::task" | "tokio::task::blocking"),
        name => !name.starts_with("runtime.resource") && *metadata.level() <= Level::INFO,
    }
}

impl<S> Filter<S> for Callsites {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        wanted(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        match wanted(metadata) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }
}

/// Sets the four hooks, each of which does nothing.
pub(crate) fn hook(builder: &mut tokio::runtime::Builder) {
    builder.on_task_spawn(|_| {});
    builder.on_before_task_poll(|_| {});
    builder.on_after_task_poll(|_| {});
    builder.on_task_terminate(|_| {});
}
