//! Tasks that run here though nobody announced them.
//!
//! tokio numbers tasks in the order of their spawns, whichever runtime they are of. So a task
//! with a number below all that were announced is older than all that were seen.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::{Handle, Id};

/// More runtimes than anybody reads about in a report.
const MOST: usize = 64;

#[derive(Debug)]
pub(crate) struct Strangers {
    /// The lowest number that was announced.
    first: AtomicU64,
    met: Mutex<BTreeMap<String, Since>>,
}

/// When the unannounced tasks of a runtime were spawned, compared with those announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    Before,
    After,
}

impl Default for Strangers {
    fn default() -> Self {
        Self {
            first: AtomicU64::new(u64::MAX),
            met: Mutex::default(),
        }
    }
}

impl Strangers {
    #[inline]
    pub(crate) fn announced(&self, id: u64) {
        // Numbers go up: after the first few this is a load.
        if id != 0 && id < self.first.load(Ordering::Relaxed) {
            self.first.fetch_min(id, Ordering::Relaxed);
        }
    }

    /// The layer has become part of a subscriber: what runs around it now is older.
    pub(crate) fn installed(&self) {
        if let Ok(handle) = Handle::try_current()
            && handle.metrics().num_alive_tasks() > 0
        {
            self.note(handle.id(), Since::Before);
        }
    }

    /// Whether a task is older than all that were announced.
    pub(crate) fn since(&self, id: u64) -> Since {
        if id < self.first.load(Ordering::Relaxed) {
            Since::Before
        } else {
            Since::After
        }
    }

    /// Notes that a runtime has such tasks. The older ones say more.
    pub(crate) fn note(&self, runtime: Id, since: Since) {
        let mut met = self.met.lock();
        let id = runtime.to_string();
        if met.len() >= MOST && !met.contains_key(&id) {
            return;
        }
        let known = met.entry(id).or_insert(since);
        if since == Since::Before {
            *known = since;
        }
    }

    pub(crate) fn is_noted(&self, runtime: Id) -> bool {
        self.met.lock().contains_key(&runtime.to_string())
    }

    /// The runtimes with strangers of that age.
    pub(crate) fn of(&self, since: Since) -> Vec<String> {
        let met = self.met.lock();
        (met.iter())
            .filter(|&(_, &found)| found == since)
            .map(|(id, _)| id.clone())
            .collect()
    }
}
