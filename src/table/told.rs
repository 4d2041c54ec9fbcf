//! What is told of orphans: which were counted, which have a marker, and whose end somebody
//! wants to know of.

use super::departures::Departed;
use super::exemplars::Exemplar;
use super::record::{Record, traits};
use super::slab::{Key, Slot};
use super::tallies::Outcome;
use super::{LastTurn, Table};
use crate::clock::Nanos;
use crate::task::Kind;

impl Table {
    /// Whether somebody wants to know of a task that ends now. Called, as the next is,
    /// while the slot is still its own.
    pub(super) fn may_be_orphan(&self, slot: &Slot, record: &Record, at: Nanos) -> bool {
        let traits = slot.traits();
        if !self.departures.are_wanted() || traits & traits::UNTOLD != 0 {
            return false;
        }
        if traits & traits::MARKED != 0 {
            return true;
        }
        let never = traits & traits::DAEMON != 0 || traits::kind(traits) == Kind::BlockOn;
        let grace = crate::clock::nanos(self.config.orphan_grace);
        !never && record.may_have_outlived(at, grace)
    }

    pub(super) fn depart(&self, departed: Departed) {
        let counted = departed.traits & traits::COUNTED != 0;
        if self.departures.add(departed) {
            return;
        }
        if !counted {
            self.loss.orphan_uncounted();
        }
        if self.config.tells_spans {
            self.loss.spans_lost(1);
        }
    }

    pub(super) fn departed(
        &self,
        key: Key,
        id: u64,
        record: Record,
        at: Nanos,
        last: LastTurn,
        outcome: Outcome,
    ) -> Departed {
        let slot = self.slot(key);
        let traits = slot.traits();
        slot.take_traits(traits::MARKED);
        let (polls, busy) = slot.turn.read().up_to(at, last == LastTurn::Poll);
        Departed {
            key,
            id,
            site: slot.site(),
            traits,
            record,
            at,
            outcome,
            polls,
            busy,
        }
    }

    /// The trace that an ended task was spawned in, if it was sampled.
    pub(super) fn exemplar(&self, record: &Record, at: Nanos) -> Option<Exemplar> {
        let spans = record.spans.as_ref().filter(|_| self.config.exemplars)?;
        let context = spans
            .context
            .as_ref()
            .filter(|context| context.is_sampled())?;
        Some(Exemplar {
            value: at.saturating_sub(record.spawned_at()),
            at,
            trace_id: context.trace_id().to_bytes(),
            span_id: context.span_id().to_bytes(),
        })
    }

    /// Notes that a live task is told of as an orphan, and gives whether it is to be counted, as
    /// each is once. `None` where it is told of already, or has ended.
    pub(crate) fn mark(&self, key: Key) -> Option<bool> {
        let before = self.add_traits(key, traits::MARKED | traits::COUNTED)?;
        (before & traits::MARKED == 0).then_some(before & traits::COUNTED == 0)
    }

    /// Whether a task whose end was told of is to be counted as an orphan.
    pub(crate) fn count_ended(&self, key: Key) -> bool {
        let before = self.add_traits(key, traits::COUNTED);
        before.is_none_or(|before| before & traits::COUNTED == 0)
    }

    /// Gives those it had. `None` where it has left its slot.
    fn add_traits(&self, key: Key, traits: u32) -> Option<u32> {
        let slot = self.slot(key);
        slot.with_record(key.generation, |_| {
            let before = slot.traits();
            slot.add_traits(traits);
            before
        })
    }

    /// Nothing will be told of a counted orphan but its number.
    pub(crate) fn leave_untold(&self, key: Key) {
        self.add_traits(key, traits::UNTOLD);
    }
}
