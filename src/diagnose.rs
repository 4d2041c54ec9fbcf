//! Why something isn't seen: never a silent zero.

use crate::config::Source;
use crate::table::Table;
use std::fmt;
use tracing_core::LevelFilter;

/// A named reason why tasks can't be seen, with the fix in `Display`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    code: &'static str,
    text: String,
}

impl Diagnosis {
    /// A stable name: `no-tokio-unstable`, `no-tokio-tracing`, `static-max-level`,
    /// `not-installed`, `no-hooked-runtime`, `unhooked-runtime` or `export-failing`.
    pub fn code(&self) -> &'static str {
        self.code
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
    let mut found = Vec::new();
    let mut say = |code, text: String| found.push(Diagnosis { code, text });
    let source = table.config.source;
    if source.spans() {
        if !cfg!(tokio_unstable) {
            say(
                "no-tokio-unstable",
                "tokio emits task spans only with `--cfg tokio_unstable`, so only tasks spawned \
                 with straggler::spawn are seen; put `rustflags = [\"--cfg\", \"tokio_unstable\"]` \
                 under [build] in .cargo/config.toml (RUSTFLAGS in the environment replaces it)"
                    .into(),
            );
        } else if !cfg!(feature = "spans") {
            say(
                "no-tokio-tracing",
                "straggler's feature `spans`, which switches on tokio's feature `tracing`, is off; \
                 unless something else enables it tokio emits no task spans; enable `spans`, or \
                 use Source::Hooks"
                    .into(),
            );
        }
        if tracing::level_filters::STATIC_MAX_LEVEL < LevelFilter::TRACE {
            say(
                "static-max-level",
                format!(
                    "some crate enables a `max_level_…` feature of `tracing` that compiles out \
                     everything above {}, and with it tokio's TRACE spans; remove that feature, \
                     or use Source::Hooks",
                    tracing::level_filters::STATIC_MAX_LEVEL
                ),
            );
        }
        if !table.is_installed() {
            say(
                "not-installed",
                "the layer is in no subscriber yet; add it with `.with(layer)` and install the \
                 subscriber before the runtime is built"
                    .into(),
            );
        }
    }
    if source.hooks() && !table.runtimes.are_hooks_set() {
        say(
            "no-hooked-runtime",
            "runtime hooks are the source and no runtime has them; call \
             `tasks.hook(&mut builder)` on each runtime's builder before `build()`"
                .into(),
        );
    }
    let unhooked = table.runtimes.unhooked();
    if source == Source::Hooks && !unhooked.is_empty() {
        let ids: Vec<_> = unhooked.iter().map(ToString::to_string).collect();
        say(
            "unhooked-runtime",
            format!(
                "tasks run, unseen, on runtimes of which no hook has told (id {}): call \
                 `tasks.hook(&mut builder)` before such a runtime is built, or use Source::Spans; \
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

/// Notes the runtime from which straggler is asked, if it has more tasks than hooks told of.
fn look_around(table: &Table, unpolled: usize) {
    if let Ok(handle) = tokio::runtime::Handle::try_current()
        && handle.metrics().num_alive_tasks() > unpolled
        && table.runtimes.add_unhooked(&handle)
    {
        table.loss.unseen_task();
    }
}
