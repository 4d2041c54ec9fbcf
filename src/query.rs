//! The one way to read: a consistent copy of the table, judged when it is taken.

mod census;
mod report;
mod scan;
mod settle;
mod site;

pub(crate) use census::{SiteCensus, census};
pub(crate) use scan::Found;
pub use site::Site;

use crate::Diagnosis;
use crate::clock::Wall;
use crate::config::Source;
use crate::loss::Loss;
use crate::orphan::{self, Finding, Gone, Subject};
use crate::table::{FRESH, LineageTree, Outcome, ParentTask, RUNNING, Table, Totals, traits};
use crate::task::{Orphaned, Parent, ParentStatus, Task, TaskId};
use parking_lot::Mutex;
use settle::{Count, Look, Mark, Marks, Seen};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
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
    tasks: Vec<Task>,
    sites: Vec<Site>,
    /// From a site's number to its place in `sites`.
    positions: HashMap<u32, usize>,
    lineages: LineageTree,
    loss: Loss,
    diagnoses: Vec<Diagnosis>,
}

impl Snapshot {
    /// The live tasks, by id: in the order in which tokio numbered them.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &Task> {
        self.tasks.iter()
    }

    /// The live tasks that outlived what started them.
    pub fn orphans(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().filter(|task| task.orphaned.is_some())
    }

    /// Every spawn site that was ever seen, those with the most live tasks first.
    pub fn sites(&self) -> impl ExactSizeIterator<Item = &Site> {
        self.sites.iter()
    }

    /// The live task of this id: a [`tokio::task::Id`] or a [`TaskId`].
    pub fn task(&self, id: impl Into<TaskId>) -> Option<&Task> {
        let id = id.into();
        let at = self.tasks.binary_search_by_key(&id, |task| task.id).ok()?;
        Some(&self.tasks[at])
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
        let from = table.clock.now();
        let mut seen = Seen::default();
        let mut found = scan::scan(table, from, |task| seen.add(task));
        let mut look = look(table, &found, &seen, &totals);
        let over = if look.is_unsettled() && found.len() <= SECOND_LOOK_MOST {
            pause();
            refresh(table, &mut found, &look);
            seen = Seen::of(&found);
            let mut second = self::look(table, &found, &seen, &totals);
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
        found.sort_unstable_by_key(|task| task.id);
        let sites = table.sites();
        // Sites that came while the tasks were copied.
        totals.resize_with(sites.len(), Totals::new);
        table.tallies.add_spawned(&mut totals);
        assemble(
            table,
            found,
            site::Sites::new(sites, totals),
            &open,
            unaccounted,
        )
    }
}

fn look(table: &Table, found: &[Found], seen: &Seen, before: &[Totals]) -> Look {
    // The runtimes' counts lie between the two readings of ours, so that what moves
    // meanwhile shows.
    let counts = (seen.runtimes())
        .filter_map(|number| {
            let (alive, complete) = table.runtimes.count(number)?;
            Some((number, Count { alive, complete }))
        })
        .collect();
    let mut now = table.tallies.totals(before.len());
    table.tallies.add_spawned(&mut now);
    // Nothing ended since the copy began, and all that ever was spawned is in it.
    let ended = |totals: &[Totals]| totals.iter().map(Totals::ended).sum::<u64>();
    let spawned: u64 = now.iter().map(|site| site.spawned).sum();
    let quiet = ended(&now) == ended(before) && spawned == ended(&now) + found.len() as u64;
    let loss = table.loss.read();
    let complete = loss.refused() == 0 && loss.unseen_parents() == 0;
    settle::look(found, seen, quiet, complete, &counts)
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
        .filter(|mark| !(look.alive.contains(mark) && last.alive.contains(mark)))
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
    found: Vec<Found>,
    mut sites: site::Sites,
    open: &Marks,
    unaccounted: u64,
) -> Snapshot {
    let now = table.clock.now();
    let grace = table.config.orphan_grace;
    let (live, ending): (Vec<_>, Vec<_>) =
        (found.into_iter()).partition(|task| !open.contains(&Mark::of(task)));
    for task in &ending {
        sites.ending(task.site);
    }
    let wall = table.clock.wall();
    let judge = Judge {
        wall,
        grace: crate::clock::nanos(grace),
        home_turns: home_turns(&live),
        live: &live,
        last_parent: Cell::new((None, false)),
        runtimes: table.runtimes.ids(),
    };
    let mut tasks = Vec::with_capacity(live.len());
    for task in &live {
        let task = judge.task(task, &sites);
        sites.live(&task);
        tasks.push(task);
    }
    for task in &live {
        sites.pending(task);
    }
    let loss = Loss {
        unconfirmed: ending.len() as u64,
        unaccounted,
        ..table.loss()
    };
    let unpolled = live.iter().filter(|task| task.runtime == 0).count();
    let sites = sites.sorted();
    let positions = (sites.iter().enumerate())
        .map(|(at, site)| (site.index, at))
        .collect();
    Snapshot {
        taken_at: wall.time(now),
        source: table.config.source,
        grace,
        tasks,
        sites,
        positions,
        lineages: table.lineages(),
        loss,
        diagnoses: crate::diagnose::diagnose(table, unpolled),
    }
}

/// Finished turns of the tasks in which user spans with tasks under them were created.
fn home_turns(live: &[Found]) -> HashMap<TaskId, u64> {
    (live.iter())
        .filter(|task| task.is(traits::HOSTS_SPANS))
        .map(finished_turns)
        .collect()
}

