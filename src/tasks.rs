//! The handle by which tasks are asked about.

use crate::Diagnosis;
use crate::capture::{ParentRules, Sight};
use crate::monitor::Monitor;
use crate::query::{Reader, Snapshot};
use crate::table::Table;
use std::fmt;
use std::sync::Arc;

/// The live tasks of this process, as one layer or one set of hooks sees them.
///
/// Cheap to clone, and shared between threads. Made by [`Builder::build`](crate::Builder::build).
#[derive(Clone)]
pub struct Tasks {
    pub(crate) shared: Arc<Shared>,
    pub(crate) rules: Arc<ParentRules>,
    /// Stops with the last handle.
    pub(crate) monitor: Option<Arc<Monitor>>,
}

/// What all clones share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: Arc<Table>,
    pub(crate) reader: Reader,
    pub(crate) rules: Arc<ParentRules>,
    pub(crate) sight: Arc<Sight>,
}

impl Shared {
    pub(crate) fn snapshot(&self) -> Snapshot {
        if !self.sight.is_connected() {
            crate::capture::connect(&self.table);
        }
        let mut snapshot = self.reader.snapshot(&self.table);
        // What is asked of the subscriber is asked when no lock of ours is held.
        let found = crate::diagnose::from_outside(&self.table, &self.rules, &self.sight, &snapshot);
        snapshot.add_diagnoses(found);
        snapshot
    }
}

impl Tasks {
    /// Copies every live task and judges which are orphans now.
    ///
    /// The poll path takes no lock that it holds, but for a task's first poll on a new
    /// runtime, a thread's first poll at a site, and a turn that looks like the end; spawns
    /// and ends may meet it at one task's record, for some nanoseconds. Costs some hundred
    /// nanoseconds and bytes a task; where tasks look ended while their spans are held,
    /// 200 µs more for a second look. Two snapshots at once wait for each other.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// Sets straggler's hooks on a runtime builder, where [`Source::Hooks`](crate::Source::Hooks)
    /// or [`Source::Both`](crate::Source::Both) was chosen.
    ///
    /// tokio keeps one hook of each sort: those set before are replaced, and those set
    /// later replace these. Without `tokio_unstable`, or with
    /// [`Source::Spans`](crate::Source::Spans), it does nothing.
    pub fn hook(&self, builder: &mut tokio::runtime::Builder) {
        #[cfg(tokio_unstable)]
        if self.shared.table.config.source.hooks() {
            crate::capture::hook(&self.shared.table, &self.rules, builder);
            self.shared.table.runtimes.hooks_are_set();
        }
        #[cfg(not(tokio_unstable))]
        let _ = (builder, &self.rules);
    }

    /// Why something isn't seen, each with its fix. Empty when all is well. Costs a
    /// snapshot, which has them too.
    pub fn diagnose(&self) -> Vec<Diagnosis> {
        self.snapshot().diagnoses().to_vec()
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("config", &self.shared.table.config)
            .finish_non_exhaustive()
    }
}
