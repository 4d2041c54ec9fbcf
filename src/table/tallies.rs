//! Counts and histograms per spawn site, written without contention.
//!
//! Each thread has cells of its own for each site it meets, and is their only writer.
//! Readers add up the cells of all threads. A thread that ends folds its cells into
//! those of the ended ones, under the lock that readers hold, so nothing is counted
//! twice or missed.

use crate::histogram::{self, Cells, Histogram, LIFETIME, POLL, SCHEDULE};
use crate::sync::{AtomicU64, Ordering};
use crate::table::turn::Poll;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// How a task ended, as far as it can be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Completed,
    Panicked,
    Aborted,
    Unknown,
}

/// One thread's counts of one site.
#[derive(Debug)]
pub(crate) struct SiteCells {
    spawned: AtomicU64,
    ended: AtomicU64,
    completed: AtomicU64,
    panicked: AtomicU64,
    aborted: AtomicU64,
    lifetime: Cells<{ LIFETIME.len() + 1 }>,
    poll: Cells<{ POLL.len() + 1 }>,
    schedule: Cells<{ SCHEDULE.len() + 1 }>,
}

impl SiteCells {
    fn new() -> Self {
        Self {
            spawned: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            lifetime: Cells::new(),
            poll: Cells::new(),
            schedule: Cells::new(),
        }
    }

    pub(crate) fn spawned(&self) {
        histogram::add(&self.spawned, 1);
    }

    #[inline]
    pub(crate) fn polled(&self, poll: Poll) {
        self.poll.record(&POLL, poll.duration);
        if let Some(delay) = poll.delay {
            self.schedule.record(&SCHEDULE, delay);
        }
    }

    pub(crate) fn ended(&self, lifetime: u64, outcome: Outcome) {
        self.lifetime.record(&LIFETIME, lifetime);
        match outcome {
            Outcome::Completed => histogram::add(&self.completed, 1),
            Outcome::Panicked => histogram::add(&self.panicked, 1),
            Outcome::Aborted => histogram::add(&self.aborted, 1),
            Outcome::Unknown => {}
        }
        histogram::add(&self.ended, 1);
    }

    fn absorb(&self, other: &Self) {
        for (into, from) in [
            (&self.spawned, &other.spawned),
            (&self.ended, &other.ended),
            (&self.completed, &other.completed),
            (&self.panicked, &other.panicked),
            (&self.aborted, &other.aborted),
        ] {
            histogram::add(into, from.load(Ordering::Relaxed));
        }
        self.lifetime.absorb(&other.lifetime);
        self.poll.absorb(&other.poll);
        self.schedule.absorb(&other.schedule);
    }
}

/// One site's totals over all threads.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    pub(crate) spawned: u64,
    pub(crate) ended: u64,
    pub(crate) completed: u64,
    pub(crate) panicked: u64,
    pub(crate) aborted: u64,
    pub(crate) lifetime: Histogram,
    pub(crate) poll: Histogram,
    pub(crate) schedule: Histogram,
}

impl Totals {
    pub(crate) fn new() -> Self {
        Self {
            spawned: 0,
            ended: 0,
            completed: 0,
            panicked: 0,
            aborted: 0,
            lifetime: Histogram::new(&LIFETIME),
            poll: Histogram::new(&POLL),
            schedule: Histogram::new(&SCHEDULE),
        }
    }

    /// Counts an end that came after these were read.
    pub(crate) fn ended(&mut self, lifetime: u64, outcome: Outcome) {
        self.ended += 1;
        self.lifetime.record(lifetime);
        match outcome {
            Outcome::Completed => self.completed += 1,
            Outcome::Panicked => self.panicked += 1,
            Outcome::Aborted => self.aborted += 1,
            Outcome::Unknown => {}
        }
    }

    fn add(&mut self, cells: &SiteCells) {
        // Acquire pairs with the release of `histogram::add`: an end that is counted
        // here has left its slot, so no snapshot taken after this sees the task alive.
        self.ended += cells.ended.load(Ordering::Acquire);
        self.completed += cells.completed.load(Ordering::Relaxed);
        self.panicked += cells.panicked.load(Ordering::Relaxed);
        self.aborted += cells.aborted.load(Ordering::Relaxed);
        cells.lifetime.add_to(&mut self.lifetime);
        cells.poll.add_to(&mut self.poll);
        cells.schedule.add_to(&mut self.schedule);
    }
}

