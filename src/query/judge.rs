//! Turns what was found into what is shown.

use super::scan::Found;
use crate::clock::Nanos;
use crate::orphan::{self, Finding, Gone, Subject};
use crate::table::{FRESH, Fate, ParentRef, RUNNING, traits};
use crate::task::{Orphaned, Parent, ParentStatus, Shared, Task, TaskId};
use foldhash::fast::FixedState;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Finished turns of the tasks in which user spans with tasks under them were created.
pub(super) type HomeTurns = HashMap<TaskId, u64, FixedState>;

pub(super) fn finished_turns(task: &Found) -> (TaskId, u64) {
    let running = u64::from(task.turn.phase == RUNNING);
    (TaskId::from_u64(task.id), task.turn.turns - running)
}

/// Whether a task is an orphan, as of its own copy: so it is none for longer than it is old.
pub(super) fn finding(
    found: &Found,
    parent_gone: Gone,
    home_turns: &HomeTurns,
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

/// Judges the tasks of one snapshot, one after another.
pub(super) struct Judge {
    shared: Arc<Shared>,
    grace: u64,
    home_turns: HomeTurns,
    live_parents: HashSet<TaskId, FixedState>,
    /// When the copying began.
    from: Nanos,
    by_id: Vec<(u64, u32)>,
}

impl Judge {
    pub(super) fn new(live: &[Found], from: Nanos, shared: Shared, grace: Duration) -> Self {
        let mut judge = Self {
            shared: Arc::new(shared),
            grace: crate::clock::nanos(grace),
            home_turns: HomeTurns::default(),
            live_parents: HashSet::default(),
            from,
            by_id: super::order::by_id(live.iter().map(|task| task.id)),
        };
        for task in live {
            if task.is(traits::HAS_FATE) {
                judge.live_parents.insert(TaskId::from_u64(task.id));
            }
            if task.is(traits::HOSTS_SPANS) {
                judge.home_turns.extend([finished_turns(task)]);
            }
        }
        judge
    }

    pub(super) fn task(&self, mut found: Found) -> Task {
        let (parent_gone, status) = self.parent_gone(&found);
        let orphaned = self.orphaned(&found, parent_gone);
        let spans = found.spans.take();
        Task {
            shared: Arc::clone(&self.shared),
            id: TaskId::from_u64(found.id),
            root: TaskId::from_u64(found.root),
            kind: found.kind(),
            daemon: found.is(traits::DAEMON),
            knows_wakes: found.knows_wakes(),
            state: found.state(),
            site_index: found.site,
            runtime: found.runtime,
            lineage: found.lineage,
            size: found.size,
            spawned_at: found.spawned_at,
            age: found.age(),
            polls: found.turn.turns,
            busy: found.busy(),
            scheduled: found.scheduled(),
            longest_poll: found.longest_poll(),
            last_polled: match found.turn.phase {
                FRESH => 0,
                RUNNING => found.now,
                _ => found.turn.since,
            },
            wakes: found.wakes,
            self_wakes: found.self_wakes,
            wakers: found.wakers,
            orphaned,
            parent: Parent::new(found.parent_id(), status, spans),
            rare: found.rare,
        }
    }

    fn orphaned(&self, found: &Found, parent_gone: Gone) -> Option<Orphaned> {
        let finding = finding(found, parent_gone, &self.home_turns, self.grace)?;
        let since = self.shared.wall.time(finding.since);
        let elapsed = found.now.saturating_sub(finding.since);
        Some(Orphaned::new(
            since,
            elapsed,
            finding.cause,
            finding.certainty,
        ))
    }

    fn parent_gone(&self, found: &Found) -> (Gone, ParentStatus) {
        let fate = match found.parent.as_ref() {
            ParentRef::None => return (Gone::No, ParentStatus::None),
            ParentRef::Unknown(_) => return (Gone::No, ParentStatus::Unknown),
            ParentRef::Known(fate) => fate,
        };
        // The copy decides, not the fate: a parent that was copied is shown, whatever has
        // become of it since.
        if self.is_copied(fate) {
            (Gone::No, ParentStatus::Live)
        } else if fate.ended_at().is_none() && fate.ending_since().is_some() {
            (Gone::Ending, ParentStatus::Ended)
        } else {
            (Gone::Ended, ParentStatus::Ended)
        }
    }

    /// Whether the task of this fate was copied, and so is alive in this snapshot.
    fn is_copied(&self, fate: &Fate) -> bool {
        if self.live_parents.contains(&fate.id) {
            return true;
        }
        // It may have been copied before its first child was spawned. Then it had not ended when
        // the copying began.
        let id = fate.id.as_u64();
        fate.ended_at().is_none_or(|at| at >= self.from)
            && (self.by_id)
                .binary_search_by_key(&id, |&(id, _)| id)
                .is_ok()
    }

    /// The places of the tasks, by id.
    pub(super) fn into_places(self) -> Vec<u32> {
        self.by_id.into_iter().map(|(_, place)| place).collect()
    }
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;
    use crate::ManualClock;
    use crate::config::Config;
    use crate::daemons::Daemons;
    use crate::query::scan;
    use crate::table::{Key, LastTurn, NewTask, Outcome, Place, Spawner, Table, Tally};
    use crate::task::Kind;

    fn spawn(table: &Table, tally: &mut Tally, id: u64, spawner: Spawner) -> Key {
        let place = Place {
            file: "src/a.rs",
            line: id as u32,
            column: 1,
            kind: Kind::Task,
            name: "",
        };
        let new = NewTask {
            id,
            span: 0,
            place,
            size: None,
            spawner,
            spans: None,
            scope: None,
            traits: 0,
        };
        (table.spawn(tally, new, table.clock.now())).expect("far below the limit")
    }

    /// A parent that is copied, has its first child, and ends, all while the copying is under
    /// way. In the snapshot it is alive, and the child is no orphan.
    #[test]
    fn a_parent_copied_before_its_first_child() {
        for ends in [false, true] {
            let clock = Some(ManualClock::new());
            let daemons = Daemons::new(&[]).expect("there is no glob");
            let table = Table::new(Config::default(), daemons, clock);
            let mut tally = table.tallies.join();
            let parent = spawn(&table, &mut tally, 1, Spawner::None);
            let from = table.clock.now();
            let mut tasks = scan::tasks(&table, from);
            let mut found = vec![tasks.next().expect("the parent")];
            spawn(&table, &mut tally, 2, Spawner::Task(parent));
            if ends {
                let tally = Some(&mut tally);
                table.end(tally, parent, from, LastTurn::Drop, Outcome::Unknown);
            }
            found.extend(tasks);
            assert_eq!(found.len(), 2);
            let shared = Shared {
                wall: table.clock.wall(),
                sites: table
                    .sites()
                    .iter()
                    .map(|site| Arc::clone(&site.key))
                    .collect(),
                runtimes: HashMap::new(),
            };
            let judge = Judge::new(&found, from, shared, Duration::ZERO);
            let child = judge.task(found.remove(1));
            let parent = child.parent().expect("it was spawned in one");
            assert_eq!(parent.status(), ParentStatus::Live, "ends: {ends}");
            assert!(child.orphaned().is_none(), "ends: {ends}");
        }
    }
}
