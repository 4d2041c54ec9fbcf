//! A watch: a scope with a way to ask what is left of it.

use super::ignore::Ignore;
use super::look::{Doubts, Ground, Look};
use super::message::{Parts, Told};
use super::pace::Pace;
use super::remainder::{Completeness, Remainder};
use super::site_view::SiteView;
use super::stop::Stop;
use crate::task::SiteKey;
use crate::{Error, Task, TaskId};
use std::collections::HashSet;
use std::future::Future;
use std::panic::Location;
use std::time::Duration;

/// How long an assertion waits for what is just ending.
const SETTLE: Duration = Duration::from_secs(1);

/// Opens a watch: every task that the calling task, or else the calling thread, spawns from now
/// on belongs to it, and whatever those spawn.
///
/// Give it a name that lasts until the assertion: `let watch = straggler::testing::watch();`.
///
/// # Panics
///
/// Where tasks can't be seen, with what to do about it: those are the errors of [`try_watch`].
#[track_caller]
pub fn watch() -> Watch {
    match Watch::open(Location::caller()) {
        Ok(watch) => watch,
        Err(error) => panic!("{error}"),
    }
}

/// Opens a watch, as [`watch()`] does.
///
/// # Errors
///
/// A build without `tokio_unstable`, or with a `max_level_…` feature of `tracing` that compiles
/// tokio's spans out; a filter round the straggler layer that is installed already; a thread whose
/// thread-local storage is gone. The error holds the diagnosis: [`Error::is_blind`].
#[track_caller]
pub fn try_watch() -> Result<Watch, Error> {
    Watch::open(Location::caller())
}

/// Runs a future, and asserts that it leaves no task behind: [`watch()`] and
/// [`assert_no_stragglers`](Watch::assert_no_stragglers) around it. Gives its output.
///
/// # Panics
///
/// As those two do. A panic of the future goes through, and nothing is asserted then.
#[track_caller]
pub fn check<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let here = Location::caller();
    async move {
        let watch = Watch::open(here).unwrap_or_else(|error| panic!("{error}"));
        watch.check_at(future, here).await
    }
}

/// All that was spawned since it was opened, by who opened it and by what that spawned.
///
/// Options are set by value, and again at any time: `let watch = watch.ignore_current();`.
/// Dropping it closes it: what is spawned later belongs to the watch around it, if there is one.
#[must_use = "a watch that is dropped watches nothing: `let watch = straggler::testing::watch();`"]
#[derive(Debug)]
pub struct Watch {
    ground: Ground,
    opened: &'static Location<'static>,
    settle: Duration,
    ignores: Vec<Ignore>,
    current: HashSet<TaskId>,
    at_most: usize,
    /// Last, as the scope is closed while this thread still tells of its spawns.
    _joined: crate::capture::Joined,
}

impl Watch {
    fn open(opened: &'static Location<'static>) -> Result<Self, Error> {
        let (tasks, joined) = crate::capture::watched()?;
        let shared = &tasks.shared;
        let source = shared.table.config.source;
        if let Some(blind) =
            crate::diagnose::blindness(source, &shared.rules, &shared.sight).first()
        {
            return Err(Error::blind(blind));
        }
        let scope = crate::capture::open_scope(&shared.table).ok_or_else(Error::thread_gone)?;
        Ok(Self {
            ground: Ground::new(tasks, scope),
            opened,
            settle: SETTLE,
            ignores: Vec::new(),
            current: HashSet::new(),
            at_most: 0,
            _joined: joined,
        })
    }

    /// How long an assertion waits for tasks that are just ending: 1 s if this isn't called. It
    /// waits for no longer than there are any. By the real clock: tokio's may be paused, and
    /// stays so.
    pub fn settle(mut self, most: Duration) -> Self {
        self.settle = most;
        self
    }

