//! The layer with its filter, without the filter's share of each enter and exit.
//!
//! A [`Filtered`] layer looks a span up in the `Registry` before it passes an enter, an exit or
//! a close on, to see whether the filter let the span through. Ours looks the span up anyway, in
//! its own table, where no other span is found. So these three go straight to it, and all
//! else goes through the filter. `cargo bench --bench overhead` shows what that is worth.
//!
//! # The unsafe code
//!
//! `tracing-subscriber` asks a layer for its parts by type, with a method that is `unsafe`, and
//! finds out so which layers have filters of their own. That method has to be passed on.

#![allow(unsafe_code, reason = "to pass on a method that is unsafe")]

use super::layer::{Capture, CaptureFilter};
use std::any::TypeId;
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::subscriber::Interest;
use tracing_core::{Dispatch, Event, LevelFilter, Metadata, Subscriber};
use tracing_subscriber::filter::Filtered;
use tracing_subscriber::layer::{Context, Layer as _};
use tracing_subscriber::registry::LookupSpan;

/// The layer that [`Builder::build`](crate::Builder::build) gives: straggler's eyes behind a
/// filter of their own.
///
/// Add it to any subscriber that is built on a `Registry`, before or after other layers.
pub struct Layer<S> {
    filtered: Filtered<Capture, CaptureFilter, S>,
}

impl<S> Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    pub(crate) fn new(capture: Capture, filter: CaptureFilter) -> Self {
        Self {
            filtered: capture.with_filter(filter),
        }
    }
}

impl<S> std::fmt::Debug for Layer<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer")
            .field("capture", self.filtered.inner())
            .field("filter", self.filtered.filter())
            .finish()
    }
}

impl<S> tracing_subscriber::Layer<S> for Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.filtered.on_register_dispatch(dispatch);
    }

    fn on_layer(&mut self, subscriber: &mut S) {
        self.filtered.on_layer(subscriber);
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        self.filtered.register_callsite(metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>, ctx: Context<'_, S>) -> bool {
        self.filtered.enabled(metadata, ctx)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.filtered.max_level_hint()
    }

    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        self.filtered.on_new_span(attrs, id, ctx);
    }

    fn on_record(&self, _: &Id, _: &Record<'_>, _: Context<'_, S>) {}

    fn on_follows_from(&self, _: &Id, _: &Id, _: Context<'_, S>) {}

    fn event_enabled(&self, event: &Event<'_>, ctx: Context<'_, S>) -> bool {
        self.filtered.event_enabled(event, ctx)
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        self.filtered.on_event(event, ctx);
    }

    #[inline]
    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        self.filtered.inner().on_enter(id, ctx);
    }

    #[inline]
    fn on_exit(&self, id: &Id, ctx: Context<'_, S>) {
        self.filtered.inner().on_exit(id, ctx);
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        self.filtered.inner().on_close(id, ctx);
    }

    unsafe fn downcast_raw(&self, id: TypeId) -> Option<*const ()> {
        if id == TypeId::of::<Self>() {
            return Some(std::ptr::from_ref(self).cast());
        }
        // SAFETY: what the caller promises of `id` holds for this call too, which gives a part
        // of `self`, as it must.
        unsafe { self.filtered.downcast_raw(id) }
    }
}
