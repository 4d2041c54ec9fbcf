//! The processor time of this process.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The processor time of all threads so far.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // Both are never negative.
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
