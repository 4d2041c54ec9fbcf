//! Wiring.

use crate::capture::{Capture, CaptureFilter, ParentRules, Sight, around_current};
use crate::clock::ManualClock;
use crate::config::{Config, Source};
use crate::daemons::Daemons;
#[cfg(feature = "otlp")]
use crate::export::{Exporter, Otlp};
use crate::monitor::{Duties, Monitor, Outlet};
use crate::query::Reader;
use crate::table::Table;
use crate::tasks::{Guard, Shared, Tasks};
use crate::{Error, Layer};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tracing_core::{LevelFilter, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

/// Builds a layer and the handle to ask it by. Nothing is checked before
/// [`build`](Self::build).
#[derive(Clone)]
pub struct Builder {
    config: Config,
    /// `None` until one is chosen, as what is best depends on how straggler is started.
    source: Option<Source>,
    parent_spans: Targets,
    daemons: Vec<String>,
    #[cfg(feature = "opentelemetry")]
    trace_context: Option<fn() -> Option<opentelemetry::trace::SpanContext>>,
    clock: Option<ManualClock>,
    #[cfg(feature = "otlp")]
    otlp: Option<Otlp>,
    #[cfg(feature = "console")]
    console: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// Everything as [`init`](crate::init) has it.
    pub fn new() -> Self {
        Self {
            config: Config::default(),
            source: None,
            parent_spans: Targets::new().with_default(LevelFilter::INFO),
            daemons: Vec::new(),
            #[cfg(feature = "opentelemetry")]
            trace_context: None,
            clock: None,
            #[cfg(feature = "otlp")]
            otlp: None,
            #[cfg(feature = "console")]
            console: false,
        }
    }

    /// How long a task may live on after what started it ended before it is called an
    /// orphan. 5 s by default; zero is legal.
    pub fn orphan_grace(mut self, grace: Duration) -> Self {
        self.config.orphan_grace = grace;
        self
    }

    /// How many live tasks are tracked at most; those beyond are refused and counted in
    /// [`Loss::refused`](crate::Loss::refused). 1,048,576 by default, at some 190 bytes each
    /// when they are there; from 1 to 2³¹.
    pub fn max_live_tasks(mut self, max: usize) -> Self {
        self.config.max_live_tasks = max;
        self
    }

    /// How many spawn sites are told apart; tasks of those beyond share one site and are
    /// counted in [`Loss::site_overflow`](crate::Loss::site_overflow). 1,000 by default, at some
    /// 500 bytes for each thread that spawns or polls there; from 1 to 2²⁰.
    pub fn max_spawn_sites(mut self, max: usize) -> Self {
        self.config.max_spawn_sites = max;
        self
    }

    /// How many bytes of a task's name are kept. 128 by default; from 1 to 4,096.
    pub fn max_name_len(mut self, max: usize) -> Self {
        self.config.max_name_len = max;
        self
    }

    /// Where the knowledge of tasks comes from. By default [`Source::Spans`], but
    /// [`Source::Hooks`] with [`runtime`](Self::runtime).
    pub fn source(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// Which user spans may be parents: all at INFO and above by default.
    ///
    /// Spans that this admits are enabled for straggler, though every other layer may have
    /// them off.
    pub fn parent_spans(mut self, targets: Targets) -> Self {
        self.parent_spans = targets;
        self
    }

    /// Declares tasks daemons by the file they are spawned in, beside the
    /// [`DEFAULT_DAEMONS`](crate::DEFAULT_DAEMONS).
    ///
    /// The glob is matched against [`Location::file`](crate::Location::file): `*` and `?` stay
    /// within a path component, `**` is any number of them.
    pub fn daemon_spawned_at(mut self, glob: &str) -> Self {
        self.daemons.push(glob.to_owned());
        self
    }

    /// How the current OpenTelemetry span is found, for a program that uses another
    /// version of the `opentelemetry` crate than straggler does. Called at each spawn, on
    /// the spawner's thread; it must not emit tracing.
    #[cfg(feature = "opentelemetry")]
    pub fn trace_context(
        mut self,
        current: fn() -> Option<opentelemetry::trace::SpanContext>,
    ) -> Self {
        self.trace_context = Some(current);
        self
    }

    /// Replaces the clock by one that a test moves by hand.
    pub fn clock(mut self, clock: ManualClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// For a layer that only some threads have, so that others' wakes are not told.
    #[cfg(feature = "testing")]
    pub(crate) fn may_miss_wakes(mut self) -> Self {
        self.config.may_miss_wakes = true;
        self
    }

    /// Whether a site's first orphans are reported by a WARN event (target `straggler`) to the
    /// subscriber the layer is in, from a thread of our own. On by default.
    pub fn warn_on_orphans(mut self, warn: bool) -> Self {
        self.config.warn_on_orphans = warn;
        self
    }

    /// Exports metrics of every spawn site and spans of orphans over OTLP, from a thread of
    /// our own that nothing else sees or waits for.
    ///
    /// Stop it with [`Tasks::shutdown`](crate::Tasks::shutdown) or a [`Guard`], or the last of
    /// it is lost. [`init`](crate::init) exports without this where the environment names an
    /// endpoint.
    #[cfg(feature = "otlp")]
    pub fn otlp(mut self, otlp: Otlp) -> Self {
        self.otlp = Some(otlp);
        self
    }

    /// Whether [`init`](Self::init) installs tokio-console's layer too, and its server. Off by
    /// default.
    ///
    /// The server listens on 127.0.0.1:6669 or at `TOKIO_CONSOLE_BIND`; the other
    /// `TOKIO_CONSOLE_…` variables count too. It runs on a thread of its own as long as the
    /// process does, and [`Diagnosis`](crate::Diagnosis) `console-stopped` says if it doesn't.
    ///
    /// It is for looking, not for always: console-subscriber keeps histograms of every
    /// task, some tens of kilobytes each, and for an hour after its end
    /// (`TOKIO_CONSOLE_RETENTION`); it sends each poll and wake through a channel; and the
    /// subscriber that its thread sets, so as not to see itself, costs every span and event of the
    /// process the short cut that tracing has while there is a global one only.
    ///
    /// [`build`](Self::build) gives one layer and can't hold another, so with it this is an
    /// error: write `.with(console_subscriber::spawn())` beside `.with(layer)`.
    #[cfg(feature = "console")]
    pub fn console(mut self, on: bool) -> Self {
        self.console = on;
        self
    }

    /// Builds the layer, to be added to a subscriber with `.with(layer)`, and the handle.
    ///
    /// The layer carries a filter of its own: it sees tokio's TRACE spans though nobody
    /// else does, and nobody else sees more or less than without it. A *global* filter in
    /// front of it, as `Registry::default().with(EnvFilter::…)` is, blinds it; attach that filter
    /// to the layer it is meant for.
    ///
    /// # Errors
    ///
    /// A limit out of its range, limits that contradict, a glob that is none, a source that
    /// this build can't have, or no thread for the monitor. Nothing is left behind.
    pub fn build<S>(mut self) -> Result<(Layer<S>, Tasks), Error>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        #[cfg(feature = "console")]
        if self.console {
            return Err(Error::limit(
                "console",
                true,
                "build() gives one layer and can't hold tokio-console's; write \
                 `.with(console_subscriber::spawn())` beside `.with(layer)`, or use init()",
            ));
        }
        self.config.source = self.source.unwrap_or_default();
        self.config.check()?;
        #[cfg(feature = "otlp")]
        let export = match &self.otlp {
            Some(otlp) => Some(otlp.resolve()?),
            None => None,
        };
        #[cfg(feature = "otlp")]
        if let Some(settings) = &export {
            self.config.departures = settings.max_queued_spans;
            self.config.tells_spans =
                settings.traces.is_some() || settings.tracer_provider.is_some();
            self.config.exemplars = settings.metrics.is_some();
        }
        let daemons = Daemons::new(&self.daemons)?;
        let (source, warn) = (self.config.source, self.config.warn_on_orphans);
        let table = Arc::new(Table::new(self.config, daemons, self.clock));
        let rules = Arc::new(ParentRules {
            targets: self.parent_spans,
            #[cfg(feature = "opentelemetry")]
            trace_context: self.trace_context,
            #[cfg(feature = "opentelemetry")]
            foreign: crate::capture::Foreign::default(),
            around_current: around_current::<S>,
        });
        if source.spans() {
            Sight::prepare();
        }
        let outlet = Arc::new(Outlet::default());
        let sight = Arc::new(Sight::new(Arc::clone(&outlet)));
        let shared = Arc::new(Shared {
            table: Arc::clone(&table),
            reader: Reader::default(),
            rules: Arc::clone(&rules),
            sight: Arc::clone(&sight),
        });
        let blindness = {
            let (rules, sight) = (Arc::clone(&rules), Arc::clone(&sight));
            let table = Arc::downgrade(&table);
            move || {
                if !sight.is_connected() {
                    table
                        .upgrade()
                        .inspect(|table| crate::capture::connect(table));
                }
                // Until it is installed there is nobody to ask, nor to tell.
                (sight.is_connected()).then(|| crate::diagnose::blindness(source, &rules, &sight))
            }
        };
        #[cfg_attr(not(feature = "otlp"), allow(unused_mut))]
        let mut duties = Duties {
            warn,
            blindness: Box::new(blindness),
            witness: None,
        };
        #[cfg(feature = "otlp")]
        let exporter = match export {
            Some(settings) => {
                let (exporter, witness) = Exporter::start(settings, &shared, &outlet)?;
                duties.witness = Some(witness);
                Some(Arc::new(exporter))
            }
            None => None,
        };
        let monitor = if warn || duties.witness.is_some() {
            let monitor = Monitor::start(&table, Arc::clone(&outlet), duties)?;
            Some(Arc::new(monitor))
        } else {
            None
        };
        let capture = Capture {
            table,
            rules: Arc::clone(&rules),
            sight,
            shared: Arc::clone(&shared),
            monitor: monitor.clone(),
            #[cfg(feature = "otlp")]
            exporter: exporter.clone(),
            seat: Arc::default(),
        };
        let filter = CaptureFilter { source, rules };
        let tasks = Tasks {
            shared,
            monitor,
            #[cfg(feature = "otlp")]
            exporter,
        };
        Ok((Layer::new(capture, filter), tasks))
    }

    /// Builds the layer and installs it as [`init`](crate::init) does.
    ///
    /// # Errors
    ///
    /// Those of [`build`](Self::build), and a process that already has a global subscriber.
    /// With `console(true)`, what keeps tokio-console's server from starting: a variable it can't
    /// read, an address it can't have.
    ///
    /// A build in which tokio's spans can't be seen is none, as
    /// [`straggler::spawn`](crate::spawn) works in every build, and a program should not
    /// fail to start for the sake of what watches it. Ask [`Tasks::diagnose`] at the start.
    #[cfg_attr(not(feature = "otlp"), allow(unused_mut))]
    pub fn init(mut self) -> Result<Guard, Error> {
        #[cfg(feature = "otlp")]
        if self.otlp.is_none() {
            self.otlp = Otlp::named_in_env();
        }
        #[cfg(feature = "console")]
        if self.console {
            return self.init_with_console();
        }
        let (layer, tasks) = self.build::<Registry>()?;
        let subscriber = Registry::default().with(layer);
        match tracing_core::dispatcher::set_global_default(subscriber.into()) {
            Ok(()) => Ok(tasks.guard()),
            Err(_) => Err(Error::subscriber_set()),
        }
    }

    /// Builds the layer, installs it as [`init`](crate::init) does, and gives with the guard the
    /// builder of a runtime that has straggler's hooks: [`straggler::runtime`](crate::runtime)
    /// with options.
    ///
    /// Where no source was chosen it is [`Source::Hooks`]. One that was is kept: with
    /// [`Source::Both`] the builder is hooked likewise, with [`Source::Spans`] it has no hooks, as
    /// spans need none.
    ///
    /// # Errors
    ///
    /// Those of [`init`](Self::init).
    pub fn runtime(mut self) -> Result<(tokio::runtime::Builder, Guard), Error> {
        self.source.get_or_insert(Source::Hooks);
        let straggler = self.init()?;
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.enable_all();
        straggler.tasks().hook(&mut runtime);
        Ok((runtime, straggler))
    }

    #[cfg(feature = "console")]
    fn init_with_console(mut self) -> Result<Guard, Error> {
        self.console = false;
        let (layer, tasks) = self.build::<Registry>()?;
        let (console, ready) = crate::console::prepare(&tasks.shared.sight)?;
        let subscriber = Registry::default().with(layer).with(console);
        match tracing_core::dispatcher::set_global_default(subscriber.into()) {
            Ok(()) => {
                ready.serve();
                Ok(tasks.guard())
            }
            Err(_) => Err(Error::subscriber_set()),
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .field("source", &self.source)
            .field("parent_spans", &self.parent_spans)
            .field("daemons", &self.daemons)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

/// Installs straggler for the whole process: a [`Registry`] with the layer as the global
/// subscriber. Call it first in `main`, before the runtime is built, or as the first line of
/// `#[tokio::main]`.
///
/// With other layers beside it, use [`Builder::build`] and add the layer to them. Alone it
/// prints nothing, warnings included: ask it for snapshots.
///
/// # Errors
///
/// If the process already has a global subscriber, straggler's own or another. Nothing is
/// left half installed.
///
/// ```
/// let straggler = straggler::init()?;
/// let runtime = tokio::runtime::Runtime::new().unwrap();
/// runtime.block_on(async {
///     println!("{}", straggler.tasks().snapshot());
/// });
/// # Ok::<(), straggler::Error>(())
/// ```
pub fn init() -> Result<Guard, Error> {
    Builder::new().init()
}

/// Installs straggler for the whole process as [`init`] does, with the source that costs polls
/// and spawns the least,
/// [`Source::Hooks`], and gives the builder of the runtime that it watches: tokio's own,
/// multi-thread, with everything enabled and straggler's hooks set.
///
/// Set on it what you like but the four task hooks, which would replace straggler's: a program
/// that has its own calls straggler's from them, see [`Tasks::hook`]. Other runtimes, also those of one
/// thread, are watched once their builder was given to [`Tasks::hook`]; tasks of those that
/// were not are unseen. What hooks can't see is said at [`Source::Hooks`].
///
/// # Errors
///
/// If the process already has a global subscriber, straggler's own or another; or if
/// straggler was compiled without `--cfg tokio_unstable`, as tokio then has no hooks. Nothing is
/// left half installed.
///
/// ```no_run
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let (mut runtime, straggler) = straggler::runtime()?;
///     runtime.build()?.block_on(serve(straggler.tasks()))
/// }
///
/// async fn serve(tasks: &straggler::Tasks) -> Result<(), Box<dyn std::error::Error>> {
///     tokio::spawn(async { /* … */ }).await?;
///     println!("{}", tasks.snapshot());
///     Ok(())
/// }
/// ```
pub fn runtime() -> Result<(tokio::runtime::Builder, Guard), Error> {
    Builder::new().runtime()
}
