//! What someone reads whose build just broke.

use super::look::Ground;
use super::remainder::Remainder;
use crate::query::Snapshot;
use crate::text::{Count, Span};
use crate::{Kind, State, Task};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

/// Groups shown; the message says how many were left out.
const MOST: usize = 10;
/// Sites of a lineage shown; the nearest ones say most.
const MOST_ABOVE: usize = 8;

/// The text of a [`Remainder`], but for what it says itself.
#[derive(Clone, Debug)]
pub(super) struct Message {
    opened: &'static Location<'static>,
    told: Told,
    groups: Vec<Group>,
    /// Spawn sites of live tasks that belong to no watch, with their number.
    unattributed: Vec<(String, u64)>,
    warnings: Vec<String>,
}

/// What the tasks had been told when the look was taken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    /// Nothing: what started them is done.
    Done { waited: Duration },
    Stopped {
        deadline: Duration,
        /// Whether the request itself came to its end.
        requested: bool,
    },
}

/// Tasks of one spawn site with one lineage and one thing to say of them.
#[derive(Clone, Debug)]
struct Group {
    count: u64,
    place: String,
    /// As `ignore_spawned_at` takes it.
    line: String,
    /// Running, scheduled, idle, unknown.
    states: [u64; 4],
    oldest: Duration,
    /// Of the oldest: its polls, and how long ago the last of them ended.
    polls: u64,
    unpolled: Option<Duration>,
    since_the_stop: Option<String>,
    above: Vec<String>,
    span: Option<String>,
}

impl Group {
    fn new(task: &Task, ground: &Ground, snapshot: &Snapshot) -> Self {
        let span = (task.parent()).and_then(|parent| parent.outermost_span());
        Self {
            count: 0,
            place: task.named().to_string(),
            line: format!("{}:{}", task.location().file(), task.location().line()),
            states: [0; 4],
            oldest: Duration::ZERO,
            polls: 0,
            unpolled: None,
            since_the_stop: None,
            above: above(task, ground, snapshot),
            span: span.map(|span| format!("{} ({})", span.name(), span.target())),
        }
    }

    fn add(&mut self, task: &Task, snapshot: &Snapshot) {
        self.count += 1;
        self.states[task.state().map_or(3, |state| state as usize)] += 1;
        if self.count == 1 || task.age() > self.oldest {
            self.oldest = task.age();
            self.polls = task.polls();
            let polled = task
                .last_polled()
                .filter(|_| task.state() != State::Running);
            self.unpolled =
                polled.map(|at| snapshot.taken_at().duration_since(at).unwrap_or_default());
        }
    }

    fn states(&self) -> String {
        const NAMES: [&str; 4] = ["running", "scheduled", "idle", "not running"];
        let each = NAMES
            .iter()
            .zip(self.states)
            .filter(|&(_, count)| count > 0);
        let each = each.map(|(name, count)| match self.count {
            1 => (*name).to_owned(),
            _ => format!("{} {name}", Count(count)),
        });
        each.collect::<Vec<_>>().join(", ")
    }
}

/// The places of those it descends from, up to the test.
fn above(task: &Task, ground: &Ground, snapshot: &Snapshot) -> Vec<String> {
    let opener = ground.opener_site();
    let is_the_test = |site: &crate::Site| {
        Some(site.index()) == opener || (opener.is_none() && site.kind() == Kind::BlockOn)
    };
    let sites = snapshot.lineage(task).skip(1);
    (sites.take_while(|site| !is_the_test(site)))
        .map(|site| site.named().to_string())
        .collect()
}

