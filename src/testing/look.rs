//! One look at a watch's tasks.

use super::remainder::Reason;
use super::runtimes;
use crate::loss::Loss;
use crate::query::Snapshot;
use crate::table::{Opener, Scope, ScopeTotals};
use crate::{Kind, Parent, ParentStatus, Task, TaskId, Tasks};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread::ThreadId;
use tokio::runtime::Handle;

/// What a watch was opened on, and how things stood then.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) tasks: Tasks,
    pub(super) scope: Arc<Scope>,
    /// The runtime in which it was opened.
    home: Option<tokio::runtime::Id>,
    /// The thread on which it was opened.
    thread: ThreadId,
    /// Tasks of that runtime which nobody announced.
    unseen_before: usize,
    /// Whether who opened it is a task that this runtime counts and nobody announced.
    unseen_opener: bool,
    loss_before: Loss,
}

/// What a look found.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) snapshot: Snapshot,
    /// The live tasks of the scope that who asks doesn't stand on, by id.
    pub(super) live: Vec<Task>,
    pub(super) doubts: Doubts,
}

/// What may be missing from a look. All but the last may pass while one looks on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Doubts {
    unseen: usize,
    unconfirmed: u64,
}

impl Doubts {
    /// What one look missed and another didn't is not missing.
    pub(super) fn in_both(self, other: Self) -> Self {
        Self {
            unseen: self.unseen.min(other.unseen),
            unconfirmed: self.unconfirmed.min(other.unconfirmed),
        }
    }

    pub(super) fn is_empty(self) -> bool {
        self.unseen == 0 && self.unconfirmed == 0
    }
}

impl Ground {
    pub(super) fn new(tasks: Tasks, scope: Arc<Scope>) -> Self {
        let here = Handle::try_current().ok();
        let loss_before = tasks.shared.table.loss();
        let unseen = here.as_ref().map_or(0, |here| unseen_now(&tasks, here));
        let unseen_opener = unseen > 0 && matches!(scope.opener, Opener::Unknown(_));
        Self {
            unseen_before: unseen - usize::from(unseen_opener),
            unseen_opener,
            home: here.map(|here| here.id()),
            thread: std::thread::current().id(),
            tasks,
            scope,
            loss_before,
        }
    }

    /// The task that looks and those it descends from are not looked at: they can't have ended.
    ///
    /// `counts` says of which tasks it matters whether they ended.
    pub(super) fn look(&self, counts: impl Fn(&Task) -> bool) -> Look {
        let snapshot = self.tasks.snapshot();
        let unseen = runtimes::unseen(&self.scope.runtimes(), &snapshot);
        let mut live: Vec<_> = self.members(&snapshot).cloned().collect();
        let open = snapshot.unconfirmed().iter().filter(|task| self.has(task));
        let open = open.filter(|task| counts(task)).count() as u64;
        let standing_on = self.standing_on(&snapshot);
        live.retain(|task| !standing_on.contains(&task.id()) && !is_body(task));
        Look {
            live,
            doubts: Doubts {
                unseen,
                unconfirmed: open,
            },
            snapshot,
        }
    }

