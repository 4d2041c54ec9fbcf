//! Where spans of orphans go: to our own sender, or to the program's tracer provider.

use super::draft::Draft;
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt,
    TraceFlags, TraceState, Tracer as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, SdkTracer, SpanData, SpanEvents, SpanLinks,
};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Spans on their way to the sender.
#[derive(Debug)]
pub(crate) struct Outbox {
    max: usize,
    queue: Mutex<Queue>,
    /// Tasks whose markers did not arrive; never more than there are markers.
    undelivered: Mutex<Vec<u64>>,
    pub(crate) filled: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    spans: VecDeque<Ready>,
    /// Nobody comes for more.
    closed: bool,
}

/// A span that is ready to be sent.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) span: SpanData,
    /// The live task that it marks.
    pub(crate) marks: Option<u64>,
}

impl Outbox {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            queue: Mutex::default(),
            undelivered: Mutex::new(Vec::new()),
            filled: Notify::new(),
        })
    }

    fn has_room(&self) -> bool {
        self.queue.lock().spans.len() < self.max
    }

    fn put(&self, ready: Ready, max: usize) -> bool {
        let mut queue = self.queue.lock();
        let fits = queue.spans.len() < max && !queue.closed;
        if fits {
            queue.spans.push_back(ready);
        }
        drop(queue);
        if fits {
            self.filled.notify_one();
        }
        fits
    }

    /// Takes the oldest, `max` at most.
    pub(crate) fn take(&self, max: usize) -> Vec<Ready> {
        let mut queue = self.queue.lock();
        let count = queue.spans.len().min(max);
        queue.spans.drain(..count).collect()
    }

    /// The same. After the last of them no more are taken in.
    pub(crate) fn take_to_the_last(&self, max: usize) -> Vec<Ready> {
        let mut queue = self.queue.lock();
        let count = queue.spans.len().min(max);
        queue.closed = count == 0;
        queue.spans.drain(..count).collect()
    }

    /// No more are taken in, and those that are there are not sent.
    pub(crate) fn close(&self) -> usize {
        let mut queue = self.queue.lock();
        queue.closed = true;
        std::mem::take(&mut queue.spans).len()
    }

    /// Those markers did not arrive.
    pub(crate) fn not_delivered(&self, tasks: Vec<u64>) {
        self.undelivered.lock().extend(tasks);
    }
}

/// What became of a span.
#[derive(Debug)]
pub(crate) enum Put {
    Done(SpanContext),
    /// Its parent was not sampled.
    Unsampled,
    /// There was no room, or the program's own provider failed.
    Refused,
}

/// The rules of where in a trace a span goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placing {
    pub(crate) child_within: Duration,
    pub(crate) unsampled_parents: bool,
}

#[derive(Debug)]
enum Place {
    /// Into the trace of its parent.
    Child(SpanContext),
    /// The first of a trace of its own, with a link to the parent if there was one.
    Root(Option<SpanContext>),
}

impl Placing {
    fn place(&self, draft: &Draft) -> Option<Place> {
        let Some(parent) = &draft.parent else {
            return Some(Place::Root(None));
        };
        match parent.is_sampled() {
            true if draft.age <= self.child_within => Some(Place::Child(parent.clone())),
            true => Some(Place::Root(Some(parent.clone()))),
            false => (self.unsampled_parents).then(|| Place::Root(Some(parent.clone()))),
        }
    }
}

#[derive(Debug)]
enum Way {
    Outbox {
        outbox: Arc<Outbox>,
        ids: RandomIdGenerator,
        scope: InstrumentationScope,
        /// More that may be put at the end, when nobody comes after.
        spare: usize,
    },
    Provider {
        tracer: SdkTracer,
        /// Spans in one look, and those left in this one. Its queue is the program's own: more
        /// at a time would push out the program's spans.
        max: usize,
        left: usize,
    },
}

#[derive(Debug)]
pub(crate) struct Out {
    placing: Placing,
    way: Way,
}

impl Out {
    pub(crate) fn to_sender(placing: Placing, outbox: Arc<Outbox>, spare: usize) -> Self {
        let way = Way::Outbox {
            outbox,
            ids: RandomIdGenerator::default(),
            scope: super::scope(),
            spare,
        };
        Self { placing, way }
    }

    /// `max` spans in one look.
    pub(crate) fn to_provider(placing: Placing, tracer: SdkTracer, max: usize) -> Self {
        let left = max;
        let way = Way::Provider { tracer, max, left };
        Self { placing, way }
    }

