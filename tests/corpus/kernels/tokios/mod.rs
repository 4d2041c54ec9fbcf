//! What only tokio has: futures that somebody must poll, handles, permits, wakers.

mod requests;
mod select;
mod waits;
mod wakers;

use crate::program::Kernel;

pub fn all() -> Vec<Kernel> {
    [select::all(), wakers::all(), waits::all(), requests::all()]
        .into_iter()
        .flatten()
        .collect()
}
