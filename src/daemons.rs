//! Tasks that are meant to outlive what started them, told by where they are spawned.

use crate::Error;
use glob::{MatchOptions, Pattern};

/// What libraries spawn lazily, and so inside of whichever request comes first, to
/// serve later ones too. Found by running the libraries and reading their sources;
/// `docs/daemons.md` says what each one is and what it can hide.
///
/// Matched against a location's normalised file. `[0-9]*` is the version: `tower-*`
/// would take in `tower-http`.
pub const DEFAULT_DAEMONS: &[&str] = &[
    // tokio: workers and their block_in_place stand-ins, stdio, look-ups, files.
    "tokio-[0-9]*/src/runtime/scheduler/**",
    "tokio-[0-9]*/src/runtime/blocking/pool.rs",
    "tokio-[0-9]*/src/io/blocking.rs",
    "tokio-[0-9]*/src/net/addr.rs",
    "tokio-[0-9]*/src/fs/**",
    // HTTP: connection drivers, pools, name look-ups.
    "hyper-util-[0-9]*/src/rt/tokio.rs",
    "hyper-util-[0-9]*/src/client/legacy/connect/dns.rs",
    "hyper-0.14.*/src/common/exec.rs",
    "hyper-0.14.*/src/client/connect/dns.rs",
    "reqwest-[0-9]*/src/async_impl/h3_client/pool.rs",
    "axum-[0-9]*/src/extract/ws.rs",
    "tower-[0-9]*/src/buffer/service.rs",
    "tower-[0-9]*/src/spawn_ready/service.rs",
    "quinn-[0-9]*/src/runtime/tokio.rs",
    "hickory-net-[0-9]*/src/runtime.rs",
    "hickory-net-[0-9]*/src/h2.rs",
    "hickory-net-[0-9]*/src/h3/**",
    "hickory-proto-[0-9]*/src/runtime.rs",
    "aws-smithy-http-client-[0-9]*/src/client/pool/partition.rs",
    "aws-smithy-runtime-[0-9]*/src/client/dns.rs",
    "jsonrpsee-core-[0-9]*/src/client/async_client/**",
    "kube-client-[0-9]*/src/api/**",
    // Databases and their pools.
    "bb8-[0-9]*/src/inner.rs",
    "bb8-postgres-[0-9]*/src/lib.rs",
    "deadpool-postgres-[0-9]*/src/lib.rs",
    "diesel-async-[0-9]*/src/pg/mod.rs",
    "mobc-[0-9]*/src/spawn.rs",
    "mongodb-[0-9]*/src/client.rs",
    "mongodb-[0-9]*/src/cmap/**",
    "mongodb-[0-9]*/src/sdam/**",
    "mysql_async-[0-9]*/src/conn/**",
    "redis-[0-9]*/src/aio/tokio.rs",
    "redis-[0-9]*/src/entra_id.rs",
    "scylla-[0-9]*/src/cluster/**",
    "scylla-[0-9]*/src/network/**",
    "sqlx-core-[0-9]*/src/pool/**",
    "sqlx-postgres-[0-9]*/src/listener.rs",
    // Messaging and telemetry.
    "async-nats-[0-9]*/src/jetstream/**",
    "async-nats-[0-9]*/src/lib.rs",
    "rdkafka-[0-9]*/src/util.rs",
    "opentelemetry_sdk-[0-9]*/src/runtime.rs",
];

#[derive(Debug)]
pub(crate) struct Daemons(Vec<Pattern>);

impl Daemons {
    /// The default list and the user's own.
    pub(crate) fn new(own: &[String]) -> Result<Self, Error> {
        let shipped = DEFAULT_DAEMONS.iter().copied();
        let patterns = shipped
            .chain(own.iter().map(String::as_str))
            .map(|glob| Pattern::new(glob).map_err(|source| Error::glob(glob, source)))
            .collect::<Result<_, _>>()?;
        Ok(Self(patterns))
    }

    pub(crate) fn is_daemon(&self, file: &str) -> bool {
        (self.0.iter()).any(|pattern| matches(pattern, file))
    }
}

/// Whether a glob is of this place: `*` and `?` stay within a path component.
pub(crate) fn matches(glob: &Pattern, place: &str) -> bool {
    const OPTIONS: MatchOptions = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: false,
    };
    glob.matches_with(place, OPTIONS)
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_as_tight_as_it_says() {
        let daemons = Daemons::new(&["my-pool/src/*.rs".to_owned()]).expect("valid globs");
        for file in [
            "tokio-1.54.1/src/runtime/scheduler/multi_thread/worker.rs",
            "hyper-util-0.1.21/src/rt/tokio.rs",
            "tower-0.5.3/src/buffer/service.rs",
            "sqlx-core-0.9.0/src/pool/inner.rs",
            "my-pool/src/reaper.rs",
        ] {
            assert!(daemons.is_daemon(file), "{file}");
        }
        for file in [
            // Generic helpers, which carry the user's own futures.
            "tokio-1.54.1/src/task/spawn.rs",
            "tokio-1.54.1/src/runtime/handle.rs",
            "tokio-util-0.7.20/src/task/spawn_pinned.rs",
            "tower-http-0.6.2/src/buffer/service.rs",
            "src/main.rs",
            "my-pool/src/deep/er.rs",
        ] {
            assert!(!daemons.is_daemon(file), "{file}");
        }
    }

    #[test]
    fn a_bad_glob_is_named() {
        let error = Daemons::new(&["a/***".to_owned()]).expect_err("three stars");
        assert!(error.is_invalid_config());
        assert!(error.to_string().contains("\"a/***\""), "{error}");
    }
}
