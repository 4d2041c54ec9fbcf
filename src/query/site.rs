//! What a snapshot says of each spawn site.

use crate::histogram::Histogram;
use crate::table::{self, Poll, Totals};
use crate::task::{Kind, Location, SiteKey, Task};
use crate::text::Named;
use std::sync::Arc;
use std::time::Duration;

/// A place where tasks are spawned, with all it ever spawned.
///
/// Live tasks, orphans and the oldest are counted from the snapshot itself. Ended
/// tasks are counted at their end: `live + ending + ended` is never more than `spawned`,
/// and equal while nothing is spawned or ends during the snapshot.
#[derive(Clone, Debug)]
pub struct Site {
    pub(super) index: u32,
    key: Arc<SiteKey>,
    live: u64,
    ending: u64,
    orphans: u64,
    oldest: Option<Duration>,
    totals: Totals,
}

impl Site {
    pub(crate) fn named(&self) -> Named<'_> {
        Named::of(&self.key)
    }

    #[cfg(feature = "testing")]
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Where the tasks are spawned.
    pub fn location(&self) -> &Location {
        &self.key.location
    }

    /// What kind of tasks they are.
    pub fn kind(&self) -> Kind {
        self.key.kind
    }

    /// Their name, where they have one.
    pub fn name(&self) -> Option<&str> {
        self.key.name.as_deref()
    }

    /// Whether this one stands for all sites beyond
    /// [`max_spawn_sites`](crate::Builder::max_spawn_sites).
    pub fn is_overflow(&self) -> bool {
        self.key.overflow
    }

    /// Tasks alive.
    pub fn live(&self) -> u64 {
        self.live
    }

    /// Tasks that are ending, unconfirmed: see [`Loss::unconfirmed`](crate::Loss::unconfirmed).
    pub fn ending(&self) -> u64 {
        self.ending
    }

    /// Live tasks that outlived what started them.
    pub fn orphans(&self) -> u64 {
        self.orphans
    }

    /// Tasks ever spawned here and tracked.
    pub fn spawned(&self) -> u64 {
        self.totals.spawned
    }

    /// Tasks that ended.
    pub fn ended(&self) -> u64 {
        self.totals.ended()
    }

    /// Ended tasks known to have panicked. Spans and [`straggler::spawn`](crate::spawn)
    /// know of each; hooks alone know of none.
    pub fn panicked(&self) -> u64 {
        self.totals.panicked
    }

    /// Ended tasks known to have given their output. Only
    /// [`straggler::spawn`](crate::spawn) can tell.
    pub fn completed(&self) -> u64 {
        self.totals.completed
    }

    /// Ended tasks known to have been aborted, or dropped with their runtime.
    pub fn aborted(&self) -> u64 {
        self.totals.aborted
    }

    /// The age of the oldest live task.
    pub fn oldest(&self) -> Option<Duration> {
        self.oldest
    }

    /// Lifetimes of the tasks that ended: one value each, from 100 µs to 6 h.
    pub fn lifetime(&self) -> &Histogram {
        &self.totals.lifetime
    }

    /// Durations of finished polls, those of live tasks included, from 1 µs to 5 s.
    pub fn poll(&self) -> &Histogram {
        &self.totals.poll
    }

    /// Delays from a wake, or the spawn, to the poll it led to, where wakes are known,
    /// from 1 µs to 1 s.
    pub fn schedule(&self) -> &Histogram {
        &self.totals.schedule
    }
}

/// Builds the sites of one snapshot.
pub(super) struct Sites {
    sites: Vec<Site>,
}

impl Sites {
    pub(super) fn new(known: Vec<Arc<table::Site>>, totals: Vec<Totals>) -> Self {
        let sites = (known.into_iter().zip(totals).zip(0..))
            .map(|((site, totals), index)| Site {
                index,
                key: Arc::clone(&site.key),
                live: 0,
                ending: 0,
                orphans: 0,
                oldest: None,
                totals,
            })
            .collect();
        Self { sites }
    }

    /// Each site's key, by its number.
    pub(super) fn keys(&self) -> Vec<Arc<SiteKey>> {
        self.sites
            .iter()
            .map(|site| Arc::clone(&site.key))
            .collect()
    }

    pub(super) fn ending(&mut self, site: u32) {
        if let Some(site) = self.sites.get_mut(site as usize) {
            site.ending += 1;
        }
    }

    /// Counts a live task, and its last poll, which is in no cell yet.
    pub(super) fn live(&mut self, task: &Task, pending: Option<Poll>) {
        let Some(site) = self.sites.get_mut(task.site_index as usize) else {
            return;
        };
        site.live += 1;
        site.orphans += u64::from(task.orphaned.is_some());
        site.oldest = site.oldest.max(Some(task.age()));
        if let Some(poll) = pending {
            site.totals.poll.record(poll.duration);
            if let Some(delay) = poll.delay {
                site.totals.schedule.record(delay);
            }
        }
    }

    /// Those that were ever used, the most alive first.
    pub(super) fn sorted(self) -> Vec<Site> {
        let used = |site: &Site| site.totals.spawned > 0 || site.live > 0;
        let mut sites: Vec<_> = self.sites.into_iter().filter(used).collect();
        sites.sort_by(|a, b| {
            let most = b
                .live
                .cmp(&a.live)
                .then(b.totals.spawned.cmp(&a.totals.spawned));
            most.then_with(|| a.key.cmp(&b.key))
        });
        sites
    }
}
