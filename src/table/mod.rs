//! The live table: a bounded record of every task that has not ended.
//!
//! It knows nothing of spans' callbacks or hooks; [`capture`](crate::capture) tells it
//! what happened, [`query`](crate::query) reads it. What it keeps of a task that has
//! ended is its site's histogram.

#[cfg(feature = "otlp")]
mod departures;
mod enter;
#[cfg(feature = "otlp")]
mod exemplars;
mod fate;
#[cfg(tokio_unstable)]
mod heard;
mod index;
mod lineages;
mod record;
mod runtimes;
mod scopes;
mod sequence;
mod sites;
mod slab;
mod strangers;
mod tallies;
#[cfg(feature = "otlp")]
mod told;
mod turn;
mod wakes;

#[cfg(feature = "otlp")]
pub(crate) use departures::Departed;
#[cfg(feature = "otlp")]
pub(crate) use exemplars::Exemplar;
pub(crate) use fate::{Fate, SpanFate};
#[cfg(tokio_unstable)]
pub(crate) use heard::Heard;
pub(crate) use lineages::{LineageTree, TOP};
pub(crate) use record::{ParentRef, ParentTask, Rare, traits};
pub(crate) use runtimes::{LastRuntime, RuntimeCount};
pub(crate) use scopes::{Innermost, Scope};
#[cfg(feature = "testing")]
pub(crate) use scopes::{Opener, ScopeTotals};
pub(crate) use sites::{Place, Site};
pub(crate) use slab::{Key, Slot, copy};
pub(crate) use strangers::Since;
pub(crate) use tallies::{Outcome, Tally, Totals};
pub(crate) use turn::{ENDING, FRESH, PARKED, Poll, RUNNING, Reading};
pub(crate) use wakes::{WakeReading, WakerOp};

use index::{Index, Numbers};
use scopes::End;

use crate::clock::{Clock, ManualClock, Nanos};
use crate::config::Config;
use crate::daemons::Daemons;
#[cfg(feature = "otlp")]
use crate::loss::Delivery;
use crate::loss::{Counters, Loss};
use crate::task::{Kind, Spans};
use dashmap::DashMap;
use foldhash::fast::FixedState;
use std::sync::Arc;
#[cfg(tokio_unstable)]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) loss: Counters,
    pub(crate) runtimes: runtimes::Runtimes,
    #[cfg(tokio_unstable)]
    pub(crate) heard: Heard,
    pub(crate) tallies: tallies::Tallies,
    #[cfg(feature = "otlp")]
    pub(crate) delivery: Delivery,
    #[cfg(feature = "otlp")]
    pub(crate) departures: departures::Departures,
    pub(crate) strangers: strangers::Strangers,
    pub(crate) scopes: scopes::Scopes,
    daemons: Daemons,
    slab: slab::Slab,
    sites: sites::Sites,
    lineages: lineages::Lineages,
    by_span: Index,
    by_task: Index,
    /// User spans under which tasks were spawned, while they are open.
    spans: DashMap<u64, Arc<SpanFate>, FixedState>,
    open_spans: AtomicUsize,
    installed: AtomicBool,
    /// Tasks that ended before they were entered, each at its id's place. One is asked
    /// for within microseconds or never, so the next may take its place.
    #[cfg(tokio_unstable)]
    early_ends: [AtomicU64; EARLY_ENDS],
}

/// The end of a task whose newest turn is taken for the drop of its future.
fn presumed(slot: &Slot, lifetime: u64, outcome: Outcome) -> End {
    let turns = (slot.turn.turns(), LastTurn::Drop);
    End::new((slot.id(), slot.site()), lifetime, outcome, turns)
}

#[cfg(tokio_unstable)]
const EARLY_ENDS: usize = 1_024;

/// The task that is being polled where another is spawned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spawner {
    None,
    /// There is one, but it is not in the table.
    Unknown(u64),
    Task(Key),
}

/// A task about to be entered into the table.
#[derive(Debug)]
pub(crate) struct NewTask<'a> {
    pub(crate) id: u64,
    /// Zero where it has no span.
    pub(crate) span: u64,
    pub(crate) place: Place<'a>,
    pub(crate) size: Option<u64>,
    pub(crate) spawner: Spawner,
    pub(crate) spans: Option<Spans>,
    /// What it is spawned in, where the spawner doesn't tell.
    pub(crate) scope: Option<Arc<Scope>>,
    pub(crate) traits: u32,
}

