//! Tasks that a test says may stay.

use crate::Task;
use crate::daemons::matches;
use glob::Pattern;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// One way to say it, and whether it ever applied.
pub(super) struct Ignore {
    how: How,
    met: AtomicBool,
}

enum How {
    Named(String),
    SpawnedAt(Pattern),
    Where(Box<dyn Fn(&Task) -> bool + Send + Sync>),
}

impl Ignore {
    pub(super) fn named(name: &str) -> Self {
        Self::new(How::Named(name.to_owned()))
    }

    pub(super) fn spawned_at(glob: &str) -> Result<Self, glob::PatternError> {
        Ok(Self::new(How::SpawnedAt(Pattern::new(glob)?)))
    }

    pub(super) fn by(is: impl Fn(&Task) -> bool + Send + Sync + 'static) -> Self {
        Self::new(How::Where(Box::new(is)))
    }

    fn new(how: How) -> Self {
        let met = AtomicBool::new(false);
        Self { how, met }
    }

    pub(super) fn covers(&self, task: &Task) -> bool {
        let covers = match &self.how {
            How::Named(name) => task.name() == Some(name),
            How::SpawnedAt(glob) if names_a_line(glob) => {
                let place = task.location();
                let place = format!("{}:{}", place.file(), place.line());
                matches(glob, &place)
            }
            How::SpawnedAt(glob) => matches(glob, task.location().file()),
            How::Where(is) => is(task),
        };
        if covers {
            self.met.store(true, Ordering::Relaxed);
        }
        covers
    }

    /// What to say of one that applied to no task: a typing error, as a rule.
    pub(super) fn warning(&self) -> Option<String> {
        (!self.met.load(Ordering::Relaxed)).then(|| format!("{self} applied to no task"))
    }
}

/// Whether the glob is of a `file:line`, and not of files.
fn names_a_line(glob: &Pattern) -> bool {
    let line = glob.as_str().rsplit_once(':');
    line.is_some_and(|(_, line)| !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit()))
}

impl fmt::Display for Ignore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            How::Named(name) => write!(f, "ignore_named({name:?})"),
            How::SpawnedAt(glob) => write!(f, "ignore_spawned_at({:?})", glob.as_str()),
            How::Where(_) => f.write_str("ignore(…)"),
        }
    }
}

impl fmt::Debug for Ignore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
