//! Counts and histograms per spawn site, written without contention.
//!
//! Each thread has cells of its own for each site it meets, and is their only writer.
//! Readers add up the cells of all threads. A thread that ends folds its cells into
//! those of the ended ones, under the lock that readers hold, so nothing is counted
//! twice or missed.

#[cfg(feature = "otlp")]
use super::exemplars::{Exemplar, Exemplars};
use super::fate::Fate;
use super::sites::LastMet;
use super::slab::Key;
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

impl Outcome {
    /// What is known where only a panic shows.
    pub(crate) fn told(panicked: bool) -> Self {
        if panicked {
            Self::Panicked
        } else {
            Self::Unknown
        }
    }
}

/// One thread's counts of one site.
#[derive(Debug)]
pub(crate) struct SiteCells {
    spawned: AtomicU64,
    completed: AtomicU64,
    panicked: AtomicU64,
    aborted: AtomicU64,
    lifetime: Cells<{ LIFETIME.len() + 1 }>,
    poll: Cells<{ POLL.len() + 1 }>,
    schedule: Cells<{ SCHEDULE.len() + 1 }>,
    #[cfg(feature = "otlp")]
    lifetimes_traced: Exemplars,
}

impl SiteCells {
    fn new() -> Self {
        Self {
            spawned: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            lifetime: Cells::new(),
            poll: Cells::new(),
            schedule: Cells::new(),
            #[cfg(feature = "otlp")]
            lifetimes_traced: Exemplars::default(),
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

    /// Counts an end. The lifetimes' number is the number of the ended.
    pub(crate) fn ended(&self, lifetime: u64, outcome: Outcome) {
        if let Some(cell) = self.outcome(outcome) {
            histogram::add(cell, 1);
        }
        self.lifetime.record(&LIFETIME, lifetime);
    }

    /// Keeps the trace of a task whose end was just counted.
    #[cfg(feature = "otlp")]
    pub(crate) fn traced(&self, exemplar: Exemplar) {
        let bucket = LIFETIME.bucket(exemplar.value);
        self.lifetimes_traced.keep(bucket, exemplar);
    }

    /// Takes back an end that was counted somewhere, as the sum over all threads.
    pub(crate) fn take_back(&self, lifetime: u64, outcome: Outcome) {
        if let Some(cell) = self.outcome(outcome) {
            histogram::add(cell, 1_u64.wrapping_neg());
        }
        self.lifetime.take_back(&LIFETIME, lifetime);
    }

    fn outcome(&self, outcome: Outcome) -> Option<&AtomicU64> {
        match outcome {
            Outcome::Completed => Some(&self.completed),
            Outcome::Panicked => Some(&self.panicked),
            Outcome::Aborted => Some(&self.aborted),
            Outcome::Unknown => None,
        }
    }

    fn absorb(&self, other: &Self) {
        for (into, from) in [
            (&self.spawned, &other.spawned),
            (&self.completed, &other.completed),
            (&self.panicked, &other.panicked),
            (&self.aborted, &other.aborted),
        ] {
            histogram::add(into, from.load(Ordering::Relaxed));
        }
        self.lifetime.absorb(&other.lifetime);
        self.poll.absorb(&other.poll);
        self.schedule.absorb(&other.schedule);
        #[cfg(feature = "otlp")]
        for (bucket, exemplar) in other.lifetimes_traced.take() {
            self.lifetimes_traced.keep(bucket, exemplar);
        }
    }
}

/// One site's totals over all threads.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    pub(crate) spawned: u64,
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
            completed: 0,
            panicked: 0,
            aborted: 0,
            lifetime: Histogram::new(&LIFETIME),
            poll: Histogram::new(&POLL),
            schedule: Histogram::new(&SCHEDULE),
        }
    }

    /// Tasks that ended.
    pub(crate) fn ended(&self) -> u64 {
        self.lifetime.count()
    }

    fn add(&mut self, cells: &SiteCells) {
        // An end that is counted here has left its slot, so no snapshot taken after this
        // sees the task alive: see `Cells::add_to`.
        cells.lifetime.add_to(&mut self.lifetime);
        for (into, from) in [
            (&mut self.completed, &cells.completed),
            (&mut self.panicked, &cells.panicked),
            (&mut self.aborted, &cells.aborted),
        ] {
            *into = into.wrapping_add(from.load(Ordering::Relaxed));
        }
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
            met: LastMet::default(),
            spawner: None,
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

    /// Takes the traced lifetimes kept since the last time, by site, one a bucket.
    #[cfg(feature = "otlp")]
    pub(crate) fn take_traced(&self) -> Vec<(u32, Exemplar)> {
        let mut taken = HashMap::new();
        self.each(|site, cells| {
            for (bucket, exemplar) in cells.lifetimes_traced.take() {
                taken.insert((site as u32, bucket), exemplar);
            }
        });
        (taken.into_iter())
            .map(|((site, _), exemplar)| (site, exemplar))
            .collect()
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
    pub(super) met: LastMet,
    pub(super) spawner: Option<LastSpawner>,
}

/// The task that spawned the thread's last one, with what its children share.
#[derive(Debug)]
pub(super) struct LastSpawner {
    pub(super) key: Key,
    pub(super) lineage: u32,
    pub(super) fate: Arc<Fate>,
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
        tallies.with_shared(3, |cells| cells.ended(11, Outcome::Panicked));
        // Another thread's cells: only the sum means anything.
        here.site(&tallies, 3).take_back(11, Outcome::Panicked);
        let mut totals = tallies.totals(4);
        tallies.add_spawned(&mut totals);
        let site = &totals[3];
        assert_eq!(
            (site.spawned, site.ended(), site.panicked, site.aborted),
            (1, 3, 1, 1)
        );
        assert_eq!(site.lifetime.count(), 3);
    }
}
