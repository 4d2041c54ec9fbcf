//! Where the knowledge comes from: three sources, one seam.
//!
//! Each source translates what it sees into calls of the [`Table`](crate::table::Table):
//! a task was spawned, a turn began and ended, it was woken, it ended. None of them
//! judges anything. Nothing here may panic, block a poll, emit tracing, or call back
//! into the host.

mod behind;
#[cfg(feature = "testing")]
mod beside;
#[cfg(feature = "opentelemetry")]
mod foreign;
#[cfg(tokio_unstable)]
mod hooks;
mod layer;
mod local;
mod origin;
mod parents;
mod sight;
mod spawn;
mod unfiltered;
mod visit;

pub(crate) use behind::{connect, is_in};
#[cfg(feature = "testing")]
pub(crate) use beside::{Joined, sees_here, watched};
#[cfg(feature = "opentelemetry")]
pub(crate) use foreign::{Foreign, OURS, Version};
#[cfg(tokio_unstable)]
pub use hooks::Hooks;
pub(crate) use layer::{Capture, CaptureFilter};
#[cfg(feature = "testing")]
pub(crate) use origin::{current_task, open_scope};
pub(crate) use parents::{ParentRules, around_current};
pub(crate) use sight::{Hidden, Sight};
pub use spawn::{TaskBuilder, daemon, spawn, spawn_local, task};
pub use unfiltered::Layer;

/// How a `runtime.spawn` span is told from the others.
pub(crate) fn is_task_span(metadata: &tracing_core::Metadata<'_>) -> bool {
    metadata.is_span()
        && metadata.name() == "runtime.spawn"
        && matches!(metadata.target(), "tokio::task" | "tokio::task::blocking")
}

/// How tokio's waker events are told from the others.
pub(crate) fn is_waker_event(metadata: &tracing_core::Metadata<'_>) -> bool {
    metadata.is_event() && metadata.target() == "tokio::task::waker"
}
