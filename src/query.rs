//! The one way to read: a consistent copy of the table, judged when it is taken.

mod census;
mod judge;
mod order;
mod report;
mod scan;
mod settle;
mod site;

pub(crate) use census::{SiteCensus, census};
pub(crate) use scan::Found;
pub use site::Site;

use crate::Diagnosis;
use crate::clock::Nanos;
use crate::config::Source;
use crate::loss::Loss;
use crate::table::{LineageTree, Outcome, Table, Totals, traits};
use crate::task::{Shared, Task, TaskId};
use judge::Judge;
use parking_lot::Mutex;
use settle::{Counts, Look, Mark, Marks, Seen};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// Every live task at one moment, with its spawn sites, and what was lost.
///
/// It is a copy: tasks go on while it is read, and it can be kept and sent. `Display`
/// gives a report for people.
#[derive(Clone, Debug)]
pub struct Snapshot {
    taken_at: SystemTime,
    source: Source,
    grace: Duration,
    /// In the order of their slots.
    tasks: Vec<Task>,
    /// Their places by id.
    by_id: Vec<u32>,
    sites: Vec<Site>,
    /// From a site's number to its place in `sites`.
    positions: HashMap<u32, usize>,
    lineages: LineageTree,
    loss: Loss,
    /// The tasks of which it isn't known whether they ended.
    #[cfg_attr(not(feature = "testing"), allow(dead_code))]
    unconfirmed: Vec<Task>,
    diagnoses: Vec<Diagnosis>,
}

impl Snapshot {
    /// The live tasks, by id: in the order in which tokio numbered them.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &Task> {
        self.by_id.iter().map(|&at| &self.tasks[at as usize])
    }

    /// The live tasks that outlived what started them.
    pub fn orphans(&self) -> impl Iterator<Item = &Task> {
        self.tasks().filter(|task| task.orphaned.is_some())
    }

    /// Every spawn site that was ever seen, those with the most live tasks first.
    pub fn sites(&self) -> impl ExactSizeIterator<Item = &Site> {
        self.sites.iter()
    }

    /// The live task of this id: a [`tokio::task::Id`] or a [`TaskId`].
    pub fn task(&self, id: impl Into<TaskId>) -> Option<&Task> {
        let id = id.into();
        let task = |at: u32| &self.tasks[at as usize];
        let found = self.by_id.binary_search_by_key(&id, |&at| task(at).id);
        Some(task(self.by_id[found.ok()?]))
    }

    /// The spawn site of a task.
    pub fn site_of(&self, task: &Task) -> Option<&Site> {
        self.site(task.site_index)
    }

    fn site(&self, index: u32) -> Option<&Site> {
        self.positions.get(&index).map(|&at| &self.sites[at])
    }

    /// The spawn sites from the task's own to its root's: who spawned whom, by place,
    /// though the ancestors may have ended. A site that spawns itself again appears once.
    pub fn lineage(&self, task: &Task) -> impl Iterator<Item = &Site> {
        (self.lineages.sites(task.lineage)).filter_map(|site| self.site(site))
    }

    /// What was not seen, not kept or not certain.
    pub fn loss(&self) -> &Loss {
        &self.loss
    }

    /// Why something may not be seen at all.
    pub fn diagnoses(&self) -> &[Diagnosis] {
        &self.diagnoses
    }

    /// The tasks that are neither live nor ended, as far as can be known.
    #[cfg(feature = "testing")]
    pub(crate) fn unconfirmed(&self) -> &[Task] {
        &self.unconfirmed
    }

    pub(crate) fn add_diagnoses(&mut self, found: Vec<Diagnosis>) {
        self.diagnoses.extend(found);
    }

    /// When it was taken.
    pub fn taken_at(&self) -> SystemTime {
        self.taken_at
    }

    /// Where the knowledge comes from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The grace by which orphans were judged.
    pub fn orphan_grace(&self) -> Duration {
        self.grace
    }
}

/// Takes snapshots; remembers between them what needs two looks.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    last: Mutex<Look>,
}

/// More tasks than this are not looked at twice in one go.
const SECOND_LOOK_MOST: usize = 100_000;

impl Reader {
    pub(crate) fn snapshot(&self, table: &Table) -> Snapshot {
        // One reader at a time: two would settle the same tasks.
        let mut last = self.last.lock();
        let site_count = table.sites().len();
        let mut totals = table.tallies.totals(site_count);
        let counts = table.runtimes.counts();
        let from = table.clock.now();
        let mut seen = Seen::default();
        let mut found = scan::scan(table, from, |task| seen.add(task));
        let mut look = look(table, &found, &seen, &counts);
        let over = if look.is_unsettled() && found.len() <= SECOND_LOOK_MOST {
            pause();
            let counts = table.runtimes.counts();
            refresh(table, &mut found, &look);
            seen = Seen::of(&found);
            let mut second = self::look(table, &found, &seen, &counts);
            let over = both_over(&look, &second);
            // A runtime's own count may lag: what two looks miss is missing.
            second.unaccounted = second.unaccounted.min(look.unaccounted);
            look = second;
            over
        } else {
            both_over(&last, &look)
        };
        if !over.is_empty() {
            finish(table, &mut found, &mut totals, &over);
            seen = Seen::of(&found);
        }
        let open = open_now(&look, &last);
        let unaccounted = look.unaccounted;
        *last = look;
        drop(last);

        table.runtimes.release_unused(&seen.runtimes().collect());
        let sites = table.sites();
        // Sites that came while the tasks were copied.
        totals.resize_with(sites.len(), Totals::new);
        table.tallies.add_spawned(&mut totals);
        assemble(
            table,
            found,
            from,
            site::Sites::new(sites, totals),
            &open,
            unaccounted,
        )
    }
}

