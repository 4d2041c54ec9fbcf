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
    SubscriberSet,
    HooksUnavailable,
    Thread(io::Error),
    #[cfg(feature = "console")]
    Console(std::net::SocketAddr, io::Error),
    ShutdownTimeout(std::time::Duration),
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

    pub(crate) fn shutdown_timeout(max: std::time::Duration) -> Self {
        Self {
            kind: Kind::ShutdownTimeout(max),
        }
    }

    /// Whether a limit, a glob or a combination of options was refused by
    /// [`Builder::build`](crate::Builder::build).
    pub fn is_invalid_config(&self) -> bool {
        matches!(
            self.kind,
            Kind::Limit { .. } | Kind::Glob { .. } | Kind::HooksUnavailable
        )
    }

    /// Whether tokio-console's server could not be started: its address is taken, as a rule.
    #[cfg(feature = "console")]
    pub fn is_console_unavailable(&self) -> bool {
        matches!(self.kind, Kind::Console(..))
    }

    /// Whether the process already has a global `tracing` subscriber, straggler's
    /// own or another.
    pub fn is_subscriber_already_set(&self) -> bool {
        matches!(self.kind, Kind::SubscriberSet)
    }

    /// Whether the monitor thread was still busy when the time given to
    /// [`Guard::shutdown`](crate::Guard::shutdown) had passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self.kind, Kind::ShutdownTimeout(_))
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
                    "straggler: the monitor thread could not be started: {source}"
                )
            }
            #[cfg(feature = "console")]
            Kind::Console(address, source) => write!(
                f,
                "straggler: tokio-console's server could not be started on {address}: {source}; \
                 set TOKIO_CONSOLE_BIND to an address that is free, or leave console(true) out"
            ),
            Kind::ShutdownTimeout(max) => write!(
                f,
                "straggler: the monitor thread was still busy after {max:?}; it ends by itself \
                 when it is done, allow shutdown() more time to wait for it"
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
