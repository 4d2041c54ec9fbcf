//! Our identity of a task: tokio's id as a number.

use std::fmt;
use std::hash::{Hash, Hasher};

/// tokio's task id, in a form that can be stored, ordered and printed.
///
/// tokio never gives the same number twice in one process. A `TaskId` compares with
/// a [`tokio::task::Id`], and is made from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(u64);

impl TaskId {
    pub(crate) fn from_u64(id: u64) -> Self {
        Self(id)
    }

    /// The number that tokio prints.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl From<tokio::task::Id> for TaskId {
    fn from(id: tokio::task::Id) -> Self {
        Self(raw(id))
    }
}

impl PartialEq<tokio::task::Id> for TaskId {
    fn eq(&self, other: &tokio::task::Id) -> bool {
        *self == Self::from(*other)
    }
}

impl PartialEq<TaskId> for tokio::task::Id {
    fn eq(&self, other: &TaskId) -> bool {
        other == self
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of the task that is being polled or dropped on this thread, or 0.
#[inline]
pub(crate) fn current() -> u64 {
    tokio::task::try_id().map_or(0, raw)
}

/// The number inside tokio's opaque id.
///
/// tokio shows it in `Display` only. Formatting on every poll would cost more than
/// all the rest, so the number is caught on its way into a hasher; should tokio ever
/// hash anything but one `u64`, the printed form is read instead.
#[inline]
pub(crate) fn raw(id: tokio::task::Id) -> u64 {
    let mut catch = Catch::default();
    id.hash(&mut catch);
    if catch.writes == 1 {
        debug_assert_eq!(catch.value, printed(id));
        catch.value
    } else {
        printed(id)
    }
}

#[cold]
fn printed(id: tokio::task::Id) -> u64 {
    let mut digits = Digits(0);
    // `Digits` never fails, and tokio's `Display` has nothing else that could.
    match fmt::write(&mut digits, format_args!("{id}")) {
        Ok(()) => digits.0,
        Err(fmt::Error) => 0,
    }
}

#[derive(Default)]
struct Catch {
    value: u64,
    writes: u32,
}

impl Hasher for Catch {
    fn finish(&self) -> u64 {
        self.value
    }

    fn write(&mut self, _: &[u8]) {
        self.writes += 2;
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.value = value;
        self.writes += 1;
    }
}

struct Digits(u64);

impl fmt::Write for Digits {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for digit in s.bytes().filter(u8::is_ascii_digit) {
            self.0 = self
                .0
                .wrapping_mul(10)
                .wrapping_add(u64::from(digit - b'0'));
        }
        Ok(())
    }
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_number_is_the_one_tokio_prints() {
        for _ in 0..100 {
            let task = tokio::spawn(async {});
            assert_eq!(raw(task.id()).to_string(), task.id().to_string());
            assert_eq!(TaskId::from(task.id()), task.id());
            task.await.expect("the task is empty");
        }
    }
}
