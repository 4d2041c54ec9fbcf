//! What a thread knows of itself: which tasks it is in the middle of polling.
//!
//! tokio's `try_id` says which task is being polled or dropped on this thread. A
//! *frame* joins that to the table: pushed where the task's own source says that it was
//! entered, popped where it was left. Whatever else enters a task's span (a child that
//! carries its parent's span, a second `.instrument` of the same span) finds `try_id`
//! at odds with it, or a frame already there, and counts for nobody.

use super::origin::Origin;
use super::visit::TaskFields;
use crate::table::{
    Innermost, Key, LastRuntime, LastTurn, NewTask, Outcome, Place, Slot, Spawner, Table, Tally,
    traits,
};
use crate::task::{Kind, Spans, raw_current};
use std::cell::RefCell;
use std::sync::{Arc, Weak};

thread_local! {
    /// One for each table that has seen this thread; nearly always one.
    static LOCALS: RefCell<Locals> = const { RefCell::new(Locals(Vec::new())) };
}

struct Locals(Vec<Local>);

impl Drop for Locals {
    fn drop(&mut self) {
        for local in &self.0 {
            if let Some(table) = local.table.upgrade() {
                table.tallies.leave(&local.tally);
            }
        }
    }
}

pub(crate) struct Local {
    table: Weak<Table>,
    /// The table's, which nobody else has for as long as there is a `Weak`.
    address: usize,
    pub(crate) tally: Tally,
    pub(crate) fields: TaskFields,
    pub(crate) runtime: LastRuntime,
    frames: Vec<Frame>,
    /// The `block_on`s of this thread, the innermost last.
    block_ons: Vec<BlockOn>,
    /// The turn this thread left last, while it has begun no other.
    last_turn: Option<(Key, Apart)>,
    /// The task this thread spawned last.
    pub(crate) last_spawn: u64,
    /// Opened on this thread outside of every task that was seen.
    pub(super) scope: Innermost,
}

/// Whether a turn began out of another place than the turn before it ended: if it is
/// the drop of the future, then the poll before did not complete the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Apart(bool);

#[derive(Clone, Copy, Debug)]
struct Frame {
    key: Key,
    /// What `try_id` gives in here.
    current: u64,
    span: u64,
    /// The turn's number, where hooks tell of it; else zero.
    turn: u64,
    /// How often the span was entered by the task itself.
    depth: u32,
    /// Entered without having been woken.
    unwoken: bool,
    /// The task has cloned its own waker: in a poll, as the drop of a future has none.
    registered: bool,
    panicking: bool,
    apart: Apart,
}

#[derive(Clone, Copy, Debug)]
struct BlockOn {
    key: Key,
    span: u64,
    /// `block_on` sets no task id, so in it `try_id` is what it was around it.
    current: u64,
}

/// Runs `f` with the calling thread's own state. `None` where the thread's storage is
/// gone or in use.
#[inline]
pub(crate) fn try_with<R>(table: &Arc<Table>, f: impl FnOnce(&mut Local) -> R) -> Option<R> {
    let found = LOCALS.try_with(|locals| {
        let mut locals = locals.try_borrow_mut().ok()?;
        Some(f(locals.of(table)))
    });
    found.ok().flatten()
}

/// The same; `None` is counted.
#[inline]
pub(crate) fn with<R>(table: &Arc<Table>, f: impl FnOnce(&mut Local) -> R) -> Option<R> {
    let result = try_with(table, f);
    if result.is_none() {
        table.loss.thread_gone();
    }
    result
}

/// Ends a task now, also on a thread whose storage is gone.
pub(crate) fn end(table: &Arc<Table>, key: Key, last: LastTurn, outcome: Outcome) {
    let now = table.clock.now();
    let ended = with(table, |local| {
        table.end(Some(&mut local.tally), key, now, last, outcome);
    });
    if ended.is_none() {
        table.end(None, key, now, last, outcome);
    }
}

impl Locals {
    #[inline]
    fn of(&mut self, table: &Arc<Table>) -> &mut Local {
        let address = Arc::as_ptr(table).addr();
        if (self.0.first()).is_some_and(|local| local.address == address) {
            return &mut self.0[0];
        }
        self.find(table)
    }

