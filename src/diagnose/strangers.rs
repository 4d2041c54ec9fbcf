//! Looks for tasks that their runtime counts and nobody announced.

use crate::capture::is_in;
use crate::query::Snapshot;
use crate::table::{Since, Table, traits};
use crate::task::Kind;
use std::collections::{HashMap, HashSet};
use tokio::runtime::{Handle, Id};
use tracing_core::dispatcher;

/// More tasks than this are not counted again.
const MOST: usize = 100_000;

/// A runtime with what is known of it. Zero is the number of one on which no task was seen.
struct Candidate {
    handle: Handle,
    number: u32,
    since: Since,
}

/// Notes each runtime that has more tasks than are known; it is told of once two looks agree.
///
/// A runtime counts a task for a little longer than its future is there, as the thread that
/// takes it out may be stopped just then. A parked one isn't, nor the one that asks; of a busy
/// runtime each worker may be in the middle of that.
pub(super) fn look(table: &Table, snapshot: &Snapshot) {
    if snapshot.loss().refused() > 0 || snapshot.tasks().len() > MOST {
        return;
    }
    let (candidates, seen) = candidates(table);
    let count = |found: &Candidate| found.handle.metrics().num_alive_tasks();
    let shown = snapshot
        .tasks()
        .filter(|task| is_counted(task.kind()))
        .count();
    if candidates.iter().map(count).sum::<usize>() <= shown {
        table.strangers.looked(&[], &seen);
        return;
    }
    let rests = || {
        candidates
            .iter()
            .map(|found| rest(&found.handle))
            .collect::<Vec<_>>()
    };
    let (moved_before, rests_before) = (moves(table), rests());
    let known = known(table);
    let alive: Vec<_> = candidates.iter().map(count).collect();
    let (moved, rests_after) = (moves(table), rests());

    let spawned = usize::try_from(moved.0.saturating_sub(moved_before.0)).unwrap_or(usize::MAX);
    let may_lag = |at: usize| {
        let rested = rests_before[at].is_some() && rests_before[at] == rests_after[at];
        match rested && moved == moved_before {
            true => 0,
            false => alive[at].min(candidates[at].handle.metrics().num_workers()),
        }
    };
    let lags: Vec<_> = (0..candidates.len()).map(may_lag).collect();
    // A task may be thought to be of another runtime than it is.
    let most = known
        .values()
        .chain(&lags)
        .sum::<usize>()
        .saturating_add(spawned);
    let mut short = Vec::new();
    if alive.iter().sum::<usize>() > most {
        let of = |number| known.get(&number).copied().unwrap_or(0);
        for ((found, alive), lag) in candidates.into_iter().zip(alive).zip(lags) {
            // Those of no known runtime may all be of this one.
            let own = match found.number {
                0 => of(0),
                number => of(number) + of(0),
            };
            if alive > (own + lag).saturating_add(spawned) {
                short.push((found.handle, found.since));
            }
        }
    }
    table.strangers.looked(&short, &seen);
}

/// The runtimes to look at, and which of them have a number.
fn candidates(table: &Table) -> (Vec<Candidate>, HashSet<Id>) {
    let mut candidates = Vec::new();
    let mut seen = HashSet::new();
    for &number in table.runtimes.ids().keys() {
        if let Some((handle, complete)) = table.runtimes.handle(number) {
            let since = if complete {
                Since::After
            } else {
                Since::Before
            };
            seen.insert(handle.id());
            candidates.push(Candidate {
                handle,
                number,
                since,
            });
        }
    }
    // On a thread that is turned away from us a runtime is hidden on purpose, as an exporter's.
    let here = Handle::try_current()
        .ok()
        .filter(|_| dispatcher::get_default(|dispatch| is_in(dispatch, table)))
        .map(|handle| (handle, Since::Before));
    let mut unseen = table.strangers.handles();
    unseen.extend(here.filter(|(here, _)| unseen.iter().all(|(met, _)| met.id() != here.id())));
    unseen.retain(|(handle, _)| !seen.contains(&handle.id()));
    candidates.extend(unseen.into_iter().map(|(handle, since)| Candidate {
        handle,
        number: 0,
        since,
    }));
    (candidates, seen)
}

/// The known tasks that a runtime counts, by its number; those of a `LocalSet` are too many.
fn known(table: &Table) -> HashMap<u32, usize> {
    let mut known = HashMap::new();
    for (_, slot) in table.slots() {
        if slot.id() != 0 && is_counted(traits::kind(slot.traits())) {
            *known.entry(slot.runtime()).or_default() += 1;
        }
    }
    known
}

fn is_counted(kind: Kind) -> bool {
    matches!(kind, Kind::Task | Kind::Local)
}

/// How often each worker has parked and woken up, if all are parked now but the one that asks.
#[cfg(tokio_unstable)]
fn rest(handle: &Handle) -> Option<Vec<u64>> {
    let metrics = handle.metrics();
    let here = Some(std::thread::current().id());
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
