//! tokio's runtime hooks as a source.
//!
//! The spawn hook runs in the spawner, after the task's span (if any) was created. The
//! poll hooks run around a *turn*, which may be the drop of an aborted task and not
//! a poll at all; hooks alone can't tell the two apart. The terminate hook is the exact
//! end, and comes for blocking tasks too, which no spawn hook announces. It comes *before*
//! the spawn hook where the runtime is shut down while, or before, the task is spawned.

use super::local::{self, Seen};
use super::parents::{Around, ParentRules};
use super::spawn::{Sighting, Wrapped};
use crate::config::Source;
use crate::table::{Heard, Key, LastTurn, Outcome, Place, Table, traits};
use crate::task::{Kind, raw_id};
use std::fmt;
use std::sync::Arc;
use tokio::runtime::{Builder, TaskMeta};
use tracing_core::dispatcher;

/// What straggler does in each of tokio's runtime hooks, to be called from hooks of your own.
///
/// tokio keeps one hook of each kind, so a program that has its own can't also have those
/// that [`Tasks::hook`](crate::Tasks::hook) sets. It calls these from them:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use straggler::Source;
///
/// let straggler = straggler::Builder::new().source(Source::Hooks).init()?;
/// let hooks = straggler.tasks().hooks();
///
/// let mut builder = tokio::runtime::Builder::new_multi_thread();
/// builder.on_task_spawn({
///     let hooks = hooks.clone();
///     move |meta| {
///         hooks.on_task_spawn(meta);
///         // … yours
///     }
/// });
/// builder.on_before_task_poll({
///     let hooks = hooks.clone();
///     move |meta| hooks.on_before_task_poll(meta)
/// });
/// builder.on_after_task_poll({
///     let hooks = hooks.clone();
///     move |meta| hooks.on_after_task_poll(meta)
/// });
/// builder.on_task_terminate(move |meta| hooks.on_task_terminate(meta));
/// let runtime = builder.enable_all().build()?;
/// # drop(runtime);
/// # Ok(())
/// # }
/// ```
///
/// Which are needed goes by the source. One that isn't does nothing, and may be left out:
///
/// | | [`Source::Hooks`] | [`Source::Both`] | [`Source::Spans`] |
/// |---|---|---|---|
/// | `on_task_spawn`, `on_task_terminate` | needed | needed | – |
/// | `on_before_task_poll`, `on_after_task_poll` | needed | – | – |
///
/// Call each inside the hook of its name, once and on that hook's thread: who polls or spawns
/// is known by the thread. They don't panic, and but for a spawn, which asks the subscriber for the current span and
/// OpenTelemetry for the current trace, call nothing back. If your
/// part of a hook may panic, call straggler's first, as a call that is left out is a hook that
/// is forgotten.
///
/// What a forgotten one costs:
///
/// | forgotten | what follows |
/// |---|---|
/// | `on_task_spawn` | no task of that runtime is known; with `Both` those that the spans show |
/// | `on_task_terminate` | every task that ended stays live; with `Both` those whose span is held |
/// | `on_before_task_poll`, or both poll hooks | no polls and no times of them; spawns, parents and ends are right |
/// | `on_after_task_poll` | each poll looks as if it went on until the task's next |
///
/// [`Diagnosis`](crate::Diagnosis) `missing-hook` names it. One that another runtime has is not
/// missed.
///
/// Only with `--cfg tokio_unstable`, as the hooks themselves.
#[derive(Clone)]
pub struct Hooks {
    table: Arc<Table>,
    rules: Arc<ParentRules>,
}

impl Hooks {
    pub(crate) fn new(table: &Arc<Table>, rules: &Arc<ParentRules>) -> Self {
        Self {
            table: Arc::clone(table),
            rules: Arc::clone(rules),
        }
    }

    /// Sets those that the source needs. They replace what was set before.
    pub(crate) fn set_on(self, builder: &mut Builder) {
        if !self.source().hooks() {
            return;
        }
        self.table.runtimes.hooks_are_set();
        if self.source() == Source::Hooks {
            let hooks = self.clone();
            builder.on_before_task_poll(move |meta| hooks.on_before_task_poll(meta));
            let hooks = self.clone();
            builder.on_after_task_poll(move |meta| hooks.on_after_task_poll(meta));
        }
        let hooks = self.clone();
        builder.on_task_spawn(move |meta| hooks.on_task_spawn(meta));
        builder.on_task_terminate(move |meta| self.on_task_terminate(meta));
    }

    #[inline]
    fn source(&self) -> Source {
        self.table.config.source
    }

