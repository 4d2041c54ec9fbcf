//! What was spawned is alive or has ended, whoever spawned it.

use crate::{SHORT, runtimes};
use proptest::prelude::*;
use std::future::{Future, pending};
use std::pin::Pin;
use straggler::testing::watch;
use tokio::sync::mpsc;

/// A task with those that it spawns.
#[derive(Clone, Debug)]
struct Node {
    stays: bool,
    children: Vec<Node>,
}

impl Node {
    fn count(&self, counts: &impl Fn(&Self) -> bool) -> u64 {
        let below: u64 = self.children.iter().map(|child| child.count(counts)).sum();
        below + u64::from(counts(self))
    }
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let leaf = any::<bool>().prop_map(|stays| Node {
        stays,
        children: Vec::new(),
    });
    let node = leaf.prop_recursive(4, 24, 4, |inner| {
        (any::<bool>(), prop::collection::vec(inner, 0..4))
            .prop_map(|(stays, children)| Node { stays, children })
    });
    prop::collection::vec(node, 0..4)
}

/// Says when it has spawned all that it spawns.
fn run(node: Node, spawned: mpsc::UnboundedSender<()>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        for child in node.children {
            tokio::spawn(run(child, spawned.clone()));
        }
        spawned.send(()).expect("the test waits");
        drop(spawned);
        if node.stays {
            pending::<()>().await;
        }
    })
}

async fn run_all(nodes: Vec<Node>) {
    let (spawned, mut all_spawned) = mpsc::unbounded_channel();
    for node in nodes {
        tokio::spawn(run(node, spawned.clone()));
    }
    drop(spawned);
    while all_spawned.recv().await.is_some() {}
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn spawned_is_live_and_ended(before in nodes(), within in nodes()) {
        let count = |nodes: &[Node], is: &dyn Fn(&Node) -> bool| -> u64 {
            nodes.iter().map(|node| node.count(&|node: &Node| is(node))).sum()
        };
        for runtime in runtimes() {
            runtime.block_on(async {
                let outer = watch().settle(SHORT);
                run_all(before.clone()).await;
                let inner = watch().settle(SHORT);
                run_all(within.clone()).await;
                let both = [&before[..], &within[..]].concat();
                for (watch, nodes) in [(&inner, &within), (&outer, &both)] {
                    let stays = count(nodes, &|node| node.stays);
                    let all = count(nodes, &|_| true);
                    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
                    let mut left = watch.stragglers().await;
                    // Others at work on this machine may keep a worker from ending them.
                    while left.tasks().len() as u64 > stays && std::time::Instant::now() < deadline {
                        left = watch.stragglers().await;
                    }
                    assert!(left.completeness().is_complete(), "{left}");
                    assert_eq!(left.tasks().len() as u64, stays, "{left}");
                    let view = watch.all();
                    assert_eq!(view.spawned(), all);
                    assert_eq!((view.live(), view.ended()), (stays, all - stays));
                }
            });
        }
    }
}