/// What the newest turn of a task that ends was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastTurn {
    Poll,
    Drop,
}

impl Table {
    pub(crate) fn new(config: Config, daemons: Daemons, clock: Option<ManualClock>) -> Self {
        Self {
            clock: Clock::new(clock),
            loss: Counters::default(),
            runtimes: runtimes::Runtimes::default(),
            #[cfg(tokio_unstable)]
            heard: Heard::default(),
            tallies: tallies::Tallies::default(),
            #[cfg(feature = "otlp")]
            delivery: Delivery::default(),
            #[cfg(feature = "otlp")]
            departures: departures::Departures::new(config.departures),
            strangers: strangers::Strangers::default(),
            scopes: scopes::Scopes::default(),
            daemons,
            slab: slab::Slab::new(config.max_live_tasks),
            sites: sites::Sites::new(config.max_spawn_sites),
            // Each site has a handful of ancestries in a real program.
            lineages: lineages::Lineages::new(config.max_spawn_sites.saturating_mul(4)),
            by_span: Index::new(Numbers::Spans, config.max_live_tasks),
            by_task: Index::new(Numbers::Sequence, config.max_live_tasks),
            spans: DashMap::with_hasher(FixedState::default()),
            open_spans: AtomicUsize::new(0),
            installed: AtomicBool::new(false),
            #[cfg(tokio_unstable)]
            early_ends: std::array::from_fn(|_| AtomicU64::new(0)),
            config,
        }
    }

