//! A runtime that nobody sees: what the export does must not show in what is exported.
//!
//! Its spans and events go to a subscriber of our own. Two things about `tracing` shape it:
//!
//! - A dispatcher that is set on *any* thread takes away the short cut that all others have
//!   to the global one. So it is set only while this thread is awake, not while it waits for
//!   the network.
//! - What a callsite is worth is asked once, of every subscriber there is. Ours answers as the
//!   program's own would, so that nothing changes for anybody. (With one that isn't
//!   registered, as `Dispatch::none()`, a callsite first met here could be switched off for all.)

use crate::monitor::Outlet;
use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::{Builder, Runtime};
use tracing_core::dispatcher::{self, DefaultGuard};
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::subscriber::Interest;
use tracing_core::{Dispatch, Event, LevelFilter, Metadata, Subscriber};

thread_local! {
    static GUARD: Cell<Option<DefaultGuard>> = const { Cell::new(None) };
}

/// Makes threads quiet.
#[derive(Clone, Debug)]
pub(crate) struct Quiet {
    dispatch: Dispatch,
}

impl Quiet {
    /// `rejected_spans` counts those that an exporter says it was refused: it says so in
    /// an event, and nowhere else.
    pub(crate) fn new(outlet: Arc<Outlet>, rejected_spans: Arc<AtomicU64>) -> Self {
        let dispatch = Dispatch::new(Hush {
            outlet,
            rejected_spans,
        });
        Self { dispatch }
    }

    /// From here on this thread is quiet.
    pub(crate) fn enter(&self) {
        GUARD.set(Some(dispatcher::set_default(&self.dispatch)));
    }

    /// Until here.
    pub(crate) fn leave() {
        drop(GUARD.take());
    }

    /// A runtime to be driven by this thread, which is quiet whenever it is awake.
    pub(crate) fn runtime(&self) -> io::Result<Runtime> {
        let (quiet, at_last) = (self.clone(), self.clone());
        Builder::new_current_thread()
            .enable_all()
            // Those of look-ups of names: one for each signal, however long they hang.
            .max_blocking_threads(2)
            .thread_name("straggler-dns")
            // tokio tells of its end; before that it only waits, and that may be long.
            .on_thread_stop(move || at_last.enter())
            .on_thread_unpark(move || quiet.enter())
            .on_thread_park(Self::leave)
            .build()
    }
}

/// Hears one kind of event and forgets the rest.
#[derive(Debug)]
struct Hush {
    outlet: Arc<Outlet>,
    rejected_spans: Arc<AtomicU64>,
}

/// `opentelemetry-otlp` says in an event of this name what a receiver did not take.
fn is_partial_success(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && metadata.name().ends_with("PartialSuccess")
}

fn is_task_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.name() == "runtime.spawn"
}

impl Subscriber for Hush {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_partial_success(metadata) {
            return Interest::sometimes();
        }
        let of_host = match self.outlet.dispatch() {
            Some(host) => host.register_callsite(metadata),
            None => Interest::never(),
        };
        if is_task_span(metadata) && of_host.is_always() {
            // So that tokio asks, and our tasks have none: whoever wakes a task with a span
            // says so, which the network does while this thread has the program's dispatcher.
            return Interest::sometimes();
        }
        of_host
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // What a partial success is told at. Others have their own.
        Some(LevelFilter::WARN)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_partial_success(metadata)
    }

    fn event(&self, event: &Event<'_>) {
        if is_partial_success(event.metadata()) {
            event.record(&mut Rejected(&self.rejected_spans));
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Rejected<'a>(&'a AtomicU64);

impl Visit for Rejected<'_> {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record_u64(field, u64::try_from(value).unwrap_or(0));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "rejected_spans" {
            self.0.fetch_add(value, Ordering::Relaxed);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
