//! Runtimes that may have tasks which nobody announced.

use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use tokio::runtime::{Handle, Id};

/// More runtimes than anybody reads about in a report.
const MOST: usize = 64;
/// So many looks in a row must find a runtime short before it is told of.
const AGREE: u32 = 2;

#[derive(Debug, Default)]
pub(crate) struct Strangers {
    met: Mutex<HashMap<Id, Met>>,
}

/// When the unannounced tasks of a runtime were spawned, compared with those announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    Before,
    After,
}

#[derive(Debug)]
struct Met {
    handle: Handle,
    since: Since,
    /// How many looks in a row found tasks missing.
    short: u32,
}

fn meet<'a>(met: &'a mut HashMap<Id, Met>, handle: &Handle, since: Since) -> Option<&'a mut Met> {
    let id = handle.id();
    if met.len() >= MOST && !met.contains_key(&id) {
        return None;
    }
    Some(met.entry(id).or_insert_with(|| Met {
        handle: handle.clone(),
        since,
        short: 0,
    }))
}

impl Strangers {
    /// The layer has become part of a subscriber: what runs around it now is older, and no
    /// other event may ever tell of that runtime.
    pub(crate) fn installed(&self) {
        if let Ok(handle) = Handle::try_current()
            && handle.metrics().num_alive_tasks() > 0
        {
            meet(&mut self.met.lock(), &handle, Since::Before);
        }
    }

    /// The runtimes to look at beside those on which tasks were seen.
    pub(crate) fn handles(&self) -> Vec<(Handle, Since)> {
        let met = self.met.lock();
        (met.values().map(|met| (met.handle.clone(), met.since))).collect()
    }

    /// What a look found: the runtimes that have more tasks than are known, and those on
    /// which tasks were seen. What was told stays true as long as its runtime is there.
    pub(crate) fn looked(&self, short: &[(Handle, Since)], seen: &HashSet<Id>) {
        let mut met = self.met.lock();
        for (handle, since) in short {
            if let Some(met) = meet(&mut met, handle, *since) {
                if met.short < AGREE {
                    met.since = *since;
                }
                met.short = met.short.saturating_add(1);
            }
        }
        let short: HashSet<Id> = short.iter().map(|(handle, _)| handle.id()).collect();
        let gone = met.extract_if(|id, met| {
            if short.contains(id) {
                return false;
            }
            if met.short < AGREE {
                met.short = 0;
            }
            match seen.contains(id) {
                true => met.short == 0,
                false => met.handle.metrics().num_alive_tasks() == 0,
            }
        });
        let gone: Vec<_> = gone.collect();
        drop(met);
        // Without the lock: the last handle frees a runtime.
        drop(gone);
    }

    /// The runtimes with strangers of that age.
    pub(crate) fn of(&self, since: Since) -> Vec<String> {
        let met = self.met.lock();
        let told = (met.iter()).filter(|(_, met)| met.short >= AGREE && met.since == since);
        let mut ids: Vec<_> = told.map(|(id, _)| id.to_string()).collect();
        ids.sort();
        ids
    }
}
