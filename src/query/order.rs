//! The tasks by id, while they stay in the order of their slots: to move a task costs more
//! than to look it up.

use super::scan::Found;

/// The tasks' places, by id.
pub(super) fn by_id(tasks: &[Found]) -> Vec<u32> {
    // Config::check keeps the number of tasks below u32::MAX.
    let mut order: Vec<_> = (tasks.iter().map(|task| task.id)).zip(0_u32..).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, place)| place).collect()
}
