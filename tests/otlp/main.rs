//! What leaves the process over OTLP, as it arrives at a receiver of another making.
// Helpers are tests too: who unwraps says what it expects.
#![allow(clippy::unwrap_used)]
// A parent that gives its child's handle away is what is tested.
#![allow(clippy::async_yields_async)]
#![cfg(tokio_unstable)]

#[path = "../common/mod.rs"]
mod common;

mod agreement;
mod answer;
mod documented;
mod ending;
#[cfg(target_os = "linux")]
mod environment;
mod exemplars;
mod exporting;
mod host;
mod in_memory;
mod metrics_agree;
mod misbehaving;
mod orphans_told;
mod placing;
mod providers;
mod received;
mod receiver;
mod receiver_is_right;
mod recovery;
mod rotel;
mod rotel_agrees;
mod rotel_service;
mod rotel_text;
mod said;
mod sample;
mod sender;
mod service;
mod storm;
mod tls;
mod tracer_provider;
mod unseen;
mod view;
mod wire;
