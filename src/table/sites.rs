//! Spawn sites by number: bounded, with one that stands for all beyond the limit.

use crate::clock::Clock;
use crate::task::{Kind, Location, SiteKey};
use dashmap::DashMap;
use foldhash::fast::FixedState;
use parking_lot::RwLock;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "otlp")]
use std::time::SystemTime;

/// The overflow site.
pub(crate) const OVERFLOW: u32 = 0;

/// Places beyond the limit that are remembered.
const OVERFLOW_MEMORY: usize = 1_024;

/// A place as a source gives it: the path not yet normalised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) file: &'a str,
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) kind: Kind,
    pub(crate) name: &'a str,
}

impl Place<'_> {
    pub(crate) fn key(&self) -> SiteKey {
        SiteKey {
            location: Location::new(self.file, self.line, self.column),
            kind: self.kind,
            name: (!self.name.is_empty()).then(|| self.name.into()),
            overflow: false,
        }
    }

    fn is(&self, site: &Site) -> bool {
        let name = site.key.name.as_deref().unwrap_or_default();
        site.key.location.line() == self.line
            && site.key.location.column() == self.column
            && site.key.kind == self.kind
            && same(name, self.name)
            && same(&site.raw_file, self.file)
    }
}

/// Nothing is read of two empty strings: their addresses need not exist, and then a comparison
/// by wide registers takes as long as the rest of a spawn.
#[inline]
fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) key: Arc<SiteKey>,
    pub(crate) daemon: bool,
    /// When its first task was spawned; `None` for the overflow site.
    #[cfg(feature = "otlp")]
    pub(crate) since: Option<SystemTime>,
    raw_file: Box<str>,
}

/// What a thread remembers of the places it spawned at last, so that it need not ask.
#[derive(Debug, Default)]
pub(crate) struct LastMet([Option<Met>; LAST_MET]);

const LAST_MET: usize = 16;

#[derive(Debug)]
pub(crate) struct Met {
    pub(super) index: u32,
    pub(super) site: Arc<Site>,
    /// The lineage of tasks from there whose spawner has the lineage `above`.
    pub(super) lineage: u32,
    pub(super) above: u32,
}

impl LastMet {
    fn at(line: u32, above: u32) -> usize {
        (line ^ above.wrapping_mul(5)) as usize % LAST_MET
    }

    #[inline]
    pub(super) fn find(&self, place: &Place<'_>, above: u32) -> Option<&Met> {
        let met = self.0[Self::at(place.line, above)].as_ref()?;
        (met.above == above && place.is(&met.site)).then_some(met)
    }

    pub(super) fn note(&mut self, met: Met) {
        let at = Self::at(met.site.key.location.line(), met.above);
        self.0[at] = Some(met);
    }
}

#[derive(Debug)]
pub(crate) struct Sites {
    hasher: FixedState,
    /// From a place's hash to its site. Should two places have one hash, the second
    /// is found by the next number.
    by_hash: DashMap<u64, u32, FixedState>,
    sites: RwLock<Vec<Arc<Site>>>,
    max: usize,
    /// Hashes of places beyond the limit; the lowest bit says that they are daemons'.
    overflow: Box<[AtomicU64]>,
}

