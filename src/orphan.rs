//! The rule that makes an orphan: alive past the grace after what started it ended.
//!
//! | what ended | certainty |
//! |---|---|
//! | the parent task | certain (likely while its end is unconfirmed, after a second of that) |
//! | the task in which the outermost user span was created | certain (the same) |
//! | the outermost user span closed, its task lives on | likely |
//! | the outermost user span was left: its task was polled since without entering it | likely |
//!
//! The certain comes before the likely, and the earlier before the later. What ended
//! before a task was spawned did not start it. Roots, `block_on`, daemons and tasks
//! with an unknown parent are never orphans for that; a span above them still counts.
//!
//! A snapshot copies one task after another while they run, and reads what became of
//! their parents last. A task is judged at the moment it was copied: that it was alive
//! then says nothing of it after a parent that ended later, such as one that had only
//! just been told of the task's end.

use crate::clock::Nanos;
use crate::table::{Fate, ParentRef, ParentTask, SpanFate};
use crate::task::{Cause, Certainty, Kind};

/// How long an end that is not confirmed must have stood to count, whatever the grace. A
/// wake that is seen late makes a poll look like the end for as long as until the next.
const UNCONFIRMED: u64 = 1_000_000_000;

/// What the rule needs to know of a task.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) kind: Kind,
    pub(crate) daemon: bool,
    pub(crate) spawned_at: Nanos,
    pub(crate) parent: &'a ParentTask,
    /// Whether the parent task is missing from the snapshot, or ending in it.
    pub(crate) parent_gone: Gone,
    pub(crate) span: Option<&'a SpanFate>,
    /// Turns that the span's home task has finished; `None` where it isn't alive.
    pub(crate) home_turns: Option<u64>,
}

/// What a snapshot knows of a task's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    No,
    Ending,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) since: Nanos,
    pub(crate) cause: Cause,
    pub(crate) certainty: Certainty,
}

/// What a parent's fate says of its end, where no copy of the parent is at hand.
pub(crate) fn gone(parent: &ParentTask) -> Gone {
    match parent.as_ref() {
        ParentRef::Known(fate) if fate.ended_at().is_some() => Gone::Ended,
        ParentRef::Known(fate) if fate.ending_since().is_some() => Gone::Ending,
        _ => Gone::No,
    }
}

/// Judges one task that was alive at `seen`.
pub(crate) fn judge(subject: &Subject<'_>, grace: u64, seen: Nanos) -> Option<Finding> {
    if subject.daemon || subject.kind == Kind::BlockOn {
        return None;
    }
    let findings = [
        parent_ended(subject, seen),
        span_task_ended(subject, seen),
        span_over(subject),
    ];
    findings
        .into_iter()
        .flatten()
        .filter(|finding| finding.since >= subject.spawned_at)
        .filter(|finding| (seen.checked_sub(finding.since)).is_some_and(|past| past >= grace))
        .min_by_key(|finding| (std::cmp::Reverse(finding.certainty), finding.since))
}

fn parent_ended(subject: &Subject<'_>, seen: Nanos) -> Option<Finding> {
    let ParentRef::Known(fate) = subject.parent.as_ref() else {
        return None;
    };
    let (since, certainty) = match subject.parent_gone {
        Gone::No => return None,
        // Without a time it is leaving the table just now, after the task was seen.
        Gone::Ended => (fate.ended_at()?, Certainty::Certain),
        Gone::Ending => (unconfirmed(fate, seen)?, Certainty::Likely),
    };
    Some(Finding {
        since,
        cause: Cause::ParentEnded,
        certainty,
    })
}

fn span_task_ended(subject: &Subject<'_>, seen: Nanos) -> Option<Finding> {
    let home: &Fate = subject.span?.home.as_deref()?;
    let ended = home.ended_at().map(|at| (at, Certainty::Certain));
    let (since, certainty) =
        ended.or_else(|| unconfirmed(home, seen).map(|at| (at, Certainty::Likely)))?;
    Some(Finding {
        since,
        cause: Cause::SpanTaskEnded,
        certainty,
    })
}

fn unconfirmed(fate: &Fate, seen: Nanos) -> Option<Nanos> {
    (fate.ending_since()).filter(|&at| seen.saturating_sub(at) >= UNCONFIRMED)
}