    /// To be called in [`Builder::on_task_spawn`]: enters the task. The dearest of the four: it
    /// makes the task's record and, where spans aren't a source, asks for the current span.
    pub fn on_task_spawn(&self, meta: &TaskMeta<'_>) {
        if !self.source().hooks() {
            return;
        }
        if self.table.heard.note(Heard::SPAWN) {
            self.table.runtimes.hooks_are_set();
        }
        spawned(&self.table, &self.rules, meta);
    }

    /// To be called in [`Builder::on_before_task_poll`]: begins a poll. Costs a look into the
    /// index of tasks and a reading of the clock, as does
    /// [`on_after_task_poll`](Self::on_after_task_poll) but for the look.
    #[inline]
    pub fn on_before_task_poll(&self, meta: &TaskMeta<'_>) {
        // With spans these tell polls and drops apart; two accounts of one poll are one too many.
        if self.source() == Source::Hooks {
            self.table.heard.note(Heard::BEFORE);
            poll_starts(&self.table, meta);
        }
    }

    /// To be called in [`Builder::on_after_task_poll`]: ends the poll that began on this thread.
    #[inline]
    pub fn on_after_task_poll(&self, meta: &TaskMeta<'_>) {
        if self.source() == Source::Hooks {
            self.table.heard.note(Heard::AFTER);
            poll_stops(&self.table, meta);
        }
    }

    /// To be called in [`Builder::on_task_terminate`]: ends the task. tokio calls it for
    /// blocking tasks too, which is no harm.
    pub fn on_task_terminate(&self, meta: &TaskMeta<'_>) {
        if self.source().hooks() {
            self.table.heard.note(Heard::TERMINATE);
            terminated(&self.table, meta);
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("source", &self.source())
            .finish_non_exhaustive()
    }
}

fn spawned(table: &Arc<Table>, rules: &ParentRules, meta: &TaskMeta<'_>) {
    let id = raw_id(meta.id());
    let known = local::with(table, |local| {
        let known = table.by_task(id);
        if let Some((_, slot)) = known {
            slot.add_traits(traits::HOOKED);
        }
        known.is_some() || local.last_spawn == id
    });
    if known != Some(false) {
        return;
    }
    let key = match Wrapped::take(table) {
        Some(wrapped) => wrapped.enter(Sighting {
            id,
            span: 0,
            kind: Kind::Task,
            traits: traits::HOOKED,
        }),
        None => enter(table, rules, meta, id),
    };
    if let Some(key) = key
        && table.has_ended_early(id)
    {
        local::end(table, key, LastTurn::Drop, Outcome::Aborted);
    }
}

fn enter(table: &Arc<Table>, rules: &ParentRules, meta: &TaskMeta<'_>, id: u64) -> Option<Key> {
    // The host's own code may run in here, so it does before the thread's state is taken.
    let around = if table.config.source.spans() {
        Around::default()
    } else {
        dispatcher::get_default(|dispatch| (rules.around_current)(dispatch, table, rules))
    };
    let location = meta.spawned_at();
    let seen = Seen {
        id,
        span: 0,
        place: Place {
            file: location.file(),
            line: location.line(),
            column: location.column(),
            kind: Kind::Task,
            name: "",
        },
        size: None,
        spans: rules.spans(around),
        traits: traits::HOOKED | traits::BY_HOOKS,
    };
    local::with(table, |local| local.spawn(table, seen)).flatten()
}

fn poll_starts(table: &Arc<Table>, meta: &TaskMeta<'_>) {
    let id = raw_id(meta.id());
    let Some((key, slot)) = table.by_task(id) else {
        return;
    };
    if slot.traits() & traits::BY_HOOKS != 0 {
        local::with(table, |local| local.begin_told(table, key, slot, id));
    }
}

fn poll_stops(table: &Arc<Table>, meta: &TaskMeta<'_>) {
    let id = raw_id(meta.id());
    local::with(table, |local| local.finish_current(table, id));
}

fn terminated(table: &Arc<Table>, meta: &TaskMeta<'_>) {
    let id = raw_id(meta.id());
    let found = table.by_task(id).or_else(|| {
        table.ended_early(id);
        table.by_task(id)
    });
    let Some((key, slot)) = found else { return };
    let held = slot.traits();
    if traits::kind(held) == Kind::Task {
        table.heard.note(Heard::TASK_ENDED);
    }
    let last = if held & traits::BY_HOOKS != 0 {
        LastTurn::Poll
    } else {
        LastTurn::Drop
    };
    let outcome = Outcome::told(held & traits::PANICKED != 0);
    local::end(table, key, last, outcome);
}
