//! A thread of our own that looks now and then: it warns of orphans, and settles what
//! needs a second look, where nobody asks.

use crate::Error;
use crate::clock::nanos;
use crate::tasks::Shared;
use crate::text::{Count, Span};
use parking_lot::{Condvar, Mutex};
use std::collections::HashSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tracing_core::Dispatch;
use tracing_core::dispatcher::{self, WeakDispatch};

/// Between two looks; longer after one that took long.
const PERIOD: Duration = Duration::from_secs(1);
/// A look may take this share of the time at most.
const SHARE: u32 = 100;

/// The subscriber that the layer is part of, to warn through.
#[derive(Debug, Default)]
pub(crate) struct Outlet {
    dispatch: Mutex<Option<WeakDispatch>>,
}

impl Outlet {
    pub(crate) fn connect(&self, dispatch: &Dispatch) {
        *self.dispatch.lock() = Some(dispatch.downgrade());
    }

    /// Gives false where the subscriber panicked.
    fn with(&self, f: impl FnOnce()) -> bool {
        let dispatch = (self.dispatch.lock().as_ref()).and_then(WeakDispatch::upgrade);
        let Some(dispatch) = dispatch else {
            return true;
        };
        // What runs in there is the program's: a formatter, an exporter.
        let warned = AssertUnwindSafe(|| dispatcher::with_default(&dispatch, f));
        panic::catch_unwind(warned).is_ok()
    }
}

#[derive(Debug)]
pub(crate) struct Monitor {
    /// Kept for the thread, which holds it weakly.
    _shared: Arc<Shared>,
    stop: Arc<Stop>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Stop {
    state: Mutex<Stage>,
    changed: Condvar,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Running,
    Asked,
    Stopped,
}

struct Stopped(Arc<Stop>);

impl Drop for Stopped {
    fn drop(&mut self) {
        *self.0.state.lock() = Stage::Stopped;
        self.0.changed.notify_all();
    }
}

impl Monitor {
    /// Starts the thread. It ends when asked, and when nobody holds the table any more.
    pub(crate) fn start(shared: &Arc<Shared>, outlet: Arc<Outlet>) -> Result<Self, Error> {
        let stop = Arc::new(Stop::default());
        let weak = Arc::downgrade(shared);
        let stop_there = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("straggler".into())
            .spawn(move || {
                // Also where it ends by a panic, which somebody may wait for.
                let stopped = Stopped(stop_there);
                // Without a dispatcher of its own: one that is set on any thread, if only to
                // say nothing, costs every span and event of the process its short cut.
                run(&weak, &outlet, &stopped.0);
            })
            .map_err(Error::thread)?;
        Ok(Self {
            _shared: Arc::clone(shared),
            stop,
            thread: Mutex::new(Some(thread)),
        })
    }

    fn ask(&self) {
        let mut state = self.stop.state.lock();
        if *state == Stage::Running {
            *state = Stage::Asked;
        }
        self.stop.changed.notify_all();
    }

    /// Asks the thread to end and waits for it, `max` at most.
    pub(crate) fn stop(&self, max: Duration) -> Result<(), Error> {
        self.ask();
        let deadline = Instant::now().checked_add(max);
        let mut state = self.stop.state.lock();
        while *state != Stage::Stopped {
            let timed_out = match deadline {
                Some(deadline) => self
                    .stop
                    .changed
                    .wait_until(&mut state, deadline)
                    .timed_out(),
                None => {
                    self.stop.changed.wait(&mut state);
                    false
                }
            };
            if timed_out && *state != Stage::Stopped {
                return Err(Error::shutdown_timeout(max));
            }
        }
        drop(state);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            // It said that it stopped; nothing of it is left to report.
            debug_assert!(false, "the monitor thread panicked after its last look");
        }
        Ok(())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // Not joined: the last holder may be the monitor's own thread, or a poll.
        self.ask();
    }
}

fn run(shared: &Weak<Shared>, outlet: &Outlet, stop: &Stop) {
    let mut warned = HashSet::new();
    let mut rest = PERIOD;
    loop {
        let mut state = stop.state.lock();
        if *state == Stage::Running {
            stop.changed.wait_for(&mut state, rest);
        }
        if *state != Stage::Running {
            return;
        }
        drop(state);
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let began = Instant::now();
        warn(&shared, outlet, &mut warned);
        rest = PERIOD.max(began.elapsed().saturating_mul(SHARE));
    }
}

/// Warns of a site's first orphans, once an episode: again only after it had none.
fn warn(shared: &Shared, outlet: &Outlet, warned: &mut HashSet<u32>) {
    let snapshot = shared.snapshot();
    for site in snapshot.sites() {
        if site.orphans() == 0 {
            warned.remove(&site.index());
            continue;
        }
        if !warned.insert(site.index()) {
            continue;
        }
        let of_site = |task: &&crate::Task| task.site_index == site.index();
        let Some(task) = snapshot.orphans().find(of_site) else {
            continue;
        };
        let Some(orphaned) = task.orphaned() else {
            continue;
        };
        let above = snapshot.lineage(task).nth(1);
        let warned = outlet.with(|| {
            tracing::warn!(
                target: "straggler",
                site = %site.location(),
                name = site.name(),
                orphans = site.orphans(),
                live = site.live(),
                oldest_seconds = nanos(site.oldest().unwrap_or_default()) / 1_000_000_000,
                cause = %orphaned.cause(),
                certainty = %orphaned.certainty(),
                spawned_by = above.map(|site| tracing::field::display(site.location())),
                "{} spawned at {} outlived what started {} {} ago",
                if site.orphans() == 1 { "a task".into() } else { format!("{} tasks", Count(site.orphans())) },
                site.location(),
                if site.orphans() == 1 { "it" } else { "them" },
                Span(orphaned.elapsed()),
            );
        });
        if !warned {
            shared.table.loss.warning_failed();
        }
    }
}
