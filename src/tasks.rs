//! The handle by which tasks are asked about.

use crate::capture::{ParentRules, Sight};
#[cfg(feature = "otlp")]
use crate::export::Exporter;
use crate::monitor::Monitor;
use crate::query::{Reader, Snapshot};
use crate::table::Table;
use crate::{Diagnosis, Error};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The live tasks of this process, as one layer or one set of hooks sees them.
///
/// Cheap to clone, and shared between threads. Made by [`Builder::build`](crate::Builder::build).
#[derive(Clone)]
pub struct Tasks {
    pub(crate) shared: Arc<Shared>,
    /// Stops with the last handle.
    pub(crate) monitor: Option<Arc<Monitor>>,
    #[cfg(feature = "otlp")]
    pub(crate) exporter: Option<Arc<Exporter>>,
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
        let (rules, sight) = (&self.rules, &self.sight);
        let found = crate::diagnose::from_outside(&self.table, rules, sight, Some(&snapshot));
        snapshot.add_diagnoses(found);
        snapshot
    }
}

impl Tasks {
    /// Copies every live task and judges which are orphans now.
    ///
    /// The poll path takes no lock that it holds, but for a task's first poll on a new
    /// runtime, a thread's first poll at a site, and a turn that looks like the end of a task with
    /// children; spawns
    /// and ends may meet it at one task's record, for some nanoseconds. Costs some hundred
    /// nanoseconds and bytes a task; where tasks look ended while their spans are held,
    /// 200 µs more for a second look. Two snapshots at once wait for each other.
    ///
    /// Where no task or no wake arrived since the last one, a thread is made that asks the
    /// subscriber's filters why, once a second at most. It is waited for: some 100 µs, and 100 ms
    /// for a filter that doesn't answer, which is not asked again.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// Sets straggler's hooks on a runtime builder, where [`Source::Hooks`](crate::Source::Hooks)
    /// or [`Source::Both`](crate::Source::Both) was chosen.
    ///
    /// tokio keeps one hook of each kind: those set before are replaced, and those set
    /// later replace these. A program with hooks of its own calls straggler's from them:
    /// [`hooks`](Self::hooks). Without `tokio_unstable`, or with
    /// [`Source::Spans`](crate::Source::Spans), it does nothing.
    pub fn hook(&self, builder: &mut tokio::runtime::Builder) {
        #[cfg(tokio_unstable)]
        self.hooks().set_on(builder);
        #[cfg(not(tokio_unstable))]
        let _ = builder;
    }

    /// What [`hook`](Self::hook) sets, as methods to be called from hooks of your own. Only with
    /// `--cfg tokio_unstable`.
    #[cfg(tokio_unstable)]
    pub fn hooks(&self) -> crate::Hooks {
        let shared = &self.shared;
        crate::Hooks::new(&shared.table, &shared.rules)
    }

    /// Why something isn't seen, each with its fix. Empty when all is well. Costs a
    /// snapshot, which has them too.
    pub fn diagnose(&self) -> Vec<Diagnosis> {
        self.snapshot().diagnoses().to_vec()
    }
}

impl Tasks {
    /// Looks for orphans now and sends everything there is to send, waiting `max` at most.
    /// May be called from anywhere, a poll included: the work is done by other threads.
    ///
    /// # Errors
    ///
    /// If that was not done when the time had passed. It goes on all the same. What was not
    /// delivered for other reasons is in [`Loss`](crate::Loss) and the diagnoses.
    #[cfg(feature = "otlp")]
    pub fn flush(&self, max: Duration) -> Result<(), Error> {
        let deadline = Instant::now().checked_add(max);
        let looked = (self.monitor.as_ref()).is_none_or(|monitor| monitor.look(deadline));
        let sent = (self.exporter.as_ref()).is_none_or(|exporter| exporter.flush(deadline));
        within(max, looked && sent)
    }

    /// Stops straggler's threads, waiting `max` at most: no more warnings and, after a last look
    /// and with all that there is sent, no more export. Tasks go on being tracked.
    /// Of another call nothing more comes. May be called from anywhere, a poll included.
    ///
    /// # Errors
    ///
    /// If a thread was still busy when the time had passed. It ends by itself.
    pub fn shutdown(&self, max: Duration) -> Result<(), Error> {
        let deadline = Instant::now().checked_add(max);
        let stopped = (self.monitor.as_ref()).is_none_or(|monitor| monitor.stop(deadline));
        #[cfg(feature = "otlp")]
        let stopped =
            (self.exporter.as_ref()).is_none_or(|exporter| exporter.stop(deadline)) && stopped;
        within(max, stopped)
    }

    /// A guard that shuts the export down when it is dropped.
    pub fn guard(&self) -> Guard {
        Guard {
            tasks: self.clone(),
            armed: self.exports(),
        }
    }

    fn exports(&self) -> bool {
        #[cfg(feature = "otlp")]
        return self.exporter.is_some();
        #[cfg(not(feature = "otlp"))]
        false
    }
}

fn within(max: Duration, done: bool) -> Result<(), Error> {
    match done {
        true => Ok(()),
        false => Err(Error::timeout(max)),
    }
}

/// The handle, and the way to stop: what [`init`](crate::init) and [`Tasks::guard`] give.
///
/// Where straggler exports, dropping it is a [`Tasks::shutdown`] that takes 5 seconds at most,
/// so keep it until the end of `main`. Otherwise dropping it does nothing. The subscriber
/// stays in place, as `tracing` can't take it back.
#[derive(Debug)]
#[must_use = "the export stops when this is dropped"]
pub struct Guard {
    tasks: Tasks,
    /// Whether dropping it shuts down.
    armed: bool,
}

/// How long dropping a guard may take.
const DROP_MAX: Duration = Duration::from_secs(5);

impl Guard {
    /// The handle. Clone it to keep it elsewhere.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Stops straggler's threads: [`Tasks::shutdown`].
    ///
    /// # Errors
    ///
    /// If a thread was still busy when the time had passed.
    pub fn shutdown(mut self, max: Duration) -> Result<(), Error> {
        self.armed = false;
        self.tasks.shutdown(max)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed
            && let Err(error) = self.tasks.shutdown(DROP_MAX)
        {
            tracing::warn!(target: "straggler", "{error}");
        }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("config", &self.shared.table.config)
            .finish_non_exhaustive()
    }
}
