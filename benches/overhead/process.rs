//! What the kernel knows of this process.

use crate::Failure;
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::Duration;

/// The processor time of all threads so far.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // Both are never negative.
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Resident memory in bytes.
pub(crate) fn resident() -> Result<i64, Failure> {
    const STATM: &str = "/proc/self/statm";
    let statm = fs::read_to_string(STATM)
        .map_err(|error| format!("{STATM}: {error}; memory can be measured on Linux only"))?;
    let pages = statm.split_whitespace().nth(1);
    let pages: i64 = (pages.ok_or(format!("{STATM} has no second field: {statm:?}"))?).parse()?;
    Ok(pages * i64::try_from(rustix::param::page_size())?)
}
