//! The kernels, by what the tasks wait for.

pub mod channels;
pub mod locks;
pub mod parents;
pub mod tokios;

use crate::program::Kernel;

/// All of them.
pub fn all() -> Vec<Kernel> {
    [locks::all(), channels::all(), parents::all(), tokios::all()]
        .into_iter()
        .flatten()
        .collect()
}
