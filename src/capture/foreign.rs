//! Other versions of the `opentelemetry` crate in the same program.
//!
//! Each version has a thread-local context of its own, so the traces of another one are
//! nowhere to be seen for ours. No type tells of it, but paths do: its callsites and the
//! tasks it spawns lie in a directory of the registry that is named after the version.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tracing_core::Metadata;

/// What ours is.
pub(crate) const OURS: Version = Version {
    major: 0,
    minor: 33,
};

/// The part of a version that must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// The version of the API that the code in this file uses; its SDK has the same numbers.
    pub(crate) fn of_file(file: &str) -> Option<Self> {
        const CRATES: [&str; 2] = ["opentelemetry-", "opentelemetry_sdk-"];
        file.split(['/', '\\']).find_map(|directory| {
            let version = (CRATES.iter()).find_map(|name| directory.strip_prefix(name))?;
            let mut numbers = version.split('.');
            let major = numbers.next()?.parse().ok()?;
            let minor = numbers.next()?.parse().ok()?;
            Some(Self { major, minor })
        })
    }

    fn is_ours(self) -> bool {
        // From 1.0 on, minor versions are one crate.
        self == OURS || (self.major == OURS.major && self.major > 0)
    }

    pub(crate) fn other(file: &str) -> Option<Self> {
        Self::of_file(file).filter(|version| !version.is_ours())
    }
}

/// What was met of them. A trace that was ever seen says that all is well.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    saw_trace: AtomicBool,
    /// A task was spawned in a user span and under no trace.
    saw_none: AtomicBool,
    /// Packed, and zero for none.
    version: AtomicU64,
}

impl Foreign {
    /// Asked once a callsite, when tracing registers it.
    pub(crate) fn callsite(&self, metadata: &Metadata<'_>) {
        if let Some(version) = metadata.file().and_then(Version::other) {
            let packed = (u64::from(version.major) << 32) | u64::from(version.minor);
            self.version.store(packed, Ordering::Relaxed);
        }
    }

    /// A task was spawned in a user span, or in a trace.
    pub(crate) fn spawned(&self, in_trace: bool) {
        let saw = if in_trace {
            &self.saw_trace
        } else {
            &self.saw_none
        };
        if !saw.load(Ordering::Relaxed) {
            saw.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there were user spans round spawns, and never a trace.
    pub(crate) fn lacks_trace(&self) -> bool {
        self.saw_none.load(Ordering::Relaxed) && !self.saw_trace.load(Ordering::Relaxed)
    }

    /// The version that was met, if it was another than ours.
    pub(crate) fn met(&self) -> Option<Version> {
        let packed = self.version.load(Ordering::Relaxed);
        (packed != 0).then_some(Version {
            major: (packed >> 32) as u32,
            minor: packed as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_registrys_path() {
        let of = |file| Version::of_file(file).map(|version| version.to_string());
        let registry = "/home/me/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f";
        let file = format!("{registry}/opentelemetry-0.31.0/src/global/trace.rs");
        assert_eq!(of(&file).as_deref(), Some("0.31"));
        let sdk = "opentelemetry_sdk-0.30.1/src/runtime.rs";
        assert_eq!(of(sdk).as_deref(), Some("0.30"));
        let windows = r"C:\cargo\registry\src\x\opentelemetry-1.2.0-rc.1\src\lib.rs";
        assert_eq!(of(windows).as_deref(), Some("1.2"));
        for other in [
            "opentelemetry-otlp-0.31.0/src/lib.rs",
            "src/opentelemetry.rs",
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn our_own_version_is_not_foreign() {
        let manifest = include_str!("../../Cargo.toml");
        let ours = format!("opentelemetry = {{ version = \"{OURS}\"");
        assert!(manifest.contains(&ours), "OURS is what Cargo.toml says");
        assert_eq!(
            Version::other(&format!("opentelemetry-{OURS}.7/src/a.rs")),
            None
        );
        assert!(Version::other("opentelemetry-0.9.0/src/a.rs").is_some());
    }
}
