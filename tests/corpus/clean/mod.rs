//! Programs without a leak, whose tasks are alive when their test ends, as they should be.
//!
//! A report says of them that they are alive, with their states and parents, and not a word of
//! harm.

mod connections;
#[cfg(feature = "otlp")]
mod exporter;
mod owned;
mod timers;
mod waits;

use crate::program::Clean;

/// All of them.
pub fn all() -> Vec<Clean> {
    let all = [
        connections::all(),
        timers::all(),
        waits::all(),
        owned::all(),
        #[cfg(feature = "otlp")]
        exporter::all(),
    ];
    all.into_iter().flatten().collect()
}
