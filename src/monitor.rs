//! A thread of our own that looks now and then, warns of orphans, and shows them to whoever
//! exports them.

use crate::orphan::Finding;
use crate::query::{Found, SiteCensus, census};
use crate::table::{LineageTree, Site, Table};
use crate::text::{Count, Span};
use crate::worker::{Order, Worker};
use crate::{Diagnosis, Error};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Weak};
use std::thread;
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

    /// That subscriber, while there is one.
    pub(crate) fn dispatch(&self) -> Option<Dispatch> {
        (self.dispatch.lock().as_ref()).and_then(WeakDispatch::upgrade)
    }

    /// Gives false where the subscriber panicked.
    fn with(&self, f: impl FnOnce()) -> bool {
        let Some(dispatch) = self.dispatch() else {
            return true;
        };
        // What runs in there is the program's: a formatter, an exporter.
        let warned = AssertUnwindSafe(|| dispatcher::with_default(&dispatch, f));
        panic::catch_unwind(warned).is_ok()
    }
}

/// Whoever wants to see each live task at each look. Called on the monitor's thread.
pub(crate) trait Witness: Send {
    /// A look begins; `last` says that none will follow.
    fn begin(&mut self, table: &Table, last: bool);
    /// A live task, with what makes it an orphan.
    fn see(&mut self, table: &Table, task: &Found, finding: Option<&Finding>);
    /// The look is over.
    fn end(&mut self, table: &Table);
}

/// What the monitor does at each look.
pub(crate) struct Duties {
    pub(crate) warn: bool,
    /// Why nothing will ever be seen; `None` while that can't be told.
    pub(crate) blindness: Box<dyn Fn() -> Option<Vec<Diagnosis>> + Send>,
    pub(crate) witness: Option<Box<dyn Witness>>,
}

#[derive(Debug)]
pub(crate) struct Monitor {
    worker: Arc<Worker>,
}

impl Monitor {
    /// Starts the thread. It ends when asked, and when nobody holds the table any more.
    pub(crate) fn start(
        table: &Arc<Table>,
        outlet: Arc<Outlet>,
        duties: Duties,
    ) -> Result<Self, Error> {
        let worker = Worker::new(1);
        let running = worker.running();
        let weak = Arc::downgrade(table);
        let worker_there = Arc::clone(&worker);
        thread::Builder::new()
            .name("straggler".into())
            .spawn(move || {
                // Without a dispatcher of its own: one that is set on any thread, if only to
                // say nothing, costs every span and event of the process its short cut.
                run(&weak, &outlet, duties, &worker_there);
                drop(running);
            })
            .map_err(Error::thread)?;
        Ok(Self { worker })
    }

    /// Looks now. False where that took longer than until the deadline.
    #[cfg(feature = "otlp")]
    pub(crate) fn look(&self, deadline: Option<Instant>) -> bool {
        let round = self.worker.ask_round();
        self.worker.wait_round(round, deadline)
    }

    /// Asks the thread to look once more and end, and waits for that. False where it was
    /// still busy at the deadline.
    pub(crate) fn stop(&self, deadline: Option<Instant>) -> bool {
        self.worker.ask_stop(deadline);
        self.worker.wait_stopped(deadline)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // Not waited for: the last holder may be the monitor's own thread, or a poll.
        self.worker.ask_stop(None);
    }
}

fn run(table: &Weak<Table>, outlet: &Outlet, mut duties: Duties, worker: &Worker) {
    let mut started = false;
    let mut warned = HashSet::new();
    let mut rest = PERIOD;
    loop {
        let order = worker.rest(0, rest);
        let Some(table) = table.upgrade() else {
            return;
        };
        let began = Instant::now();
        let last = matches!(order, Order::Stop(_));
        if duties.warn && !started && !last {
            started = warn_of_blindness(&table, outlet, &duties);
        }
        // A warning that nobody waits for is not worth a longer shutdown.
        if !last || duties.witness.is_some() {
            look(&table, outlet, &mut duties, &mut warned, last);
        }
        match order {
            Order::Stop(_) => return,
            Order::Round(round) => worker.done(0, round),
            Order::Rest => rest = PERIOD.max(began.elapsed().saturating_mul(SHARE)),
        }
    }
}

/// Warns where tokio's spans don't arrive and never will. False while that can't be told.
fn warn_of_blindness(table: &Table, outlet: &Outlet, duties: &Duties) -> bool {
    let Some(found) = (duties.blindness)() else {
        return false;
    };
    for diagnosis in found {
        if !outlet.with(|| tracing::warn!(target: "straggler", "{diagnosis}")) {
            table.loss.warning_failed();
        }
    }
    true
}

fn look(
    table: &Table,
    outlet: &Outlet,
    duties: &mut Duties,
    warned: &mut HashSet<u32>,
    last: bool,
) {
    let sites = match &mut duties.witness {
        Some(witness) => {
            witness.begin(table, last);
            let sites = census(table, |task, finding| witness.see(table, task, finding));
            witness.end(table);
            sites
        }
        None => census(table, |_, _| {}),
    };
    if duties.warn {
        warn(table, outlet, &sites, warned);
    }
}

/// Warns of a site's first orphans, once an episode: again only after it had none.
fn warn(
    table: &Table,
    outlet: &Outlet,
    sites: &HashMap<u32, SiteCensus>,
    warned: &mut HashSet<u32>,
) {
    let with_orphans = || (sites.iter()).filter(|(_, site)| site.example.is_some());
    let news = with_orphans().filter(|(index, _)| !warned.contains(index));
    let mut names = None;
    for (&index, site) in news {
        let (known, lineages) = names.get_or_insert_with(|| (table.sites(), table.lineages()));
        if !outlet.with(|| say(index, site, known, lineages)) {
            table.loss.warning_failed();
        }
    }
    *warned = with_orphans().map(|(&index, _)| index).collect();
}

fn say(index: u32, census: &SiteCensus, sites: &[Arc<Site>], lineages: &LineageTree) {
    let site = |index: u32| sites.get(index as usize);
    let (Some(this), Some(example)) = (site(index), &census.example) else {
        return;
    };
    let above = lineages.sites(example.lineage).nth(1).and_then(site);
    let key = &this.key;
    let (what, started) = match census.orphans {
        1 => ("a task".to_owned(), "it"),
        many => (format!("{} tasks", Count(many)), "them"),
    };
    tracing::warn!(
        target: "straggler",
        site = %key.location,
        name = key.name.as_deref(),
        orphans = census.orphans,
        live = census.live,
        oldest_seconds = census.oldest / 1_000_000_000,
        cause = %example.finding.cause,
        certainty = %example.finding.certainty,
        spawned_by = above.map(|site| tracing::field::display(&site.key.location)),
        "{what} spawned at {} outlived what started {started} {} ago",
        key.location,
        Span(Duration::from_nanos(example.elapsed)),
    );
}

impl fmt::Debug for Duties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duties")
            .field("warn", &self.warn)
            .finish_non_exhaustive()
    }
}
