//! What the benches share.

#[cfg(not(tokio_unstable))]
compile_error!(
    "the benches compare tokio's task spans with its hooks, which need `--cfg tokio_unstable`: \
     unset RUSTFLAGS, which replaces the line in .cargo/config.toml"
);

pub(crate) mod children;
pub(crate) mod goals;
pub(crate) mod machine;
pub(crate) mod pin;
pub(crate) mod process;
pub(crate) mod spread;
pub(crate) mod target;
pub(crate) mod work;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What `cargo bench` says to every bench.
pub(crate) const BENCH: &str = "--bench";
