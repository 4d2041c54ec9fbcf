//! Why something isn't seen: never a silent zero.

#[cfg(tokio_unstable)]
mod hooks;
mod strangers;

#[cfg(tokio_unstable)]
use hooks::missing_hooks;

use crate::capture::{Hidden, ParentRules, Sight};
use crate::config::Source;
use crate::query::Snapshot;
use crate::table::{Since, Table};
use std::fmt;
use std::sync::Arc;
use tracing_core::LevelFilter;

/// A named reason why tasks can't be seen, with the fix in `Display`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    code: &'static str,
    text: String,
}

impl Diagnosis {
    /// A stable name: `no-tokio-unstable`, `no-tokio-tracing`, `static-max-level`,
    /// `not-installed`, `no-hooked-runtime`, `unhooked-runtime`, `missing-hook`, `global-filter`,
    /// `nothing-announced`, `runtime-before-layer`, `thread-subscriber`, `other-opentelemetry`,
    /// `console-stopped` or `export-failing`.
    pub fn code(&self) -> &'static str {
        self.code
    }
}

#[cfg(feature = "testing")]
impl Diagnosis {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.code, self.text)
    }
}

/// What is wrong, and with that the runtime from which straggler is asked; `unpolled` live tasks
/// are on one that is not known yet.
pub(crate) fn diagnose(table: &Table, unpolled: usize) -> Vec<Diagnosis> {
    if table.config.source == Source::Hooks {
        look_around(table, unpolled);
    }
    known(table)
}

/// What is wrong, wherever it is asked: the export has a runtime that nobody is to know of.
pub(crate) fn known(table: &Table) -> Vec<Diagnosis> {
    let source = table.config.source;
    let mut found = of_build(source);
    let mut say = |code, text: String| found.push(Diagnosis { code, text });
    if source.spans() && !table.is_installed() {
        say(
            "not-installed",
            "the layer is in no subscriber yet; add it with `.with(layer)` and install the \
             subscriber before the runtime is built"
                .into(),
        );
    }
    if source.hooks() && !table.runtimes.are_hooks_set() {
        say(
            "no-hooked-runtime",
            "runtime hooks are a source and no runtime's builder has them; call \
             `tasks.hook(&mut builder)` on each before `build()`. Where hooks of your own call \
             the methods of `tasks.hooks()`, none has told of a spawn yet: see that they do"
                .into(),
        );
    }
    #[cfg(tokio_unstable)]
    found.extend(missing_hooks(table));
    let mut say = |code, text: String| found.push(Diagnosis { code, text });
    let unhooked = table.runtimes.unhooked();
    if source == Source::Hooks && !unhooked.is_empty() {
        let ids: Vec<_> = unhooked.iter().map(ToString::to_string).collect();
        say(
            "unhooked-runtime",
            format!(
                "tasks run, unseen, on runtimes of which no hook has told (id {}): call \
                 `tasks.hook(&mut builder)` before such a runtime is built (or the methods of \
                 `tasks.hooks()` from its hooks), or use Source::Spans; \
                 tasks of a LocalSet are never seen by hooks",
                ids.join(", ")
            ),
        );
    }
    #[cfg(feature = "otlp")]
    for failure in table.delivery.failing() {
        say(
            "export-failing",
            format!(
                "{failure}; see that the receiver is there and accepts them. Nothing else waits for \
                 it, and what never arrives is counted as lost"
            ),
        );
    }
    found
}

/// Why this build has no spans of tokio's.
fn of_build(source: Source) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    if !source.spans() {
        return found;
    }
    let mut say = |code, text: &str| {
        let text = text.to_owned();
        found.push(Diagnosis { code, text });
    };
    if !cfg!(tokio_unstable) {
        say(
            "no-tokio-unstable",
            "tokio emits task spans only with `--cfg tokio_unstable`, so only tasks spawned \
             with straggler::spawn are seen; put `rustflags = [\"--cfg\", \"tokio_unstable\"]` \
             under [build] in .cargo/config.toml (RUSTFLAGS in the environment replaces it)",
        );
    } else if !cfg!(feature = "spans") {
        say(
            "no-tokio-tracing",
            "straggler's feature `spans`, which switches on tokio's feature `tracing`, is off; \
             unless something else enables it tokio emits no task spans; enable `spans`, or \
             use Source::Hooks",
        );
    }
    found.extend(static_max_level());
    found
}

/// Notes the runtime from which straggler is asked, if it has more tasks than hooks told of.
fn look_around(table: &Table, unpolled: usize) {
    if let Ok(handle) = tokio::runtime::Handle::try_current()
        && handle.metrics().num_alive_tasks() > unpolled
        && table.runtimes.add_unhooked(&handle)
    {
        table.loss.unseen_task();
    }
}

fn static_max_level() -> Option<Diagnosis> {
    let most = tracing::level_filters::STATIC_MAX_LEVEL;
    (most < LevelFilter::TRACE).then(|| Diagnosis {
        code: "static-max-level",
        text: format!(
            "some crate enables a `max_level_…` feature of `tracing` that compiles out \
             everything above {most}, and with it tokio's TRACE spans; remove that feature, \
             or use Source::Hooks"
        ),
    })
}

