//! Looks for tasks that their runtime counts and nobody announced.

use crate::capture::is_in;
use crate::query::Snapshot;
use crate::table::{Since, Table, traits};
use crate::task::Kind;
use std::collections::HashMap;
use std::thread;
use std::time::Duration;
use tokio::runtime::{Handle, Id};
use tracing_core::dispatcher;

/// More tasks than this are not counted again.
const MOST: usize = 100_000;

/// How long to wait for a moment in which a runtime rests.
const PAUSES: [Duration; 4] = [
    Duration::from_micros(200),
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(9),
];
/// So many such moments must agree.
const MOMENTS: usize = 2;

/// Notes each runtime that has more tasks than are known. A busy one, whose numbers never
/// belong together, is left alone; its strangers show when they spawn.
pub(super) fn look(table: &Table, snapshot: &Snapshot) {
    let loss = snapshot.loss();
    if loss.refused() > 0 || snapshot.tasks().len() > MOST {
        return;
    }
    let known = known(snapshot);
    let of = |runtime| known.get(&runtime).copied().unwrap_or(0);
    let somewhere = of(None) + usize::try_from(loss.unconfirmed()).unwrap_or(usize::MAX);
    let runtimes = table.runtimes.ids();
    let note = |handle: &Handle, since, most: usize, number| {
        let id = handle.id();
        let alive = handle.metrics().num_alive_tasks();
        if alive > most && !table.strangers.is_noted(id) && is_short(table, handle, number) {
            table.strangers.note(id, since);
        }
    };
    for &number in runtimes.keys() {
        if let Some((handle, complete)) = table.runtimes.handle(number) {
            let since = if complete {
                Since::After
            } else {
                Since::Before
            };
            let most = of(Some(handle.id())).saturating_add(somewhere);
            note(&handle, since, most, number);
        }
    }
    // On a thread that is turned away from us a runtime is hidden on purpose, as an exporter's.
    if let Ok(handle) = Handle::try_current()
        && !runtimes.values().any(|&id| id == handle.id())
        && dispatcher::get_default(|dispatch| is_in(dispatch, table))
    {
        // Not one of its tasks was ever seen.
        note(&handle, Since::Before, somewhere, 0);
    }
}

/// The tasks that a runtime counts, by runtime; those of a `LocalSet` are too many.
fn known(snapshot: &Snapshot) -> HashMap<Option<Id>, usize> {
    let mut known = HashMap::new();
    for task in snapshot.tasks().filter(|task| is_counted(task.kind())) {
        *known.entry(task.runtime()).or_default() += 1;
    }
    known
}

fn is_counted(kind: Kind) -> bool {
    matches!(kind, Kind::Task | Kind::Local)
}

/// Whether we know of fewer tasks than there are, in moments when none comes or goes.
///
/// A runtime counts a task for a little longer than its future is there, and the thread that
/// is about to take it out may be stopped just then. A thread that is parked is not, and neither
/// is the one that asks.
fn is_short(table: &Table, handle: &Handle, number: u32) -> bool {
    let mut moments = 0;
    for pause in PAUSES {
        thread::sleep(pause);
        let before = (moves(table), rest(handle));
        let alive = handle.metrics().num_alive_tasks();
        let known = (table.slots())
            .filter(|(_, slot)| slot.id() != 0 && is_counted(traits::kind(slot.traits())))
            .filter(|(_, slot)| slot.runtime() == 0 || slot.runtime() == number)
            .count();
        if before.1.is_none() || (moves(table), rest(handle)) != before {
            continue;
        }
        if alive <= known {
            return false;
        }
        moments += 1;
        if moments == MOMENTS {
            return true;
        }
    }
    false
}

/// How often each worker has parked and woken up, if all are parked now but the one that asks.
#[cfg(tokio_unstable)]
fn rest(handle: &Handle) -> Option<Vec<u64>> {
    let metrics = handle.metrics();
    let here = Some(thread::current().id());
    let mut counts = Vec::new();
    for worker in 0..metrics.num_workers() {
        let count = metrics.worker_park_unpark_count(worker);
        // Even means awake.
        if count.is_multiple_of(2) && metrics.worker_thread_id(worker) != here {
            return None;
        }
        counts.push(count);
    }
    Some(counts)
}

#[cfg(not(tokio_unstable))]
fn rest(_: &Handle) -> Option<Vec<u64>> {
    None
}

/// How many tasks came and went, ever.
fn moves(table: &Table) -> (u64, u64) {
    let mut totals = table.tallies.totals(table.sites().len());
    table.tallies.add_spawned(&mut totals);
    let spawned = totals.iter().map(|site| site.spawned).sum();
    (spawned, totals.iter().map(|site| site.ended()).sum())
}
