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

/// A runtime's count may lag behind ends by microseconds, and its thread may be stopped there
/// for longer. A task that is missed through all of these, while nothing moves, is missing.
const PAUSES: [Duration; 3] = [
    Duration::from_micros(200),
    Duration::from_millis(2),
    Duration::from_millis(10),
];

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
    let note = |id, since, most: usize, alive: &dyn Fn() -> usize, number| {
        if alive() > most && !table.strangers.is_noted(id) && is_short(table, alive, number) {
            table.strangers.note(id, since);
        }
    };
    for (&number, &id) in &runtimes {
        let Some((_, complete)) = table.runtimes.count(number) else {
            continue;
        };
        let alive = || table.runtimes.count(number).map_or(0, |(alive, _)| alive);
        let since = if complete {
            Since::After
        } else {
            Since::Before
        };
        note(
            id,
            since,
            of(Some(id)).saturating_add(somewhere),
            &alive,
            number,
        );
    }
    // On a thread that is turned away from us a runtime is hidden on purpose, as an exporter's.
    if let Ok(handle) = Handle::try_current()
        && !runtimes.values().any(|&id| id == handle.id())
        && dispatcher::get_default(|dispatch| is_in(dispatch, table))
    {
        // Not one of its tasks was ever seen.
        let alive = || handle.metrics().num_alive_tasks();
        note(handle.id(), Since::Before, somewhere, &alive, 0);
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
fn is_short(table: &Table, alive: &dyn Fn() -> usize, number: u32) -> bool {
    PAUSES.iter().all(|&pause| {
        let before = moves(table);
        thread::sleep(pause);
        let alive = alive();
        let known = (table.slots())
            .filter(|(_, slot)| slot.id() != 0 && is_counted(traits::kind(slot.traits())))
            .filter(|(_, slot)| slot.runtime() == 0 || slot.runtime() == number)
            .count();
        alive > known && moves(table) == before
    })
}

/// How many tasks came and went, ever.
fn moves(table: &Table) -> (u64, u64) {
    let mut totals = table.tallies.totals(table.sites().len());
    table.tallies.add_spawned(&mut totals);
    let spawned = totals.iter().map(|site| site.spawned).sum();
    (spawned, totals.iter().map(|site| site.ended()).sum())
}