    pub(crate) fn look_begins(&mut self) {
        if let Way::Provider { max, left, .. } = &mut self.way {
            *left = *max;
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        match &self.way {
            Way::Outbox { outbox, .. } => outbox.has_room(),
            Way::Provider { left, .. } => *left > 0,
        }
    }

    pub(crate) fn take_undelivered(&self) -> Vec<u64> {
        match &self.way {
            Way::Outbox { outbox, .. } => std::mem::take(&mut outbox.undelivered.lock()),
            Way::Provider { .. } => Vec::new(),
        }
    }

    /// Gives the span ids, always fresh ones, and sends it off. `marks` is the live task that it
    /// marks; what is final may use the spare room.
    pub(crate) fn put(&mut self, mut draft: Draft, marks: Option<u64>, is_final: bool) -> Put {
        let Some(place) = self.placing.place(&draft) else {
            return Put::Unsampled;
        };
        if let Place::Root(Some(parent)) = &place {
            let what = KeyValue::new("straggler.link", "parent");
            draft.links.push(Link::new(parent.clone(), vec![what], 0));
        }
        match &mut self.way {
            Way::Outbox {
                outbox,
                ids,
                scope,
                spare,
            } => {
                let span = span_data(draft, place, ids, scope.clone());
                let context = span.span_context.clone();
                let max = outbox.max + if is_final { *spare } else { 0 };
                match outbox.put(Ready { span, marks }, max) {
                    true => Put::Done(context),
                    false => Put::Refused,
                }
            }
            Way::Provider { left: 0, .. } => Put::Refused,
            Way::Provider { tracer, left, .. } => {
                *left -= 1;
                // What runs in there is the program's: a sampler, processors.
                let put = AssertUnwindSafe(|| through(tracer, draft, place));
                panic::catch_unwind(put).unwrap_or(Put::Refused)
            }
        }
    }
}

fn span_data(
    draft: Draft,
    place: Place,
    ids: &RandomIdGenerator,
    scope: InstrumentationScope,
) -> SpanData {
    let (trace_id, parent_span_id, remote, flags, state) = match place {
        Place::Child(parent) => (
            parent.trace_id(),
            parent.span_id(),
            parent.is_remote(),
            parent.trace_flags().with_sampled(true),
            parent.trace_state().clone(),
        ),
        Place::Root(_) => (
            ids.new_trace_id(),
            SpanId::INVALID,
            false,
            TraceFlags::SAMPLED,
            TraceState::NONE,
        ),
    };
    let mut events = SpanEvents::default();
    events.events = draft.events;
    let mut links = SpanLinks::default();
    links.links = draft.links;
    SpanData {
        span_context: SpanContext::new(trace_id, ids.new_span_id(), flags, false, state),
        parent_span_id,
        parent_span_is_remote: remote,
        span_kind: SpanKind::Internal,
        name: draft.name.into(),
        start_time: draft.start,
        end_time: draft.end,
        attributes: draft.attributes,
        dropped_attributes_count: 0,
        events,
        links,
        status: Status::Unset,
        instrumentation_scope: scope,
    }
}

fn through(tracer: &SdkTracer, draft: Draft, place: Place) -> Put {
    let around = match place {
        Place::Child(parent) => Context::new().with_remote_span_context(parent),
        Place::Root(_) => Context::new(),
    };
    let builder = SpanBuilder::from_name(draft.name)
        .with_kind(SpanKind::Internal)
        .with_start_time(draft.start)
        .with_attributes(draft.attributes)
        .with_events(draft.events)
        .with_links(draft.links);
    let mut span = tracer.build_with_context(builder, &around);
    let context = span.span_context().clone();
    if !context.is_valid() {
        // The provider was shut down.
        return Put::Refused;
    }
    if !span.is_recording() {
        return Put::Unsampled;
    }
    span.end_with_timestamp(draft.end);
    Put::Done(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn draft() -> Draft {
        Draft {
            name: "task".into(),
            parent: None,
            age: Duration::ZERO,
            start: SystemTime::UNIX_EPOCH,
            end: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            events: Vec::new(),
            links: Vec::new(),
        }
    }

    #[test]
    fn what_comes_after_the_sender_has_gone_is_refused() {
        let placing = Placing {
            child_within: Duration::ZERO,
            unsampled_parents: false,
        };
        let outbox = Outbox::new(1);
        let mut out = Out::to_sender(placing, Arc::clone(&outbox), 1);
        assert!(matches!(out.put(draft(), None, false), Put::Done(_)));
        assert!(matches!(out.put(draft(), None, false), Put::Refused));
        assert!(matches!(out.put(draft(), None, true), Put::Done(_)));
        assert_eq!(outbox.take_to_the_last(1).len(), 1);
        assert_eq!(outbox.take_to_the_last(1).len(), 1);
        assert!(out.has_room());
        assert_eq!(outbox.take_to_the_last(1).len(), 0);
        assert!(matches!(out.put(draft(), None, true), Put::Refused));
    }
}
