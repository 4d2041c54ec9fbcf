//! Threads on cores of their own.

use tokio::runtime::Builder;

/// Binds each worker of the runtime to a core. Otherwise a busy machine may have two workers
/// take turns on one core for longer than a measurement lasts, and what they cost each other
/// when they run at once is not seen.
pub(crate) fn pin(builder: &mut Builder) {
    use std::sync::atomic::{AtomicUsize, Ordering};

    let started = AtomicUsize::new(0);
    builder.on_thread_start(move || this_thread(started.fetch_add(1, Ordering::Relaxed)));
}

/// Binds the calling thread to the nth core of those the process may run on when this is first
/// asked, counted round.
#[cfg(target_os = "linux")]
pub(crate) fn this_thread(nth: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    use std::sync::OnceLock;

    /// Kept, since a thread that is bound is allowed one core only, as are those it starts.
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    let cores = CORES.get_or_init(|| {
        let Ok(allowed) = sched_getaffinity(None) else {
            return Vec::new();
        };
        let all = 0..CpuSet::MAX_CPU;
        all.filter(|&core| allowed.is_set(core)).collect()
    });
    if cores.is_empty() {
        return;
    }
    let mut one = CpuSet::new();
    one.set(cores[nth % cores.len()]);
    sched_setaffinity(None, &one).expect("the process may run there");
}

/// Elsewhere threads run where the system puts them.
#[cfg(not(target_os = "linux"))]
pub(crate) fn this_thread(_: usize) {}
