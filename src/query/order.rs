//! The tasks by id, while they stay in the order of their slots: to move a task costs more
//! than to look it up.

/// The places of these ids, by id.
pub(super) fn by_id(ids: impl Iterator<Item = u64>) -> Vec<u32> {
    // Config::check keeps the number of tasks below u32::MAX.
    let mut order: Vec<_> = ids.zip(0_u32..).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, place)| place).collect()
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_place_once_by_its_id() {
        assert_eq!(by_id([7, 3, 9, 5].into_iter()), [1, 3, 0, 2]);
    }
}
