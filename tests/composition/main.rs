//! Beside other layers: each of them sees exactly what it saw without straggler, and straggler
//! sees what it sees alone. What a neighbour saw is recorded without and with, and compared.
// Helpers are tests too: who unwraps says what it expects.
#![allow(clippy::unwrap_used)]
#![cfg(tokio_unstable)]

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "console")]
mod console;
mod diagnoses;
mod neighbours;
mod opentelemetry;
mod program;
mod reload;
mod strangers;
