//! What was not seen, not kept or not certain: never silently, each by its reason.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a snapshot may not be the whole truth. All zero is the normal state.
///
/// Counts go up for as long as the process lives, except [`unconfirmed`](Self::unconfirmed)
/// and [`unaccounted`](Self::unaccounted), which are what is open now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    pub(crate) refused: u64,
    pub(crate) unseen_parents: u64,
    pub(crate) unseen_tasks: u64,
    pub(crate) unconfirmed: u64,
    pub(crate) unaccounted: u64,
    pub(crate) site_overflow: u64,
    pub(crate) lineages_cut: u64,
    pub(crate) names_cut: u64,
    pub(crate) runtimes_unknown: u64,
    pub(crate) warnings_failed: u64,
    pub(crate) thread_gone: u64,
    pub(crate) out_of_order: u64,
    pub(crate) orphans_uncounted: u64,
    pub(crate) orphans_left_out: u64,
    pub(crate) spans_lost: u64,
    pub(crate) points_lost: u64,
}

impl Loss {
    /// Whether nothing was lost.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Tasks not tracked because [`max_live_tasks`](crate::Builder::max_live_tasks) were live.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Tasks whose spawner is not in the table: it was spawned before the layer, refused, or
    /// is of a kind that the source doesn't see. They have an unknown parent and are
    /// never orphans for its sake.
    pub fn unseen_parents(&self) -> u64 {
        self.unseen_parents
    }

    /// Times a task was found running that is not in the table, on a runtime that isn't
    /// hooked while hooks are the source.
    pub fn unseen_tasks(&self) -> u64 {
        self.unseen_tasks
    }

    /// Tasks that look as if they had ended while something holds their span open, and
    /// that their runtime's own count has not confirmed yet. They are neither live
    /// nor ended. On hooked runtimes ([`Source::Both`](crate::Source::Both)) only tasks
    /// of a `LocalSet` can be, which hooks don't see.
    pub fn unconfirmed(&self) -> u64 {
        self.unconfirmed
    }

    /// Tasks that their runtime no longer counts and of which it can't be told which
    /// of the live ones they are.
    pub fn unaccounted(&self) -> u64 {
        self.unaccounted
    }

    /// Tasks counted under the overflow site, because
    /// [`max_spawn_sites`](crate::Builder::max_spawn_sites) were known.
    pub fn site_overflow(&self) -> u64 {
        self.site_overflow
    }

    /// Lineages cut off, because four times `max_spawn_sites` ancestries were known.
    pub fn lineages_cut(&self) -> u64 {
        self.lineages_cut
    }

    /// Task names cut at [`max_name_len`](crate::Builder::max_name_len).
    pub fn names_cut(&self) -> u64 {
        self.names_cut
    }

    /// Times a task's runtime could not be told, because 1,024 were known that no snapshot
    /// has let go of.
    pub fn runtimes_unknown(&self) -> u64 {
        self.runtimes_unknown
    }

    /// Warnings of orphans in which the program's own subscriber panicked.
    pub fn warnings_failed(&self) -> u64 {
        self.warnings_failed
    }

    /// Events on threads whose thread-local storage was gone already.
    pub fn thread_gone(&self) -> u64 {
        self.thread_gone
    }

    /// Events in an order that tokio doesn't document, such as a waker dropped that
    /// was never cloned; more wakes of a task between two polls than can be counted (a
    /// million); a poll by hooks that could not be begun beside the end of the one before.
    pub fn out_of_order(&self) -> u64 {
        self.out_of_order
    }

    /// Tasks that ended between two looks of the export, and of which can't be told any more
    /// whether they were orphans, because `Otlp::max_queued_spans` such waited already.
    pub fn orphans_uncounted(&self) -> u64 {
        self.orphans_uncounted
    }

    /// Orphans that are counted but told of by no span, because
    /// `Otlp::max_marked_orphans` live ones were told of already.
    pub fn orphans_left_out(&self) -> u64 {
        self.orphans_left_out
    }

    /// Spans of orphans that were made and did not arrive: there was no room for them, the
    /// receiver could not be reached in time, or it rejected them. A marker that
    /// did not arrive is made anew, and counts again if that doesn't either.
    pub fn spans_lost(&self) -> u64 {
        self.spans_lost
    }

