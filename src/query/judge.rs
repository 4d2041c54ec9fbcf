//! Turns what was found into what is shown.

use super::scan::Found;
use crate::orphan::{self, Finding, Gone, Subject};
use crate::table::{FRESH, RUNNING, traits};
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
}

impl Judge {
    pub(super) fn new(live: &[Found], shared: Shared, grace: Duration) -> Self {
        let mut judge = Self {
            shared: Arc::new(shared),
            grace: crate::clock::nanos(grace),
            home_turns: HomeTurns::default(),
            live_parents: HashSet::default(),
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
            own: found.own,
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
        let Some(id) = found.parent_id() else {
            return (Gone::No, ParentStatus::None);
        };
        let Some(fate) = found.parent_fate() else {
            return (Gone::No, ParentStatus::Unknown);
        };
        // The copy decides, not the fate: a parent that was copied is shown, whatever has
        // become of it since.
        if self.live_parents.contains(&id) {
            (Gone::No, ParentStatus::Live)
        } else if fate.ended_at().is_none() && fate.ending_since().is_some() {
            (Gone::Ending, ParentStatus::Ended)
        } else {
            (Gone::Ended, ParentStatus::Ended)
        }
    }

    /// Whether it can't be told yet if the parent is alive: it had no child when it was copied, and
    /// nothing says that it ended. Then it is alive, if it was copied.
    pub(super) fn is_parent_in_doubt(&self, task: &Found) -> bool {
        task.parent_fate().is_some_and(|fate| {
            let seen = self.live_parents.contains(&fate.id);
            !seen && fate.ended_at().is_none() && fate.ending_since().is_none()
        })
    }
}
