//! The tree of spawn sites: who spawns whom, by place.
//!
//! A task stores one number, its node here, which names the sites from itself to its
//! root, whether its ancestors live or not. A site that spawns itself again (a task
//! that starts its successor) is folded onto its first node, so a lineage never holds
//! a site twice and the tree is as bounded as the program's text. Still it has a
//! limit; beyond it lineages are cut, and counted.

use dashmap::DashMap;
use foldhash::fast::FixedState;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The node of no site: the parent of all roots.
pub(crate) const TOP: u32 = 0;

#[derive(Debug)]
pub(crate) struct Lineages {
    nodes: RwLock<Vec<Node>>,
    children: DashMap<(u32, u32), u32, FixedState>,
    max: usize,
    cut: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    site: u32,
}

/// All lineages known at one moment.
#[derive(Clone, Debug)]
pub(crate) struct LineageTree(Vec<Node>);

impl Lineages {
    pub(crate) fn new(max: usize) -> Self {
        let top = Node {
            parent: TOP,
            site: u32::MAX,
        };
        Self {
            nodes: RwLock::new(vec![top]),
            children: DashMap::with_hasher(FixedState::default()),
            max,
            cut: AtomicU64::new(0),
        }
    }

    /// The node of a task at `site` whose parent's node is `parent`.
    pub(crate) fn child(&self, parent: u32, site: u32) -> u32 {
        if let Some(node) = self.children.get(&(parent, site)) {
            return *node;
        }
        self.grow(parent, site)
    }

    #[cold]
    fn grow(&self, parent: u32, site: u32) -> u32 {
        let mut nodes = self.nodes.write();
        // Another thread may have been here first.
        if let Some(node) = self.children.get(&(parent, site)) {
            return *node;
        }
        let mut at = parent;
        while at != TOP {
            let node = nodes[at as usize];
            if node.site == site {
                self.children.insert((parent, site), at);
                return at;
            }
            at = node.parent;
        }
        if nodes.len() > self.max {
            self.cut.fetch_add(1, Ordering::Relaxed);
            return TOP;
        }
        // The limit keeps this far below u32::MAX.
        let index = nodes.len() as u32;
        nodes.push(Node { parent, site });
        self.children.insert((parent, site), index);
        index
    }

    pub(crate) fn cut(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }

    pub(crate) fn tree(&self) -> LineageTree {
        LineageTree(self.nodes.read().clone())
    }
}

impl LineageTree {
    /// The sites from a task's own to its root's.
    pub(crate) fn sites(&self, lineage: u32) -> impl Iterator<Item = u32> + '_ {
        let mut at = lineage;
        std::iter::from_fn(move || {
            let node = self.0.get(at as usize).filter(|_| at != TOP)?;
            at = node.parent;
            Some(node.site)
        })
    }
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_starts_its_successor_adds_nothing() {
        let lineages = Lineages::new(100);
        let a = lineages.child(TOP, 1);
        let b = lineages.child(a, 2);
        let mut last = b;
        for _ in 0..1_000 {
            let again = lineages.child(last, 1);
            last = lineages.child(again, 2);
        }
        assert_eq!(last, b);
        assert_eq!(lineages.tree().sites(b).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn beyond_the_limit_a_lineage_is_cut_and_counted() {
        let lineages = Lineages::new(2);
        let a = lineages.child(TOP, 1);
        let b = lineages.child(a, 2);
        assert_eq!(lineages.child(b, 3), TOP);
        assert_eq!(lineages.cut(), 1);
    }
}
