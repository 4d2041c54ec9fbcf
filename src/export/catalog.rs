//! Every metric there is: name, kind, unit and attributes. `docs/metrics.md` is held to this.
//!
//! Names follow OpenTelemetry's general rules for semantic conventions: dotted, no unit in
//! the name, seconds for durations, `{task}` for counts of tasks.

/// OpenTelemetry's kinds of instruments, as far as they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InstrumentKind {
    /// A sum that never goes down.
    Counter,
    /// A sum that may go down.
    UpDownCounter,
    /// A value that is not to be added up.
    Gauge,
    /// Values in buckets.
    Histogram,
}

/// One metric.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Instrument {
    pub(crate) name: &'static str,
    pub(crate) kind: InstrumentKind,
    pub(crate) unit: &'static str,
    pub(crate) description: &'static str,
    /// Whether its points have the attributes of a spawn site.
    pub(crate) per_site: bool,
    /// The attribute names beside those of the site.
    pub(crate) attributes: &'static [&'static str],
}

pub(crate) const FILE: &str = "code.file.path";
pub(crate) const LINE: &str = "code.line.number";
/// Two sites on one line, as a macro makes them, are two series.
pub(crate) const COLUMN: &str = "code.column.number";
pub(crate) const KIND: &str = "tokio.task.kind";
pub(crate) const NAME: &str = "tokio.task.name";
/// The SDK's own mark of what is beyond a limit of attribute sets.
pub(crate) const OVERFLOW: &str = "otel.metric.overflow";

pub(crate) const STATE: &str = "tokio.task.state";
pub(crate) const OUTCOME: &str = "tokio.task.outcome";
pub(crate) const CAUSE: &str = "tokio.task.orphan.cause";
pub(crate) const CERTAINTY: &str = "tokio.task.orphan.certainty";
pub(crate) const REASON: &str = "straggler.loss.reason";
pub(crate) const CODE: &str = "straggler.diagnosis.code";

pub(crate) static COUNT: Instrument = Instrument {
    name: "tokio.task.count",
    kind: InstrumentKind::UpDownCounter,
    unit: "{task}",
    description: "Tasks that are alive, by what they are doing.",
    per_site: true,
    attributes: &[STATE],
};

pub(crate) static UNCONFIRMED: Instrument = Instrument {
    name: "tokio.task.unconfirmed.count",
    kind: InstrumentKind::UpDownCounter,
    unit: "{task}",
    description: "Tasks that look ended while something holds their span; neither live nor ended.",
    per_site: true,
    attributes: &[],
};

pub(crate) static SPAWNED: Instrument = Instrument {
    name: "tokio.task.spawned",
    kind: InstrumentKind::Counter,
    unit: "{task}",
    description: "Tasks spawned and tracked.",
    per_site: true,
    attributes: &[],
};

pub(crate) static ENDED: Instrument = Instrument {
    name: "tokio.task.ended",
    kind: InstrumentKind::Counter,
    unit: "{task}",
    description: "Tasks that ended; the outcome where it is known.",
    per_site: true,
    attributes: &[OUTCOME],
};

pub(crate) static LIFETIME: Instrument = Instrument {
    name: "tokio.task.lifetime",
    kind: InstrumentKind::Histogram,
    unit: "s",
    description: "From the spawn of a task to the drop of its future, for each that ended.",
    per_site: true,
    attributes: &[],
};

pub(crate) static POLL: Instrument = Instrument {
    name: "tokio.task.poll.duration",
    kind: InstrumentKind::Histogram,
    unit: "s",
    description: "Duration of each finished poll.",
    per_site: true,
    attributes: &[],
};

pub(crate) static SCHEDULE: Instrument = Instrument {
    name: "tokio.task.schedule.duration",
    kind: InstrumentKind::Histogram,
    unit: "s",
    description: "From a wake, or the spawn, to the poll that it led to.",
    per_site: true,
    attributes: &[],
};

pub(crate) static TIME: Instrument = Instrument {
    name: "tokio.task.time",
    kind: InstrumentKind::Counter,
    unit: "s",
    description: "Time that tasks spent in each state, live and ended ones together.",
    per_site: true,
    attributes: &[STATE],
};

pub(crate) static ORPHANS: Instrument = Instrument {
    name: "tokio.task.orphan.count",
    kind: InstrumentKind::UpDownCounter,
    unit: "{task}",
    description: "Live tasks that outlived what started them.",
    per_site: true,
    attributes: &[CAUSE, CERTAINTY],
};

pub(crate) static ORPHANED: Instrument = Instrument {
    name: "tokio.task.orphaned",
    kind: InstrumentKind::Counter,
    unit: "{task}",
    description: "Tasks that became orphans, each by what was first known of it.",
    per_site: true,
    attributes: &[CAUSE, CERTAINTY],
};

pub(crate) static OLDEST: Instrument = Instrument {
    name: "tokio.task.oldest",
    kind: InstrumentKind::Gauge,
    unit: "s",
    description: "Age of the oldest live task; zero while there is none.",
    per_site: true,
    attributes: &[],
};

pub(crate) static LOSS: Instrument = Instrument {
    name: "straggler.loss",
    kind: InstrumentKind::Counter,
    unit: "{event}",
    description: "What straggler did not see, keep or deliver.",
    per_site: false,
    attributes: &[REASON],
};

pub(crate) static DIAGNOSIS: Instrument = Instrument {
    name: "straggler.diagnosis",
    kind: InstrumentKind::Gauge,
    unit: "{diagnosis}",
    description: "One for each reason why tasks can't be seen; zero once it is gone.",
    per_site: false,
    attributes: &[CODE],
};

pub(crate) static ALL: [&Instrument; 13] = [
    &COUNT,
    &UNCONFIRMED,
    &SPAWNED,
    &ENDED,
    &LIFETIME,
    &POLL,
    &SCHEDULE,
    &TIME,
    &ORPHANS,
    &ORPHANED,
    &OLDEST,
    &LOSS,
    &DIAGNOSIS,
];
