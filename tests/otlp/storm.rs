//! Ten thousand orphans at one place: memory stays bounded, the other places are heard, and
//! every one is counted.

use super::common::{Gate, MS, World, settle};
use super::exporting::{LONG, audit, context, flush, orphan, otlp, world};
use super::receiver::{PROTOCOLS, Protocol, Receiver};
use std::collections::BTreeSet;
use std::time::Instant;
use straggler::Snapshot;
use straggler::otlp::Otlp;
use tokio::task::JoinHandle;

const STORM: usize = 10_000;

struct Scene {
    world: World,
    receiver: Receiver,
}

impl Scene {
    fn new(protocol: Protocol, options: impl FnOnce(Otlp) -> Otlp) -> Self {
        let receiver = Receiver::start(protocol);
        let world = world(options(otlp(&receiver)));
        Self { world, receiver }
    }

    fn markers(&self, name: &str) -> usize {
        let name = format!("orphan {name}");
        let spans = self.receiver.spans();
        spans.iter().filter(|span| span.name == name).count()
    }

    fn orphaned(&self, name: &str) -> f64 {
        let received = self.receiver.received();
        let mut points = received.points("tokio.task.orphaned");
        points.retain(|point| point.attributes["tokio.task.name"] == name);
        points.iter().map(|point| point.number()).sum()
    }

    fn left_out(&self) -> u64 {
        self.world.snapshot().loss().orphans_left_out()
    }

    /// Looks and sends until all is said.
    async fn until(&self, done: impl Fn() -> bool) {
        let deadline = Instant::now() + LONG;
        loop {
            flush(&self.world);
            if done() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{}\n{}",
                self.receiver.received(),
                self.world.snapshot()
            );
            tokio::task::yield_now().await;
        }
    }
}

/// So many orphans of one parent, all of one site.
async fn storm(name: &'static str, count: usize, gate: &Gate) -> Vec<JoinHandle<()>> {
    let gate = gate.clone();
    let parent = async move {
        let spawn = |_| straggler::task(name).spawn(gate.passed());
        (0..count).map(spawn).collect()
    };
    let spawned = tokio::spawn(parent).await.unwrap();
    settle().await;
    spawned
}

async fn ended(handles: Vec<JoinHandle<()>>) {
    for handle in handles {
        handle.await.unwrap();
    }
    settle().await;
}

fn no_span_lost(snapshot: &Snapshot) {
    assert_eq!(snapshot.loss().spans_lost(), 0, "{snapshot}");
}

#[test]
fn a_storm_takes_its_share_and_hides_nobody() {
    for protocol in PROTOCOLS {
        let scene = Scene::new(protocol, |otlp| otlp.max_marked_orphans(64));
        scene.world.block_on(async {
            let (gate, other) = (Gate::default(), Gate::default());
            let all = storm("storm", STORM, &gate).await;
            scene.world.clock.advance(MS);
            flush(&scene.world);
            // Half of what others left, and nobody else was there.
            let share = scene.markers("storm");
            assert_eq!(share, 32);
            assert_eq!(scene.left_out(), (STORM - share) as u64);
            assert_eq!(scene.orphaned("storm"), STORM as f64);

            let few = storm("few", 3, &other).await;
            flush(&scene.world);
            assert_eq!(scene.markers("few"), 3);
            assert_eq!(scene.left_out(), (STORM - share) as u64);
            assert_eq!(scene.orphaned("few"), 3.0);

            // Those without markers end without spans, and so in no queue.
            gate.open();
            ended(all).await;
            flush(&scene.world);
            let spans = scene.receiver.spans();
            let whole = spans.iter().filter(|span| span.name == "task storm");
            let told: Vec<_> = whole.map(|span| span.links[0].span_id).collect();
            let markers = spans.iter().filter(|span| span.name == "orphan storm");
            let ids: BTreeSet<_> = markers.map(|span| span.span_id.to_bytes()).collect();
            assert_eq!(told.len(), share);
            assert!(told.iter().all(|id| ids.contains(&id.to_bytes())));
            no_span_lost(&scene.world.snapshot());
            assert_eq!(scene.orphaned("storm"), STORM as f64, "each once");

            let gate = Gate::default();
            let again = storm("again", 20, &gate).await;
            flush(&scene.world);
            assert_eq!(scene.markers("again"), 20, "there is room again");
            assert_eq!(scene.left_out(), (STORM - share) as u64);
            gate.open();
            other.open();
            ended(again).await;
            ended(few).await;
            flush(&scene.world);
        });
        let spans = scene.receiver.spans();
        assert_eq!(spans.len(), 2 * (32 + 3 + 20));
        no_span_lost(&scene.world.snapshot());
        audit(&scene.receiver.received());
    }
}

