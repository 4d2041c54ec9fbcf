//! The traps of tokio's signals, each by its name and number: what a naive reader of them
//! gets wrong, and what must be seen instead.
// Helpers are tests too: who unwraps says what it expects.
#![allow(clippy::unwrap_used)]
// A block that gives a handle does so on purpose.
#![allow(clippy::async_yields_async)]
#![cfg(tokio_unstable)]

#[path = "../common/mod.rs"]
mod common;
mod parents_and_sources;
mod polls_and_ends;
