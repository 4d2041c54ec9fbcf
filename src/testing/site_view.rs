//! What became of a watch's tasks, by where they were spawned or how they are named.

use crate::Histogram;
use crate::table::ScopeTotals;
use std::time::Duration;

/// The tasks of a [`Watch`](super::Watch) from all spawn sites that were asked for, added up.
///
/// Tasks that are spawned or end while it is taken may be counted in one number and not yet in
/// another. Otherwise `live + ended` is `spawned`, but for tasks of which it is not
/// [confirmed](crate::Loss::unconfirmed) that they ended.
#[derive(Clone, Debug)]
pub struct SiteView {
    pub(super) sites: usize,
    pub(super) live: u64,
    pub(super) oldest: Option<Duration>,
    pub(super) live_polls: u64,
    pub(super) totals: ScopeTotals,
}

impl SiteView {
    pub(super) fn empty() -> Self {
        Self {
            sites: 0,
            live: 0,
            oldest: None,
            live_polls: 0,
            totals: ScopeTotals::new(),
        }
    }

    pub(super) fn add(&mut self, totals: &ScopeTotals) {
        self.sites += 1;
        self.totals.spawned += totals.spawned;
        self.totals.completed += totals.completed;
        self.totals.panicked += totals.panicked;
        self.totals.aborted += totals.aborted;
        self.totals.polls += totals.polls;
        self.totals.lifetime.add(&totals.lifetime);
    }

    pub(super) fn add_live(&mut self, age: Duration, polls: u64) {
        self.live += 1;
        self.live_polls += polls;
        self.oldest = self.oldest.max(Some(age));
    }

    /// How many spawn sites matched. Each has a place, a kind and a name, so one line can be
    /// several.
    pub fn sites(&self) -> usize {
        self.sites
    }

    /// Tasks alive now.
    pub fn live(&self) -> u64 {
        self.live
    }

    /// Tasks spawned since the watch was opened.
    pub fn spawned(&self) -> u64 {
        self.totals.spawned
    }

    /// Of those, the ones that ended.
    pub fn ended(&self) -> u64 {
        self.totals.lifetime.count()
    }

    /// Ended tasks known to have given their output: those of [`straggler::spawn`](crate::spawn).
    pub fn completed(&self) -> u64 {
        self.totals.completed
    }

    /// Ended tasks known to have panicked.
    pub fn panicked(&self) -> u64 {
        self.totals.panicked
    }

    /// Ended tasks known to have been aborted.
    pub fn aborted(&self) -> u64 {
        self.totals.aborted
    }

    /// Polls of all of them, live and ended.
    pub fn polls(&self) -> u64 {
        self.totals.polls + self.live_polls
    }

    /// The age of the oldest live one.
    pub fn oldest(&self) -> Option<Duration> {
        self.oldest
    }

    /// Lifetimes of those that ended.
    pub fn lifetime(&self) -> &Histogram {
        &self.totals.lifetime
    }
}