    /// Points of metrics that were made and did not arrive. The next ones say
    /// what those did, as counters and histograms are cumulative.
    pub fn points_lost(&self) -> u64 {
        self.points_lost
    }

    /// Those that only ever go up.
    #[cfg(feature = "otlp")]
    pub(crate) fn counted(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let open = |reason| matches!(reason, "unconfirmed" | "unaccounted");
        self.reasons().filter(move |&(reason, _)| !open(reason))
    }

    /// Every reason with its count, in the order of this page.
    pub fn reasons(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("refused", self.refused),
            ("unseen_parents", self.unseen_parents),
            ("unseen_tasks", self.unseen_tasks),
            ("unconfirmed", self.unconfirmed),
            ("unaccounted", self.unaccounted),
            ("site_overflow", self.site_overflow),
            ("lineages_cut", self.lineages_cut),
            ("names_cut", self.names_cut),
            ("runtimes_unknown", self.runtimes_unknown),
            ("warnings_failed", self.warnings_failed),
            ("thread_gone", self.thread_gone),
            ("out_of_order", self.out_of_order),
            ("orphans_uncounted", self.orphans_uncounted),
            ("orphans_left_out", self.orphans_left_out),
            ("spans_lost", self.spans_lost),
            ("points_lost", self.points_lost),
        ]
        .into_iter()
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (reason, count) in self.reasons().filter(|&(_, count)| count > 0) {
            if !first {
                f.write_str(", ")?;
            }
            first = false;
            write!(f, "{reason} {count}")?;
        }
        if first {
            f.write_str("nothing")?;
        }
        Ok(())
    }
}

/// What can't be delivered at the moment, and why.
#[cfg(feature = "otlp")]
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    failing: parking_lot::Mutex<Vec<(&'static str, String)>>,
}

#[cfg(feature = "otlp")]
impl Delivery {
    /// What became of the last try to send this.
    pub(crate) fn note(&self, what: &'static str, failure: Option<String>) {
        let mut failing = self.failing.lock();
        failing.retain(|&(other, _)| other != what);
        failing.extend(failure.map(|failure| (what, failure)));
    }

    pub(crate) fn failing(&self) -> Vec<String> {
        let failing = self.failing.lock();
        failing.iter().map(|(_, failure)| failure.clone()).collect()
    }
}

/// The counters behind it, which any thread raises. All are rare.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    refused: AtomicU64,
    unseen_parents: AtomicU64,
    unseen_tasks: AtomicU64,
    site_overflow: AtomicU64,
    names_cut: AtomicU64,
    warnings_failed: AtomicU64,
    thread_gone: AtomicU64,
    out_of_order: AtomicU64,
    orphans_uncounted: AtomicU64,
    orphans_left_out: AtomicU64,
    spans_lost: AtomicU64,
    points_lost: AtomicU64,
}

#[cfg(feature = "otlp")]
impl Counters {
    pub(crate) fn orphan_uncounted(&self) {
        self.orphans_uncounted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn orphans_left_out(&self) {
        self.orphans_left_out.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn spans_lost(&self, count: u64) {
        self.spans_lost.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn points_lost(&self, count: u64) {
        self.points_lost.fetch_add(count, Ordering::Relaxed);
    }
}

impl Counters {
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unseen_parent(&self) {
        self.unseen_parents.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unseen_task(&self) {
        self.unseen_tasks.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn site_overflow(&self) {
        self.site_overflow.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn name_cut(&self) {
        self.names_cut.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn warning_failed(&self) {
        self.warnings_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn thread_gone(&self) {
        self.thread_gone.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn out_of_order(&self) {
        self.out_of_order.fetch_add(1, Ordering::Relaxed);
    }

    /// What the table itself knows; a look adds the rest.
    pub(crate) fn read(&self) -> Loss {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Loss {
            refused: read(&self.refused),
            unseen_parents: read(&self.unseen_parents),
            unseen_tasks: read(&self.unseen_tasks),
            site_overflow: read(&self.site_overflow),
            names_cut: read(&self.names_cut),
            warnings_failed: read(&self.warnings_failed),
            thread_gone: read(&self.thread_gone),
            out_of_order: read(&self.out_of_order),
            orphans_uncounted: read(&self.orphans_uncounted),
            orphans_left_out: read(&self.orphans_left_out),
            spans_lost: read(&self.spans_lost),
            points_lost: read(&self.points_lost),
            ..Loss::default()
        }
    }
}
