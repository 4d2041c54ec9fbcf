//! A light look: every live task judged, task by task, with no copy of the table kept.
//!
//! A host that leaks has no memory to spare, so what runs unasked must not take any that
//! grows with the tasks. It settles nothing and goes by fates alone; for the rest ask
//! for a snapshot.

use super::judge::{HomeTurns, finding, finished_turns};
use super::scan::{self, Found};
use crate::orphan::{self, Finding};
use crate::table::{ENDING, Table, traits};
use std::collections::{HashMap, HashSet};

/// What is alive at one spawn site.
#[derive(Debug, Default)]
pub(crate) struct SiteCensus {
    pub(crate) live: u64,
    pub(crate) orphans: u64,
    /// Tasks that look ended, and are not counted as live.
    pub(crate) ending: u64,
    /// The age of the oldest live task, in nanoseconds.
    pub(crate) oldest: u64,
    pub(crate) example: Option<Example>,
}

/// The first orphan met at a site.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Example {
    pub(crate) finding: Finding,
    /// For how long it has been one, in nanoseconds.
    pub(crate) elapsed: u64,
    pub(crate) lineage: u32,
}

/// Counts what is alive now, by the site's number, and shows each live task with what
/// makes it an orphan to `visit`.
pub(crate) fn census(
    table: &Table,
    mut visit: impl FnMut(&Found, Option<&Finding>),
) -> HashMap<u32, SiteCensus> {
    // A task that came later may have a parent already passed by.
    let from = table.clock.now();
    let home_turns = hosts(table);
    let grace = crate::clock::nanos(table.config.orphan_grace);
    let mut sites: HashMap<u32, SiteCensus> = HashMap::new();
    let mut in_use = HashSet::new();
    for task in scan::tasks(table, from) {
        in_use.insert(task.runtime);
        let site = sites.entry(task.site).or_default();
        if task.turn.phase == ENDING {
            site.ending += 1;
            continue;
        }
        let finding = finding(&task, orphan::gone(&task.parent), &home_turns, grace);
        site.live += 1;
        site.oldest = site.oldest.max(task.age());
        if let Some(finding) = finding {
            site.orphans += 1;
            site.example.get_or_insert(Example {
                finding,
                elapsed: task.now.saturating_sub(finding.since),
                lineage: task.lineage,
            });
        }
        visit(&task, finding.as_ref());
    }
    table.runtimes.release_unused(&in_use);
    sites
}

/// The turns of each task in which user spans were made.
fn hosts(table: &Table) -> HomeTurns {
    (table.slots())
        .filter(|(_, slot)| slot.traits() & traits::HOSTS_SPANS != 0)
        .filter_map(|(index, _)| scan::look(table, index))
        .map(|task| finished_turns(&task))
        .collect()
}
