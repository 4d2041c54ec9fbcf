//! Workers on cores of their own.

use tokio::runtime::Builder;

/// Binds each worker of the runtime to a core. Otherwise a busy machine may have two workers
/// take turns on one core for longer than a measurement lasts, and what they cost each other
/// when they run at once is not seen.
#[cfg(target_os = "linux")]
pub(crate) fn pin(builder: &mut Builder) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    use std::sync::atomic::{AtomicUsize, Ordering};

    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let cores: Vec<_> = (0..CpuSet::MAX_CPU)
        .filter(|&core| allowed.is_set(core))
        .collect();
    let started = AtomicUsize::new(0);
    builder.on_thread_start(move || {
        let nth = started.fetch_add(1, Ordering::Relaxed);
        let mut one = CpuSet::new();
        one.set(cores[nth % cores.len()]);
        sched_setaffinity(None, &one).expect("the process may run there");
    });
}

/// Elsewhere they run where the system puts them.
#[cfg(not(target_os = "linux"))]
pub(crate) fn pin(_: &mut Builder) {}
