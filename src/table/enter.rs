//! How a task gets into the table.

use super::record::{ParentTask, Record, traits};
#[cfg(feature = "testing")]
use super::scopes::Opener;
use super::scopes::{Innermost, Scope};
use super::sites::{Met, OVERFLOW, Place};
use super::slab::{Key, Slot};
use super::tallies::{LastSpawner, Outcome, Tally};
use super::{LastTurn, NewTask, Spawner, TOP, Table};
use crate::clock::Nanos;
use crate::task::{Kind, Location, TaskId};
use std::sync::Arc;

impl Table {
    /// Enters a task, or refuses it at the limit.
    pub(crate) fn spawn(&self, tally: &mut Tally, new: NewTask<'_>, now: Nanos) -> Option<Key> {
        let Some((key, slot)) = self.slab.claim(tally.thread()) else {
            self.loss.refused();
            return None;
        };
        let mut record = Record::new(now);
        let mut above = TOP;
        let mut scope = new.scope;
        match new.spawner {
            Spawner::None => {}
            Spawner::Unknown(id) => record.parent = ParentTask::unknown(TaskId::from_u64(id)),
            Spawner::Task(key) => {
                // A spawner that is not there any more can't be the one that spawns now.
                if let Some(spawner) = self.spawner(tally, key) {
                    above = spawner.lineage;
                    if self.scopes.are_used() {
                        scope = spawner.fate.scope.lock().open();
                    }
                    record.parent = ParentTask::known(Arc::clone(&spawner.fate));
                }
            }
        }
        let (site, is_daemon) = self.site(tally, &new.place, above, &mut record);
        record.size = (new.size)
            .and_then(|size| u32::try_from(size.saturating_add(1)).ok())
            .unwrap_or(0);
        record.spans = new.spans.map(Arc::new);
        let mut traits = new.traits | traits::of(new.place.kind);
        if is_daemon {
            traits |= traits::DAEMON;
        }
        if site == OVERFLOW {
            self.loss.site_overflow();
            record.rare().own = Some(new.place.key());
        }
        if let Some(scope) = scope {
            scope.spawned(site, new.place.kind);
            record.rare().scope = Some(scope);
        }
        // Counted before it can be seen: live and ended are never more than spawned.
        tally.site(&self.tallies, site).spawned();
        slot.publish(new.id, new.span, site, traits, record);
        if new.span != 0 {
            let other = self.by_span.insert(new.span, key.index);
            if let Some(other) = other.filter(|&other| self.slot_at(other).span() == new.span) {
                self.end_ghost(tally, other, new.span, now);
            }
        }
        if self.has_id_noted(traits) {
            self.by_task.insert(new.id, key.index);
        }
        Some(key)
    }

    /// Ends a task of which the close of its span was never heard, as another has the number now.
    #[cold]
    fn end_ghost(&self, tally: &mut Tally, index: u32, span: u64, now: Nanos) {
        let has = |slot: &Slot| slot.span() == span;
        if let Some((key, _)) = self.slot_at(index).key(index, has) {
            self.loss.out_of_order();
            self.end(Some(tally), key, now, LastTurn::Drop, Outcome::Unknown);
        }
    }

    /// What a task's children are spawned in.
    #[cold]
    pub(crate) fn scope_of(&self, key: Key) -> Option<Arc<Scope>> {
        let look = |record: &mut Record| match &record.fate {
            Some(fate) => fate.scope.lock().open(),
            None => Innermost::of(record.scope().cloned()).open(),
        };
        self.slot(key).with_record(key.generation, look).flatten()
    }

    /// A task is polled for the first time: its scope learns on which runtime.
    #[cold]
    pub(crate) fn meet_runtime(&self, key: Key) {
        // Whoever asks what is left may do so by a `block_on` elsewhere.
        if traits::kind(self.slot(key).traits()) == Kind::BlockOn {
            return;
        }
        let scope = |record: &mut Record| record.scope().cloned();
        let scope = self.slot(key).with_record(key.generation, scope).flatten();
        if let (Some(scope), Ok(here)) = (scope, tokio::runtime::Handle::try_current()) {
            scope.meet(&here);
        }
    }

    /// Opens a scope for what spawns here: `thread` has those of the calling thread.
    #[cfg(feature = "testing")]
    pub(crate) fn open_scope(&self, spawner: Spawner, thread: &mut Innermost) -> Arc<Scope> {
        let now = self.clock.now();
        let scope = match spawner {
            Spawner::None => thread.push(Opener::Thread, now),
            Spawner::Unknown(id) => {
                Innermost::of(self.scopes.of_unknown(id)).push(Opener::Unknown(id), now)
            }
            Spawner::Task(key) => {
                let slot = self.slot(key);
                let opener = Opener::Task { site: slot.site() };
                let fate = slot.with_record(key.generation, |record| slot.fate(record));
                match fate {
                    Some(fate) => {
                        let scope = fate.scope.lock().push(opener, now);
                        if traits::kind(slot.traits()) == Kind::BlockOn {
                            // What the thread runs after this `block_on` is the test's too.
                            *thread = Innermost::of(Some(Arc::clone(&scope)));
                        }
                        scope
                    }
                    // It is just being ended, and spawns nothing any more.
                    None => Innermost::default().push(opener, now),
                }
            }
        };
        self.scopes.opened(&scope);
        scope
    }

    /// What children of a task share, from the thread's memory if it spawned the last one too.
    fn spawner<'a>(&self, tally: &'a mut Tally, key: Key) -> Option<&'a LastSpawner> {
        let slot = self.slot(key);
        let is_last = (tally.spawner.as_ref()).is_some_and(|last| last.key == key);
        if !is_last || slot.generation() != key.generation {
            let look = |record: &mut Record| LastSpawner {
                key,
                lineage: record.lineage,
                fate: slot.fate(record),
            };
            tally.spawner = Some(slot.with_record(key.generation, look)?);
        }
        tally.spawner.as_ref()
    }

    /// The site of a place, and whether tasks from there are daemons; notes the lineage.
    #[inline]
    fn site(
        &self,
        tally: &mut Tally,
        place: &Place<'_>,
        above: u32,
        record: &mut Record,
    ) -> (u32, bool) {
        if let Some(met) = tally.met.find(place, above) {
            record.lineage = met.lineage;
            return (met.index, met.site.daemon);
        }
        let is_daemon = |location: &Location| self.daemons.is_daemon(location.file());
        let (index, is_daemon) = self.sites.find(place, &self.clock, is_daemon);
        record.lineage = self.lineages.child(above, index);
        if index != OVERFLOW && record.lineage != TOP {
            tally.met.note(Met {
                index,
                site: self.sites.get(index),
                above,
                lineage: record.lineage,
            });
        }
        (index, is_daemon)
    }
}
