//! Copies the table, slot by slot, without a lock that a poll needs.

use crate::clock::Nanos;
use crate::table::{
    ENDING, FRESH, Key, PARKED, ParentRef, ParentTask, Poll, RUNNING, Rare, Reading, Scope, Slot,
    Table, WakeReading, copy, traits,
};
use crate::task::{Kind, Spans, State, TaskId};
use std::sync::Arc;

/// One task as it was found. Its times are at `now`.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) key: Key,
    pub(crate) id: u64,
    pub(crate) traits: u32,
    pub(crate) site: u32,
    pub(crate) runtime: u32,
    pub(crate) now: Nanos,
    pub(crate) turn: Reading,
    pub(crate) wakes: u64,
    pub(crate) self_wakes: u64,
    /// Zero where it isn't woken.
    woken_at: Nanos,
    pub(crate) wakers: u32,
    pub(crate) spawned_at: Nanos,
    pub(crate) root: u64,
    pub(crate) lineage: u32,
    pub(crate) size: u32,
    pub(crate) parent: ParentTask,
    pub(crate) spans: Option<Arc<Spans>>,
    pub(crate) rare: Option<Box<Rare>>,
}

impl Found {
    pub(crate) fn kind(&self) -> Kind {
        traits::kind(self.traits)
    }

    /// The innermost scope that it was spawned in.
    pub(crate) fn scope(&self) -> Option<&Arc<Scope>> {
        self.rare.as_ref()?.scope.as_ref()
    }

    /// Place and name, where the site can't tell.
    #[cfg(feature = "otlp")]
    pub(crate) fn own(&self) -> Option<&crate::task::SiteKey> {
        self.rare.as_ref()?.own.as_ref()
    }

    pub(crate) fn is(&self, traits: u32) -> bool {
        self.traits & traits != 0
    }

    pub(crate) fn knows_wakes(&self) -> bool {
        self.is(traits::KNOWS_WAKES)
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.woken_at != 0
    }

    /// The task that was being polled where it was spawned.
    pub(crate) fn parent_id(&self) -> Option<TaskId> {
        match self.parent.as_ref() {
            ParentRef::None => None,
            ParentRef::Unknown(id) => Some(id),
            ParentRef::Known(fate) => Some(fate.id),
        }
    }

    /// Whether its end is told for certain, whatever holds its span.
    pub(crate) fn is_exact(&self) -> bool {
        self.is(traits::HOOKED | traits::BY_WRAPPER)
    }

    /// The last turn's poll, which is in no histogram yet.
    pub(crate) fn pending(&self) -> Option<Poll> {
        self.turn.pending()
    }

    pub(crate) fn age(&self) -> u64 {
        self.now.saturating_sub(self.spawned_at)
    }

    pub(crate) fn state(&self) -> Option<State> {
        match self.turn.phase {
            FRESH => Some(State::Scheduled),
            RUNNING => Some(State::Running),
            // One that only looked as if it ended has had a wake that wasn't seen.
            PARKED | ENDING if self.knows_wakes() => Some(if self.is_woken() {
                State::Scheduled
            } else {
                State::Idle
            }),
            _ => None,
        }
    }

    pub(crate) fn busy(&self) -> u64 {
        let present = match self.turn.phase {
            PARKED => self.turn.last,
            _ => self.busy_now(),
        };
        self.turn.busy.saturating_add(present)
    }

    /// Of the poll under way.
    pub(crate) fn busy_now(&self) -> u64 {
        match self.turn.phase {
            RUNNING => self.now.saturating_sub(self.turn.since),
            _ => 0,
        }
    }

    pub(crate) fn longest_poll(&self) -> u64 {
        let present = match self.turn.phase {
            RUNNING => self.now.saturating_sub(self.turn.since),
            PARKED => self.turn.last,
            _ => 0,
        };
        self.turn.longest.max(present)
    }

    pub(crate) fn scheduled(&self) -> u64 {
        self.turn.scheduled.saturating_add(self.scheduled_now())
    }

    /// Of the wait for a poll under way.
    pub(crate) fn scheduled_now(&self) -> u64 {
        let since = match self.turn.phase {
            FRESH => Some(self.turn.since),
            PARKED if self.is_woken() => Some(self.woken_at.max(self.turn.since)),
            _ => None,
        };
        since.map_or(0, |since| self.now.saturating_sub(since))
    }
}

/// Slots that are looked at between two looks at the clock.
const BATCH: u32 = 256;

/// Copies all tasks spawned up to `from`, and shows each to `see` while it is at hand. Those
/// spawned while the scan is under way are left to the next one, so that no task is seen
/// without a parent that is alive.
pub(crate) fn scan(table: &Table, from: Nanos, mut see: impl FnMut(&Found)) -> Vec<Found> {
    // In one piece: a vector that grows to a million tasks maps and unmaps its memory
    // over and over, and the kernel makes the host's own allocations wait for that.
    let mut found = Vec::with_capacity(table.claimed());
    for task in tasks(table, from) {
        see(&task);
        found.push(task);
    }
    found
}

/// The tasks spawned up to `from`, each copied when it is asked for.
pub(crate) fn tasks(table: &Table, from: Nanos) -> impl Iterator<Item = Found> + '_ {
    let mut now = from;
    table.slots().filter_map(move |(index, slot)| {
        if index.is_multiple_of(BATCH) {
            now = table.clock.now();
        }
        look_at(table, index, slot, from, &mut now)
    })
}

/// The task in one slot, unless it is presumed ended.
pub(crate) fn look(table: &Table, index: u32) -> Option<Found> {
    let slot = table.slot(Key {
        index,
        generation: 0,
    });
    look_at(table, index, slot, Nanos::MAX, &mut table.clock.now())
}

/// The task in a slot, if it was spawned up to `from`. `now` is read anew where something in
/// the copy would lie ahead of it.
#[inline]
fn look_at(table: &Table, index: u32, slot: &Slot, from: Nanos, now: &mut Nanos) -> Option<Found> {
    let task = copy(slot, |id, generation, record| {
        if record.spawned_at() > from || slot.traits() & traits::PRESUMED != 0 {
            return None;
        }
        let turn = slot.turn.read();
        let wakes = slot.wakes.read();
        let woken_at = woken_at(slot, &wakes, *now);
        if turn.since.max(woken_at) > *now {
            *now = table.clock.now();
        }
        Some(Found {
            key: Key { index, generation },
            id,
            traits: slot.traits(),
            site: slot.site(),
            runtime: slot.runtime(),
            turn,
            wakes: wakes.wakes,
            self_wakes: wakes.self_wakes,
            woken_at,
            // The balance has fewer bits.
            wakers: wakes.wakers as u32,
            now: *now,
            spawned_at: record.spawned_at(),
            root: record.root(id),
            lineage: record.lineage,
            size: record.size,
            parent: record.parent.clone(),
            spans: record.spans.clone(),
            rare: record.rare.clone(),
        })
    });
    task.flatten()
}

/// When the pending wake was seen, zero if there is none.
fn woken_at(slot: &Slot, wakes: &WakeReading, now: Nanos) -> Nanos {
    if !wakes.woken {
        return 0;
    }
    // Whoever wakes may have flagged it and not yet noted the time.
    slot.wakes.woken_at().unwrap_or(now)
}
