//! A thread of our own that looks now and then, and warns of orphans.

use crate::query::{Watched, watch};
use crate::table::Table;
use crate::text::{Count, Span};
use crate::{Diagnosis, Error};
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
    /// It warns of what `at_start` gives, and doesn't ask again once that has an answer.
    pub(crate) fn start(
        table: &Arc<Table>,
        outlet: Arc<Outlet>,
        at_start: impl Fn() -> Option<Vec<Diagnosis>> + Send + 'static,
    ) -> Result<Self, Error> {
        let stop = Arc::new(Stop::default());
        let weak = Arc::downgrade(table);
        let stop_there = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("straggler".into())
            .spawn(move || {
                // Also where it ends by a panic, which somebody may wait for.
                let stopped = Stopped(stop_there);
                // Without a dispatcher of its own: one that is set on any thread, if only to
                // say nothing, costs every span and event of the process its short cut.
                run(&weak, &outlet, &stopped.0, &at_start);
            })
            .map_err(Error::thread)?;
        Ok(Self {
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

fn run(
    table: &Weak<Table>,
    outlet: &Outlet,
    stop: &Stop,
    at_start: &dyn Fn() -> Option<Vec<Diagnosis>>,
) {
    let mut started = false;
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
        let Some(table) = table.upgrade() else {
            return;
        };
        let began = Instant::now();
        let blind = if started { None } else { at_start() };
        started |= blind.is_some();
        warn(&table, outlet, &mut warned);
        for diagnosis in blind.into_iter().flatten() {
            if !outlet.with(|| tracing::warn!(target: "straggler", "{diagnosis}")) {
                table.loss.warning_failed();
            }
        }
        rest = PERIOD.max(began.elapsed().saturating_mul(SHARE));
    }
}

/// Warns of a site's first orphans, once an episode: again only after it had none.
fn warn(table: &Table, outlet: &Outlet, warned: &mut HashSet<u32>) {
    let sites = watch(table);
    let now: HashSet<u32> = sites.iter().map(|site| site.index).collect();
    for site in sites.iter().filter(|site| !warned.contains(&site.index)) {
        if !outlet.with(|| say(site)) {
            table.loss.warning_failed();
        }
    }
    *warned = now;
}

fn say(watched: &Watched) {
    let key = &watched.site.key;
    let (what, started) = match watched.orphans {
        1 => ("a task".to_owned(), "it"),
        many => (format!("{} tasks", Count(many)), "them"),
    };
    tracing::warn!(
        target: "straggler",
        site = %key.location,
        name = key.name.as_deref(),
        orphans = watched.orphans,
        live = watched.live,
        oldest_seconds = watched.oldest / 1_000_000_000,
        cause = %watched.example.cause,
        certainty = %watched.example.certainty,
        spawned_by = watched.spawned_by.as_ref().map(tracing::field::display),
        "{what} spawned at {} outlived what started {started} {} ago",
        key.location,
        Span(Duration::from_nanos(watched.elapsed)),
    );
}
