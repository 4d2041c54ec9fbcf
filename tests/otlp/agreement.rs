//! The metrics as they must be, worked out from a snapshot by other means than the exporter's.
#![allow(dead_code, unreachable_pub)]

use super::common::World;
use super::exporting::{flush, otlp, world_with};
use super::receiver::{Protocol, Receiver};
use super::view::{Histogram, Point, Value};
use std::collections::BTreeMap;
use std::time::Duration;
use straggler::{Kind, Site, Snapshot, Source, State, Task};

type Attributes = Vec<(&'static str, Value)>;
/// By metric and attributes.
type Numbers = BTreeMap<String, f64>;
type Histograms = BTreeMap<String, Histogram>;

fn key(metric: &str, attributes: &Attributes) -> String {
    let sorted: BTreeMap<_, _> = attributes.iter().cloned().collect();
    format!("{metric} {sorted:?}")
}

fn seconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e9
}

fn attributes(site: &Site) -> Attributes {
    if site.is_overflow() {
        return vec![("otel.metric.overflow", true.into())];
    }
    let location = site.location();
    let mut attributes = vec![
        ("code.file.path", location.file().into()),
        ("code.line.number", i64::from(location.line()).into()),
        ("code.column.number", i64::from(location.column()).into()),
        ("tokio.task.kind", site.kind().as_str().into()),
    ];
    attributes.extend(site.name().map(|name| ("tokio.task.name", name.into())));
    attributes
}

#[derive(Default)]
struct Expected {
    numbers: Numbers,
    histograms: Histograms,
}