    /// Lets tasks of this name stay.
    pub fn ignore_named(mut self, name: &str) -> Self {
        self.ignores.push(Ignore::named(name));
        self
    }

    /// Lets tasks stay that are spawned in files which the glob matches: `src/cache/*.rs`,
    /// `bb8-*/**`; or at one line of them: `src/cache.rs:31`. It is matched against [`Location::file`](crate::Location::file); `*` and `?` stay
    /// within a path component, `**` is any number of them.
    ///
    /// # Panics
    ///
    /// If it is no glob.
    #[track_caller]
    pub fn ignore_spawned_at(mut self, glob: &str) -> Self {
        match Ignore::spawned_at(glob) {
            Ok(ignore) => self.ignores.push(ignore),
            Err(error) => panic!(
                "straggler: ignore_spawned_at({glob:?}) is not a glob: {error}; write `*` and `?` \
                 within a path component and `**` as a whole one"
            ),
        }
        self
    }

    /// Lets the tasks stay that are alive now: what a set-up started.
    pub fn ignore_current(mut self) -> Self {
        let snapshot = self.ground.tasks.snapshot();
        let ids = self.ground.members(&snapshot).map(Task::id);
        self.current.extend(ids);
        self
    }

    /// Lets the tasks stay for which `may_stay` says so.
    pub fn ignore(mut self, may_stay: impl Fn(&Task) -> bool + Send + Sync + 'static) -> Self {
        self.ignores.push(Ignore::by(may_stay));
        self
    }

    /// Lets so many tasks stay, whichever they are.
    pub fn expect_at_most(mut self, tasks: usize) -> Self {
        self.at_most = tasks;
        self
    }