    /// The layer has become part of a subscriber.
    pub(crate) fn set_installed(&self) {
        self.installed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_installed(&self) -> bool {
        self.installed.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn slot(&self, key: Key) -> &Slot {
        self.slot_at(key.index)
    }

    #[inline]
    fn slot_at(&self, index: u32) -> &Slot {
        self.slab.slot(index)
    }

    /// Whether a task is to be found by its id: spans lead to all others.
    fn has_id_noted(&self, traits: u32) -> bool {
        self.config.source.hooks() || traits & traits::BY_WRAPPER != 0
    }

    /// About how many tasks are live.
    pub(crate) fn claimed(&self) -> usize {
        self.slab.claimed()
    }

    /// The tasks of which no runtime is known yet, where they can be counted at once.
    pub(crate) fn unpolled_tasks(&self) -> Option<usize> {
        /// More are not worth the time of the poll that asks.
        const MOST: usize = 4_096;
        if self.slab.used() > MOST {
            return None;
        }
        let waits = |slot: &Slot| {
            let is_task = traits::kind(slot.traits()) == Kind::Task;
            slot.id() != 0 && slot.runtime() == 0 && is_task
        };
        Some(self.slots().filter(|(_, slot)| waits(slot)).count())
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = (u32, &Slot)> {
        self.slab.slots()
    }

    #[inline]
    pub(crate) fn by_span(&self, span: u64) -> Option<(Key, &Slot)> {
        let has = |slot: &Slot| slot.span() == span;
        (self.by_span).find(span, |index| self.slot_at(index).key(index, has))
    }

    #[inline]
    pub(crate) fn by_task(&self, id: u64) -> Option<(Key, &Slot)> {
        let has = |slot: &Slot| slot.id() == id;
        (self.by_task).find(id, |index| self.slot_at(index).key(index, has))
    }

    pub(crate) fn sites(&self) -> Vec<Arc<Site>> {
        self.sites.all()
    }

    /// Whether a task was ever announced.
    pub(crate) fn has_seen_tasks(&self) -> bool {
        !self.sites.is_empty()
    }

    pub(crate) fn lineages(&self) -> LineageTree {
        self.lineages.tree()
    }

    /// What was lost, as far as it is known without a look at the tasks.
    pub(crate) fn loss(&self) -> Loss {
        Loss {
            lineages_cut: self.lineages.cut(),
            runtimes_unknown: self.runtimes.unknown(),
            ..self.loss.read()
        }
    }

    /// Begins a turn of a task on the thread that polls it.
    #[inline]
    pub(crate) fn begin_turn(&self, tally: &mut Tally, key: Key, slot: &Slot, now: Nanos) -> bool {
        let woken = slot.wakes.take(now);
        let phase = slot.turn.phase();
        let before = slot.turn.enter(now, woken);
        if let Some(poll) = before {
            tally.site(&self.tallies, slot.site()).polled(poll);
        }
        if phase == ENDING && slot.traits() & traits::HAS_FATE != 0 {
            self.tell_ending(key, slot, 0);
        }
        woken.is_some()
    }

    /// Begins a turn that a hook tells of, and gives its number. `None` where the turn before is
    /// just being ended by another thread, which is counted.
    #[cfg(tokio_unstable)]
    #[inline]
    pub(crate) fn begin_told(&self, tally: &mut Tally, slot: &Slot, now: Nanos) -> Option<u64> {
        let Some((turn, before)) = slot.turn.enter_told(now) else {
            self.loss.out_of_order();
            return None;
        };
        if let Some(poll) = before {
            tally.site(&self.tallies, slot.site()).polled(poll);
        }
        Some(turn)
    }

    /// The turn that has just ended looked like the drop of the future.
    pub(crate) fn ending(&self, key: Key, slot: &Slot, now: Nanos) {
        slot.turn.ending();
        if slot.traits() & traits::HAS_FATE != 0 {
            self.tell_ending(key, slot, now);
        }
    }

    #[cold]
    fn tell_ending(&self, key: Key, slot: &Slot, since: Nanos) {
        slot.with_record(key.generation, |record| {
            if let Some(fate) = &record.fate {
                fate.set_ending_since(since);
            }
        });
    }

    /// Counts a task as ended that must have, though its span is open and may yet prove
    /// the opposite: it keeps its slot until the span closes, and comes back if entered.
    pub(crate) fn presume_ended(&self, key: Key, at: Nanos, outcome: Outcome) {
        let slot = self.slot(key);
        #[cfg(feature = "otlp")]
        let mut departed = None;
        let found = slot.with_record(key.generation, |record| {
            slot.add_traits(traits::PRESUMED);
            if let Some(fate) = &record.fate {
                fate.end(at);
            }
            #[cfg(feature = "otlp")]
            if self.may_be_orphan(slot, record, at) {
                let copy = record.clone();
                departed = Some(self.departed(key, slot.id(), copy, at, LastTurn::Drop, outcome));
            }
            (record.spawned_at(), record.scope().cloned())
        });
        #[cfg(feature = "otlp")]
        if let Some(departed) = departed {
            self.depart(departed);
        }
        if let Some((spawned_at, scope)) = found {
            let lifetime = at.saturating_sub(spawned_at);
            if let Some(scope) = scope {
                scope.ended(presumed(slot, lifetime, outcome));
            }
            (self.tallies).with_shared(slot.site(), |cells| cells.ended(lifetime, outcome));
        }
    }

    /// A task presumed ended is entered again: it lives, and its lifetime is not over.
    #[cold]
    pub(crate) fn revive(&self, tally: &mut Tally, key: Key, slot: &Slot) {
        let presumed_at = slot.turn.read().since;
        let found = slot.with_record(key.generation, |record| {
            if let Some(fate) = &record.fate {
                fate.end(0);
                fate.set_ending_since(0);
            }
            (record.spawned_at(), record.scope().cloned())
        });
        if let Some((spawned_at, scope)) = found {
            let panicked = slot.traits() & traits::PANICKED != 0;
            slot.take_traits(traits::PRESUMED);
            let lifetime = presumed_at.saturating_sub(spawned_at);
            let outcome = Outcome::told(panicked);
            if let Some(scope) = scope {
                scope.take_back(presumed(slot, lifetime, outcome));
            }
            (tally.site(&self.tallies, slot.site())).take_back(lifetime, outcome);
        }
    }

    /// Ends a task, once, whoever tells of it first. `tally` is `None` for a thread
    /// whose thread-locals are gone, and for a reader.
    pub(crate) fn end(
        &self,
        tally: Option<&mut Tally>,
        key: Key,
        at: Nanos,
        last: LastTurn,
        outcome: Outcome,
    ) {
        let slot = self.slot(key);
        let id = slot.id();
        let (span, site) = (slot.span(), slot.site());
        let reading = slot.turn.read();
        let Some((record, traits)) = slot.retire(key.generation) else {
            return;
        };
        let presumed = traits & traits::PRESUMED != 0;
        if let Some(fate) = record.fate.as_ref().filter(|_| !presumed) {
            fate.end(at);
        }
        if span != 0 {
            self.by_span.remove(span, key.index);
        }
        if self.has_id_noted(traits) {
            self.by_task.remove(id, key.index);
        }
        let poll = match last {
            LastTurn::Poll if reading.phase == RUNNING => Some(Poll {
                duration: at.saturating_sub(reading.since),
                delay: reading.running_delay(),
            }),
            LastTurn::Poll => reading.pending(),
            LastTurn::Drop => None,
        };
        let hint = tally.as_ref().map_or(0, |tally| tally.thread());
        #[cfg(feature = "otlp")]
        let exemplar = self.exemplar(&record, at);
        let spawned_at = record.spawned_at();
        let lifetime = at.saturating_sub(spawned_at);
        if self.scopes.are_used() {
            self.scopes.ended(id);
        }
        if let Some(scope) = record.scope().filter(|_| !presumed) {
            scope.ended(End::new(
                (id, site),
                lifetime,
                outcome,
                (reading.turns, last),
            ));
        }
        #[cfg(feature = "otlp")]
        if !presumed && self.may_be_orphan(slot, &record, at) {
            let departed = self.departed(key, id, record, at, last, outcome);
            self.depart(departed);
        }
        self.slab.release(hint, key.index);
        if presumed {
            // Counted when it was presumed.
            return;
        }
        let count = |cells: &tallies::SiteCells| {
            if let Some(poll) = poll {
                cells.polled(poll);
            }
            cells.ended(lifetime, outcome);
            #[cfg(feature = "otlp")]
            if let Some(exemplar) = exemplar {
                cells.traced(exemplar);
            }
        };
        match tally {
            Some(tally) => count(tally.site(&self.tallies, site)),
            None => self.tallies.with_shared(site, count),
        }
    }

    /// The fate of a user span, made when the first task is spawned under it.
    pub(crate) fn span_fate(
        &self,
        span: u64,
        make: impl FnOnce() -> Arc<SpanFate>,
    ) -> Arc<SpanFate> {
        let entry = self.spans.entry(span).or_insert_with(|| {
            self.open_spans.fetch_add(1, Ordering::Relaxed);
            make()
        });
        Arc::clone(&entry)
    }

    /// The fate of a user span under which tasks were spawned.
    pub(crate) fn known_span_fate(&self, span: u64) -> Option<Arc<SpanFate>> {
        self.spans.get(&span).map(|fate| Arc::clone(&fate))
    }

    /// A user span has closed.
    #[inline]
    pub(crate) fn close_span(&self, span: u64) {
        // Most programs' spans start no task; those that do are few at a time.
        if self.open_spans.load(Ordering::Relaxed) == 0 || !self.spans.contains_key(&span) {
            return;
        }
        if let Some((_, fate)) = self.spans.remove(&span) {
            self.open_spans.fetch_sub(1, Ordering::Relaxed);
            fate.close(self.clock.now());
        }
    }

    /// A task that is not in the table has ended. Look for it once more afterwards: this and
    /// the entry into the index are sequentially consistent, so one of the two sees the other.
    #[cfg(tokio_unstable)]
    pub(crate) fn ended_early(&self, id: u64) {
        self.by_task.prepare(id);
        self.early_ends[id as usize % EARLY_ENDS].store(id, Ordering::SeqCst);
    }

    /// Whether a task that was just entered has ended already.
    #[cfg(tokio_unstable)]
    pub(crate) fn has_ended_early(&self, id: u64) -> bool {
        self.early_ends[id as usize % EARLY_ENDS].load(Ordering::SeqCst) == id
    }

    /// Ends a task whose span closed on a thread that has no storage any more.
    #[cold]
    pub(crate) fn end_without_local(&self, key: Key) {
        let now = self.clock.now();
        self.end(None, key, now, LastTurn::Drop, Outcome::Unknown);
    }
}