/// What is wrong around the table: with the subscriber, with other threads and crates. A
/// snapshot shows tasks that nobody announced; without one only those met before are told of.
pub(crate) fn from_outside(
    table: &Table,
    rules: &Arc<ParentRules>,
    sight: &Sight,
    snapshot: Option<&Snapshot>,
) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    // Where there is a better reason, what is missing is no news.
    if table.config.source.spans() && of_build(table.config.source).is_empty() {
        match global_filter(sight.hidden(rules)) {
            Some(filtered) => found.push(filtered),
            None => found.extend(unannounced(table, sight, snapshot)),
        }
    }
    #[cfg(feature = "opentelemetry")]
    found.extend(other_opentelemetry(table, rules));
    #[cfg(feature = "console")]
    found.extend(sight.console_end().map(|why| Diagnosis {
        code: "console-stopped",
        text: format!(
            "tokio-console's server has ended ({why}), and a console can't connect any more; \
             restart the program to have it back"
        ),
    }));
    found
}

/// Why tokio's spans don't arrive and never will, which is worth a warning at the start.
pub(crate) fn blindness(source: Source, rules: &Arc<ParentRules>, sight: &Sight) -> Vec<Diagnosis> {
    let mut found = of_build(source);
    if source.spans() && found.is_empty() {
        found.extend(global_filter(sight.hidden(rules)));
    }
    found
}

fn global_filter(hidden: Hidden) -> Option<Diagnosis> {
    let (what, lost) = match (hidden.tasks, hidden.wakes) {
        (false, false) => return None,
        (true, true) => (
            "task spans and waker events",
            "no task is seen but those spawned with straggler::spawn",
        ),
        (true, false) => (
            "task spans",
            "no task is seen but those spawned with straggler::spawn",
        ),
        (false, true) => ("waker events", "wakes are not seen"),
    };
    let text = format!(
        "a filter on the whole subscriber, or round straggler's layer, switches off tokio's \
         {what} (TRACE, target `tokio::task`), so {lost}; attach that filter to the layer it is \
         meant for: `.with(fmt::layer().with_filter(…))` in place of `.with(filter)` or of \
         `fmt().with_max_level(…)`"
    );
    Some(Diagnosis {
        code: "global-filter",
        text,
    })
}

fn unannounced(table: &Table, sight: &Sight, snapshot: Option<&Snapshot>) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    // A layer that was taken out is told of no task, whoever spawns it.
    if !sight.has_layer() {
        return found;
    }
    if !table.has_seen_tasks() {
        found.extend(sight.has_settled().then(nothing_announced));
        return found;
    }
    if let Some(snapshot) = snapshot {
        strangers::look(table, snapshot);
    }
    let older = table.strangers.of(Since::Before);
    if !older.is_empty() {
        let text = format!(
            "tasks of a runtime (id {}) were spawned before straggler saw any: they are not \
             counted, and their children have no known parent and are never orphans for its sake; \
             install the layer in the first line of main, before a runtime is built (or they came \
             from a thread with another subscriber, see `thread-subscriber`)",
            older.join(", ")
        );
        found.push(Diagnosis {
            code: "runtime-before-layer",
            text,
        });
    }
    let diverted = table.strangers.of(Since::After);
    if !diverted.is_empty() {
        let text = format!(
            "tasks of a runtime (id {}) run here that straggler never saw spawned: another \
             subscriber, or none, was current where they were (`set_default`, `with_default`, \
             a layer's own callback); they are not counted, and their children have no known \
             parent; add straggler's layer to that subscriber, or install one for the process",
            diverted.join(", ")
        );
        found.push(Diagnosis {
            code: "thread-subscriber",
            text,
        });
    }
    found
}

fn nothing_announced() -> Diagnosis {
    let text = "no task has been seen yet: either none was spawned since straggler was installed; or \
                another subscriber, or none, was current where they were; or such a thread was the \
                first to spawn, which can switch tokio's spans off for the whole process. If there \
                are tasks, install the layer in the first line of main, and for a thread that is \
                to tell nothing take `Dispatch::new(NoSubscriber::default())`, never \
                `Dispatch::none()`";
    Diagnosis {
        code: "nothing-announced",
        text: text.to_owned(),
    }
}

/// Said only where user spans were round a spawn, so that there could have been a trace.
/// Never said where a trace was seen, or where the builder was told how to find one.
#[cfg(feature = "opentelemetry")]
fn other_opentelemetry(table: &Table, rules: &ParentRules) -> Option<Diagnosis> {
    use crate::capture::{OURS, Version};
    if rules.trace_context.is_some() || !rules.foreign.lacks_trace() {
        return None;
    }
    let spawned_there = || {
        let sites = table.sites();
        let mut files = sites.iter().map(|site| site.key.location.file());
        files.find_map(Version::other)
    };
    let other = rules.foreign.met().or_else(spawned_there)?;
    let text = format!(
        "this program runs version {other} of the `opentelemetry` crate, and straggler reads \
         the context of version {OURS}, in which no task was spawned under a trace; if its traces \
         are made with {other}, tasks don't know theirs: use version {OURS} (tracing-opentelemetry \
         0.34), or say how to find the current trace with `Builder::trace_context`"
    );
    Some(Diagnosis {
        code: "other-opentelemetry",
        text,
    })
}