    #[cold]
    fn find(&mut self, table: &Arc<Table>) -> &mut Local {
        let address = Arc::as_ptr(table).addr();
        match self.0.iter().position(|local| local.address == address) {
            Some(at) => &mut self.0[at],
            None => self.add(table),
        }
    }

    fn add(&mut self, table: &Arc<Table>) -> &mut Local {
        self.0.retain(|local| local.table.strong_count() > 0);
        self.0.push(Local {
            table: Arc::downgrade(table),
            address: Arc::as_ptr(table).addr(),
            tally: table.tallies.join(),
            fields: TaskFields::default(),
            runtime: LastRuntime::default(),
            frames: Vec::new(),
            block_ons: Vec::new(),
            last_turn: None,
            last_spawn: 0,
            scope: Innermost::default(),
        });
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
}

/// A task that a source has just seen spawned.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) id: u64,
    /// Zero where it has no span.
    pub(crate) span: u64,
    pub(crate) place: Place<'a>,
    pub(crate) size: Option<u64>,
    pub(crate) spans: Option<Spans>,
    pub(crate) traits: u32,
}

impl Local {
    /// Enters a task that was spawned on this thread just now.
    pub(crate) fn spawn(&mut self, table: &Table, seen: Seen<'_>) -> Option<Key> {
        let origin = self.origin(table);
        self.spawn_from(table, seen, origin)
    }

    /// Enters a task whose spawner is known already.
    pub(crate) fn spawn_from(
        &mut self,
        table: &Table,
        seen: Seen<'_>,
        origin: Origin,
    ) -> Option<Key> {
        let Origin {
            mut spawner,
            scope,
            daemon,
        } = origin;
        let mut traits = seen.traits;
        let mut spans = seen.spans;
        if daemon {
            traits |= traits::DAEMON;
            spans = None;
            spawner = Spawner::None;
        }
        if let Spawner::Unknown(spawner) = spawner {
            table.loss.unseen_parent();
            table.runtimes.has_strangers(&mut self.runtime);
            // The drop of an ended task's output spawns as that task.
            let is_unseen = || scope.is_none() && !table.scopes.has_ended(spawner);
            if table.scopes.are_used() && is_unseen() {
                table.scopes.unseen_parent();
            }
        }
        let new = NewTask {
            id: seen.id,
            span: seen.span,
            place: seen.place,
            size: seen.size,
            spawner,
            spans,
            scope,
            traits,
        };
        self.last_spawn = seen.id;
        table.spawn(&mut self.tally, new, table.clock.now())
    }

    /// Says so where a task runs here that no hook announced, on a runtime without them.
    pub(crate) fn note_unseen(&mut self, table: &Table) {
        let unseen = matches!(self.spawner(table), Spawner::Unknown(_));
        if table.config.source.spans() || !unseen {
            return;
        }
        if let Ok(handle) = tokio::runtime::Handle::try_current()
            && table.runtimes.add_unhooked(&handle)
        {
            table.loss.unseen_task();
        }
    }

    /// The task that is being polled or dropped here.
    pub(crate) fn spawner(&self, table: &Table) -> Spawner {
        let current = raw_current();
        let here = |frame: &&Frame| frame.current == current;
        if current == 0 {
            // Only if nothing lies between: another runtime's task is another's child.
            return match self.frames.last().filter(here) {
                Some(frame) => Spawner::Task(frame.key),
                None => Spawner::None,
            };
        }
        if let Some(frame) = self.frames.iter().rev().find(here) {
            return Spawner::Task(frame.key);
        }
        match table.by_task(current) {
            Some((key, _)) => Spawner::Task(key),
            None => Spawner::Unknown(current),
        }
    }

    /// The task being polled here, if it created user spans under which tasks live.
    #[inline]
    pub(crate) fn host(&self, table: &Table) -> Option<Key> {
        let top = self.frames.last()?;
        let hosts = table.slot(top.key).traits() & traits::HOSTS_SPANS != 0;
        (hosts && self.is_polling()).then_some(top.key)
    }

    /// The task whose span this is, if its turn is the innermost on this thread.
    #[inline]
    pub(crate) fn own(&self, span: u64) -> Option<Key> {
        let top = self.frames.last()?;
        (top.span == span).then_some(top.key)
    }

    /// The task whose turn this is has cloned its own waker.
    pub(crate) fn registered(&mut self) {
        if self.is_polling()
            && let Some(top) = self.frames.last_mut()
        {
            top.registered = true;
        }
    }

