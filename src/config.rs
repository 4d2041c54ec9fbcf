//! Limits and choices, checked once: a `Config` that exists is valid.

use crate::Error;
use std::time::Duration;

/// Where the knowledge of tasks comes from.
///
/// Tasks spawned with [`straggler::spawn`](crate::spawn) are seen by every source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// tokio's own task spans and waker events, through the layer. Sees every task
    /// of every runtime in the process, of every kind, with its wakes. Needs
    /// `--cfg tokio_unstable`. The end of a task whose span somebody else holds open
    /// can be uncertain for a while ([`Loss::unconfirmed`](crate::Loss::unconfirmed)).
    #[default]
    Spans,
    /// The callbacks of each runtime given to [`Tasks::hook`](crate::Tasks::hook). The
    /// cheapest for polls and spawns, and exact about ends. Needs `--cfg tokio_unstable`. Doesn't see
    /// `block_on`, `spawn_blocking` and `LocalSet`, nor any wake; the turn in which an
    /// aborted task is dropped counts as its last poll, for hooks can't tell the two apart.
    Hooks,
    /// Both, joined by task id: everything the spans see, with the hooks' certain ends.
    Both,
}

impl Source {
    pub(crate) fn spans(self) -> bool {
        matches!(self, Self::Spans | Self::Both)
    }

    pub(crate) fn hooks(self) -> bool {
        matches!(self, Self::Hooks | Self::Both)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) source: Source,
    pub(crate) orphan_grace: Duration,
    pub(crate) max_live_tasks: usize,
    pub(crate) max_spawn_sites: usize,
    pub(crate) max_name_len: usize,
    pub(crate) warn_on_orphans: bool,
    /// Whether some threads don't tell of the wakes they give.
    pub(crate) may_miss_wakes: bool,
    /// How many ended orphans wait to be told of; zero where nobody asks.
    #[cfg(feature = "otlp")]
    pub(crate) departures: usize,
    /// Whether those that wait will be told of by spans.
    #[cfg(feature = "otlp")]
    pub(crate) tells_spans: bool,
    /// Whether the traces of ended tasks are kept, to go with their lifetimes.
    #[cfg(feature = "otlp")]
    pub(crate) exemplars: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            source: Source::default(),
            orphan_grace: Duration::from_secs(5),
            max_live_tasks: 1 << 20,
            max_spawn_sites: 1_000,
            max_name_len: 128,
            warn_on_orphans: true,
            may_miss_wakes: false,
            #[cfg(feature = "otlp")]
            departures: 0,
            #[cfg(feature = "otlp")]
            tells_spans: false,
            #[cfg(feature = "otlp")]
            exemplars: false,
        }
    }
}

impl Config {
    /// Refuses what can't work, naming the value and the fix.
    pub(crate) fn check(&self) -> Result<(), Error> {
        /// A task is found by a 32-bit number.
        const MOST_TASKS: usize = 1 << 31;
        /// Sites are meant to be places in a program's text.
        const MOST_SITES: usize = 1 << 20;

        within("max_live_tasks", self.max_live_tasks, 1, MOST_TASKS)?;
        within("max_spawn_sites", self.max_spawn_sites, 1, MOST_SITES)?;
        within("max_name_len", self.max_name_len, 1, 4_096)?;
        if self.max_spawn_sites > self.max_live_tasks.max(Self::default().max_spawn_sites) {
            return Err(Error::limit(
                "max_spawn_sites",
                self.max_spawn_sites,
                format!(
                    "more sites than max_live_tasks = {} tasks could ever stand at; raise \
                     max_live_tasks or lower max_spawn_sites",
                    self.max_live_tasks
                ),
            ));
        }
        if self.source.hooks() && !cfg!(tokio_unstable) {
            return Err(Error::hooks_unavailable());
        }
        Ok(())
    }
}

fn within(name: &'static str, value: usize, least: usize, most: usize) -> Result<(), Error> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::limit(
        name,
        value,
        format!("give a number from {least} to {most}"),
    ))
}
