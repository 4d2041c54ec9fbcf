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
use crate::table::{Key, LastTurn, Outcome, Place, Table, traits};
use crate::task::{Kind, raw_id};
use std::sync::Arc;
use tokio::runtime::{Builder, TaskMeta};
use tracing_core::dispatcher;

/// Sets the hooks of a runtime builder. tokio keeps one of each sort: hooks set before
/// are replaced, and hooks set later replace these.
pub(crate) fn hook(table: &Arc<Table>, rules: &Arc<ParentRules>, builder: &mut Builder) {
    let (at_spawn, rules) = (Arc::clone(table), Arc::clone(rules));
    builder.on_task_spawn(move |meta| spawned(&at_spawn, &rules, meta));
    let at_end = Arc::clone(table);
    builder.on_task_terminate(move |meta| terminated(&at_end, meta));
    if table.config.source.spans() {
        // Spans tell polls and drops apart; two accounts of one poll are one too many.
        return;
    }
    let at_start = Arc::clone(table);
    builder.on_before_task_poll(move |meta| poll_starts(&at_start, meta));
    let at_stop = Arc::clone(table);
    builder.on_after_task_poll(move |meta| poll_stops(&at_stop, meta));
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
        // Inside the poll `try_id` is this task.
        local::with(table, |local| local.begin(table, key, slot, id, 0));
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
    let last = if held & traits::BY_HOOKS != 0 {
        LastTurn::Poll
    } else {
        LastTurn::Drop
    };
    let outcome = Outcome::told(held & traits::PANICKED != 0);
    local::end(table, key, last, outcome);
}