    pub(super) fn members<'a>(&self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Task> {
        snapshot.tasks().filter(|task| self.has(task))
    }

    fn has(&self, task: &Task) -> bool {
        task.scope().is_some_and(|held| self.scope.has(held))
    }

    /// What became of the scope's tasks, with their sites.
    pub(super) fn totals(&self) -> HashMap<u32, ScopeTotals> {
        self.scope.totals()
    }

    fn standing_on(&self, snapshot: &Snapshot) -> HashSet<TaskId> {
        let mut found = HashSet::new();
        let current = crate::capture::current_task(&self.tasks.shared.table);
        let mut next = current.map(TaskId::from_u64);
        while let Some(id) = next.filter(|&id| found.insert(id)) {
            let task = snapshot.task(id);
            next = task.and_then(|task| task.parent()?.task());
            // Where one between has ended, the first of the line may still wait.
            found.extend(task.map(Task::root));
        }
        found
    }

    /// Why the look doesn't prove that nothing was left, whatever it found.
    pub(super) fn reasons(
        &self,
        snapshot: &Snapshot,
        nothing_left: bool,
        doubts: Doubts,
    ) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let now = snapshot.loss();
        let refused = now.refused().saturating_sub(self.loss_before.refused());
        if refused > 0 {
            reasons.push(Reason::tasks_refused(refused));
        }
        if self.unseen_before > 0 {
            reasons.push(Reason::unseen_before(self.unseen_before));
        }
        // Those are unseen as long as they live, and so is an opener that is: if it asks, it lives.
        let opener = self.unseen_opener && self.is_asked_by_opener();
        let unseen = (doubts.unseen).saturating_sub(self.unseen_before + usize::from(opener));
        if unseen > 0 {
            reasons.push(Reason::unseen_tasks(unseen));
        }
        let orphaned = self.scope.unseen_parents();
        if orphaned > 0 {
            reasons.push(Reason::unseen_parents(orphaned));
        }
        if doubts.unconfirmed > 0 {
            reasons.push(Reason::unconfirmed(doubts.unconfirmed));
        }
        if nothing_left && self.has_lost_its_runtime() {
            reasons.push(Reason::runtime_gone());
        }
        if std::thread::current().id() == self.thread
            && !crate::capture::sees_here(&self.tasks.shared.table)
        {
            reasons.push(Reason::other_subscriber());
        }
        let shared = &self.tasks.shared;
        let source = shared.table.config.source;
        let blind = crate::diagnose::blindness(source, &shared.rules, &shared.sight);
        reasons.extend(blind.iter().map(Reason::blind));
        reasons
    }

    fn is_asked_by_opener(&self) -> bool {
        let asks = crate::capture::current_task(&self.tasks.shared.table);
        matches!(self.scope.opener, Opener::Unknown(id) if asks == Some(id))
    }

    /// Whether the tasks were cancelled with their runtime before anybody looked.
    fn has_lost_its_runtime(&self) -> bool {
        let mut known = self.scope.runtimes();
        if let Some(home) = self.home {
            known.retain(|runtime| runtime.id() == home);
        }
        // Tasks that were on no runtime when they ended were never polled.
        match known.is_empty() {
            true => self.scope.has_had_tasks(),
            false => known.iter().all(runtimes::is_shut_down),
        }
    }

    /// Live tasks on the scope's runtimes that no task spawned, and so belong to nobody: a plain
    /// thread's.
    pub(super) fn unattributed<'a>(
        &self,
        snapshot: &'a Snapshot,
    ) -> impl Iterator<Item = &'a Task> {
        let runtimes: HashSet<_> = (self.scope.runtimes().iter())
            .map(tokio::runtime::Handle::id)
            .collect();
        let opened_at = self.scope.opened_at;
        snapshot.tasks().filter(move |task| {
            let is_root = task.parent().is_none_or(|parent| parent.task().is_none());
            let is_here = task.runtime().is_some_and(|id| runtimes.contains(&id));
            let belongs = task.scope().is_some() || task.is_daemon();
            is_root
                && is_here
                && !belongs
                && task.kind() == Kind::Task
                && task.spawned_at >= opened_at
        })
    }

    /// The site of the task that opened the scope, by its number.
    pub(super) fn opener_site(&self) -> Option<u32> {
        match self.scope.opener {
            Opener::Task { site } => Some(site),
            Opener::Thread | Opener::Unknown(_) => None,
        }
    }
}

/// A future that a thread itself waits for, as the body of a test is: it ends with the call, and
/// so with the task that called.
fn is_body(task: &Task) -> bool {
    let status = task.parent().map_or(ParentStatus::None, Parent::status);
    let has_returned = matches!(status, ParentStatus::None | ParentStatus::Ended);
    task.kind() == Kind::BlockOn && has_returned
}

/// The unannounced tasks of a runtime: a task that has just ended may be counted for some
/// microseconds more.
fn unseen_now(tasks: &Tasks, runtime: &Handle) -> usize {
    const LOOKS: usize = 20;
    let runtime = std::slice::from_ref(runtime);
    let mut least = usize::MAX;
    for look in 0..LOOKS {
        if look > 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        least = least.min(runtimes::unseen(runtime, &tasks.snapshot()));
        if least == 0 {
            break;
        }
    }
    least
}
