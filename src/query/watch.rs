//! The monitor's look: orphans by site, task by task, with no copy of the table kept.
//!
//! A host that leaks has no memory to spare, so what runs unasked must not take any that
//! grows with the tasks. It settles nothing and goes by fates alone; for the rest ask
//! for a snapshot.

use super::scan::{self, Found};
use super::{Gone, finding, finished_turns};
use crate::orphan::Finding;
use crate::table::{ENDING, ParentTask, Site, Table, traits};
use crate::task::{Location, TaskId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A site with tasks that outlived what started them.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) index: u32,
    pub(crate) site: Arc<Site>,
    pub(crate) live: u64,
    pub(crate) orphans: u64,
    /// The age of the oldest live task, in nanoseconds.
    pub(crate) oldest: u64,
    /// The first orphan met, and for how long it has been one.
    pub(crate) example: Finding,
    pub(crate) elapsed: u64,
    pub(crate) spawned_by: Option<Location>,
}

#[derive(Default)]
struct Tally {
    live: u64,
    orphans: u64,
    oldest: u64,
    example: Option<(Finding, u64, u32)>,
}

/// The sites with orphans now.
pub(crate) fn watch(table: &Table) -> Vec<Watched> {
    let from = table.clock.now();
    let home_turns = hosts(table);
    let grace = crate::clock::nanos(table.config.orphan_grace);
    let mut tallies: HashMap<u32, Tally> = HashMap::new();
    let mut in_use = HashSet::new();
    for task in live(table).filter(|task| task.spawned_at <= from) {
        in_use.insert(task.runtime);
        let tally = tallies.entry(task.site).or_default();
        let age = task.now.saturating_sub(task.spawned_at);
        tally.live += 1;
        tally.oldest = tally.oldest.max(age);
        let Some(finding) = finding(&task, parent_gone(&task), &home_turns, grace) else {
            continue;
        };
        tally.orphans += 1;
        let elapsed = task.now.saturating_sub(finding.since);
        tally
            .example
            .get_or_insert((finding, elapsed, task.lineage));
    }
    table.runtimes.release_unused(&in_use);
    watched(table, tallies)
}

fn live(table: &Table) -> impl Iterator<Item = Found> + '_ {
    (table.slots())
        .filter_map(|(index, _)| scan::look(table, index))
        .filter(|task| task.turn.phase != ENDING)
}

fn hosts(table: &Table) -> HashMap<TaskId, u64> {
    (table.slots())
        .filter(|(_, slot)| slot.traits() & traits::HOSTS_SPANS != 0)
        .filter_map(|(index, _)| scan::look(table, index))
        .map(|task| finished_turns(&task))
        .collect()
}

fn parent_gone(task: &Found) -> Gone {
    match &task.parent {
        ParentTask::Known(fate) if fate.ended_at().is_some() => Gone::Ended,
        ParentTask::Known(fate) if fate.ending_since().is_some() => Gone::Ending,
        _ => Gone::No,
    }
}

fn watched(table: &Table, tallies: HashMap<u32, Tally>) -> Vec<Watched> {
    let (sites, lineages) = (table.sites(), table.lineages());
    let site = |index: u32| sites.get(index as usize);
    (tallies.into_iter())
        .filter_map(|(index, tally)| {
            let (example, elapsed, lineage) = tally.example?;
            let above = lineages.sites(lineage).nth(1).and_then(site);
            Some(Watched {
                index,
                site: Arc::clone(site(index)?),
                live: tally.live,
                orphans: tally.orphans,
                oldest: tally.oldest,
                example,
                elapsed,
                spawned_by: above.map(|site| site.key.location.clone()),
            })
        })
        .collect()
}
