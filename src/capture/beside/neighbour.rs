//! A subscriber that was a thread's before [`Beside`](super::Beside), asked as tracing asks it.

use super::thread;
use dashmap::DashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing_core::callsite::Identifier;
use tracing_core::field::{Field, FieldSet, Visit};
use tracing_core::subscriber::Interest;
use tracing_core::{Dispatch, Event, Metadata};

pub(super) struct Neighbour {
    pub(super) dispatch: Dispatch,
    /// What it said of callsites, while the process had as many subscribers as that.
    interests: DashMap<Identifier, Interest>,
    subscribers: AtomicUsize,
    /// Whether it is the process's, and so the same on every thread that has no other.
    pub(super) is_global: bool,
}

/// Whether a thread that has this subscriber has none of its own. Only its text tells.
pub(super) fn is_unset(dispatch: &Dispatch) -> bool {
    format!("{dispatch:?}").starts_with("Dispatch::Global")
}

impl Neighbour {
    pub(super) fn new(dispatch: Dispatch) -> Self {
        Self {
            is_global: is_unset(&dispatch),
            dispatch,
            interests: DashMap::new(),
            subscribers: AtomicUsize::new(0),
        }
    }

    /// Whether both are the same subscriber, met on different threads.
    pub(super) fn is(&self, other: &Self) -> bool {
        // Nothing but its text tells of a dispatcher which it is: kind and address.
        std::ptr::eq(self, other)
            || format!("{:?}", self.dispatch) == format!("{:?}", other.dispatch)
    }

    /// Whether it would be told of this, were it alone. A registry whose layers have filters of
    /// their own leaves it to tracing to keep what none of them wants from it, so it is asked
    /// for its interest first. `callsite` is the same metadata, where tracing knows of it.
    pub(super) fn wants(
        &self,
        metadata: &Metadata<'_>,
        callsite: Option<&'static Metadata<'static>>,
    ) -> bool {
        let Some(callsite) = callsite else {
            return self.dispatch.enabled(metadata);
        };
        let interest = self.interest(callsite);
        interest.is_always() || (!interest.is_never() && self.dispatch.enabled(metadata))
    }

    fn interest(&self, callsite: &'static Metadata<'static>) -> Interest {
        let now = thread::subscribers();
        if self.subscribers.swap(now, Ordering::AcqRel) != now {
            // A filter may have changed its mind.
            self.interests.clear();
        }
        let id = callsite.callsite();
        if let Some(known) = self.interests.get(&id) {
            return known.clone();
        }
        let interest = self.dispatch.register_callsite(callsite);
        self.interests.insert(id, interest.clone());
        interest
    }
}

/// Calls `f` with what filters are to judge an event by. The `log` crate's records come as
/// events of five callsites that tracing doesn't know of, and are judged by what they came from.
pub(super) fn with_origin<R>(event: &Event<'_>, f: impl FnOnce(&Metadata<'_>) -> R) -> R {
    let metadata = event.metadata();
    if metadata.target() != "log" || metadata.fields().field("log.target").is_none() {
        return f(metadata);
    }
    let mut record = Record::default();
    event.record(&mut record);
    f(&Metadata::new(
        "log record",
        record.target.as_deref().unwrap_or_default(),
        *metadata.level(),
        record.file.as_deref(),
        record.line,
        record.module.as_deref(),
        FieldSet::new(FIELDS, metadata.callsite()),
        tracing_core::metadata::Kind::EVENT,
    ))
}

/// The fields of such an event.
const FIELDS: &[&str] = &[
    "message",
    "log.target",
    "log.module_path",
    "log.file",
    "log.line",
];

#[derive(Default)]
struct Record {
    target: Option<String>,
    module: Option<String>,
    file: Option<String>,
    line: Option<u32>,
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        let text = match field.name() {
            "log.target" => &mut self.target,
            "log.module_path" => &mut self.module,
            "log.file" => &mut self.file,
            _ => return,
        };
        *text = Some(value.to_owned());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "log.line" {
            self.line = u32::try_from(value).ok();
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