fn look(table: &Table, found: &[Found], seen: &Seen, before: &Counts) -> Look {
    let mut counts = table.runtimes.counts();
    // A runtime on which tasks were spawned or ended meanwhile is left to the next look.
    counts.retain(|number, count| before.get(number) == Some(count));
    let complete = table.loss.read().refused() == 0;
    settle::look(found, seen, complete, &counts)
}

/// What two looks agree on is over.
fn both_over(first: &Look, second: &Look) -> Marks {
    first.over.intersection(&second.over).copied().collect()
}

/// Presumes ended what is over, and takes it out of what was found. The totals were read
/// before, so it is added to them too.
fn finish(table: &Table, found: &mut Vec<Found>, totals: &mut [Totals], over: &Marks) {
    found.retain(|task| {
        let is_over = over.contains(&Mark::of(task));
        if is_over {
            let outcome = Outcome::told(task.is(traits::PANICKED));
            // Its future was dropped at the end of its last turn.
            let at = task.turn.since;
            table.presume_ended(task.key, at, outcome);
            // The copy may be of a site that is younger than the totals.
            if let Some(site) = totals.get_mut(task.site as usize) {
                site.panicked += u64::from(outcome == Outcome::Panicked);
                (site.lifetime).record(at.saturating_sub(task.spawned_at));
            }
        }
        !is_over
    });
}

/// What is neither live nor ended: open in this look, and not alive after all in two.
fn open_now(look: &Look, last: &Look) -> Marks {
    (look.open.iter().copied())
        .filter(|mark| !(look.says_alive(mark) && last.says_alive(mark)))
        .collect()
}

/// A task that is just ending needs some hundred nanoseconds more, a runtime's count
/// some microseconds.
fn pause() {
    for _ in 0..8 {
        std::thread::yield_now();
    }
    std::thread::sleep(Duration::from_micros(200));
}

/// Copies the open tasks again; those that have ended since are gone.
fn refresh(table: &Table, found: &mut Vec<Found>, look: &Look) {
    found.retain_mut(|task| {
        if !look.open.contains(&Mark::of(task)) {
            return true;
        }
        match scan::look(table, task.key.index) {
            Some(again) if again.key == task.key => {
                *task = again;
                true
            }
            _ => false,
        }
    });
}

fn assemble(
    table: &Table,
    mut found: Vec<Found>,
    from: Nanos,
    mut sites: site::Sites,
    open: &Marks,
    unaccounted: u64,
) -> Snapshot {
    let now = table.clock.now();
    let taken = match open.is_empty() {
        true => Vec::new(),
        false => take_out(&mut found, open, &mut sites),
    };
    let wall = table.clock.wall();
    let shared = Shared {
        wall,
        sites: sites.keys(),
        runtimes: table.runtimes.ids(),
    };
    let judge = Judge::new(&found, from, shared, table.config.orphan_grace);
    let mut unpolled = 0;
    let judge_one = |found: Found| {
        unpolled += usize::from(found.runtime == 0);
        let pending = found.pending();
        let task = judge.task(found);
        sites.live(&task, pending);
        task
    };
    // A task is no larger than what was found of it, so the vector keeps its memory.
    let tasks = found.into_iter().map(judge_one).collect();
    let unconfirmed: Vec<_> = taken.into_iter().map(|found| judge.task(found)).collect();
    let by_id = judge.into_places();
    let loss = Loss {
        unconfirmed: unconfirmed.len() as u64,
        unaccounted,
        ..table.loss()
    };
    let sites = sites.sorted();
    let positions = (sites.iter().enumerate())
        .map(|(at, site)| (site.index, at))
        .collect();
    Snapshot {
        taken_at: wall.time(now),
        source: table.config.source,
        grace: table.config.orphan_grace,
        tasks,
        by_id,
        sites,
        positions,
        lineages: table.lineages(),
        loss,
        unconfirmed,
        diagnoses: crate::diagnose::diagnose(table, unpolled),
    }
}

/// Takes out what is open, and counts it as ending.
fn take_out(found: &mut Vec<Found>, open: &Marks, sites: &mut site::Sites) -> Vec<Found> {
    let taken: Vec<_> = (found.extract_if(.., |task| open.contains(&Mark::of(task)))).collect();
    for task in &taken {
        sites.ending(task.site);
    }
    taken
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;

    /// Or a snapshot would hold both for a moment.
    #[test]
    fn a_task_takes_the_place_of_what_was_found_of_it() {
        assert!(size_of::<Task>() <= size_of::<Found>());
        assert!(size_of::<Found>() <= 176, "{}", size_of::<Found>());
    }
}