    /// Whether the task of the innermost turn is the one that tokio says is being polled here.
    #[inline]
    pub(crate) fn is_polling(&self) -> bool {
        (self.frames.last()).is_some_and(|top| top.current == raw_current())
    }

    /// A span was entered. Gives true where it is a task's own; false says that it may
    /// be a user's.
    #[inline]
    pub(crate) fn enter_span(&mut self, table: &Table, span: u64) -> bool {
        if let Some(top) = self.frames.last_mut()
            && top.span == span
        {
            top.depth += 1;
            return true;
        }
        let current = raw_current();
        if let Some(block_on) = self.block_ons.last()
            && block_on.span == span
        {
            if block_on.current == current {
                let key = block_on.key;
                self.begin(table, key, table.slot(key), current, span);
            }
            return true;
        }
        let in_task = (self.frames.last()).is_some_and(|top| top.current == current);
        if in_task || current == 0 {
            return false;
        }
        // The first enter since tokio turned to this task.
        let Some((key, slot)) = table.by_span(span) else {
            return false;
        };
        if slot.id() == current && slot.traits() & traits::BY_WRAPPER == 0 {
            self.begin(table, key, slot, current, span);
        }
        true
    }

    /// A span was left. True and false as for [`enter_span`](Self::enter_span).
    #[inline]
    pub(crate) fn exit_span(&mut self, table: &Table, span: u64) -> bool {
        match self.frames.last_mut() {
            Some(top) if top.span == span => {
                top.depth -= 1;
                if top.depth == 0 {
                    self.finish(table);
                }
                true
            }
            _ => false,
        }
    }

    /// Begins a turn that is told in the task's own poll.
    #[inline]
    pub(crate) fn begin(&mut self, table: &Table, key: Key, slot: &Slot, current: u64, span: u64) {
        if slot.generation() != key.generation {
            return;
        }
        if slot.traits() & traits::PRESUMED != 0 {
            table.revive(&mut self.tally, key, slot);
        }
        let now = table.clock.now();
        let apart = Apart(!matches!(self.last_turn, Some((last, _)) if last == key));
        self.last_turn = None;
        let woken = table.begin_turn(&mut self.tally, key, slot, now);
        let frame = Frame {
            key,
            current,
            span,
            turn: 0,
            depth: 1,
            unwoken: !woken && slot.turn.turns() > 1,
            registered: false,
            panicking: std::thread::panicking(),
            apart,
        };
        self.push(table, slot, frame);
    }

    /// Begins a turn of which a hook tells.
    #[cfg(tokio_unstable)]
    #[inline]
    pub(crate) fn begin_told(&mut self, table: &Table, key: Key, slot: &Slot, id: u64) {
        if slot.generation() != key.generation {
            return;
        }
        // What is above the task around this one was left behind: its end was never told.
        while (self.frames.last()).is_some_and(|top| top.current != raw_current()) {
            self.frames.pop();
        }
        let now = table.clock.now();
        let Some(turn) = table.begin_told(&mut self.tally, slot, now) else {
            return;
        };
        let frame = Frame {
            key,
            current: id,
            span: 0,
            turn,
            depth: 1,
            unwoken: false,
            registered: false,
            panicking: false,
            apart: Apart(false),
        };
        self.push(table, slot, frame);
    }

    #[inline]
    fn push(&mut self, table: &Table, slot: &Slot, frame: Frame) {
        if slot.runtime() == 0 {
            self.meet_runtime(table, frame.key, slot);
        }
        self.frames.push(frame);
    }

    #[cold]
    fn meet_runtime(&mut self, table: &Table, key: Key, slot: &Slot) {
        let unpolled = || table.unpolled_tasks();
        let number = table.runtimes.current(&mut self.runtime, unpolled);
        if number == 0 {
            return;
        }
        slot.set_runtime(number);
        if table.scopes.are_used() {
            table.meet_runtime(key);
        }
        let traits = slot.traits();
        let hooked = traits & traits::HOOKED != 0;
        if hooked && self.runtime.is_news_that_hooked() {
            table.runtimes.set_hooked(number);
        }
    }

