//! What memory this process has.

use crate::shared::Failure;
use std::fs;

/// Resident memory in bytes.
pub(crate) fn resident() -> Result<i64, Failure> {
    const STATM: &str = "/proc/self/statm";
    let statm = fs::read_to_string(STATM)
        .map_err(|error| format!("{STATM}: {error}; memory can be measured on Linux only"))?;
    let pages = statm.split_whitespace().nth(1);
    let pages: i64 = (pages.ok_or(format!("{STATM} has no second field: {statm:?}"))?).parse()?;
    Ok(pages * i64::try_from(rustix::param::page_size())?)
}
