//! A subscriber of our own beside whatever subscriber a thread has.
//!
//! A test that asks what its tasks left behind can't choose the process's subscriber: there may be
//! one, or another test sets one later. [`Beside`] is set on single threads for a while, shows
//! what it is told to one straggler layer, and forwards all of it to the thread's *neighbour*: the
//! subscriber that was there before. It is a subscriber and no layer, as per-layer filters keep
//! their marks in one place for all registries of a thread, so that each subscriber's `enabled`
//! must come right before its own `new_span` or `event`.
//!
//! # Whose number a span has
//!
//! The spans that [`Beside`] gives out have the numbers of its own registry with [`MARK`] added,
//! which tells them from those of a neighbour. Two kinds of calls come with numbers that are not
//! marked. A registry that removes a closed span gives its hold on the span's parent back through
//! the *thread's* subscriber: that is ours while one of our spans closes, else a neighbour's. And a
//! program may name a span as a parent that it made before.

mod event;
mod mirror;
mod neighbour;
mod process;
#[cfg(all(test, tokio_unstable, feature = "spans"))]
mod tests;
mod thread;

pub(crate) use process::{sees_here, watched};
pub(crate) use thread::Joined;

use super::layer::{Capture, CaptureFilter};
use super::{Layer, is_task_span};
use dashmap::DashMap;
use mirror::{Mirror, Parent};
use neighbour::Neighbour;
use std::cell::Cell;
use std::num::NonZeroU64;
use std::sync::OnceLock;
use tracing_core::callsite::Identifier;
use tracing_core::dispatcher::{self, WeakDispatch};
use tracing_core::span::{Attributes, Current, Id, Record};
use tracing_core::subscriber::{Interest, NoSubscriber};
use tracing_core::{Dispatch, Event, LevelFilter, Metadata, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

/// In a registry's numbers this bit is part of a slot's address, and set for slots beyond the
/// hundred thousand millionth.
const MARK: u64 = 1 << 37;

/// A span's number in the registry that the layer is in.
pub(super) fn own_number(span: u64) -> u64 {
    span & !MARK
}

fn marked(own: &Id) -> Id {
    Id::from_u64(own.into_u64() | MARK)
}

/// The number in our registry, if it is one of ours.
fn own(id: &Id) -> Option<Id> {
    let number = id.into_u64();
    let own = NonZeroU64::new(own_number(number))?;
    (number & MARK != 0).then_some(Id::from_non_zero_u64(own))
}

type Ours = Layered<Layer<Registry>, Registry>;

/// One straggler layer, and in front of it the way to the neighbours.
pub(crate) struct Beside {
    ours: Ours,
    /// The layer's own, once more: asked here it leaves no marks.
    filter: CaptureFilter,
    theirs: Mirror,
    /// The callsites that tracing knows of.
    callsites: DashMap<Identifier, &'static Metadata<'static>>,
    /// Clears the marks that per-layer filters leave on a thread, which nothing else can.
    eraser: Layered<LevelFilter, NoSubscriber>,
    me: OnceLock<WeakDispatch>,
}

thread_local! {
    /// How many of our registry's spans are being closed on this thread, each in the other.
    static CLOSING: Cell<u32> = const { Cell::new(0) };
}

impl Beside {
    fn new(layer: Layer<Registry>, filter: CaptureFilter) -> Self {
        Self {
            ours: Registry::default().with(layer),
            filter,
            theirs: Mirror::default(),
            callsites: DashMap::new(),
            eraser: NoSubscriber::default().with(LevelFilter::OFF),
            me: OnceLock::new(),
        }
    }

    pub(super) fn capture(&self) -> Option<&Capture> {
        self.ours.downcast_ref()
    }

    /// The innermost of our spans on this thread.
    pub(super) fn current(&self) -> Option<SpanRef<'_, impl LookupSpan<'_>>> {
        let current = self.ours.current_span();
        self.ours.span(current.id()?)
    }

    fn me(&self) -> Option<Dispatch> {
        self.me.get()?.upgrade()
    }

    fn is_task(&self, own: &Id) -> bool {
        (self.ours.span(own)).is_some_and(|span| is_task_span(span.metadata()))
    }

    fn known(&self, metadata: &Metadata<'_>) -> Option<&'static Metadata<'static>> {
        self.callsites.get(&metadata.callsite()).map(|known| *known)
    }

    /// What a neighbour's filters said of one callsite must not be read as said of another.
    fn erase(&self, metadata: &Metadata<'_>) {
        let never = self.eraser.enabled(metadata);
        debug_assert!(!never, "nothing is at level OFF");
    }

    /// Calls `f` with whoever is told of this span beside us, and its number there.
    fn with_theirs(&self, id: &Id, f: impl FnOnce(&Neighbour, &Id)) {
        match own(id) {
            Some(own) => {
                if let Some(theirs) = self.theirs.get(&own) {
                    f(&theirs.neighbour, &theirs.id);
                }
            }
            None => {
                if let Some(neighbour) = thread::neighbour() {
                    f(&neighbour, id);
                }
            }
        }
    }

    /// Whether a span of ours is this one of a neighbour's.
    fn stands_for(&self, own: &Id, theirs: Option<&Id>) -> bool {
        let mirrored = self.theirs.get(own);
        mirrored.is_some_and(|mirrored| Some(&mirrored.id) == theirs)
    }

    /// What our registry is told of a new span.
    fn new_own(&self, attrs: &Attributes<'_>) -> Id {
        let (metadata, values) = (attrs.metadata(), attrs.values());
        let parent = attrs.parent().and_then(own);
        let parent = parent.filter(|parent| self.ours.span(parent).is_some());
        self.erase(metadata);
        // Whatever the layer says, the span needs a number: what it said is marked on the span.
        self.ours.enabled(metadata);
        let id = match parent {
            Some(parent) => (self.ours).new_span(&Attributes::child_of(parent, metadata, values)),
            None if attrs.is_root() => self.ours.new_span(attrs),
            None => self.ours.new_span(&Attributes::new(metadata, values)),
        };
        self.erase(metadata);
        id
    }

    fn new_theirs(&self, neighbour: &Neighbour, attrs: &Attributes<'_>) -> Id {
        let dispatch = &neighbour.dispatch;
        let (metadata, values) = (attrs.metadata(), attrs.values());
        match self.theirs.parent(attrs.parent(), neighbour) {
            Parent::AsIs => dispatch.new_span(attrs),
            Parent::Span(id) => dispatch.new_span(&Attributes::child_of(id, metadata, values)),
            Parent::None => dispatch.new_span(&Attributes::new_root(metadata, values)),
        }
    }

    /// Gives up one hold on a span of ours.
    fn close_own(&self, own: Id) -> bool {
        struct Closing;
        impl Drop for Closing {
            fn drop(&mut self) {
                CLOSING.with(|depth| depth.set(depth.get().saturating_sub(1)));
            }
        }
        let close = || {
            CLOSING.with(|depth| depth.set(depth.get() + 1));
            let _closing = Closing;
            self.ours.try_close(own)
        };
        // The hold on its parent is given back through the thread's subscriber.
        match (thread::is_here(), self.me()) {
            (Some(false), Some(me)) => dispatcher::with_default(&me, close),
            _ => close(),
        }
    }
}

impl Subscriber for Beside {
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.me.get_or_init(|| dispatch.downgrade());
        self.ours.on_register_dispatch(dispatch);
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        self.callsites.insert(metadata.callsite(), metadata);
        // Neighbours answer for themselves. Ours is never "always", as they differ by thread.
        if self.ours.register_callsite(metadata).is_never() {
            Interest::never()
        } else {
            Interest::sometimes()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // Asked whenever there is a new subscriber, and not for each callsite.
        thread::subscribers_changed();
        Some(LevelFilter::TRACE)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let wanted = self.filter.wants(metadata);
        let Some(neighbour) = thread::neighbour() else {
            return wanted;
        };
        self.erase(metadata);
        let enabled = neighbour.wants(metadata, self.known(metadata));
        self.erase(metadata);
        wanted || enabled
    }

    fn new_span(&self, attrs: &Attributes<'_>) -> Id {
        let own = self.new_own(attrs);
        if let Some(neighbour) = thread::neighbour() {
            let metadata = attrs.metadata();
            if neighbour.wants(metadata, self.known(metadata)) {
                let id = self.new_theirs(&neighbour, attrs);
                self.theirs.insert(&own, neighbour, id);
            }
            self.erase(metadata);
        }
        marked(&own)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        // Our layer takes no notice of this, nor of what follows from what.
        self.with_theirs(id, |neighbour, id| neighbour.dispatch.record(id, values));
    }

    fn record_follows_from(&self, id: &Id, follows: &Id) {
        self.with_theirs(id, |neighbour, id| {
            let dispatch = &neighbour.dispatch;
            match self.theirs.parent(Some(follows), neighbour) {
                Parent::AsIs => dispatch.record_follows_from(id, follows),
                Parent::Span(follows) => dispatch.record_follows_from(id, &follows),
                Parent::None => {}
            }
        });
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        self.erase(metadata);
        if self.filter.wants(metadata)
            && self.ours.enabled(metadata)
            && self.ours.event_enabled(event)
        {
            self.ours.event(event);
        }
        let Some(neighbour) = thread::neighbour() else {
            self.erase(metadata);
            return;
        };
        self.erase(metadata);
        let wants = |origin: &Metadata<'_>| neighbour.wants(origin, self.known(origin));
        if neighbour::with_origin(event, wants) {
            let tell = |event: &Event<'_>| neighbour.dispatch.event(event);
            match self.theirs.parent(event.parent(), &neighbour) {
                Parent::AsIs => tell(event),
                Parent::Span(id) => event::under(event, Some(id), tell),
                Parent::None => event::under(event, None, tell),
            }
        }
        self.erase(metadata);
    }

    fn enter(&self, id: &Id) {
        let own = own(id);
        if let Some(own) = &own
            && self.is_task(own)
        {
            thread::enter_task(|| self.me());
        }
        self.with_theirs(id, |neighbour, id| neighbour.dispatch.enter(id));
        if let Some(own) = own {
            self.ours.enter(&own);
        }
    }

    fn exit(&self, id: &Id) {
        let own = own(id);
        let is_task = own.as_ref().is_some_and(|own| self.is_task(own));
        if let Some(own) = own {
            self.ours.exit(&own);
        }
        self.with_theirs(id, |neighbour, id| neighbour.dispatch.exit(id));
        if is_task {
            thread::exit_task();
        }
        thread::settle();
    }

    fn clone_span(&self, id: &Id) -> Id {
        let Some(own) = own(id) else {
            return thread::neighbour()
                .map_or_else(|| id.clone(), |neighbour| neighbour.dispatch.clone_span(id));
        };
        self.ours.clone_span(&own);
        self.theirs.hold(&own);
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let Some(own) = own(&id) else {
            if CLOSING.with(Cell::get) > 0 {
                return self.close_own(id);
            }
            return thread::neighbour().is_some_and(|neighbour| mirror::close(&neighbour, id));
        };
        let theirs = self.theirs.release(&own);
        let closed = self.close_own(own);
        if let Some(theirs) = theirs {
            mirror::close(&theirs.neighbour, theirs.id.clone());
        }
        closed
    }

    fn current_span(&self) -> Current {
        let ours = self.ours.current_span().into_inner();
        let Some(neighbour) = thread::neighbour() else {
            // A task's own span is current for nobody but us.
            let ours = ours.filter(|(_, metadata)| !is_task_span(metadata));
            return ours.map_or_else(Current::none, |(own, metadata)| {
                Current::new(marked(&own), metadata)
            });
        };
        let theirs = neighbour.dispatch.current_span();
        // The same span under two numbers, unless the innermost is one that the neighbour made
        // before, or is one that it doesn't see. The number of one made before means something on
        // all threads only if the neighbour is theirs too.
        match ours {
            Some((own, metadata))
                if self.stands_for(&own, theirs.id())
                    || !(neighbour.is_global || is_task_span(metadata)) =>
            {
                Current::new(marked(&own), metadata)
            }
            _ if neighbour.is_global => theirs,
            _ => Current::none(),
        }
    }
}