    /// Runs a future, and asserts that no task is left: [`check`] with options. Gives its output.
    ///
    /// # Panics
    ///
    /// As [`assert_no_stragglers`](Self::assert_no_stragglers) does. A panic of the future goes
    /// through, and nothing is asserted then.
    #[track_caller]
    pub fn check<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        let here = Location::caller();
        self.check_at(future, here)
    }

    async fn check_at<F: Future>(self, future: F, here: &'static Location<'static>) -> F::Output {
        let output = future.await;
        self.assertion(here).await;
        output
    }

    /// The tasks that are still there, as soon as no more are than
    /// [`expect_at_most`](Self::expect_at_most) says, or when [`settle`](Self::settle) has passed.
    ///
    /// Others go on meanwhile: it yields, and pauses the thread for 10 ms at most at a time. It
    /// needs no runtime and no timer. Each look is a [snapshot](crate::Tasks::snapshot).
    pub async fn stragglers(&self) -> Remainder {
        let mut pace = Pace::new(self.settle);
        let look = self.watch_until_quiet(&mut pace).await;
        let waited = self.settle;
        self.remainder(look, Told::Done { waited }, |_| None)
    }

    /// Panics if tasks are still there, or could not be seen.
    ///
    /// # Panics
    ///
    /// With the tasks by their spawn sites, their states, ages and parents, and what to do. With
    /// another message, that begins with `straggler: inconclusive`, where none is left of those
    /// that could be seen, and others may be: see [`Completeness`].
    #[track_caller]
    pub fn assert_no_stragglers(&self) -> impl Future<Output = ()> + '_ {
        self.assertion(Location::caller())
    }

    async fn assertion(&self, here: &'static Location<'static>) {
        let remainder = self.stragglers().await;
        if !remainder.passes() {
            fail(&remainder, here);
        }
    }

    /// Asks the tasks to stop, and panics if any of them is still there when the deadline has
    /// passed, by the real clock.
    ///
    /// Takes a [`CancellationToken`](tokio_util::sync::CancellationToken), which it cancels, or a
    /// future that does what is needed.
    ///
    /// ```
    /// # #[cfg(tokio_unstable)]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use std::time::Duration;
    /// use tokio_util::sync::CancellationToken;
    ///
    /// let watch = straggler::testing::watch();
    /// let token = CancellationToken::new();
    /// tokio::spawn(token.clone().cancelled_owned());
    /// watch.assert_stops_within(Duration::from_secs(1), token).await;
    /// # }
    /// # #[cfg(not(tokio_unstable))]
    /// # fn main() {}
    /// ```
    ///
    /// # Panics
    ///
    /// As [`assert_no_stragglers`](Self::assert_no_stragglers), and where the future is not done by
    /// then. Of each task it says whether it
    /// was polled since and went on, was never polled since, or is in a poll that doesn't return.
    /// A task whose poll never returns on a current-thread runtime keeps this from being polled
    /// too, so that there it is the test's own time limit that ends it.
    #[track_caller]
    pub fn assert_stops_within<By>(
        &self,
        deadline: Duration,
        stop: impl Stop<By>,
    ) -> impl Future<Output = ()> {
        let here = Location::caller();
        async move {
            let before = self.ground.look(|_| false);
            let mut pace = Pace::new(deadline);
            let requested = pace.within(stop.request()).await;
            let look = self.watch_until_quiet(&mut pace).await;
            let told = Told::Stopped {
                deadline,
                requested,
            };
            let after = match look.live.is_empty() {
                true => None,
                // A poll that is under way now, and in a moment, is one that doesn't return.
                false => {
                    std::thread::sleep(Duration::from_millis(5));
                    Some(self.ground.tasks.snapshot())
                }
            };
            let remainder = self.remainder(look, told, |task| {
                let then = before.snapshot.task(task.id());
                let after = after.as_ref().and_then(|after| after.task(task.id()));
                Some(super::message::since_the_stop(task, then, after))
            });
            if !(requested && remainder.passes()) {
                fail(&remainder, here);
            }
        }
    }

    /// The live tasks, by id, with daemons and with those that an `ignore…` covers.
    pub fn tasks(&self) -> Vec<Task> {
        let snapshot = self.ground.tasks.snapshot();
        self.ground.members(&snapshot).cloned().collect()
    }

    /// What was spawned since the watch was opened, and how much of it is alive.
    pub fn all(&self) -> SiteView {
        self.view(|_| true)
    }

    /// The same of the spawn sites whose place ends so: `"src/pool.rs"`, `"pool.rs:31"`.
    ///
    /// Where none does it is all zero, and a warning on stderr names the sites there are.
    pub fn site(&self, suffix: &str) -> SiteView {
        self.view_or_warn(&format!("site({suffix:?})"), |key| {
            let place = &key.location;
            let with_line = format!("{}:{}", place.file(), place.line());
            ends_with(place.file(), suffix) || ends_with(&with_line, suffix)
        })
    }

    /// The same of the tasks of this name.
    ///
    /// Where none has it, it is all zero, and a warning on stderr names the sites there are.
    pub fn named(&self, name: &str) -> SiteView {
        self.view_or_warn(&format!("named({name:?})"), |key| {
            key.name.as_deref() == Some(name)
        })
    }

    fn view_or_warn(&self, asked: &str, is: impl Fn(&SiteKey) -> bool) -> SiteView {
        let view = self.view(is);
        if view.sites == 0 {
            #[expect(clippy::print_stderr, reason = "shown beside the test's failure")]
            {
                eprintln!(
                    "straggler: {asked} matches no spawn site of this watch; there are: {}",
                    self.known_sites()
                );
            }
        }
        view
    }

    fn known_sites(&self) -> String {
        let sites = self.ground.tasks.shared.table.sites();
        let mut known: Vec<_> = (self.ground.totals().keys())
            .filter_map(|&number| sites.get(number as usize))
            .map(|site| crate::text::Named::of(&site.key).to_string())
            .collect();
        known.sort();
        match known.is_empty() {
            true => "none".into(),
            false => known.join(", "),
        }
    }

    fn view(&self, is: impl Fn(&SiteKey) -> bool) -> SiteView {
        let mut view = SiteView::empty();
        // Before the totals, so that a task which ends meanwhile isn't missing from both.
        let snapshot = self.ground.tasks.snapshot();
        let sites = self.ground.tasks.shared.table.sites();
        let matches = |number: u32| {
            let site = sites.get(number as usize);
            site.is_some_and(|site| is(&site.key))
        };
        for (&number, totals) in &self.ground.totals() {
            if matches(number) {
                view.add(totals);
            }
        }
        for task in self.ground.members(&snapshot) {
            if matches(task.site_index) {
                view.add_live(task.age(), task.polls());
            }
        }
        view
    }
}

