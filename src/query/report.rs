//! The report for someone who was just woken up: what is wrong first.

use super::{Site, Snapshot};
use crate::histogram::Histogram;
use crate::task::{Cause, Certainty, Orphaned, Task};
use crate::text::{Count, Span};
use foldhash::fast::FixedState;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

/// Sites shown of each sort; the report says how many were left out.
const MOST: usize = 10;

/// Their site and lineage, and why they are orphans.
type Key = (u32, u32, Cause, Certainty);

/// The orphans of one site that share a story.
struct Group<'a> {
    count: u64,
    /// By id.
    first: &'a Task,
    oldest: Duration,
    longest: Duration,
}

impl<'a> Group<'a> {
    fn new(first: &'a Task) -> Self {
        Self {
            count: 0,
            first,
            oldest: Duration::ZERO,
            longest: Duration::ZERO,
        }
    }

    fn add(&mut self, task: &'a Task, orphaned: &Orphaned) {
        self.count += 1;
        if task.id < self.first.id {
            self.first = task;
        }
        self.oldest = self.oldest.max(task.age());
        self.longest = self.longest.max(orphaned.elapsed());
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.headline(f)?;
        self.orphan_groups(f)?;
        self.site_table(f)?;
        writeln!(f, "\nlost: {}", self.loss)?;
        for diagnosis in &self.diagnoses {
            writeln!(f, "note: {diagnosis}")?;
        }
        Ok(())
    }
}

impl Snapshot {
    fn headline(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut orphans = 0;
        // Running, scheduled, idle, unknown.
        let mut states = [0; 4];
        for task in &self.tasks {
            orphans += u64::from(task.orphaned.is_some());
            states[task.state.map_or(3, |state| state as usize)] += 1;
        }
        let [running, scheduled, idle, unknown] = states.map(Count);
        write!(
            f,
            "{} live tasks, {} of them orphans   ({running} running, {scheduled} scheduled, {idle} idle",
            Count(self.tasks.len() as u64),
            Count(orphans),
        )?;
        if unknown.0 > 0 {
            write!(f, ", {unknown} of unknown state")?;
        }
        writeln!(f, ")")
    }

    fn orphan_groups(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut groups: HashMap<Key, Group<'_>, FixedState> = HashMap::default();
        for task in &self.tasks {
            if let Some(orphaned) = task.orphaned() {
                let (cause, certainty) = (orphaned.cause(), orphaned.certainty());
                let key = (task.site_index, task.lineage, cause, certainty);
                let group = groups.entry(key).or_insert_with(|| Group::new(task));
                group.add(task, orphaned);
            }
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_unstable_by_key(|(key, group)| (Reverse(group.count), *key));
        if groups.is_empty() {
            return writeln!(f, "\nno orphans");
        }
        writeln!(f, "\nORPHANS: alive after what started them ended")?;
        for (key, group) in groups.iter().take(MOST) {
            self.orphan_group(f, key, group)?;
        }
        left_out(f, groups.len(), "groups of orphans")
    }

    fn orphan_group(
        &self,
        f: &mut fmt::Formatter<'_>,
        &(_, _, cause, certainty): &Key,
        group: &Group<'_>,
    ) -> fmt::Result {
        let first = group.first;
        writeln!(
            f,
            "{:>9}  {}  oldest {}",
            Count(group.count),
            first.named(),
            Span(group.oldest),
        )?;
        let gone = match cause {
            Cause::ParentEnded => "their parent task ended",
            Cause::SpanTaskEnded => "the task of their span ended",
            Cause::SpanClosed => "their span closed",
            Cause::SpanLeft => "their span was left",
        };
        write!(f, "           {gone} up to {} ago", Span(group.longest))?;
        if certainty == Certainty::Likely {
            f.write_str(" (likely: its task lives on, or its end is unconfirmed)")?;
        }
        writeln!(f)?;
        let mut above = self.lineage(first).skip(1).peekable();
        if above.peek().is_some() {
            f.write_str("           spawned by ")?;
            for (at, site) in above.enumerate() {
                if at > 0 {
                    f.write_str(" < ")?;
                }
                write!(f, "{}", site.named())?;
            }
            writeln!(f)?;
        }
        if let Some(span) = first.parent().and_then(|parent| parent.outermost_span()) {
            writeln!(f, "           in span {} ({})", span.name(), span.target())?;
        }
        Ok(())
    }

    fn site_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n     live   orphans   spawned     ended   oldest  median life  spawn site"
        )?;
        for site in self.sites.iter().take(MOST) {
            writeln!(
                f,
                "{:>9} {:>9} {:>9} {:>9} {:>8} {:>12}  {}",
                Count(site.live()),
                Count(site.orphans()),
                Count(site.spawned()),
                Count(site.ended()),
                site.oldest()
                    .map_or("-".into(), |age| Span(age).to_string()),
                (site.lifetime().quantile(0.5))
                    .map_or("-".into(), |most| format!("<= {}", Span(most))),
                site.named(),
            )?;
        }
        left_out(f, self.sites.len(), "spawn sites")
    }

    /// How old a site's live tasks are, in the buckets of [`Site::lifetime`].
    pub fn ages(&self, site: &Site) -> Histogram {
        let mut ages = Histogram::new(&crate::histogram::LIFETIME);
        for task in self
            .tasks
            .iter()
            .filter(|task| task.site_index == site.index)
        {
            ages.record(task.age);
        }
        ages
    }
}

fn left_out(f: &mut fmt::Formatter<'_>, all: usize, what: &str) -> fmt::Result {
    match all.saturating_sub(MOST) {
        0 => Ok(()),
        more => writeln!(f, "           and {} more {what}", Count(more as u64)),
    }
}

/// A row for each bucket from the first to the last that has values.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDTH: u64 = 40;
        let most = self.buckets().map(|(_, n)| n).max().unwrap_or(0);
        let first = self.buckets().position(|(_, n)| n > 0);
        let last = self.buckets().rposition(|(_, n)| n > 0);
        let (Some(first), Some(last)) = (first, last) else {
            return f.write_str("(no values)");
        };
        let mut below = Duration::ZERO;
        for (at, (bound, n)) in self.buckets().enumerate() {
            if (first..=last).contains(&at) {
                let label = match bound {
                    Some(bound) => format!("<= {}", Span(bound)),
                    None => format!("> {}", Span(below)),
                };
                // Rounded up, so that no bucket with values looks empty.
                let bar = "#".repeat((n * WIDTH).div_ceil(most) as usize);
                let end = if at < last { "\n" } else { "" };
                write!(f, "{label:>10} {:>9} {bar}{end}", Count(n))?;
            }
            below = bound.unwrap_or(below);
        }
        Ok(())
    }
}
