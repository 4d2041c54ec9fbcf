//! The one public error.

use std::{error, fmt, io};

/// What went wrong while straggler was set up or shut down.
///
/// Opaque, so that it can grow: ask it with the `is_…` methods, print it with
/// `Display`, which names the value that was refused and what to do instead.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Limit {
        name: &'static str,
        value: String,
        expected: String,
    },
    Glob {
        pattern: String,
        source: glob::PatternError,
    },
    /// As `Limit`, where the value may be a credential.
    #[cfg(feature = "otlp")]
    Secret {
        name: String,
        expected: String,
    },
    #[cfg(feature = "otlp")]
    Exporter(String),
    SubscriberSet,
    #[cfg(feature = "testing")]
    Blind(String),
    #[cfg(feature = "testing")]
    ThreadGone,
    HooksUnavailable,
    Thread(io::Error),
    Timeout(std::time::Duration),
    #[cfg(feature = "otlp")]
    NoOtlp,
    #[cfg(feature = "otlp")]
    MetricsTaken,
    #[cfg(feature = "console")]
    Console(std::net::SocketAddr, io::Error),
}

impl Error {
    pub(crate) fn limit(
        name: &'static str,
        value: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            kind: Kind::Limit {
                name,
                value: value.to_string(),
                expected: expected.into(),
            },
        }
    }

    pub(crate) fn glob(pattern: &str, source: glob::PatternError) -> Self {
        Self {
            kind: Kind::Glob {
                pattern: pattern.to_owned(),
                source,
            },
        }
    }

    /// A setting that was refused, and whose value no error may show.
    #[cfg(feature = "otlp")]
    pub(crate) fn secret(name: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            kind: Kind::Secret {
                name: name.into(),
                expected: expected.into(),
            },
        }
    }

    /// An exporter that can't be built of settings that each looked right.
    #[cfg(feature = "otlp")]
    pub(crate) fn exporter(reason: impl Into<String>) -> Self {
        Self {
            kind: Kind::Exporter(reason.into()),
        }
    }

    /// Tasks can't be seen here, for the reason that a diagnosis gives.
    #[cfg(feature = "testing")]
    pub(crate) fn blind(diagnosis: impl fmt::Display) -> Self {
        Self {
            kind: Kind::Blind(diagnosis.to_string()),
        }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn thread_gone() -> Self {
        Self {
            kind: Kind::ThreadGone,
        }
    }

    pub(crate) fn subscriber_set() -> Self {
        Self {
            kind: Kind::SubscriberSet,
        }
    }

    // Without the cfg there are no hooks to ask for, with it they are always there.
    #[cfg_attr(tokio_unstable, allow(dead_code))]
    pub(crate) fn hooks_unavailable() -> Self {
        Self {
            kind: Kind::HooksUnavailable,
        }
    }

    pub(crate) fn thread(source: io::Error) -> Self {
        Self {
            kind: Kind::Thread(source),
        }
    }

    #[cfg(feature = "console")]
    pub(crate) fn console(address: std::net::SocketAddr, source: io::Error) -> Self {
        Self {
            kind: Kind::Console(address, source),
        }
    }

    pub(crate) fn timeout(max: std::time::Duration) -> Self {
        Self {
            kind: Kind::Timeout(max),
        }
    }

    #[cfg(feature = "otlp")]
    pub(crate) fn no_otlp() -> Self {
        Self { kind: Kind::NoOtlp }
    }

    #[cfg(feature = "otlp")]
    pub(crate) fn metrics_taken() -> Self {
        Self {
            kind: Kind::MetricsTaken,
        }
    }

    /// Whether a limit, a glob, a setting of the export or a combination of options was
    /// refused by [`Builder::build`](crate::Builder::build).
    pub fn is_invalid_config(&self) -> bool {
        match self.kind {
            Kind::Limit { .. } | Kind::Glob { .. } | Kind::HooksUnavailable => true,
            #[cfg(feature = "otlp")]
            Kind::Secret { .. } | Kind::Exporter(_) | Kind::NoOtlp | Kind::MetricsTaken => true,
            #[cfg(feature = "console")]
            Kind::Console(..) => false,
            #[cfg(feature = "testing")]
            Kind::Blind(_) | Kind::ThreadGone => false,
            Kind::SubscriberSet | Kind::Thread(_) | Kind::Timeout(_) => false,
        }
    }

    /// Whether tokio-console's server could not be started: its address is taken, as a rule.
    #[cfg(feature = "console")]
    pub fn is_console_unavailable(&self) -> bool {
        matches!(self.kind, Kind::Console(..))
    }

    /// Whether [`testing::try_watch`](crate::testing::try_watch) was refused because tasks can't be
    /// seen in this build, or beside this subscriber.
    #[cfg(feature = "testing")]
    pub fn is_blind(&self) -> bool {
        matches!(self.kind, Kind::Blind(_))
    }

    /// Whether the process already has a global `tracing` subscriber, straggler's
    /// own or another.
    pub fn is_subscriber_already_set(&self) -> bool {
        matches!(self.kind, Kind::SubscriberSet)
    }

    /// Whether a thread was still busy when the time given to
    /// [`Tasks::shutdown`](crate::Tasks::shutdown) or `Tasks::flush` had passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self.kind, Kind::Timeout(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Limit {
                name,
                value,
                expected,
            } => {
                write!(f, "straggler: {name} = {value} can't be used: {expected}")
            }
            Kind::Glob { pattern, source } => write!(
                f,
                "straggler: daemon_spawned_at({pattern:?}) is not a glob: {source}; \
                 write `*` and `?` within a path component and `**` as a whole one, \
                 as in \"my-pool-*/src/**\""
            ),
            #[cfg(feature = "otlp")]
            Kind::Secret { name, expected } => write!(
                f,
                "straggler: {name} can't be used (its value is not shown): {expected}"
            ),
            #[cfg(feature = "otlp")]
            Kind::Exporter(reason) => {
                write!(f, "straggler: the OTLP exporter can't be built: {reason}")
            }
            #[cfg(feature = "testing")]
            Kind::Blind(diagnosis) => {
                write!(f, "straggler: tasks can't be watched here: {diagnosis}")
            }
            #[cfg(feature = "testing")]
            Kind::ThreadGone => f.write_str(
                "straggler: a watch can't be opened on this thread, as its thread-local storage is \
                 gone: open it before the thread ends",
            ),
            Kind::SubscriberSet => f.write_str(
                "straggler: this process already has a global tracing subscriber, so init() \
                 can't install another; build a layer with straggler::Builder::new().build() \
                 and add it to that subscriber with `.with(layer)`",
            ),
            Kind::HooksUnavailable => f.write_str(
                "straggler: Source::Hooks and Source::Both need tokio's runtime hooks, which \
                 exist only with `--cfg tokio_unstable`; put `rustflags = [\"--cfg\", \
                 \"tokio_unstable\"]` under [build] in .cargo/config.toml (RUSTFLAGS in the \
                 environment replaces it), or use Source::Spans with straggler::spawn",
            ),
            Kind::Thread(source) => {
                write!(
                    f,
                    "straggler: a thread of its own could not be started: {source}"
                )
            }
            #[cfg(feature = "console")]
            Kind::Console(address, source) => write!(
                f,
                "straggler: tokio-console's server could not be started on {address}: {source}; \
                 set TOKIO_CONSOLE_BIND to an address that is free, or leave console(true) out"
            ),
            Kind::Timeout(max) => write!(
                f,
                "straggler: its threads were still busy after {max:?}, as with a receiver that \
                 doesn't answer; they end by themselves, allow more time to wait for them"
            ),
            #[cfg(feature = "otlp")]
            Kind::NoOtlp => f.write_str(
                "straggler: a MetricExporter sends by the Otlp that was given to Builder::otlp(), \
                 and there was none, or its metrics are switched off; build with \
                 .otlp(Otlp::new())",
            ),
            #[cfg(feature = "otlp")]
            Kind::MetricsTaken => f.write_str(
                "straggler: another MetricExporter sends these metrics, and two would send each \
                 point twice; give one reader one exporter, or drop the other",
            ),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.kind {
            Kind::Glob { source, .. } => Some(source),
            Kind::Thread(source) => Some(source),
            #[cfg(feature = "console")]
            Kind::Console(_, source) => Some(source),
            _ => None,
        }
    }
}
