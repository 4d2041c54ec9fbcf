//! tokio's spans and waker events as a source, and the user's spans as parents.

use super::local::{self, Local, Seen};
use super::parents::{self, Around, ParentRules};
use super::sight::{self, Sight};
use super::spawn::{Sighting, Wrapped};
use super::visit::{TaskFields, WakerFields};
use super::{is_task_span, is_waker_event};
use crate::config::Source;
#[cfg(feature = "otlp")]
use crate::export::Exporter;
use crate::monitor::Monitor;
use crate::table::{Key, Place, SpanFate, Table, WakerOp, traits};
use crate::task::{Kind, Spans};
use crate::tasks;
#[cfg(feature = "testing")]
use crate::tasks::Tasks;
use std::fmt;
use std::sync::Arc;
use tracing_core::span::{Attributes, Id};
use tracing_core::subscriber::Interest;
use tracing_core::{Event, LevelFilter, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer};
use tracing_subscriber::registry::LookupSpan;

/// The layer itself, inside the filter of [`straggler::Layer`](crate::Layer).
pub(crate) struct Capture {
    pub(crate) table: Arc<Table>,
    pub(crate) rules: Arc<ParentRules>,
    pub(crate) sight: Arc<Sight>,
    /// The three above, with what a handle has besides.
    pub(crate) shared: Arc<tasks::Shared>,
    /// Runs for as long as the layer does.
    pub(crate) monitor: Option<Arc<Monitor>>,
    #[cfg(feature = "otlp")]
    pub(crate) exporter: Option<Arc<Exporter>>,
    pub(crate) seat: Arc<()>,
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Capture");
        debug.field("monitor", &self.monitor);
        #[cfg(feature = "otlp")]
        debug.field("exporter", &self.exporter);
        debug.finish_non_exhaustive()
    }
}

/// Lets tokio's task spans and waker events through to straggler, and the spans that
/// may be parents, and decides so once a callsite. It is attached to this layer alone:
/// other layers see what they saw without it.
#[derive(Debug)]
pub(crate) struct CaptureFilter {
    pub(crate) source: Source,
    pub(crate) rules: Arc<ParentRules>,
}

impl CaptureFilter {
    pub(crate) fn wants(&self, metadata: &Metadata<'_>) -> bool {
        if is_task_span(metadata) || is_waker_event(metadata) {
            sight::reached(&self.rules, metadata);
            return self.source.spans();
        }
        self.rules.may_be_parent(metadata)
    }
}

impl<S> Filter<S> for CaptureFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        #[cfg(feature = "opentelemetry")]
        self.rules.foreign.callsite(metadata);
        if self.wants(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        if self.source.spans() {
            return Some(LevelFilter::TRACE);
        }
        Filter::<S>::max_level_hint(&self.rules.targets)
    }
}

impl<S> Layer<S> for Capture
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_register_dispatch(&self, dispatch: &tracing_core::Dispatch) {
        self.connect(dispatch);
        super::behind::note(dispatch, self);
        self.table.strangers.installed();
    }

    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // The filter has answered; but an `Option` round us hears of the subscriber only so.
        self.table.set_installed();
        Interest::always()
    }

    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if is_task_span(attrs.metadata()) {
            self.task_span(attrs, id, &ctx);
            return;
        }
        // A contextual span's task is found through its parents, if it is needed.
        let told_by_parents = attrs.is_contextual() && self.table.config.source.spans();
        let outermost = || ctx.lookup_current().is_none();
        if told_by_parents || (attrs.is_contextual() && !outermost()) {
            return;
        }
        local::with(&self.table, |local| {
            parents::note_home(id.into_u64(), attrs.metadata(), local, &self.table);
            local.note_unseen(&self.table);
        });
    }

    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        let span = id.into_u64();
        let done = local::try_with(&self.table, |local| {
            if !local.enter_span(&self.table, span)
                && let Some((_, fate)) = self.home_and_fate(local, span)
            {
                fate.enter();
            }
        });
        if done.is_none() {
            self.missed(span);
        }
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        let span = id.into_u64();
        let done = local::try_with(&self.table, |local| {
            if !local.exit_span(&self.table, span)
                && let Some((home, fate)) = self.home_and_fate(local, span)
            {
                let turns = self.table.slot(home).turn.turns();
                fate.leave(self.table.clock.now(), turns);
            }
        });
        if done.is_none() {
            self.missed(span);
        }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.sight.wake_came();
        let mut fields = WakerFields::default();
        event.record(&mut fields);
        let Some(op) = fields.op else { return };
        local::with(&self.table, |local| {
            let span = fields.span;
            #[cfg(feature = "testing")]
            let span = super::beside::own_number(span);
            let own = local.own(span);
            let found = match own {
                Some(key) => Some((key, self.table.slot(key))),
                None => self.table.by_span(span),
            };
            let Some((key, slot)) = found else {
                // After the end, or a task that was refused.
                return;
            };
            if own.is_some() && op == WakerOp::Clone && self.table.config.may_miss_wakes {
                local.registered();
            }
            let now = || self.table.clock.now();
            let by_itself = own.is_some() && op.wakes() && local.is_polling();
            let applied = slot.wakes.apply(key.generation, op, by_itself, now);
            if !applied && slot.generation() == key.generation {
                self.table.loss.out_of_order();
            }
        });
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let span = id.into_u64();
        let Some((key, _)) = self.table.by_span(span) else {
            self.table.close_span(span);
            return;
        };
        let closed = local::with(&self.table, |local| local.close(&self.table, key));
        if closed.is_none() {
            self.table.end_without_local(key);
        }
    }
}

