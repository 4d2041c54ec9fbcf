//! Where a task comes from: who spawns it, and for which scope.

use super::local::Local;
#[cfg(feature = "testing")]
use super::local::with;
use super::spawn::in_daemon;
use crate::table::{Scope, Spawner, Table};
use std::sync::Arc;

/// Where a task comes from.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(super) spawner: Spawner,
    /// Where the spawner doesn't tell.
    pub(super) scope: Option<Arc<Scope>>,
    pub(super) daemon: bool,
}

impl Origin {
    /// On a thread whose storage is gone.
    pub(crate) fn unknown() -> Self {
        Self {
            spawner: Spawner::None,
            scope: None,
            daemon: in_daemon(),
        }
    }
}

impl Local {
    /// Where a task that is spawned on this thread now comes from.
    pub(crate) fn origin(&mut self, table: &Table) -> Origin {
        let spawner = self.spawner(table);
        let daemon = in_daemon();
        let scope = match spawner {
            _ if !table.scopes.are_used() => None,
            // The table has it. A daemon's spawner is forgotten, and its scope is not.
            Spawner::Task(key) if daemon => table.scope_of(key),
            Spawner::Task(_) => None,
            Spawner::None => self.scope.open(),
            Spawner::Unknown(id) => table.scopes.of_unknown(id),
        };
        Origin {
            spawner,
            scope,
            daemon,
        }
    }
}

/// Opens a scope: what the task that is being polled here spawns from now on, or else this thread.
/// `None` where the thread's storage is gone.
#[cfg(feature = "testing")]
pub(crate) fn open_scope(table: &Arc<Table>) -> Option<Arc<Scope>> {
    with(table, |local| {
        let spawner = local.spawner(table);
        table.open_scope(spawner, &mut local.scope)
    })
}

/// The task that is being polled here, if it is known.
#[cfg(feature = "testing")]
pub(crate) fn current_task(table: &Arc<Table>) -> Option<u64> {
    with(table, |local| match local.spawner(table) {
        Spawner::Task(key) => Some(table.slot(key).id()),
        Spawner::Unknown(id) => Some(id),
        Spawner::None => None,
    })
    .flatten()
}