#[test]
fn markers_wait_for_room_over_several_looks_and_none_is_lost() {
    for protocol in PROTOCOLS {
        let scene = Scene::new(protocol, |otlp| {
            otlp.max_marked_orphans(256)
                .max_queued_spans(16)
                .max_batch(8)
        });
        scene.world.block_on(async {
            let (gate, other) = (Gate::default(), Gate::default());
            let all = storm("storm", 1_000, &gate).await;
            let few = storm("few", 3, &other).await;
            scene.world.clock.advance(MS);
            // All are counted at once, their markers come as there is room.
            scene
                .until(|| scene.orphaned("storm") + scene.orphaned("few") == 1_003.0)
                .await;
            let told = || scene.markers("storm") + scene.markers("few");
            scene
                .until(|| told() as u64 + scene.left_out() == 1_003)
                .await;
            // How the two sites share depends on who was seen first; together they have all.
            let share = scene.markers("storm");
            assert_eq!(scene.markers("few"), 3);
            assert!((126..=128).contains(&share), "{share}");
            assert_eq!(scene.left_out(), (1_000 - share) as u64);
            no_span_lost(&scene.world.snapshot());
            let received = scene.receiver.received();
            let batches: Vec<_> = received.of(super::received::Signal::Traces).collect();
            assert!(batches.iter().all(|batch| batch.spans().len() <= 8));
            assert!(batches.len() >= (share + 3) / 8, "{received}");

            // Ends that nobody could wait for are lost, and said to be.
            gate.open();
            other.open();
            ended(all).await;
            ended(few).await;
            let told = || {
                let spans = scene.receiver.spans();
                spans
                    .iter()
                    .filter(|span| span.name.starts_with("task "))
                    .count()
            };
            let lost = || scene.world.snapshot().loss().spans_lost() as usize;
            scene.until(|| told() + lost() == share + 3).await;
            assert!((1..=16).contains(&told()), "{}", told());

            // Those of whose ends nothing was heard make room after three looks.
            (0..3).for_each(|_| flush(&scene.world));
            let gate = Gate::default();
            let again = storm("again", 100, &gate).await;
            scene.until(|| scene.markers("again") == 100).await;
            gate.open();
            ended(again).await;
        });
        audit(&scene.receiver.received());
    }
}

#[test]
fn a_storm_that_was_over_before_anybody_looked() {
    let scene = Scene::new(Protocol::Grpc, |otlp| {
        otlp.max_queued_spans(16).max_batch(8)
    });
    scene.world.block_on(async {
        let gate = Gate::default();
        let all = storm("storm", 100, &gate).await;
        gate.open();
        ended(all).await;
        scene.until(|| scene.receiver.spans().len() == 16).await;
        let snapshot = scene.world.snapshot();
        assert_eq!(snapshot.loss().spans_lost(), 84, "{snapshot}");
        assert_eq!(scene.orphaned("storm"), 16.0, "those that were kept");
    });
    audit(&scene.receiver.received());
}

#[test]
fn at_the_shutdown_all_that_have_a_marker_are_closed_off() {
    let scene = Scene::new(Protocol::Http, |otlp| {
        otlp.max_marked_orphans(64)
            .max_queued_spans(16)
            .max_batch(8)
    });
    scene.world.block_on(async {
        let gate = Gate::default();
        let _all = storm("storm", 500, &gate).await;
        let _traced = orphan("traced", &gate, Some(context(1, true))).await;
        scene
            .until(|| scene.orphaned("storm") + scene.orphaned("traced") == 501.0)
            .await;
        let told = || scene.markers("storm") + scene.markers("traced");
        scene
            .until(|| told() as u64 + scene.left_out() == 501)
            .await;
        scene.world.tasks.shutdown(LONG).expect("in time");
        let spans = scene.receiver.spans();
        let of = |name: &str| spans.iter().filter(|span| span.name == name).count();
        assert_eq!(of("task storm"), of("orphan storm"));
        assert_eq!(of("task traced"), 1);
        assert!(
            (31..=32).contains(&of("task storm")),
            "{}",
            of("task storm")
        );
        no_span_lost(&scene.world.snapshot());
    });
    audit(&scene.receiver.received());
}
