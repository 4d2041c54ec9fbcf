//! The tasks by id, while they stay in the order of their slots: to move a task costs more
//! than to look it up.

/// These ids in order, each with its place.
pub(super) fn by_id(ids: impl Iterator<Item = u64>) -> Vec<(u64, u32)> {
    // Config::check keeps the number of tasks below u32::MAX.
    let mut order: Vec<_> = ids.zip(0_u32..).collect();
    order.sort_unstable();
    order
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_place_once_by_its_id() {
        let order = by_id([7, 3, 9, 5].into_iter());
        assert_eq!(order, [(3, 1), (5, 3), (7, 0), (9, 2)]);
    }
}
