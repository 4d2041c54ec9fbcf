//! What a program of the corpus is.

use std::any::Any;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;

/// The part that a test's own body plays: it starts the tasks and returns, as a request handler
/// does. What it gives back is kept by somebody until after the test has been judged.
pub type Run = fn(Cast) -> Pin<Box<dyn Future<Output = Kept>>>;

/// A kernel: a leak as it was found in a real program, with the programs beside it that have none.
pub struct Kernel {
    /// As in GoKer, or a name of ours.
    pub id: &'static str,
    /// Why the tasks stay, in the codes of `docs/truth.md`: `"M"`, `"P+Q"`.
    pub codes: &'static str,
    /// Whether the leak depends on which task comes first, so that a run may have none.
    pub flaky: bool,
    pub leaks: Run,
    /// The same after the fix: every task ends.
    pub fixed: Run,
    /// Whether the leak is over once what the program kept is dropped: a channel's other end, as
    /// a rule. Then dropping it is the third program, and it is clean.
    pub ends_by_drop: bool,
}

/// A program without a leak. What it leaves running at the end is meant to run.
pub struct Clean {
    pub id: &'static str,
    pub run: Run,
    pub remains: Remains,
}

/// What is seen at the end of a program without a leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// Tasks that are meant to run: they are reported as alive, and no more is said of them.
    Alive,
    /// Tasks that are there and not reported: daemons.
    Unreported,
    /// None.
    Gone,
}

/// What somebody keeps: a map, a static, a struct that outlives the request.
#[derive(Default)]
pub struct Kept(Vec<Box<dyn Any>>);

impl Kept {
    pub fn nothing() -> Self {
        Self::default()
    }

    pub fn of(kept: impl Any) -> Self {
        Self::nothing().and(kept)
    }

    pub fn and(mut self, kept: impl Any) -> Self {
        self.0.push(Box::new(kept));
        self
    }
}

/// A task that stays: what a report is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Stay {
    pub place: &'static Location<'static>,
    /// The task that spawned it, unless it was the body.
    pub parent: Option<tokio::task::Id>,
}

/// Spawns the tasks that stay, and notes them.
#[derive(Clone, Default)]
pub struct Cast {
    stays: Arc<Mutex<Vec<Stay>>>,
}

impl Cast {
    /// Spawns a task that is still there when the body has returned. One that ends is spawned
    /// with `tokio::spawn`.
    #[track_caller]
    pub fn stays<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.note(Location::caller());
        tokio::spawn(task)
    }

    /// Notes a task that stays and is spawned otherwise, by a `JoinSet` or under a name, in the
    /// line that spawns it: `set.spawn(cast.noted(work))`.
    #[track_caller]
    pub fn noted<F: Future>(&self, task: F) -> F {
        self.note(Location::caller());
        task
    }

    fn note(&self, place: &'static Location<'static>) {
        let mut stays = self.stays.lock().unwrap_or_else(PoisonError::into_inner);
        let parent = tokio::task::try_id();
        stays.push(Stay { place, parent });
    }

    pub fn all_that_stay(&self) -> Vec<Stay> {
        let stays = self.stays.lock().unwrap_or_else(PoisonError::into_inner);
        stays.clone()
    }
}
