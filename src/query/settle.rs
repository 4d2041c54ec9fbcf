//! Settles what spans leave open: has a task ended whose span somebody holds?
//!
//! A task whose last turn looked like the drop of its future is *ending*. Others may
//! have ended without that sign; they are parked, not woken, and nobody holds a waker
//! of theirs, which is also what a lost waker looks like. The runtime's own count of
//! live tasks settles both: if it counts as many fewer as there are candidates, the
//! candidates have ended. Where a waker of such a task is left behind, it looks like
//! any idle one; unless all have ended, those missing are *unaccounted*.
//!
//! That needs numbers that belong together: nothing may be spawned or end while they
//! are read, and two looks must agree. On a runtime that never rests, and for `LocalSet`
//! and blocking tasks, which no runtime counts, an ending task stays *unconfirmed* until
//! its span closes. Hooks leave nothing open.

use super::scan::Found;
use crate::table::{ENDING, PARKED};
use crate::task::Kind;
use std::collections::{HashMap, HashSet};

/// What one look says. Tasks are named by key and turns, so that one that has moved
/// on since is another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Ended for sure, if a second look says so too.
    pub(crate) over: HashSet<Mark>,
    /// Alive after all, if a second look says so too.
    pub(crate) alive: HashSet<Mark>,
    /// Neither live nor ended as far as can be known.
    pub(crate) open: HashSet<Mark>,
    /// Ended tasks of which it can't be told which they are.
    pub(crate) unaccounted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    index: u32,
    generation: u32,
    turns: u64,
}

impl Mark {
    pub(crate) fn of(found: &Found) -> Self {
        Self {
            index: found.key.index,
            generation: found.key.generation,
            turns: found.turn.turns,
        }
    }
}

#[derive(Default)]
struct Runtime<'a> {
    tasks: usize,
    ending: Vec<&'a Found>,
    silent: Vec<&'a Found>,
    parked: Vec<&'a Found>,
}

/// Takes one look. `alive` is a runtime's own count; `quiet` says that nothing was
/// spawned and nothing ended while the tasks were copied, `complete` that every task
/// since the layer is in the table.
pub(crate) fn look(
    tasks: &[Found],
    quiet: bool,
    complete: bool,
    alive: impl Fn(u32) -> Option<usize>,
) -> Look {
    let mut look = Look::default();
    let mut runtimes: HashMap<u32, Runtime<'_>> = HashMap::new();
    let mut unpolled = 0;
    for task in tasks {
        let ending = task.turn.phase == ENDING;
        if ending {
            look.open.insert(Mark::of(task));
        }
        if task.kind() != Kind::Task {
            continue;
        }
        if task.runtime == 0 {
            unpolled += 1;
            continue;
        }
        let runtime = runtimes.entry(task.runtime).or_default();
        runtime.tasks += 1;
        if ending {
            runtime.ending.push(task);
        } else if is_parked(task) {
            runtime.parked.push(task);
            if task.wakes.wakers == 0 {
                runtime.silent.push(task);
            }
        }
    }
    if !quiet {
        return look;
    }
    for (number, runtime) in &runtimes {
        // Only what is open is worth the runtime's lock.
        if runtime.ending.is_empty() && runtime.parked.is_empty() {
            continue;
        }
        if let Some(alive) = alive(*number) {
            look.judge(runtime, unpolled, alive, complete);
        }
    }
    look
}

/// Parked and not woken, of which only its span tells whether it has ended.
fn is_parked(task: &Found) -> bool {
    task.turn.phase == PARKED && task.knows_wakes() && !task.is_exact() && !task.wakes.woken
}

impl Look {
    fn judge(&mut self, runtime: &Runtime<'_>, unpolled: usize, alive: usize, complete: bool) {
        let marks = |tasks: &[&Found]| tasks.iter().map(|task| Mark::of(task)).collect::<Vec<_>>();
        // Tasks not yet polled may be this runtime's or another's.
        let ended_at_least = runtime.tasks.saturating_sub(alive);
        let ended_at_most = (runtime.tasks + unpolled).saturating_sub(alive);
        let Some(rest) = ended_at_least.checked_sub(runtime.ending.len()) else {
            if ended_at_most == 0 && complete {
                self.alive.extend(marks(&runtime.ending));
            }
            return;
        };
        self.over.extend(marks(&runtime.ending));
        if rest == 0 {
            return;
        }
        if rest == runtime.parked.len() {
            // Somebody may hold a waker of a task that is no more.
            self.over.extend(marks(&runtime.parked));
            self.open.extend(marks(&runtime.parked));
        } else if rest == runtime.silent.len() {
            self.over.extend(marks(&runtime.silent));
        } else {
            self.unaccounted += rest as u64;
        }
        self.open.extend(marks(&runtime.silent));
    }

    /// Whether a second look could settle more.
    pub(crate) fn is_unsettled(&self) -> bool {
        !self.open.is_empty() || !self.over.is_empty() || self.unaccounted > 0
    }
}
