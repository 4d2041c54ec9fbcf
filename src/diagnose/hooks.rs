//! Which of tokio's hooks straggler is never told of, though something shows that it should be.

use super::Diagnosis;
use crate::config::Source;
use crate::table::{Heard, Table, traits};
use crate::task::Kind;
use std::collections::HashMap;

/// Names the hooks that no runtime has. That one which some runtime has is missing on another
/// is not told.
pub(super) fn missing_hooks(table: &Table) -> Option<Diagnosis> {
    let heard = &table.heard;
    // What is found in the table is compared with what was told after it was looked at.
    let only_spawns = heard.all() & (Heard::SPAWN | Heard::TERMINATE) == Heard::SPAWN;
    let ends_untold = only_spawns && counts_ended(table);
    let missing = missing(table.config.source, heard.all(), ends_untold);
    if missing.is_empty() {
        return None;
    }
    let text = format!(
        "straggler is not told of all that a runtime's hooks tell: {}; let `tasks.hook(&mut \
         builder)` be the last that sets them, or have hooks of your own call these methods of \
         `tasks.hooks()`, each in every turn",
        missing.join("; ")
    );
    Some(Diagnosis {
        code: "missing-hook",
        text,
    })
}

fn missing(source: Source, heard: u8, ends_untold: bool) -> Vec<&'static str> {
    let told = |what| heard & what != 0;
    let polls = told(Heard::BEFORE | Heard::AFTER);
    let mut missing = Vec::new();
    if !told(Heard::SPAWN) && (polls || told(Heard::TASK_ENDED)) {
        missing.push("tasks run and `on_task_spawn` told of none, so they are not seen by it");
    }
    if source == Source::Hooks && told(Heard::SPAWN) && !polls && told(Heard::TASK_ENDED) {
        missing.push(
            "tasks ended and `on_before_task_poll` and `on_after_task_poll` told of no poll, so \
             none is counted (or all of them were dropped unpolled with their runtime)",
        );
    }
    if told(Heard::AFTER) && !told(Heard::BEFORE) {
        missing.push("polls ended and `on_before_task_poll` told of none, so none is counted");
    }
    if told(Heard::BEFORE) && !told(Heard::AFTER) && told(Heard::TASK_ENDED) {
        missing.push(
            "tasks ended and `on_after_task_poll` told of no poll that was over, so each looks as \
             if it went on until the task's next",
        );
    }
    if ends_untold && !told(Heard::TERMINATE) {
        missing.push(
            "tasks ended, by their runtime's count, and `on_task_terminate` told of none, so they \
             are taken for live ones",
        );
    }
    missing
}

/// Whether some runtime has fewer tasks than are in the table. It counts a task until the
/// terminate hook has returned, but for those that its shutdown drops.
fn counts_ended(table: &Table) -> bool {
    let mut tracked = HashMap::<u32, usize>::new();
    for (_, slot) in table.slots() {
        let traits = slot.traits();
        let is_hooked = traits & traits::HOOKED != 0 && traits::kind(traits) == Kind::Task;
        if slot.id() != 0 && slot.runtime() != 0 && is_hooked {
            *tracked.entry(slot.runtime()).or_default() += 1;
        }
    }
    let counts = table.runtimes.counts();
    let has_fewer = |(number, tracked): (u32, usize)| {
        (counts.get(&number)).is_some_and(|count| count.alive < tracked)
    };
    tracked.into_iter().any(has_fewer)
}
