//! Which of a runtime's hooks tell of anything.

use std::sync::atomic::{AtomicU8, Ordering};

/// Which hooks were ever called, by all runtimes together, and what shows that one is missing.
#[derive(Debug, Default)]
pub(crate) struct Heard(AtomicU8);

impl Heard {
    pub(crate) const SPAWN: u8 = 1;
    pub(crate) const BEFORE: u8 = 1 << 1;
    pub(crate) const AFTER: u8 = 1 << 2;
    pub(crate) const TERMINATE: u8 = 1 << 3;
    /// A task that is in the table, so no blocking one, was told to have ended.
    pub(crate) const TASK_ENDED: u8 = 1 << 4;

    pub(crate) fn all(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    /// Gives true the first time. Later it writes nothing, so that the line stays shared.
    #[inline]
    pub(crate) fn note(&self, what: u8) -> bool {
        self.all() & what == 0 && self.0.fetch_or(what, Ordering::Relaxed) & what == 0
    }
}
