//! Whether tokio's spans can reach the layer through the filters of its subscriber.
//!
//! A filter on the whole subscriber switches tokio's callsites off before the layer is
//! asked, so the layer can't notice. Two callsites of our own stand in for tokio's: the same
//! target, level, name and fields, so that tracing gives them the same interest. Nothing is
//! ever emitted through them.

use super::parents::ParentRules;
use crate::monitor::Outlet;
use parking_lot::Mutex;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tracing_core::callsite::DefaultCallsite;
use tracing_core::field::FieldSet;
use tracing_core::metadata::Kind;
use tracing_core::{Dispatch, Level, LevelFilter, Metadata, identify_callsite};

static TASK: DefaultCallsite = DefaultCallsite::new(&TASK_META);
static TASK_META: Metadata<'static> = Metadata::new(
    "runtime.spawn",
    "tokio::task",
    Level::TRACE,
    None,
    None,
    // A filter may go by any of these, so they are tokio's.
    Some("tokio::util::trace"),
    FieldSet::new(
        &[
            "kind",
            "task.name",
            "task.id",
            "original_size.bytes",
            "size.bytes",
            "loc.file",
            "loc.line",
            "loc.col",
        ],
        identify_callsite!(&TASK),
    ),
    Kind::SPAN,
);

static WAKER: DefaultCallsite = DefaultCallsite::new(&WAKER_META);
static WAKER_META: Metadata<'static> = Metadata::new(
    "event tokio::task::waker",
    "tokio::task::waker",
    Level::TRACE,
    None,
    None,
    Some("tokio::runtime::task::waker"),
    FieldSet::new(&["op", "task.id"], identify_callsite!(&WAKER)),
    Kind::EVENT,
);

thread_local! {
    static ASKING: Cell<Asking> = const { Cell::new(Asking { rules: 0, reached: false }) };
}

/// The layer a thread asks for, by the address of its rules, and whether it was reached.
#[derive(Clone, Copy, Debug)]
struct Asking {
    rules: usize,
    reached: bool,
}

/// What a filter on the whole subscriber hides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hidden {
    pub(crate) tasks: bool,
    pub(crate) wakes: bool,
}

/// How long tracing may take to tell its callsites of a new subscriber.
const SETTLES: Duration = Duration::from_millis(100);

/// The subscriber that the layer is part of, and what is known of its filters.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    outlet: Arc<Outlet>,
    known: Mutex<Known>,
    /// Seen since the last look.
    tasks: AtomicBool,
    wakes: AtomicBool,
    #[cfg(feature = "console")]
    console_end: Mutex<Option<String>>,
}

/// What is known of that subscriber.
#[derive(Debug, Default)]
struct Known {
    since: Option<Instant>,
    /// Lives as long as the layer, which can be taken out of a subscriber.
    layer: Weak<()>,
    answer: Option<(Instant, Hidden)>,
    /// Is being asked, or has never answered.
    unasked: bool,
}

impl Sight {
    pub(crate) fn new(outlet: Arc<Outlet>) -> Self {
        Self {
            outlet,
            ..Self::default()
        }
    }

    /// Makes the stand-ins known to tracing, which from now on keeps their interest up to
    /// date. Not from a callback: it takes tracing's lock.
    pub(crate) fn prepare() {
        TASK.interest();
        WAKER.interest();
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.known.lock().since.is_some()
    }

    pub(crate) fn connect(&self, dispatch: &Dispatch, layer: &Arc<()>) {
        self.outlet.connect(dispatch);
        *self.known.lock() = Known {
            since: Some(Instant::now()),
            layer: Arc::downgrade(layer),
            ..Known::default()
        };
    }

    /// Whether the layer is still in its subscriber.
    pub(crate) fn has_layer(&self) -> bool {
        self.known.lock().layer.strong_count() > 0
    }

    /// Whether tracing has told its callsites of that subscriber.
    pub(crate) fn has_settled(&self) -> bool {
        let since = self.known.lock().since;
        since.is_some_and(|since| since.elapsed() >= SETTLES)
    }

    #[inline]
    pub(crate) fn task_came(&self) {
        came(&self.tasks);
    }

    #[inline]
    pub(crate) fn wake_came(&self) {
        came(&self.wakes);
    }

    /// tokio-console's server has ended, though the process has not.
    #[cfg(feature = "console")]
    pub(crate) fn console_stopped(&self, why: String) {
        *self.console_end.lock() = Some(why);
    }

    #[cfg(feature = "console")]
    pub(crate) fn console_end(&self) -> Option<String> {
        self.console_end.lock().clone()
    }