fn span_over(subject: &Subject<'_>) -> Option<Finding> {
    let span = subject.span?;
    let likely = |since, cause| Finding {
        since,
        cause,
        certainty: Certainty::Likely,
    };
    if let Some(at) = span.closed_at() {
        return Some(likely(at, Cause::SpanClosed));
    }
    let (left_at, in_turn) = span.left()?;
    // In the turn in which it was left it may be entered again.
    (subject.home_turns? > in_turn).then(|| likely(left_at, Cause::SpanLeft))
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;
    use crate::task::{ParentSpan, TaskId};
    use std::sync::Arc;

    const SPAWNED: Nanos = 100;
    const NOW: Nanos = UNCONFIRMED + 1_000;

    struct Case {
        parent: Option<Arc<Fate>>,
        gone: Gone,
        span: Option<Arc<SpanFate>>,
        home_turns: Option<u64>,
        kind: Kind,
        daemon: bool,
    }

    impl Default for Case {
        fn default() -> Self {
            Self {
                parent: Some(Fate::new(TaskId::from_u64(1), 1, None)),
                gone: Gone::No,
                span: None,
                home_turns: None,
                kind: Kind::Task,
                daemon: false,
            }
        }
    }

    impl Case {
        fn judge(&self, grace: u64) -> Option<Finding> {
            let parent = match &self.parent {
                Some(fate) => ParentTask::known(Arc::clone(fate)),
                None => ParentTask::unknown(TaskId::from_u64(9)),
            };
            let subject = Subject {
                kind: self.kind,
                daemon: self.daemon,
                spawned_at: SPAWNED,
                parent: &parent,
                parent_gone: self.gone,
                span: self.span.as_deref(),
                home_turns: self.home_turns,
            };
            judge(&subject, grace, NOW)
        }
    }

    fn ended(at: Nanos) -> Arc<Fate> {
        let fate = Fate::new(TaskId::from_u64(1), 1, None);
        fate.end(at);
        fate
    }

    fn span(home: Option<Arc<Fate>>) -> Arc<SpanFate> {
        SpanFate::new(ParentSpan::for_tests("request"), home)
    }

    #[test]
    fn a_parent_that_ended_is_certain_after_the_grace() {
        let case = Case {
            parent: Some(ended(400)),
            gone: Gone::Ended,
            ..Case::default()
        };
        let finding = case.judge(NOW - 400).expect("exactly the grace");
        assert_eq!(finding.since, 400);
        assert_eq!(finding.cause, Cause::ParentEnded);
        assert_eq!(finding.certainty, Certainty::Certain);
        assert_eq!(case.judge(NOW - 399), None, "within the grace");
    }

    #[test]
    fn a_parent_whose_end_is_unconfirmed_is_likely() {
        let parent = Fate::new(TaskId::from_u64(1), 1, None);
        parent.set_ending_since(300);
        let case = Case {
            parent: Some(parent),
            gone: Gone::Ending,
            ..Case::default()
        };
        let finding = case.judge(0).expect("an orphan");
        assert_eq!(finding.certainty, Certainty::Likely);
        let parent = Fate::new(TaskId::from_u64(1), 1, None);
        parent.set_ending_since(NOW - UNCONFIRMED + 1);
        let case = Case {
            parent: Some(parent),
            gone: Gone::Ending,
            ..Case::default()
        };
        assert_eq!(
            case.judge(0),
            None,
            "a late wake looks like that for a moment"
        );
    }

    #[test]
    fn a_span_that_closed_is_likely_and_its_task_ended_is_certain() {
        let home = Fate::new(TaskId::from_u64(2), 2, None);
        let request = span(Some(Arc::clone(&home)));
        request.close(300);
        let case = Case {
            span: Some(Arc::clone(&request)),
            home_turns: Some(5),
            ..Case::default()
        };
        let finding = case.judge(0).expect("an orphan");
        assert_eq!(
            (finding.cause, finding.certainty),
            (Cause::SpanClosed, Certainty::Likely)
        );
        home.end(500);
        let finding = case.judge(0).expect("an orphan");
        assert_eq!(
            (finding.cause, finding.certainty),
            (Cause::SpanTaskEnded, Certainty::Certain)
        );
    }

    #[test]
    fn a_span_is_left_only_when_its_task_went_on_without_it() {
        let request = span(Some(Fate::new(TaskId::from_u64(2), 2, None)));
        let mut case = Case {
            span: Some(Arc::clone(&request)),
            home_turns: Some(3),
            ..Case::default()
        };
        assert_eq!(case.judge(0), None, "inside");
        request.leave(400, 3);
        assert_eq!(case.judge(0), None, "its task has not been polled since");
        case.home_turns = Some(4);
        let finding = case.judge(0).expect("an orphan");
        assert_eq!(finding.cause, Cause::SpanLeft);
        assert_eq!(finding.certainty, Certainty::Likely);
        request.enter();
        assert_eq!(case.judge(0), None, "it came back");
    }

    #[test]
    fn what_ended_before_the_spawn_did_not_start_it() {
        let home = ended(SPAWNED - 1);
        let case = Case {
            span: Some(span(Some(home))),
            ..Case::default()
        };
        assert_eq!(case.judge(0), None);
    }

    #[test]
    fn what_ended_after_the_task_was_seen_says_nothing_of_it() {
        let parent = ended(NOW + 1);
        let request = span(Some(Arc::clone(&parent)));
        request.close(NOW + 1);
        let case = Case {
            parent: Some(parent),
            gone: Gone::Ended,
            span: Some(request),
            ..Case::default()
        };
        assert_eq!(case.judge(0), None);
        let leaving = Case {
            gone: Gone::Ended,
            ..Case::default()
        };
        assert_eq!(leaving.judge(0), None, "its end has no time yet");
    }

    #[test]
    fn unknown_parents_daemons_and_block_on_make_no_orphans() {
        let gone = || Case {
            parent: Some(ended(400)),
            gone: Gone::Ended,
            ..Case::default()
        };
        assert!(gone().judge(0).is_some());
        let unknown = Case {
            parent: None,
            ..gone()
        };
        assert_eq!(unknown.judge(0), None);
        let daemon = Case {
            daemon: true,
            ..gone()
        };
        assert_eq!(daemon.judge(0), None);
        let block_on = Case {
            kind: Kind::BlockOn,
            ..gone()
        };
        assert_eq!(block_on.judge(0), None);
    }
}
