//! What a child is told, and what it answers.

use crate::variant::Variant;
use crate::workload::Workload;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) variant: Variant,
    pub(crate) workload: Workload,
    pub(crate) threads: usize,
    pub(crate) amount: Amount,
    /// Where a variant that exports sends to.
    pub(crate) sink: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Amount {
    /// As many operations as take so long.
    Millis(u64),
    /// So many operations, or tasks.
    Ops(u64),
}

/// One process's answer, raw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Operations, requests, or parked tasks.
    pub(crate) ops: u64,
    pub(crate) wall_nanos: u64,
    /// Processor time of the whole process, its threads in the background included.
    pub(crate) cpu_nanos: u64,
    /// By how much resident memory grew, where that was looked at.
    pub(crate) bytes: Option<i64>,
    /// What straggler could not see, where it lost anything.
    pub(crate) lost: Option<String>,
}
