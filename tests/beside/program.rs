//! What neighbours are shown: everything that a program can do with a span.

use tokio::runtime::Runtime;
use tracing::{Instrument, Span, debug, debug_span, info, info_span, warn};

/// What was there before anybody watched.
pub struct Before {
    outer: Span,
    inner: Span,
    named: Span,
}

pub fn before() -> Before {
    let outer = info_span!("older outer");
    let inner = outer.in_scope(|| info_span!("older inner"));
    let named = info_span!("older named");
    Before {
        outer,
        inner,
        named,
    }
}

#[derive(Debug)]
struct Broken(std::fmt::Error);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it broke")
    }
}

impl std::error::Error for Broken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

pub fn run(before: Before, runtime: &Runtime) {
    in_one_thread();
    with_older_spans(before);
    runtime.block_on(in_tasks());
}

fn in_one_thread() {
    let outer = info_span!("outer", size = 3_u64, late = tracing::field::Empty);
    let entered = outer.enter();
    info!(answer = 42_u64, "in the outer");
    Span::current().record("late", "a value");
    let inner = debug_span!("inner");
    inner.in_scope(|| {
        debug!("in the inner");
        info!(parent: &outer, number = 7_u64, text = "t", yes = true, "by name in the outer");
        let broken = Broken(std::fmt::Error);
        warn!(parent: &inner, error = &broken as &dyn std::error::Error, ?broken, "by name");
        info!(parent: None, "in nothing");
        let of_outer = info_span!(parent: &outer, "of the outer");
        let of_nothing = info_span!(parent: None, "of nothing");
        of_nothing.follows_from(&of_outer);
        of_nothing.in_scope(|| debug!("twice removed"));
        log::info!(target: "elsewhere", "by log");
        log::debug!("by log, below");
    });
    drop(entered);
    // The child holds it, and so does the clone.
    let clone = outer.clone();
    drop(outer);
    let child = info_span!(parent: &inner, "child");
    drop(inner);
    drop(clone);
    info!("between");
    drop(child);
    let lone = debug_span!("below");
    let under = lone.in_scope(|| info_span!("under the one below"));
    drop(lone);
    drop(under);
    let panicked = std::panic::catch_unwind(|| {
        let _entered = info_span!("panics").entered();
        std::panic::resume_unwind(Box::new(()));
    });
    assert!(panicked.is_err());
}

fn with_older_spans(older: Before) {
    older.named.in_scope(|| {
        info!("in an older one");
        let under = info_span!("under an older one");
        assert!(!Span::current().is_disabled());
        Span::current().in_scope(|| info!("in the current one"));
        under.in_scope(|| info!("in the one under it"));
    });
    let by_name = info_span!(parent: &older.named, "by name of an older one");
    info!(parent: &older.inner, "by name in an older one");
    drop(older.named);
    drop(by_name);
    // Their registry gives the hold on the outer one back through the thread's subscriber.
    drop(older.outer);
    info!("before the inner one closes");
    drop(older.inner);
    info!("after it");
}

async fn in_tasks() {
    // One after the other, so that their order is the program's.
    let task = async {
        info!("in a task");
        tokio::spawn(async { info!("in a task's task") }.instrument(info_span!("deeper")))
            .await
            .expect("no panic");
        tokio::task::yield_now().await;
        info!("after it");
    };
    tokio::spawn(task.instrument(info_span!("request")))
        .await
        .expect("no panic");
    let blocks = info_span!("blocks");
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let blocking = blocks.in_scope(|| {
        tokio::task::spawn_blocking(move || {
            wait.recv().expect("it is told to go");
        })
    });
    drop(blocks);
    info!("while it blocks");
    go.send(()).expect("it waits");
    blocking.await.expect("no panic");
}