impl Expected {
    fn add(&mut self, metric: &str, of: &Attributes, beside: &[(&'static str, &str)], value: f64) {
        let is_overflow = of[0].0 == "otel.metric.overflow";
        let mut all = of.clone();
        // One point for each metric, whatever it is split by elsewhere.
        if !is_overflow {
            all.extend(beside.iter().map(|&(name, value)| (name, value.into())));
        }
        *self.numbers.entry(key(metric, &all)).or_default() += value;
    }

    fn histogram(&mut self, metric: &str, of: &Attributes, values: &straggler::Histogram) {
        let bounds = values.buckets().filter_map(|(bound, _)| bound);
        let histogram = Histogram {
            count: values.count(),
            sum: Some(seconds(values.sum())),
            bounds: bounds.map(seconds).collect(),
            counts: values.buckets().map(|(_, count)| count).collect(),
            ..Histogram::default()
        };
        self.histograms.insert(key(metric, of), histogram);
    }

    fn site(&mut self, snapshot: &Snapshot, site: &Site) {
        let of = &attributes(site);
        let tasks: Vec<&Task> = (snapshot.tasks())
            .filter(|task| {
                snapshot
                    .site_of(task)
                    .is_some_and(|it| attributes(it) == *of)
            })
            .collect();
        assert_eq!(tasks.len() as u64, site.live());
        for task in &tasks {
            let state = task
                .state()
                .map(|state| ("tokio.task.state", state.as_str()));
            self.add("tokio.task.count", of, state.as_slice(), 1.0);
            if let Some(orphaned) = task.orphaned() {
                let why = [
                    ("tokio.task.orphan.cause", orphaned.cause().as_str()),
                    ("tokio.task.orphan.certainty", orphaned.certainty().as_str()),
                ];
                self.add("tokio.task.orphan.count", of, &why, 1.0);
            }
        }
        self.add(
            "tokio.task.unconfirmed.count",
            of,
            &[],
            site.ending() as f64,
        );
        self.add("tokio.task.spawned", of, &[], site.spawned() as f64);
        let known = [
            ("completed", site.completed()),
            ("panicked", site.panicked()),
            ("aborted", site.aborted()),
        ];
        let mut rest = site.ended();
        for (outcome, count) in known {
            self.add(
                "tokio.task.ended",
                of,
                &[("tokio.task.outcome", outcome)],
                count as f64,
            );
            rest -= count;
        }
        self.add("tokio.task.ended", of, &[], rest as f64);
        let oldest = site.oldest().unwrap_or_default();
        self.add("tokio.task.oldest", of, &[], seconds(oldest));
        self.histogram("tokio.task.lifetime", of, site.lifetime());
        self.histogram("tokio.task.poll.duration", of, site.poll());
        if site.schedule().count() > 0 {
            self.histogram("tokio.task.schedule.duration", of, site.schedule());
        }
        self.times(snapshot.source(), site, &tasks);
    }

    fn times(&mut self, source: Source, site: &Site, tasks: &[&Task]) {
        let of = &attributes(site);
        // What a turn under way has is in no histogram, but in its task's own account.
        let is_open =
            |task: &&Task| matches!(task.state(), Some(State::Running | State::Scheduled));
        let (busy, scheduled) = if tasks.iter().any(is_open) {
            assert_eq!(
                site.ended(),
                0,
                "none ends here while another is open: {site:?}"
            );
            let scheduled = tasks.iter().filter_map(|task| task.scheduled());
            (tasks.iter().map(|task| task.busy()).sum(), scheduled.sum())
        } else {
            (site.poll().sum(), site.schedule().sum())
        };
        let ages: Duration = tasks.iter().map(|task| task.age()).sum();
        let all = site.lifetime().sum() + ages;
        let knows_wakes =
            source != Source::Hooks && matches!(site.kind(), Kind::Task | Kind::Local);
        if site.is_overflow() {
            // All states in one.
            let time = if knows_wakes { all } else { busy };
            return self.add("tokio.task.time", of, &[], seconds(time));
        }
        let states = match knows_wakes {
            true => vec![
                ("busy", busy),
                ("scheduled", scheduled),
                ("idle", all - busy - scheduled),
            ],
            false => vec![("busy", busy)],
        };
        for (state, time) in states {
            self.add(
                "tokio.task.time",
                of,
                &[("tokio.task.state", state)],
                seconds(time),
            );
        }
    }
}

/// Every metric but `tokio.task.orphaned`, which a snapshot doesn't have.
#[track_caller]
pub fn agree(snapshot: &Snapshot, points: &[Point]) {
    let mut expected = Expected::default();
    for site in snapshot.sites() {
        expected.site(snapshot, site);
    }
    for (reason, count) in snapshot.loss().reasons() {
        // Those two say what is open now.
        if !matches!(reason, "unconfirmed" | "unaccounted") {
            let of = vec![("straggler.loss.reason", reason.into())];
            expected.add("straggler.loss", &of, &[], count as f64);
        }
    }
    for diagnosis in snapshot.diagnoses() {
        let of = vec![("straggler.diagnosis.code", diagnosis.code().into())];
        expected.add("straggler.diagnosis", &of, &[], 1.0);
    }
    let mut numbers = Numbers::new();
    let mut histograms = Histograms::new();
    for point in points.iter().filter(|it| it.name != "tokio.task.orphaned") {
        let key = format!("{} {:?}", point.name, point.attributes);
        if point.is_histogram() {
            histograms.insert(key, point.histogram().clone());
        } else {
            numbers.insert(key, point.number());
        }
        assert_eq!(point.time, snapshot.taken_at(), "{point:#?}");
    }
    // Zero is said or not: a series appears with its first value, and stays.
    let said = |numbers: &mut Numbers| numbers.retain(|_, number| *number != 0.0);
    said(&mut numbers);
    said(&mut expected.numbers);
    assert_eq!(numbers, expected.numbers, "\n{snapshot}");
    assert_eq!(histograms, expected.histograms, "\n{snapshot}");
}

/// A world, and a receiver that hears of it.
pub struct Pair {
    pub world: World,
    pub receiver: Receiver,
}

impl Pair {
    pub fn new(protocol: Protocol, source: Source) -> Self {
        let receiver = Receiver::start(protocol);
        let world = world_with(otlp(&receiver), |builder| builder.source(source));
        Self { world, receiver }
    }

    /// Exports, and compares. Nothing may move meanwhile.
    #[track_caller]
    pub fn check(&self) -> Snapshot {
        let snapshot = self.world.snapshot();
        flush(&self.world);
        agree(&snapshot, &self.receiver.metrics());
        snapshot
    }

    pub fn points(&self, metric: &str) -> Vec<Point> {
        self.receiver.received().points(metric)
    }

    #[track_caller]
    pub fn total(&self, metric: &str) -> f64 {
        self.points(metric).iter().map(Point::number).sum()
    }
}