    /// What is hidden from the layer whose rules these are. Nothing, where that can't be told.
    pub(crate) fn hidden(&self, rules: &Arc<ParentRules>) -> Hidden {
        let Some(dispatch) = self.outlet.dispatch() else {
            return Hidden::default();
        };
        // These two are what tokio's own macros look at first, in the whole process. A level
        // alone is not enough: beside a layer without a hint it says TRACE.
        let settled = self.has_settled();
        let by_level = settled && LevelFilter::current() < LevelFilter::TRACE;
        let tasks = by_level || (settled && TASK.interest().is_never());
        let wakes = by_level || (settled && WAKER.interest().is_never());
        let surely_seen = TASK.interest().is_always() && WAKER.interest().is_always();
        if (tasks && wakes) || surely_seen {
            return Hidden { tasks, wakes };
        }
        // "Sometimes" is what a filter on another layer gives too, and other subscribers.
        let came = (
            self.tasks.swap(false, Ordering::Relaxed),
            self.wakes.swap(false, Ordering::Relaxed),
        );
        let asked = match came {
            (true, true) => self.believe(Hidden::default()),
            _ => self.asked(dispatch, rules),
        };
        Hidden {
            tasks: tasks || (asked.tasks && !came.0),
            wakes: wakes || (asked.wakes && !came.1),
        }
    }

    fn believe(&self, hidden: Hidden) -> Hidden {
        self.known.lock().answer = Some((Instant::now(), hidden));
        hidden
    }

    /// Asks, unless somebody does, or did without an answer.
    fn asked(&self, dispatch: Dispatch, rules: &Arc<ParentRules>) -> Hidden {
        /// A filter that changes its mind without telling tracing is asked again after this.
        const FRESH: Duration = Duration::from_secs(1);
        {
            let mut known = self.known.lock();
            let last = known.answer.map(|(_, hidden)| hidden).unwrap_or_default();
            let fresh = (known.answer)
                .is_some_and(|(at, hidden)| hidden == Hidden::default() && at.elapsed() < FRESH);
            if fresh || known.unasked {
                return last;
            }
            known.unasked = true;
        }
        match ask(dispatch, Arc::clone(rules)) {
            Some(hidden) => {
                self.known.lock().unasked = false;
                self.believe(hidden)
            }
            None => Hidden::default(),
        }
    }
}

#[inline]
fn came(flag: &AtomicBool) {
    if !flag.load(Ordering::Relaxed) {
        flag.store(true, Ordering::Relaxed);
    }
}

/// Asks the subscriber itself, on a thread made for it.
///
/// `enabled` leaves marks in the thread's state of per-layer filters, which the span or event
/// that is expected next would take back. None comes here, so they go with the thread. And
/// what a filter locks may be held by who asks us: we wait for a bounded time.
fn ask(dispatch: Dispatch, rules: Arc<ParentRules>) -> Option<Hidden> {
    const MOST: Duration = Duration::from_millis(100);
    let (tell, told) = mpsc::sync_channel(1);
    let ask = move || {
        let reaches = |metadata| {
            let rules = Arc::as_ptr(&rules) as usize;
            ASKING.set(Asking {
                rules,
                reached: false,
            });
            let enabled = dispatch.enabled(metadata);
            enabled && ASKING.get().reached
        };
        let both = AssertUnwindSafe(|| (reaches(&TASK_META), reaches(&WAKER_META)));
        let hidden = panic::catch_unwind(both).map(|(tasks, wakes)| Hidden {
            tasks: !tasks,
            wakes: !wakes,
        });
        // Who asked may have gone.
        let _ = tell.send(hidden.ok());
    };
    let thread = thread::Builder::new().name("straggler-asks".into());
    thread.spawn(ask).ok()?;
    told.recv_timeout(MOST).ok().flatten()
}

/// The filter of a layer with these rules was asked about one of tokio's callsites.
#[inline]
pub(crate) fn reached(rules: &Arc<ParentRules>, metadata: &Metadata<'_>) {
    let stand_in = std::ptr::addr_eq(metadata, &raw const TASK_META)
        || std::ptr::addr_eq(metadata, &raw const WAKER_META);
    if !stand_in {
        return;
    }
    // At a thread's end its storage may be gone; then nobody asks here.
    let _ = ASKING.try_with(|asking| {
        let rules = Arc::as_ptr(rules) as usize;
        if asking.get().rules == rules {
            asking.set(Asking {
                rules,
                reached: true,
            });
        }
    });
}
