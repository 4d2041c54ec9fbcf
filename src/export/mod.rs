//! What leaves the process, by OpenTelemetry's protocol.

mod env;
mod settings;
mod wire;

pub use settings::{Compression, Otlp, Protocol};