    /// Ends the turn of the innermost frame.
    #[inline]
    fn finish(&mut self, table: &Table) {
        let Some(frame) = self.frames.pop() else {
            return;
        };
        self.last_turn = Some((frame.key, frame.apart));
        let slot = table.slot(frame.key);
        if slot.generation() != frame.key.generation {
            // Its end was told during the turn, as the terminate hook does.
            return;
        }
        let now = table.clock.now();
        if frame.turn != 0 {
            let is_task = || slot.generation() == frame.key.generation;
            slot.turn.exit_told(now, frame.turn, is_task);
            return;
        }
        slot.turn.exit(now);
        let mut traits = slot.traits();
        if traits & traits::MAY_MISS_WAKES != 0 {
            slot.set_trait(traits::REGISTERED, frame.registered);
        }
        if std::thread::panicking() && !frame.panicking {
            slot.add_traits(traits::PANICKED);
            traits |= traits::PANICKED;
        }
        match traits::kind(traits) {
            // A closure is run in one turn and dropped in the next.
            Kind::Blocking if slot.turn.turns() > 1 => {
                let outcome = Outcome::told(traits & traits::PANICKED != 0);
                let tally = Some(&mut self.tally);
                table.end(tally, frame.key, now, LastTurn::Drop, outcome);
            }
            Kind::Blocking => table.ending(frame.key, slot, now),
            _ if traits & (traits::HOOKED | traits::BY_WRAPPER) != 0 => {}
            // Every poll but the first is preceded by a wake; a drop need not be.
            _ if frame.panicking => table.ending(frame.key, slot, now),
            _ if frame.unwoken && traits & traits::KNOWS_WAKES != 0 => {
                // A poll whose wake was missed leaves somebody a waker again.
                let was_a_poll = traits & traits::MAY_MISS_WAKES != 0 && frame.registered;
                if !was_a_poll {
                    table.ending(frame.key, slot, now);
                }
            }
            _ => {}
        }
    }

    /// Ends the turn that the poll hooks began for the task of this id.
    #[cfg(tokio_unstable)]
    #[inline]
    pub(crate) fn finish_current(&mut self, table: &Table, id: u64) {
        if (self.frames.last()).is_some_and(|top| top.current == id) {
            self.finish(table);
        } else if let Some(frame) = self.frames.iter().rfind(|frame| frame.current == id) {
            self.finish_key(table, frame.key);
        }
    }

    /// Ends the turn that a hook or the wrapper began. Frames above it were left
    /// behind by somebody who entered and never exited.
    pub(crate) fn finish_key(&mut self, table: &Table, key: Key) {
        let Some(at) = self.frames.iter().rposition(|frame| frame.key == key) else {
            return;
        };
        if at + 1 < self.frames.len() {
            table.loss.out_of_order();
            self.frames.truncate(at + 1);
        }
        self.finish(table);
    }

    /// A `block_on` begins on this thread. One at the same level that this thread has
    /// left must have returned, though something holds its span.
    pub(crate) fn add_block_on(&mut self, table: &Table, key: Key, span: u64) {
        let current = raw_current();
        // On a thread that is still in a runtime tokio is about to refuse this one.
        let outside = current == 0
            && self.frames.is_empty()
            && tokio::runtime::Handle::try_current().is_err();
        while let Some(before) = self.block_ons.last().copied().filter(|_| outside) {
            self.block_ons.pop();
            let now = table.clock.now();
            let tally = Some(&mut self.tally);
            table.end(tally, before.key, now, LastTurn::Drop, Outcome::Unknown);
        }
        self.block_ons.push(BlockOn { key, span, current });
    }

    /// A task's span has closed: its future is gone.
    pub(crate) fn close(&mut self, table: &Table, key: Key) {
        self.block_ons.retain(|block_on| block_on.key != key);
        let slot = table.slot(key);
        let traits = slot.traits();
        let outcome = match self.last_turn {
            _ if traits & traits::PANICKED != 0 => Outcome::Panicked,
            // Only dropped, never polled.
            _ if slot.turn.turns() <= 1 => Outcome::Aborted,
            Some((last, Apart(true))) if last == key => Outcome::Aborted,
            _ => Outcome::Unknown,
        };
        // The future was dropped in the last turn, however long its span was held.
        let dropped = slot.turn.read().ended();
        let at = dropped.unwrap_or_else(|| table.clock.now());
        let tally = Some(&mut self.tally);
        table.end(tally, key, at, LastTurn::Drop, outcome);
    }
}
