//! OpenTelemetry's environment variables: their names, and how a value is read.

use crate::Error;
use std::ffi::OsString;
use std::time::Duration;

/// The variables of one signal, each before the general one, which it wins over.
///
/// <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>
#[derive(Debug)]
pub(super) struct Vars {
    pub(super) endpoint: [&'static str; 2],
    pub(super) protocol: [&'static str; 2],
    pub(super) timeout: [&'static str; 2],
    pub(super) headers: [&'static str; 2],
    pub(super) compression: [&'static str; 2],
    pub(super) certificate: [&'static str; 2],
    pub(super) client_certificate: [&'static str; 2],
    pub(super) client_key: [&'static str; 2],
    pub(super) insecure: [&'static str; 2],
    /// Which exporters the signal goes to.
    pub(super) exporter: &'static str,
    /// What is appended to a general endpoint over HTTP.
    pub(super) path: &'static str,
}

macro_rules! vars {
    ($signal:literal, $path:literal) => {
        Vars {
            endpoint: vars!(@pair $signal, "_ENDPOINT"),
            protocol: vars!(@pair $signal, "_PROTOCOL"),
            timeout: vars!(@pair $signal, "_TIMEOUT"),
            headers: vars!(@pair $signal, "_HEADERS"),
            compression: vars!(@pair $signal, "_COMPRESSION"),
            certificate: vars!(@pair $signal, "_CERTIFICATE"),
            client_certificate: vars!(@pair $signal, "_CLIENT_CERTIFICATE"),
            client_key: vars!(@pair $signal, "_CLIENT_KEY"),
            insecure: vars!(@pair $signal, "_INSECURE"),
            exporter: concat!("OTEL_", $signal, "_EXPORTER"),
            path: $path,
        }
    };
    (@pair $signal:literal, $option:literal) => {
        [
            concat!("OTEL_EXPORTER_OTLP_", $signal, $option),
            concat!("OTEL_EXPORTER_OTLP", $option),
        ]
    };
}

pub(super) const TRACES: Vars = vars!("TRACES", "v1/traces");
pub(super) const METRICS: Vars = vars!("METRICS", "v1/metrics");

pub(super) const SDK_DISABLED: &str = "OTEL_SDK_DISABLED";
pub(super) const METRIC_INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
pub(super) const MAX_QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
pub(super) const MAX_BATCH: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
pub(super) const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";
pub(super) const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

/// A value and the variable it comes from, for the error that refuses it.
pub(super) type Found = (&'static str, String);

/// The environment, which a test replaces.
pub(super) struct Env<'a> {
    lookup: &'a dyn Fn(&str) -> Option<OsString>,
}

impl<'a> Env<'a> {
    pub(super) fn process() -> Env<'static> {
        Env {
            lookup: &|name| std::env::var_os(name),
        }
    }

    /// One without any variable.
    pub(super) fn empty() -> Env<'static> {
        Env { lookup: &|_| None }
    }

    #[cfg(test)]
    pub(super) fn of(lookup: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Self { lookup }
    }

    /// Whether a variable is there and not empty, be it readable or not.
    pub(super) fn has(&self, name: &str) -> bool {
        (self.lookup)(name).is_some_and(|value| !value.to_string_lossy().trim().is_empty())
    }

    /// An empty value counts as unset, as the specification has it.
    pub(super) fn get(&self, name: &'static str) -> Result<Option<String>, Error> {
        let Some(value) = (self.lookup)(name) else {
            return Ok(None);
        };
        match value.into_string() {
            Ok(value) if value.trim().is_empty() => Ok(None),
            Ok(value) => Ok(Some(value.trim().to_owned())),
            // Not even in part: it may be a list of credentials.
            Err(_) => Err(Error::secret(name, "it is not UTF-8; write UTF-8 text")),
        }
    }

    /// The first of the variables that is set.
    pub(super) fn first(&self, names: [&'static str; 2]) -> Result<Option<Found>, Error> {
        for name in names {
            if let Some(value) = self.get(name)? {
                return Ok(Some((name, value)));
            }
        }
        Ok(None)
    }

    pub(super) fn flag(&self, name: &'static str) -> Result<Option<bool>, Error> {
        match self.get(name)? {
            None => Ok(None),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(value) => Err(refused(name, &value, "write true or false")),
        }
    }

    pub(super) fn number(&self, name: &'static str) -> Result<Option<usize>, Error> {
        let Some(value) = self.get(name)? else {
            return Ok(None);
        };
        match value.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(refused(name, &value, "write a whole number, as in 2048")),
        }
    }
}

/// The milliseconds that a variable holds.
pub(super) fn millis((name, value): &Found) -> Result<Duration, Error> {
    match value.parse() {
        Ok(millis) => Ok(Duration::from_millis(millis)),
        Err(_) => Err(refused(
            name,
            value,
            "write whole milliseconds with no unit, as in 10000",
        )),
    }
}

/// The error for a value that is no secret.
pub(super) fn refused(name: &'static str, value: &str, expected: impl Into<String>) -> Error {
    /// Enough to recognize it.
    const SHOWN: usize = 200;
    let mut shown: String = value.chars().take(SHOWN).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    Error::limit(name, shown.escape_debug(), expected)
}