fn finished_turns(task: &Found) -> (TaskId, u64) {
    let running = u64::from(task.turn.phase == RUNNING);
    (TaskId::from_u64(task.id), task.turn.turns - running)
}

/// Whether a task is an orphan, as of its own copy: so it is none for longer than it is old.
fn finding(
    found: &Found,
    parent_gone: Gone,
    home_turns: &HashMap<TaskId, u64>,
    grace: u64,
) -> Option<Finding> {
    let span = (found.spans.as_ref()).and_then(|spans| spans.outermost.as_deref());
    let home = span.and_then(|span| span.home.as_ref());
    let subject = Subject {
        kind: found.kind(),
        daemon: found.is(traits::DAEMON),
        spawned_at: found.spawned_at,
        parent: &found.parent,
        parent_gone,
        span,
        home_turns: home.and_then(|home| home_turns.get(&home.id).copied()),
    };
    orphan::judge(&subject, grace, found.now)
}

/// Turns what was found into what is shown.
struct Judge<'a> {
    wall: Wall,
    grace: u64,
    home_turns: HashMap<TaskId, u64>,
    live: &'a [Found],
    /// The parent asked about last, and whether it is live.
    last_parent: Cell<(Option<TaskId>, bool)>,
    runtimes: HashMap<u32, tokio::runtime::Id>,
}

impl Judge<'_> {
    fn task(&self, found: &Found, sites: &site::Sites) -> Task {
        let wall = &self.wall;
        let site = sites.key(found.site);
        let age = found.now.saturating_sub(found.spawned_at);
        let (busy, scheduled) = (found.busy(), found.scheduled());
        let wakes = found.knows_wakes().then_some(found.wakes);
        // A blocking closure runs once: before that it waits for its thread.
        let knows_schedule = found.knows_wakes() || found.turn.phase == FRESH;
        let idle = age.saturating_sub(busy).saturating_sub(scheduled);
        let (parent_gone, status) = self.parent_gone(found);
        Task {
            id: TaskId::from_u64(found.id),
            kind: found.kind(),
            location: (found.own.as_ref()).map(|own| Arc::new(own.location.clone())),
            name: match &found.own {
                Some(own) => own.name.clone(),
                None => site.name.clone(),
            },
            site_index: found.site,
            daemon: found.is(traits::DAEMON),
            parent: parent(found, status),
            root: TaskId::from_u64(found.root),
            lineage: found.lineage,
            runtime: self.runtimes.get(&found.runtime).copied(),
            age: Duration::from_nanos(age),
            spawned_at: wall.time(found.spawned_at),
            state: found.state(),
            polls: found.turn.turns,
            busy: Duration::from_nanos(busy),
            scheduled: knows_schedule.then(|| Duration::from_nanos(scheduled)),
            idle: knows_schedule.then(|| Duration::from_nanos(idle)),
            longest_poll: Duration::from_nanos(found.longest_poll()),
            last_polled: match found.turn.phase {
                FRESH => None,
                RUNNING => Some(wall.time(found.now)),
                _ => Some(wall.time(found.turn.since)),
            },
            wakes: wakes.map(|wakes| wakes.wakes),
            self_wakes: wakes.map(|wakes| wakes.self_wakes),
            wakers: wakes.map(|wakes| wakes.wakers),
            size: (found.size as usize).checked_sub(1),
            orphaned: self.orphaned(found, parent_gone),
            site,
        }
    }

    fn orphaned(&self, found: &Found, parent_gone: Gone) -> Option<Orphaned> {
        let finding = finding(found, parent_gone, &self.home_turns, self.grace)?;
        Some(Orphaned {
            since: self.wall.time(finding.since),
            elapsed: Duration::from_nanos(found.now.saturating_sub(finding.since)),
            cause: finding.cause,
            certainty: finding.certainty,
        })
    }

    fn parent_gone(&self, found: &Found) -> (Gone, ParentStatus) {
        let fate = match &found.parent {
            ParentTask::None => return (Gone::No, ParentStatus::None),
            ParentTask::Unknown(_) => return (Gone::No, ParentStatus::Unknown),
            ParentTask::Known(fate) => fate,
        };
        // The copy decides, not the fate: a parent that was copied is shown, whatever has
        // become of it since.
        if self.is_live(fate.id) {
            (Gone::No, ParentStatus::Live)
        } else if fate.ended_at().is_none() && fate.ending_since().is_some() {
            (Gone::Ending, ParentStatus::Ended)
        } else {
            (Gone::Ended, ParentStatus::Ended)
        }
    }

    fn is_live(&self, id: TaskId) -> bool {
        // Siblings follow each other.
        let (last, was_live) = self.last_parent.get();
        if last == Some(id) {
            return was_live;
        }
        let found = (self.live).binary_search_by_key(&id.as_u64(), |task| task.id);
        self.last_parent.set((Some(id), found.is_ok()));
        found.is_ok()
    }
}

fn parent(found: &Found, status: ParentStatus) -> Option<Parent> {
    let task = match &found.parent {
        ParentTask::None => None,
        ParentTask::Unknown(id) => Some(*id),
        ParentTask::Known(fate) => Some(fate.id),
    };
    if task.is_none() && found.spans.is_none() {
        return None;
    }
    Some(Parent {
        task,
        status,
        spans: found.spans.clone(),
    })
}
