//! What is left of a watch's tasks.

use super::message::Message;
use crate::{Diagnosis, Task};
use std::fmt;

/// The tasks of a [`Watch`](super::Watch) that are still there, and whether that is all.
///
/// `Display` is the message of a failed assertion.
#[derive(Clone, Debug)]
pub struct Remainder {
    pub(super) tasks: Vec<Task>,
    pub(super) completeness: Completeness,
    /// How many may be there.
    pub(super) allowed: usize,
    pub(super) message: Message,
}

impl Remainder {
    /// The live tasks, by id: without daemons, those that an `ignore…` covers, and the task that
    /// asks with those it descends from.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// Whether it is known that there are no others.
    pub fn completeness(&self) -> &Completeness {
        &self.completeness
    }

    /// Whether an assertion would pass: no more tasks than
    /// [`expect_at_most`](super::Watch::expect_at_most) says, and none that could not be seen.
    pub fn passes(&self) -> bool {
        self.tasks.len() <= self.allowed && self.completeness.is_complete()
    }
}

impl fmt::Display for Remainder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.write(self, f)
    }
}

/// Whether all of a watch's tasks could be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completeness {
    pub(super) reasons: Vec<Reason>,
}

impl Completeness {
    /// Whether nothing was missed.
    pub fn is_complete(&self) -> bool {
        self.reasons.is_empty()
    }

    /// Why tasks may have been missed, each with what to do.
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }
}

impl fmt::Display for Completeness {
    /// `complete`, or a reason a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_complete() {
            return f.write_str("complete");
        }
        for (at, reason) in self.reasons.iter().enumerate() {
            let end = if at + 1 < self.reasons.len() {
                "\n"
            } else {
                ""
            };
            write!(f, "{reason}{end}")?;
        }
        Ok(())
    }
}

/// Why tasks may have been missed, with what to do in `Display`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    code: &'static str,
    text: String,
}

impl Reason {
    /// A stable name: `tasks-refused`, `unseen-before`, `unseen-tasks`, `unseen-parents`,
    /// `unconfirmed`, `runtime-gone`, `other-subscriber`, or that of the
    /// [`Diagnosis`](crate::Diagnosis) which says why the source is blind.
    pub fn code(&self) -> &'static str {
        self.code
    }

    pub(super) fn tasks_refused(count: u64) -> Self {
        Self {
            code: "tasks-refused",
            text: format!(
                "{count} {} not tracked, as `max_live_tasks` were live; raise that limit where the \
                 layer is built, or run fewer tests at once",
                were(count, "task")
            ),
        }
    }

    pub(super) fn other_subscriber() -> Self {
        Self {
            code: "other-subscriber",
            text: "another subscriber was set on this thread since the watch was opened, so that \
                   what is spawned here is not seen; set it before, or drop its guard"
                .into(),
        }
    }

    pub(super) fn unseen_before(count: usize) -> Self {
        let count = count as u64;
        Self {
            code: "unseen-before",
            text: format!(
                "{count} {} spawned on this runtime before the watch was opened, and could not be \
                 seen; what they spawn can't be told from what the test spawns. Open the watch \
                 first, and where such tasks are meant to stay, call `ignore_current()` on it \
                 after the set-up",
                were(count, "task")
            ),
        }
    }

    pub(super) fn unseen_tasks(count: usize) -> Self {
        let count = count as u64;
        Self {
            code: "unseen-tasks",
            text: format!(
                "{count} live {} of the test's runtime (blocking ones among them) never seen \
                 spawned: by a plain thread, or while a subscriber without straggler's layer was current; spawn from the test's \
                 own tasks, or install straggler for the process (`straggler::init()`)",
                were(count, "task")
            ),
        }
    }

    pub(super) fn unseen_parents(count: u64) -> Self {
        Self {
            code: "unseen-parents",
            text: format!(
                "{count} {} spawned on the test's runtime by tasks that were never seen \
                 themselves, so whose they are can't be told; open the watch before the first \
                 spawn",
                were(count, "task")
            ),
        }
    }

    pub(super) fn unconfirmed(count: u64) -> Self {
        Self {
            code: "unconfirmed",
            text: format!(
                "{count} {} as if ended while something holds the task's span open, and the \
                 runtime doesn't confirm it; let go of the spans (`.instrument(Span::current())` \
                 in a child holds its parent's) or use `straggler::spawn`",
                if count == 1 {
                    "task looks"
                } else {
                    "tasks look"
                }
            ),
        }
    }

    pub(super) fn runtime_gone() -> Self {
        Self {
            code: "runtime-gone",
            text: "the runtime was shut down before the assertion, which cancels its tasks: what \
                   was left then can't be told any more; assert inside of `block_on`, or before \
                   the runtime is dropped"
                .into(),
        }
    }

    pub(super) fn blind(diagnosis: &Diagnosis) -> Self {
        Self {
            code: diagnosis.code(),
            text: diagnosis.text().to_owned(),
        }
    }
}

/// `1 task was`, `2 tasks were`, without the number.
fn were(count: u64, what: &str) -> String {
    match count {
        1 => format!("{what} was"),
        _ => format!("{what}s were"),
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.code, self.text)
    }
}