impl Message {
    pub(super) fn write(&self, left: &Remainder, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.headline(left, f)?;
        writeln!(f, "\nin the watch opened at {}", self.opened)?;
        if !self.groups.is_empty() {
            writeln!(f)?;
        }
        for group in self.groups.iter().take(MOST) {
            write_group(group, f)?;
        }
        if let Some(more) = self.groups.get(MOST..).filter(|more| !more.is_empty()) {
            let tasks = more.iter().map(|group| group.count).sum();
            let groups = counted(more.len() as u64, "group");
            writeln!(f, "  and {groups} more, of {}", counted(tasks, "task"))?;
        }
        if !left.completeness.is_complete() {
            writeln!(f, "\nNot every task could be seen:")?;
            for reason in left.completeness.reasons() {
                writeln!(f, "  {reason}")?;
            }
        }
        if left.tasks.len() > left.allowed {
            writeln!(f)?;
            self.advice(f)?;
        }
        if !(self.unattributed.is_empty() && self.warnings.is_empty()) {
            writeln!(f)?;
        }
        for (place, count) in self.unattributed.iter().take(MOST) {
            writeln!(
                f,
                "note: {} spawned from outside of every task, by a plain thread as a rule, \
                 can't be told to belong to a test: {place}",
                counted(*count, "live task")
            )?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }

    fn headline(&self, left: &Remainder, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = left.tasks.len();
        f.write_str("straggler: ")?;
        if count <= left.allowed {
            if let Told::Stopped {
                deadline,
                requested: false,
            } = self.told
            {
                let after = Span(deadline);
                return write!(
                    f,
                    "the request to stop is not done {after} after it was made"
                );
            }
            if !left.completeness.is_complete() {
                return f
                    .write_str("inconclusive: no task too many was seen, but others may be there");
            }
            return match count {
                0 => f.write_str("no task is left"),
                _ => write!(f, "no more than {} left, as expected", counted_are(count)),
            };
        }
        match self.told {
            Told::Done { waited } => {
                write!(f, "{} still there", counted_are(count))?;
                if !waited.is_zero() {
                    write!(f, " after {}", Span(waited))?;
                }
            }
            Told::Stopped {
                deadline,
                requested,
            } => {
                let (counted, deadline) = (counted_are(count), Span(deadline));
                write!(
                    f,
                    "{counted} still there {deadline} after the request to stop"
                )?;
                if !requested {
                    f.write_str(", which is itself not done")?;
                }
            }
        }
        match left.allowed {
            0 => Ok(()),
            allowed => write!(f, ", where at most {} may be", Count(allowed as u64)),
        }
    }

    fn advice(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.groups.first().map_or("src/…", |group| &group.line);
        match self.told {
            Told::Done { .. } => writeln!(
                f,
                "Await them (keep their JoinHandles, or a JoinSet), or cancel them (abort, cancel \
                 their token, drop\nthe other end of what they wait for) before the test ends."
            )?,
            Told::Stopped { .. } => writeln!(
                f,
                "Have them listen to the stop: a `select!` on the token beside what they wait for, \
                 and no poll that\nblocks its thread."
            )?,
        }
        writeln!(
            f,
            "If they are meant to stay, say so: `straggler::daemon(|| tokio::spawn(…))` where they \
             are spawned, or\n`.ignore_spawned_at({line:?})` or `.ignore_named(…)` on the watch."
        )
    }
}

/// A message before it is known which watch it is of.
pub(super) struct Parts {
    groups: Vec<Group>,
    unattributed: Vec<(String, u64)>,
}

impl Parts {
    pub(super) fn new(
        ground: &Ground,
        snapshot: &Snapshot,
        left: &[Task],
        since_the_stop: impl Fn(&Task) -> Option<String>,
    ) -> Self {
        let mut groups: HashMap<_, Group> = HashMap::new();
        for task in left {
            let told = since_the_stop(task);
            let key = (task.site_index, task.lineage, told.clone());
            let group = groups.entry(key).or_insert_with(|| Group {
                since_the_stop: told,
                ..Group::new(task, ground, snapshot)
            });
            group.add(task, snapshot);
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by(|a, b| {
            let by_count = Reverse(a.count).cmp(&Reverse(b.count));
            by_count
                .then_with(|| a.place.cmp(&b.place))
                .then_with(|| a.above.cmp(&b.above))
                .then_with(|| a.since_the_stop.cmp(&b.since_the_stop))
        });
        let mut unattributed: HashMap<String, u64> = HashMap::new();
        for task in ground.unattributed(snapshot) {
            *(unattributed.entry(task.named().to_string())).or_default() += 1;
        }
        let mut unattributed: Vec<_> = unattributed.into_iter().collect();
        unattributed.sort();
        Self {
            groups,
            unattributed,
        }
    }

    pub(super) fn of(
        self,
        opened: &'static Location<'static>,
        told: Told,
        warnings: Vec<String>,
    ) -> Message {
        Message {
            opened,
            told,
            groups: self.groups,
            unattributed: self.unattributed,
            warnings,
        }
    }
}

fn write_group(group: &Group, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "{:>5} × {}", Count(group.count), group.place)?;
    let oldest = match group.count {
        1 => "",
        _ => "the oldest ",
    };
    let polls = match group.polls {
        0 => "never polled".to_owned(),
        polls => format!("polled {}", times(polls)),
    };
    let (states, age) = (group.states(), Span(group.oldest));
    write!(f, "        {states}; {oldest}{age} old, {polls}")?;
    if let Some(unpolled) = group.unpolled {
        write!(f, ", last {} ago", Span(unpolled))?;
    }
    writeln!(f)?;
    if let Some(since) = &group.since_the_stop {
        writeln!(f, "        {since}")?;
    }
    f.write_str("        spawned by ")?;
    for site in group.above.iter().take(MOST_ABOVE) {
        write!(f, "{site} < ")?;
    }
    if group.above.len() > MOST_ABOVE {
        write!(f, "{} more < ", group.above.len() - MOST_ABOVE)?;
    }
    writeln!(f, "the test")?;
    if let Some(span) = &group.span {
        writeln!(f, "        in span {span}")?;
    }
    Ok(())
}

/// What became of a task since it was asked to stop: `then` is how it was when it was asked,
/// `after` how it is a moment later.
pub(super) fn since_the_stop(task: &Task, then: Option<&Task>, after: Option<&Task>) -> String {
    let is_in_one_poll = after.is_some_and(|after| {
        let polls = after.polls() == task.polls();
        polls && task.state() == State::Running && after.state() == State::Running
    });
    let Some(then) = then else {
        return "spawned since it was asked".into();
    };
    let told = match task.state() {
        _ if is_in_one_poll => "in a poll that has not returned since",
        _ if task.polls() > then.polls() => "polled since, and went on",
        Some(State::Scheduled) => "woken, and not polled since",
        _ => "not polled since: nothing woke it",
    };
    told.into()
}

fn times(count: u64) -> String {
    match count {
        1 => "once".into(),
        count => format!("{} times", Count(count)),
    }
}

fn counted(count: u64, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {what}{s}", Count(count))
}

fn counted_are(count: usize) -> String {
    let is = if count == 1 { "is" } else { "are" };
    format!("{} {is}", counted(count as u64, "task"))
}