impl Watch {
    /// Looks until nothing is left and nothing is in doubt, or the time is over. What is in doubt
    /// then is looked at for a little longer, however short the time: a runtime counts a task
    /// for a moment after its end.
    async fn watch_until_quiet(&self, pace: &mut Pace) -> Look {
        const CONFIRMED: Duration = Duration::from_millis(50);
        let mut confirms: Option<Pace> = None;
        let mut last: Option<(usize, Doubts)> = None;
        loop {
            let mut look = self.ground.look(|task| self.counts(task));
            let live = look.live.len();
            // A doubt that passes while the same number is seen was none. A task that isn't seen
            // any more may be what the doubt is about.
            if let Some((_, doubts)) = last.filter(|&(before, _)| before == live) {
                look.doubts = look.doubts.in_both(doubts);
            }
            last = Some((live, look.doubts));
            let few = look.live.iter().filter(|task| self.counts(task)).count() <= self.at_most;
            if few && look.doubts.is_empty() {
                return look;
            }
            if pace.wait().await {
                continue;
            }
            let confirms = confirms.get_or_insert_with(|| Pace::new(CONFIRMED));
            if look.doubts.is_empty() || !confirms.wait().await {
                return look;
            }
        }
    }

    /// Whether a task has no leave to stay. Asks every `ignore…`, so that each knows whether it
    /// ever applied.
    fn counts(&self, task: &Task) -> bool {
        let ignored = self.ignores.iter().filter(|ignore| ignore.covers(task));
        ignored.count() == 0 && !task.is_daemon() && !self.current.contains(&task.id())
    }

    fn remainder(
        &self,
        look: Look,
        told: Told,
        status: impl Fn(&Task) -> Option<String>,
    ) -> Remainder {
        let Look {
            snapshot,
            mut live,
            doubts,
        } = look;
        live.retain(|task| self.counts(task));
        let reasons = self.ground.reasons(&snapshot, live.is_empty(), doubts);
        let warnings = self.ignores.iter().filter_map(Ignore::warning).collect();
        let message = Parts::new(&self.ground, &snapshot, &live, status);
        Remainder {
            tasks: live,
            completeness: Completeness { reasons },
            allowed: self.at_most,
            message: message.of(self.opened, told, warnings),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ground.scope.close();
    }
}

/// The assertion itself: all else only finds out.
fn fail(remainder: &Remainder, here: &'static Location<'static>) -> ! {
    panic!("{remainder}\n(asserted at {here})");
}

/// Whether a path ends in whole components.
fn ends_with(path: &str, suffix: &str) -> bool {
    let suffix = suffix.trim_start_matches('/');
    let rest = path.strip_suffix(suffix);
    !suffix.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_is_of_whole_components() {
        for (path, suffix, is) in [
            ("src/pool.rs", "src/pool.rs", true),
            ("src/pool.rs", "pool.rs", true),
            ("src/carpool.rs", "pool.rs", false),
            ("src/pool.rs:31", "pool.rs:31", true),
            ("src/pool.rs:31", "pool.rs:1", false),
            ("src/pool.rs", "", false),
        ] {
            assert_eq!(ends_with(path, suffix), is, "{path} {suffix}");
        }
    }
}
