//! Settles what spans leave open: has a task ended whose span somebody holds?
//!
//! A task whose last turn looked like the drop of its future is *ending*. Others may
//! have ended without that sign, because a wake came before the drop: those are *suspects*.
//! Most that did are *silent*, not woken again and with nobody who holds a waker of theirs,
//! which is also what a lost waker looks like. The runtime's own count says how many tasks
//! are missing:
//!
//! | missing | then |
//! |---|---|
//! | none | those ending are alive after all, if every task of the runtime is known |
//! | as many as are ending | they have ended |
//! | as many as are ending or suspect | all of them have ended |
//! | any other number more than are ending | those ending have; the silent are *open*, for which of them it is can't be told; what is left over is *unaccounted* |
//!
//! Two looks must agree, and nothing may be spawned or end meanwhile. Still it is an
//! inference, so a task that is *presumed* ended comes back if it is entered again. On a
//! runtime that never rests, and for `LocalSet` and blocking tasks, which no runtime
//! counts, an ending task stays *unconfirmed* until its span closes. Hooks leave nothing
//! open of what they see.

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
    suspects: Vec<&'a Found>,
    /// Those of the suspects that nobody could wake.
    silent: Vec<&'a Found>,
}

/// What a runtime says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) alive: usize,
    /// No task of it is older than the layer.
    pub(crate) complete: bool,
}

/// Takes one look. `quiet` says that nothing was spawned and nothing ended while the
/// tasks were copied and counted, `complete` that every task since is in the table.
pub(crate) fn look(
    tasks: &[Found],
    quiet: bool,
    complete: bool,
    counts: &HashMap<u32, Count>,
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
        } else if is_suspect(task) {
            runtime.suspects.push(task);
            if !task.wakes.woken && task.wakes.wakers == 0 {
                runtime.silent.push(task);
            }
        }
    }
    if quiet {
        for (number, runtime) in &runtimes {
            if let Some(count) = counts.get(number) {
                look.judge(runtime, unpolled, count.alive, complete && count.complete);
            }
        }
    }
    look
}

/// Whether the last turn may have been the drop though it didn't look like it: a wake came
/// before it. (The first turn is a poll, for who holds the span has it from there.)
fn is_suspect(task: &Found) -> bool {
    let woken = || task.pending().is_some_and(|turn| turn.delay.is_some());
    task.turn.phase == PARKED
        && task.turn.turns > 1
        && task.knows_wakes()
        && !task.is_exact()
        && woken()
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
        if rest == runtime.suspects.len() {
            self.over.extend(marks(&runtime.suspects));
            self.open.extend(marks(&runtime.suspects));
        } else {
            self.open.extend(marks(&runtime.silent));
            self.unaccounted += rest.saturating_sub(runtime.silent.len()) as u64;
        }
    }

    /// Whether a second look could settle more.
    pub(crate) fn is_unsettled(&self) -> bool {
        !self.open.is_empty() || !self.over.is_empty() || self.unaccounted > 0
    }
}