/// One thread's cells by site; empty where the thread has not met the site.
type Thread = Vec<Option<Arc<SiteCells>>>;

#[derive(Debug, Default)]
pub(crate) struct Tallies {
    threads: Mutex<Threads>,
}

#[derive(Debug, Default)]
struct Threads {
    next: u64,
    live: HashMap<u64, Thread>,
    ended: Thread,
}

impl Tallies {
    /// Registers the calling thread.
    pub(crate) fn join(&self) -> Tally {
        let mut threads = self.threads.lock();
        let thread = threads.next;
        threads.next += 1;
        threads.live.insert(thread, Vec::new());
        Tally {
            thread,
            sites: Vec::new(),
        }
    }

    /// Folds an ending thread's cells into those of the ended.
    pub(crate) fn leave(&self, tally: &Tally) {
        let mut threads = self.threads.lock();
        let cells = threads.live.remove(&tally.thread).unwrap_or_default();
        for (site, cells) in cells.iter().enumerate() {
            if let Some(cells) = cells {
                let ended = at(&mut threads.ended, site);
                ended
                    .get_or_insert_with(|| Arc::new(SiteCells::new()))
                    .absorb(cells);
            }
        }
    }

    /// Counts for a thread whose thread-locals are gone already.
    pub(crate) fn with_shared(&self, site: u32, count: impl FnOnce(&SiteCells)) {
        let mut threads = self.threads.lock();
        let ended = at(&mut threads.ended, site as usize);
        count(ended.get_or_insert_with(|| Arc::new(SiteCells::new())));
    }

    /// Everything but `spawned`, for the first `sites` sites.
    pub(crate) fn totals(&self, sites: usize) -> Vec<Totals> {
        let mut totals = vec![Totals::new(); sites];
        self.each(|site, cells| {
            if let Some(total) = totals.get_mut(site) {
                total.add(cells);
            }
        });
        totals
    }

    /// Adds `spawned`. Read after the live tasks, where `totals` is read before them:
    /// then live and ended are never more than spawned.
    pub(crate) fn add_spawned(&self, totals: &mut [Totals]) {
        self.each(|site, cells| {
            if let Some(total) = totals.get_mut(site) {
                total.spawned += cells.spawned.load(Ordering::Acquire);
            }
        });
    }

    fn each(&self, mut look: impl FnMut(usize, &SiteCells)) {
        let threads = self.threads.lock();
        for thread in threads.live.values().chain([&threads.ended]) {
            for (site, cells) in thread.iter().enumerate() {
                if let Some(cells) = cells {
                    look(site, cells);
                }
            }
        }
    }
}

/// The calling thread's own way to its cells.
#[derive(Debug)]
pub(crate) struct Tally {
    thread: u64,
    sites: Thread,
}

impl Tally {
    /// Tells threads apart, for whatever should not meet.
    pub(crate) fn thread(&self) -> usize {
        self.thread as usize
    }

    #[inline]
    pub(crate) fn site(&mut self, tallies: &Tallies, site: u32) -> &SiteCells {
        let cells = at(&mut self.sites, site as usize);
        cells.get_or_insert_with(|| {
            let new = Arc::new(SiteCells::new());
            let mut threads = tallies.threads.lock();
            let shared = threads.live.entry(self.thread).or_default();
            *at(shared, site as usize) = Some(Arc::clone(&new));
            new
        })
    }
}

#[inline]
fn at(cells: &mut Thread, site: usize) -> &mut Option<Arc<SiteCells>> {
    if site >= cells.len() {
        cells.resize(site + 1, None);
    }
    &mut cells[site]
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_ends_takes_no_count_with_it() {
        let tallies = Tallies::default();
        let mut here = tallies.join();
        here.site(&tallies, 3).ended(5, Outcome::Unknown);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut there = tallies.join();
                there.site(&tallies, 3).spawned();
                there.site(&tallies, 3).ended(7, Outcome::Panicked);
                tallies.leave(&there);
            });
        });
        tallies.with_shared(3, |cells| cells.ended(9, Outcome::Aborted));
        let mut totals = tallies.totals(4);
        tallies.add_spawned(&mut totals);
        let site = &totals[3];
        assert_eq!(
            (site.spawned, site.ended, site.panicked, site.aborted),
            (1, 3, 1, 1)
        );
        assert_eq!(site.lifetime.count(), 3);
    }
}
