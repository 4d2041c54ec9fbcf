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
//! Two looks must agree, and nothing may be spawned or end on that runtime meanwhile. Still it is an
//! inference, so a task that is *presumed* ended comes back if it is entered again. On a
//! runtime that never rests, and for `LocalSet` and blocking tasks, which no runtime
//! counts, an ending task stays *unconfirmed* until its span closes. Hooks leave nothing
//! open of what they see.

use super::scan::Found;
use crate::table::{ENDING, PARKED, RuntimeCount, Scope, traits};
use crate::task::Kind;
use foldhash::fast::FixedState;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What one look says. Tasks are named by key and turns, so that one that has moved
/// on since is another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Ended for sure, if a second look says so too.
    pub(crate) over: Marks,
    /// Alive after all, if a second look says so too: by key alone, as one that was entered
    /// in between lives all the more.
    alive: HashSet<(u32, u32), FixedState>,
    /// Neither live nor ended as far as can be known.
    pub(crate) open: Marks,
    /// Ended tasks of which it can't be told which they are.
    pub(crate) unaccounted: u64,
}

pub(crate) type Marks = HashSet<Mark, FixedState>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    index: u32,
    generation: u32,
    turns: u64,
}

impl Mark {
    fn key(&self) -> (u32, u32) {
        (self.index, self.generation)
    }

    pub(crate) fn of(found: &Found) -> Self {
        Self {
            index: found.key.index,
            generation: found.key.generation,
            turns: found.turn.turns,
        }
    }
}

/// What is seen of the tasks while they are copied: enough to know whether a look must go
/// back to any of them.
#[derive(Default)]
pub(super) struct Seen {
    runtimes: HashMap<u32, Tasks, FixedState>,
    ending: Vec<Mark>,
    /// Tasks that a runtime counts, though which is not known yet.
    unpolled: usize,
    /// The scopes of such tasks, one for each, which say where they may be.
    unpolled_in: Vec<Arc<Scope>>,
}

/// How many tasks a runtime should count.
#[derive(Clone, Copy, Default)]
struct Tasks {
    all: usize,
    ending: usize,
    suspects: usize,
    /// Those of the suspects that nobody could wake.
    silent: usize,
}

impl Seen {
    pub(super) fn of(tasks: &[Found]) -> Self {
        let mut seen = Self::default();
        tasks.iter().for_each(|task| seen.add(task));
        seen
    }

    #[inline]
    pub(super) fn add(&mut self, task: &Found) {
        let runtime = self.runtimes.entry(task.runtime).or_default();
        let ending = task.turn.phase == ENDING;
        if ending {
            self.ending.push(Mark::of(task));
        }
        if task.kind() != Kind::Task {
            return;
        }
        if task.runtime == 0 {
            match task.scope() {
                Some(scope) => self.unpolled_in.push(Arc::clone(scope)),
                None => self.unpolled += 1,
            }
            return;
        }
        runtime.all += 1;
        if ending {
            runtime.ending += 1;
        } else if is_suspect(task) {
            runtime.suspects += 1;
            runtime.silent += usize::from(is_silent(task));
        }
    }

    /// How many tasks may be this runtime's before their first poll.
    fn unpolled_on(&self, count: &RuntimeCount) -> usize {
        let may_be_here = |scope: &&Arc<Scope>| scope.has_met(count.id);
        self.unpolled + self.unpolled_in.iter().filter(may_be_here).count()
    }

    /// The runtimes that tasks of any kind were last polled on.
    pub(super) fn runtimes(&self) -> impl Iterator<Item = u32> + '_ {
        self.runtimes.keys().copied()
    }
}

/// What runtimes say of themselves, by their numbers.
pub(super) type Counts = HashMap<u32, RuntimeCount>;

/// What follows for the tasks of one runtime.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    EndingAlive,
    EndingOver,
    SuspectsOver,
    SilentOpen { unaccounted: u64 },
}

/// Takes one look. `counts` are those of runtimes on which nothing was spawned and nothing ended
/// while the tasks were copied and counted; `complete` says that no task was refused.
pub(super) fn look(tasks: &[Found], seen: &Seen, complete: bool, counts: &Counts) -> Look {
    let mut look = Look::default();
    look.open.extend(&seen.ending);
    let mut verdicts: HashMap<u32, Verdict, FixedState> = HashMap::default();
    for (number, runtime) in &seen.runtimes {
        let count = counts.get(number);
        let verdict =
            count.and_then(|count| judge(runtime, seen.unpolled_on(count), count, complete));
        verdicts.extend(verdict.map(|verdict| (*number, verdict)));
    }
    if !verdicts.is_empty() {
        for task in tasks.iter().filter(|task| task.kind() == Kind::Task) {
            if let Some(&verdict) = verdicts.get(&task.runtime) {
                look.settle(task, verdict);
            }
        }
    }
    for verdict in verdicts.values() {
        if let Verdict::SilentOpen { unaccounted } = verdict {
            look.unaccounted += unaccounted;
        }
    }
    look
}

/// Nothing, where it would change nothing.
fn judge(tasks: &Tasks, unpolled: usize, count: &RuntimeCount, complete: bool) -> Option<Verdict> {
    // Tasks not yet polled may be this runtime's or another's.
    let ended_at_least = tasks.all.saturating_sub(count.alive);
    let ended_at_most = (tasks.all + unpolled).saturating_sub(count.alive);
    let Some(rest) = ended_at_least.checked_sub(tasks.ending) else {
        let all_known = complete && count.complete;
        return (ended_at_most == 0 && all_known).then_some(Verdict::EndingAlive);
    };
    if rest == 0 {
        return (tasks.ending > 0).then_some(Verdict::EndingOver);
    }
    if rest == tasks.suspects {
        return Some(Verdict::SuspectsOver);
    }
    let unaccounted = rest.saturating_sub(tasks.silent) as u64;
    Some(Verdict::SilentOpen { unaccounted })
}

/// Whether the last turn may have been the drop though it didn't look like it: a wake came
/// before it, or there may have been one. (The first turn is a poll, for who holds the span has
/// it from there.)
fn is_suspect(task: &Found) -> bool {
    let woken = || match task.is(traits::MAY_MISS_WAKES) {
        true => !task.is(traits::REGISTERED),
        false => task.pending().is_some_and(|turn| turn.delay.is_some()),
    };
    task.turn.phase == PARKED
        && task.turn.turns > 1
        && task.knows_wakes()
        && !task.is_exact()
        && woken()
}

/// Whether nobody could wake it.
fn is_silent(suspect: &Found) -> bool {
    !suspect.is_woken() && suspect.wakers == 0
}

impl Look {
    fn settle(&mut self, task: &Found, verdict: Verdict) {
        let mark = Mark::of(task);
        if task.turn.phase == ENDING {
            match verdict {
                Verdict::EndingAlive => self.alive.insert(mark.key()),
                _ => self.over.insert(mark),
            };
            return;
        }
        match verdict {
            Verdict::SuspectsOver if is_suspect(task) => {
                self.over.insert(mark);
                self.open.insert(mark);
            }
            Verdict::SilentOpen { .. } if is_suspect(task) && is_silent(task) => {
                self.open.insert(mark);
            }
            _ => {}
        }
    }

    /// Whether a task is said to be alive after all.
    pub(super) fn says_alive(&self, mark: &Mark) -> bool {
        self.alive.contains(&mark.key())
    }

    /// Whether a second look could settle more.
    pub(crate) fn is_unsettled(&self) -> bool {
        !self.open.is_empty() || !self.over.is_empty() || self.unaccounted > 0
    }
}