impl Sites {
    pub(crate) fn new(max: usize) -> Self {
        let overflow = Site {
            key: Arc::new(SiteKey {
                location: Location::new("(more sites than max_spawn_sites)", 0, 0),
                kind: Kind::Task,
                name: None,
                overflow: true,
            }),
            daemon: false,
            #[cfg(feature = "otlp")]
            since: None,
            raw_file: "".into(),
        };
        Self {
            hasher: FixedState::default(),
            by_hash: DashMap::with_hasher(FixedState::default()),
            sites: RwLock::new(vec![Arc::new(overflow)]),
            max,
            overflow: (0..OVERFLOW_MEMORY).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The number of a place, and whether tasks from there are daemons. `daemon` is
    /// asked once a site.
    pub(crate) fn find(
        &self,
        place: &Place<'_>,
        clock: &Clock,
        daemon: impl FnOnce(&Location) -> bool,
    ) -> (u32, bool) {
        let mut hash = self.hash(place);
        loop {
            let Some(index) = self.by_hash.get(&hash).map(|index| *index) else {
                return self.add(hash, place, clock, daemon);
            };
            let sites = self.sites.read();
            let site = &sites[index as usize];
            if place.is(site) {
                return (index, site.daemon);
            }
            hash = hash.wrapping_add(1);
        }
    }

    #[cold]
    fn add(
        &self,
        hash: u64,
        place: &Place<'_>,
        #[cfg_attr(not(feature = "otlp"), allow(unused_variables))] clock: &Clock,
        daemon: impl FnOnce(&Location) -> bool,
    ) -> (u32, bool) {
        if self.sites.read().len() > self.max {
            return (OVERFLOW, self.overflow_daemon(hash, place, daemon));
        }
        let key = place.key();
        let daemon = daemon(&key.location);
        let mut sites = self.sites.write();
        if let Some(index) = self.by_hash.get(&hash).map(|index| *index) {
            // Another thread was here first; a different place with the same hash is
            // one in 2⁶⁴ and goes to the overflow site.
            let same = place.is(&sites[index as usize]);
            return (if same { index } else { OVERFLOW }, daemon);
        }
        if sites.len() > self.max {
            return (OVERFLOW, daemon);
        }
        // Config::check keeps the limit below u32::MAX.
        let index = sites.len() as u32;
        sites.push(Arc::new(Site {
            key: Arc::new(key),
            daemon,
            #[cfg(feature = "otlp")]
            since: Some(clock.wall().system()),
            raw_file: place.file.into(),
        }));
        self.by_hash.insert(hash, index);
        (index, daemon)
    }

    /// Whether tasks from a place beyond the limit are daemons: remembered for some, as
    /// the globs cost more than the rest of a spawn.
    fn overflow_daemon(
        &self,
        hash: u64,
        place: &Place<'_>,
        daemon: impl FnOnce(&Location) -> bool,
    ) -> bool {
        let memory = &self.overflow[hash as usize % OVERFLOW_MEMORY];
        let known = memory.load(Ordering::Relaxed);
        if known | 1 == hash | 1 {
            return known & 1 == 1;
        }
        let is_daemon = daemon(&place.key().location);
        memory.store(hash & !1 | u64::from(is_daemon), Ordering::Relaxed);
        is_daemon
    }

    fn hash(&self, place: &Place<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        place.file.hash(&mut hasher);
        hasher.write_u32(place.line);
        hasher.write_u32(place.column);
        place.kind.hash(&mut hasher);
        place.name.hash(&mut hasher);
        hasher.finish()
    }

    pub(crate) fn get(&self, index: u32) -> Arc<Site> {
        Arc::clone(&self.sites.read()[index as usize])
    }

    pub(crate) fn all(&self) -> Vec<Arc<Site>> {
        self.sites.read().clone()
    }

    /// Whether nothing was ever spawned. The overflow site is always there.
    pub(crate) fn is_empty(&self) -> bool {
        self.sites.read().len() == 1
    }
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;

    fn place(line: u32, name: &str) -> Place<'_> {
        Place {
            file: "src/a.rs",
            line,
            column: 1,
            kind: Kind::Task,
            name,
        }
    }

    #[test]
    fn one_number_a_place_kind_and_name() {
        let sites = Sites::new(10);
        let clock = Clock::new(None);
        let daemon = |_: &Location| false;
        let (a, _) = sites.find(&place(1, ""), &clock, daemon);
        assert_eq!(sites.find(&place(1, ""), &clock, daemon).0, a);
        assert_ne!(sites.find(&place(1, "x"), &clock, daemon).0, a);
        assert_ne!(sites.find(&place(2, ""), &clock, daemon).0, a);
    }

    #[test]
    fn beyond_the_limit_is_the_overflow_site() {
        let sites = Sites::new(2);
        let clock = Clock::new(None);
        let daemon = |_: &Location| false;
        assert_eq!(sites.find(&place(1, ""), &clock, daemon).0, 1);
        assert_eq!(sites.find(&place(2, ""), &clock, daemon).0, 2);
        assert_eq!(sites.find(&place(3, ""), &clock, daemon).0, OVERFLOW);
        assert_eq!(
            sites.find(&place(2, ""), &clock, daemon).0,
            2,
            "known ones stay"
        );
        assert_eq!(sites.all().len(), 3);
    }
}
