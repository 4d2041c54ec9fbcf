//! Orphans as they come and go: each counted once, most of them told of by spans.
//!
//! A live orphan gets a *marker* when it is first seen, a span without length, for OTLP has
//! none that is unfinished. When it ends, its own span follows, from spawn to drop, with a
//! link to the marker; those still alive at the shutdown are closed off then. All of this
//! happens on the monitor's thread, at its looks.

use super::draft::{Draft, Subject};
use super::out::{Out, Put};
use super::series::{TracedAmount, TracedValue};
use crate::clock::Nanos;
use crate::monitor::Witness;
use crate::orphan::{self, Finding};
use crate::query::Found;
use crate::table::{Departed, LineageTree, Site, Table, traits};
use crate::task::{Cause, Certainty};
use opentelemetry::trace::SpanContext;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Tasks that became orphans, by site and by what was first known.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    counted: Mutex<HashMap<u32, Vec<(Why, Counted)>>>,
}

pub(crate) type Why = (Cause, Certainty);

#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) count: u64,
    /// The marker of one of them.
    pub(crate) example: Option<TracedValue>,
}

impl Counts {
    fn add(&self, site: u32, finding: &Finding) {
        self.with(site, (finding.cause, finding.certainty), |counted| {
            counted.count += 1;
        });
    }

    fn show(&self, site: u32, finding: &Finding, span: &SpanContext, at: SystemTime) {
        self.with(site, (finding.cause, finding.certainty), |counted| {
            counted.example = Some(TracedValue {
                value: TracedAmount::One,
                at,
                trace_id: span.trace_id().to_bytes(),
                span_id: span.span_id().to_bytes(),
            });
        });
    }

    fn with(&self, site: u32, why: Why, change: impl FnOnce(&mut Counted)) {
        let mut counted = self.counted.lock();
        let of_site = counted.entry(site).or_default();
        match of_site.iter_mut().find(|(other, _)| *other == why) {
            Some((_, counted)) => change(counted),
            None => {
                let mut new = Counted::default();
                change(&mut new);
                of_site.push((why, new));
            }
        }
    }

    /// Those of one site, with their examples if wanted. An example is given once.
    pub(crate) fn take(&self, site: u32, with_examples: bool) -> Vec<(Why, Counted)> {
        let mut counted = self.counted.lock();
        let Some(of_site) = counted.get_mut(&site) else {
            return Vec::new();
        };
        let mut taken = of_site.clone();
        let without = if with_examples { of_site } else { &mut taken };
        for (_, counted) in without {
            counted.example = None;
        }
        taken
    }
}

/// How much is told by spans.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Live orphans with a span at a time.
    pub(crate) max_marked: usize,
    /// Markers that could not be delivered are made anew after this.
    pub(crate) again_after: Duration,
}

/// Shown every live task by the monitor.
pub(crate) struct Keeper {
    limits: Limits,
    counts: Arc<Counts>,
    /// `None` where orphans are only counted.
    out: Option<Out>,
    marked: HashMap<u64, Marked>,
    /// How many of them each site has.
    of_site: HashMap<u32, usize>,
    names: Option<Names>,
    last: bool,
    next_again: Instant,
}

/// A live orphan that has a marker, or will have one.
#[derive(Debug)]
struct Marked {
    finding: Finding,
    site: u32,
    /// The newest.
    marker: Option<SpanContext>,
    due: Due,
    slot: crate::table::Key,
    /// Looks since its task was in the table.
    missed: u8,
}

/// When a marker is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// It is made.
    Never,
    /// As soon as there is room.
    Now,
    /// After a while: the one before did not arrive.
    Later,
}

/// The names of sites, as of this look.
struct Names {
    sites: Vec<Arc<Site>>,
    lineages: LineageTree,
}

impl Names {
    fn of<'a>(names: &'a mut Option<Self>, table: &Table) -> &'a Self {
        names.get_or_insert_with(|| Self {
            sites: table.sites(),
            lineages: table.lineages(),
        })
    }
}

impl Keeper {
    pub(crate) fn new(limits: Limits, counts: Arc<Counts>, out: Option<Out>) -> Self {
        Self {
            limits,
            counts,
            out,
            marked: HashMap::new(),
            of_site: HashMap::new(),
            names: None,
            last: false,
            next_again: Instant::now(),
        }
    }

    /// A task that may have been an orphan ended.
    fn departed(&mut self, table: &Table, departed: &Departed) {
        let marked = self.marked.remove(&departed.id);
        if let Some(marked) = &marked {
            self.forget(marked.site);
        }
        let was_counted = departed.traits & traits::COUNTED != 0;
        let finding = judge(table, departed).or(marked.as_ref().map(|marked| marked.finding));
        let Some(finding) = finding else { return };
        if !was_counted {
            if table.count_ended(departed.key) {
                self.counts.add(departed.site, &finding);
            }
        } else if marked.is_none() {
            // It had no marker, by the limit or by the sampling of its parent.
            return;
        }
        let Some(out) = &mut self.out else { return };
        let names = Names::of(&mut self.names, table);
        let subject = Subject::of_departed(departed, &names.sites, &names.lineages);
        let marker = marked.as_ref().and_then(|marked| marked.marker.as_ref());
        let draft = Draft::of_ended(table, &subject, &finding, departed, marker);
        if let Put::Refused = out.put(draft, None, true) {
            table.loss.spans_lost(1);
        }
    }

    fn forget(&mut self, site: u32) {
        if let Some(count) = self.of_site.get_mut(&site) {
            *count = count.saturating_sub(1);
        }
    }

