//! The traps of tokio's signals, each by its name and number: what a naive reader of them
//! gets wrong, and what must be seen instead.
#![cfg(tokio_unstable)]

#[path = "../common/mod.rs"]
mod common;
mod parents_and_sources;
mod polls_and_ends;
