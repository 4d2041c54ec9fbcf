//! Turns the table into metrics: one light look, no copy of the tasks.

use super::orphans::Counts;
use super::points::{SiteNow, Writer};
use super::series::{Collection, Memory, TracedValue};
use crate::capture::{ParentRules, Sight};
use crate::diagnose::{self, Diagnosis};
use crate::orphan::Finding;
use crate::query::{Found, census};
use crate::table::{Table, Totals};
use crate::task::{Cause, Certainty, State};
use crate::tasks::Shared;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The instruments of one reader ask one after another, and get the same moment. Who asks for
/// the second time wants another.
const SAME_MOMENT: Duration = Duration::from_millis(200);

/// Gives all metrics, to whoever carries them out.
#[derive(Debug)]
pub(crate) struct Collector {
    table: Weak<Table>,
    /// What the diagnoses go by.
    rules: Arc<ParentRules>,
    sight: Arc<Sight>,
    counts: Arc<Counts>,
    said: Mutex<Said>,
}

/// What was given out before.
#[derive(Debug, Default)]
struct Said {
    memory: Memory,
    last: Option<Last>,
}

/// What the instruments of a reader are being given.
#[derive(Debug)]
struct Last {
    at: Instant,
    collection: Arc<Collection>,
    asked: Vec<&'static str>,
}

impl Collector {
    pub(crate) fn new(shared: &Shared, counts: Arc<Counts>) -> Self {
        Self {
            table: Arc::downgrade(&shared.table),
            rules: Arc::clone(&shared.rules),
            sight: Arc::clone(&shared.sight),
            counts,
            said: Mutex::default(),
        }
    }

    /// All metrics now, with the exemplars since the last time. `None` once the table is gone.
    pub(crate) fn collect(&self) -> Option<Collection> {
        let table = self.table.upgrade()?;
        let diagnoses = self.diagnoses(&table);
        let mut said = self.said.lock();
        let memory = &mut said.memory;
        Some(collect(&table, &self.counts, memory, &diagnoses, true))
    }

    /// All metrics for one instrument of a reader, that of others of the same moment. Without
    /// exemplars, which can't go that way: they stay for whoever can carry them.
    pub(crate) fn for_instrument(&self, name: &'static str) -> Option<Arc<Collection>> {
        if let Some(last) = &mut self.said.lock().last
            && last.at.elapsed() < SAME_MOMENT
            && !last.asked.contains(&name)
        {
            last.asked.push(name);
            return Some(Arc::clone(&last.collection));
        }
        let table = self.table.upgrade()?;
        let diagnoses = self.diagnoses(&table);
        let mut said = self.said.lock();
        let memory = &mut said.memory;
        let collection = collect(&table, &self.counts, memory, &diagnoses, false);
        let collection = Arc::new(collection);
        said.last = Some(Last {
            at: Instant::now(),
            collection: Arc::clone(&collection),
            asked: vec![name],
        });
        Some(collection)
    }

    /// What is asked of the subscriber for them is asked when no lock of ours is held.
    fn diagnoses(&self, table: &Table) -> Vec<Diagnosis> {
        let mut found = diagnose::known(table);
        let outside = diagnose::from_outside(table, &self.rules, &self.sight, None);
        found.extend(outside);
        found
    }
}

/// What is summed up of a site's live tasks while they pass by.
#[derive(Debug, Default)]
pub(crate) struct Alive {
    pub(crate) states: HashMap<Option<State>, u64>,
    /// Nanoseconds: of all ages, of polls under way, of waits for a poll under way.
    pub(crate) age: u64,
    pub(crate) busy_now: u64,
    pub(crate) scheduled_now: u64,
    pub(crate) orphans: HashMap<(Cause, Certainty), u64>,
}

impl Alive {
    fn add(&mut self, task: &Found, finding: Option<&Finding>) {
        *self.states.entry(task.state()).or_default() += 1;
        self.age = self.age.saturating_add(task.age());
        self.busy_now = self.busy_now.saturating_add(task.busy_now());
        let before_this_poll = task.turn.running_delay().unwrap_or(0);
        let waited = task.scheduled_now().saturating_add(before_this_poll);
        self.scheduled_now = self.scheduled_now.saturating_add(waited);
        if let Some(finding) = finding {
            let orphans = self.orphans.entry((finding.cause, finding.certainty));
            *orphans.or_default() += 1;
        }
    }
}

fn collect(
    table: &Table,
    counts: &Counts,
    memory: &mut Memory,
    diagnoses: &[Diagnosis],
    with_exemplars: bool,
) -> Collection {
    // Before the ends are read, so that each lies in a bucket that counts it.
    let mut traced: HashMap<u32, Vec<TracedValue>> = HashMap::new();
    if with_exemplars {
        let wall = table.clock.wall();
        for (site, exemplar) in table.tallies.take_traced() {
            let value = TracedValue::lifetime(&exemplar, wall.time(exemplar.at));
            traced.entry(site).or_default().push(value);
        }
    }
    // Ends are read before the live tasks and spawns after them, so that no task is
    // counted as ended and alive.
    let mut totals = table.tallies.totals(table.sites().len());
    let mut alive: HashMap<u32, Alive> = HashMap::new();
    let live = census(table, |task, finding| {
        alive.entry(task.site).or_default().add(task, finding);
        // The last poll of a live task is in no cell yet.
        if let Some(total) = totals.get_mut(task.site as usize)
            && let Some(poll) = task.pending()
        {
            total.poll.record(poll.duration);
            if let Some(delay) = poll.delay {
                total.schedule.record(delay);
            }
        }
    });
    let sites = table.sites();
    totals.resize_with(sites.len(), Totals::new);
    table.tallies.add_spawned(&mut totals);

    let mut writer = Writer::new(table, memory);
    for (index, (site, totals)) in (0_u32..).zip(sites.iter().zip(&totals)) {
        if totals.spawned == 0 {
            continue;
        }
        writer.site(&SiteNow {
            index,
            site,
            totals,
            live: live.get(&index),
            alive: alive.remove(&index).unwrap_or_default(),
            lifetimes_traced: traced.remove(&index).unwrap_or_default(),
            orphaned: counts.take(index, with_exemplars),
        });
    }
    writer.loss();
    writer.diagnoses(diagnoses);
    writer.finish()
}