impl Capture {
    /// A handle like the one that was given out with the layer.
    #[cfg(feature = "testing")]
    pub(crate) fn tasks(&self) -> Tasks {
        Tasks {
            shared: Arc::clone(&self.shared),
            monitor: self.monitor.clone(),
            #[cfg(feature = "otlp")]
            exporter: self.exporter.clone(),
        }
    }

    pub(crate) fn connect(&self, dispatch: &tracing_core::Dispatch) {
        self.table.set_installed();
        self.sight.connect(dispatch, &self.seat);
    }

    /// A span was entered or left on a thread that has no storage any more. Most are none of ours.
    #[cold]
    fn missed(&self, span: u64) {
        if self.table.by_span(span).is_some() || self.table.known_span_fate(span).is_some() {
            self.table.loss.thread_gone();
        }
    }

    /// The task being polled here and the fate of a user span, if the span was created in it
    /// and tasks were spawned under it.
    #[inline]
    fn home_and_fate(&self, local: &Local, span: u64) -> Option<(Key, Arc<SpanFate>)> {
        let home = local.host(&self.table)?;
        let fate = self.table.known_span_fate(span)?;
        let id = self.table.slot(home).id();
        let is_home = (fate.home.as_ref()).is_some_and(|home| home.id.as_u64() == id);
        is_home.then_some((home, fate))
    }

    fn task_span<S>(&self, attrs: &Attributes<'_>, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        self.sight.task_came();
        if let Some(wrapped) = Wrapped::take(&self.table) {
            let mut fields = TaskFields::default();
            fields.clear(self.table.config.max_name_len);
            attrs.record(&mut fields);
            wrapped.enter(Sighting {
                id: fields.id,
                span: id.into_u64(),
                kind: fields.kind(),
                traits: traits::KNOWS_WAKES,
            });
            return;
        }
        let around = match ctx.current_span().metadata() {
            Some(current) if !is_task_span(current) => {
                parents::around(ctx.lookup_current(), &self.table, &self.rules)
            }
            // No user span lies between the spawner and here: the rule.
            _ => Around::default(),
        };
        let spans = self.rules.spans(around);
        local::with(&self.table, |local| {
            local.spawn_from_span(&self.table, attrs, id.into_u64(), spans);
        });
    }
}

impl Local {
    fn spawn_from_span(
        &mut self,
        table: &Table,
        attrs: &Attributes<'_>,
        span: u64,
        spans: Option<Spans>,
    ) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear(table.config.max_name_len);
        attrs.record(&mut fields);
        if fields.name.is_cut() {
            table.loss.name_cut();
        }
        let kind = fields.kind();
        let mut traits = 0;
        // tokio gives the other two no waker of its own.
        if matches!(kind, Kind::Task | Kind::Local) {
            traits |= traits::KNOWS_WAKES;
            if table.config.may_miss_wakes {
                traits |= traits::MAY_MISS_WAKES;
            }
        }
        let task = Seen {
            id: fields.id,
            span,
            place: Place {
                file: fields.file.as_str(),
                line: fields.line,
                column: fields.column,
                kind,
                name: fields.name.as_str(),
            },
            size: fields.size,
            spans,
            traits,
        };
        let key = self.spawn(table, task);
        if let Some(key) = key
            && kind == Kind::BlockOn
        {
            self.add_block_on(table, key, span);
        }
        self.fields = fields;
    }
}