    /// Whether one more live orphan of that site may have spans. A site takes half of what the
    /// others leave, so that a storm at one never hides another's first.
    fn has_room(&self, site: u32) -> bool {
        let here = self.of_site.get(&site).copied().unwrap_or(0);
        let others = self.marked.len() - here.min(self.marked.len());
        here < (self.limits.max_marked.saturating_sub(others)).div_ceil(2)
    }

    /// Notes a live orphan when it is first seen: it is counted at once, its marker may have to
    /// wait for room.
    fn mark(&mut self, table: &Table, task: &Found, finding: &Finding) {
        let Some(is_new) = table.mark(task.key) else {
            return;
        };
        if is_new {
            self.counts.add(task.site, finding);
        }
        if self.out.is_none() {
            return;
        }
        if !self.has_room(task.site) {
            table.loss.orphans_left_out();
            table.leave_untold(task.key);
            return;
        }
        let new = Marked {
            finding: *finding,
            site: task.site,
            marker: None,
            due: Due::Now,
            slot: task.key,
            missed: 0,
        };
        self.marked.insert(task.id, new);
        *self.of_site.entry(task.site).or_default() += 1;
    }

    /// Makes the marker that is due, if there is room.
    fn tell(&mut self, table: &Table, task: &Found) {
        let Some(marked) = self.marked.get_mut(&task.id) else {
            return;
        };
        let is_time = match marked.due {
            Due::Never => false,
            Due::Now => true,
            Due::Later => Instant::now() >= self.next_again,
        };
        let Some(out) = self.out.as_mut().filter(|out| is_time && out.has_room()) else {
            return;
        };
        let names = Names::of(&mut self.names, table);
        let subject = Subject::of_live(task, &names.sites, &names.lineages);
        let draft = Draft::marker(table, &subject, &marked.finding, task);
        let at = draft.start;
        match out.put(draft, Some(task.id), false) {
            Put::Done(marker) => {
                self.counts.show(task.site, &marked.finding, &marker, at);
                marked.marker = Some(marker);
                marked.due = Due::Never;
            }
            // Its trace was not sampled, and that is what the program asked for.
            Put::Unsampled => {
                let site = marked.site;
                self.marked.remove(&task.id);
                self.forget(site);
                table.leave_untold(task.key);
            }
            Put::Refused => {
                marked.due = Due::Later;
                table.loss.spans_lost(1);
            }
        }
    }

    /// Closes a live orphan off, as nobody will be there to tell of its end.
    fn close(&mut self, table: &Table, task: &Found) {
        let Some(marked) = self.marked.remove(&task.id) else {
            return;
        };
        let Some(out) = &mut self.out else { return };
        let names = Names::of(&mut self.names, table);
        let subject = Subject::of_live(task, &names.sites, &names.lineages);
        let marker = marked.marker.as_ref();
        let draft = Draft::of_live(table, &subject, &marked.finding, task, marker);
        if let Put::Refused = out.put(draft, None, true) {
            table.loss.spans_lost(1);
        }
    }
}

impl Witness for Keeper {
    fn begin(&mut self, table: &Table, last: bool) {
        self.last = last;
        self.names = None;
        if let Some(out) = &mut self.out {
            out.look_begins();
            for id in out.take_undelivered() {
                if let Some(marked) = self.marked.get_mut(&id) {
                    marked.due = Due::Later;
                }
            }
        }
        while let Some(departed) = table.departures.take() {
            self.departed(table, &departed);
        }
    }

    fn see(&mut self, table: &Table, task: &Found, finding: Option<&Finding>) {
        if let Some(finding) = finding
            && !task.is(traits::MARKED)
        {
            self.mark(table, task, finding);
        }
        self.tell(table, task);
        if self.last {
            self.close(table, task);
        }
    }

    fn end(&mut self, table: &Table) {
        if self.last {
            // Those that ended while we looked. Nobody is told of any that end from now on.
            while let Some(departed) = table.departures.take_to_the_last() {
                self.departed(table, &departed);
            }
        }
        if Instant::now() >= self.next_again {
            self.next_again = Instant::now() + self.limits.again_after;
        }
        let of_site = &mut self.of_site;
        // Those whose end found the queue full.
        self.marked.retain(|_, marked| {
            let gone = table.slot(marked.slot).generation() != marked.slot.generation;
            marked.missed = if gone { marked.missed + 1 } else { 0 };
            let stays = marked.missed < 3;
            if !stays && let Some(count) = of_site.get_mut(&marked.site) {
                *count = count.saturating_sub(1);
            }
            stays
        });
        if self.last {
            // Those that are just ending, with their spans held: no longer seen, not yet ended.
            let left = self.marked.values().filter(|marked| marked.missed == 0);
            table.loss.spans_lost(left.count() as u64);
            self.marked.clear();
        }
        self.names = None;
    }
}

/// What made an ended task an orphan, as of its end.
fn judge(table: &Table, departed: &Departed) -> Option<Finding> {
    let record = &departed.record;
    let spans = record.spans.as_ref();
    let subject = orphan::Subject {
        kind: traits::kind(departed.traits),
        daemon: departed.traits & traits::DAEMON != 0,
        spawned_at: record.spawned_at(),
        parent: &record.parent,
        parent_gone: orphan::gone(&record.parent),
        span: spans.and_then(|spans| spans.outermost.as_deref()),
        // Whether its span was only left can't be told any more.
        home_turns: None,
    };
    let grace: Nanos = crate::clock::nanos(table.config.orphan_grace);
    orphan::judge(&subject, grace, departed.at)
}
