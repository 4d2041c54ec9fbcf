//! From what was counted to points: each with its attributes, its start and its value.

use super::attributes;
use super::catalog::{self, Instrument};
use super::collect::Alive;
use super::orphans::Counted;
use super::series::{Buckets, Collection, Memory, Metric, Point, TracedValue, Value, seconds};
use crate::diagnose::Diagnosis;
use crate::histogram::Histogram;
use crate::query::SiteCensus;
use crate::table::{Site, Table, Totals};
use crate::task::{Cause, Certainty, Kind, State};
use opentelemetry::KeyValue;
use std::sync::Arc;
use std::time::SystemTime;

/// All that is known of one site at this moment.
pub(crate) struct SiteNow<'a> {
    pub(crate) index: u32,
    pub(crate) site: &'a Arc<Site>,
    pub(crate) totals: &'a Totals,
    pub(crate) live: Option<&'a SiteCensus>,
    pub(crate) alive: Alive,
    pub(crate) lifetimes_traced: Vec<TracedValue>,
    pub(crate) orphaned: Vec<((Cause, Certainty), Counted)>,
}

/// Writes points of one moment.
pub(crate) struct Writer<'a> {
    table: &'a Table,
    memory: &'a mut Memory,
    at: SystemTime,
    metrics: Vec<Metric>,
}

/// The attributes of a point beside those of its site, numbered for the memory.
struct Beside {
    number: u32,
    attributes: Vec<KeyValue>,
}

impl Beside {
    fn nothing() -> Self {
        Self {
            number: 0,
            attributes: Vec::new(),
        }
    }
}

impl<'a> Writer<'a> {
    pub(crate) fn new(table: &'a Table, memory: &'a mut Memory) -> Self {
        let metrics = (catalog::ALL.into_iter())
            .map(|instrument| Metric {
                instrument,
                points: Vec::new(),
            })
            .collect();
        Self {
            table,
            memory,
            at: table.clock.wall().system(),
            metrics,
        }
    }

    pub(crate) fn finish(mut self) -> Collection {
        self.metrics.retain(|metric| !metric.points.is_empty());
        Collection {
            at: self.at,
            metrics: self.metrics,
        }
    }

    /// Everything about one spawn site.
    pub(crate) fn site(&mut self, now: &SiteNow<'_>) {
        let totals = now.totals;
        self.states(now);
        let unconfirmed = now.live.map_or(0, |live| live.ending);
        self.present(
            &catalog::UNCONFIRMED,
            now,
            Beside::nothing(),
            unconfirmed,
            Value::Count,
        );
        self.counter(
            &catalog::SPAWNED,
            now,
            Beside::nothing(),
            totals.spawned,
            Value::Count,
        );
        self.ended(now);
        self.histogram(
            &catalog::LIFETIME,
            now,
            &totals.lifetime,
            now.lifetimes_traced.clone(),
        );
        self.histogram(&catalog::POLL, now, &totals.poll, Vec::new());
        if totals.schedule.count() > 0 {
            self.histogram(&catalog::SCHEDULE, now, &totals.schedule, Vec::new());
        }
        self.times(now);
        self.orphans(now);
        let oldest = now.live.map_or(0, |live| live.oldest);
        let in_seconds = |nanos| Value::Seconds(seconds(nanos));
        self.present(&catalog::OLDEST, now, Beside::nothing(), oldest, in_seconds);
    }

    /// Without its state where that can't be known, and for the overflow site.
    fn states(&mut self, now: &SiteNow<'_>) {
        let of = |state| now.alive.states.get(&state).copied().unwrap_or(0);
        if now.site.key.overflow {
            let all = now.alive.states.values().sum();
            self.present(&catalog::COUNT, now, Beside::nothing(), all, Value::Count);
            return;
        }
        for (number, state) in (1..).zip([State::Running, State::Scheduled, State::Idle]) {
            let beside = Beside {
                number,
                attributes: vec![KeyValue::new(catalog::STATE, state.as_str())],
            };
            self.present(&catalog::COUNT, now, beside, of(Some(state)), Value::Count);
        }
        self.present(
            &catalog::COUNT,
            now,
            Beside::nothing(),
            of(None),
            Value::Count,
        );
    }

    fn ended(&mut self, now: &SiteNow<'_>) {
        let totals = now.totals;
        let known = [
            ("completed", totals.completed),
            ("panicked", totals.panicked),
            ("aborted", totals.aborted),
        ];
        let told: u64 = known.iter().map(|(_, count)| count).sum();
        let rest = totals.ended().saturating_sub(told);
        if now.site.key.overflow {
            let all = rest + told;
            self.counter(&catalog::ENDED, now, Beside::nothing(), all, Value::Count);
            return;
        }
        for (number, (outcome, count)) in (1..).zip(known) {
            if count > 0 {
                let beside = Beside {
                    number,
                    attributes: vec![KeyValue::new(catalog::OUTCOME, outcome)],
                };
                self.counter(&catalog::ENDED, now, beside, count, Value::Count);
            }
        }
        self.counter(&catalog::ENDED, now, Beside::nothing(), rest, Value::Count);
    }

    /// Idle and scheduled only where wakes are known; else the time between polls is
    /// either, and not said.
    fn times(&mut self, now: &SiteNow<'_>) {
        let (totals, alive) = (now.totals, &now.alive);
        let total = |histogram: &Histogram| crate::clock::nanos(histogram.sum());
        let busy = total(&totals.poll).saturating_add(alive.busy_now);
        let scheduled = total(&totals.schedule).saturating_add(alive.scheduled_now);
        let ages = total(&totals.lifetime).saturating_add(alive.age);
        let idle = ages.saturating_sub(busy).saturating_sub(scheduled);
        let spans = cfg!(tokio_unstable) && self.table.config.source.spans();
        let knows_wakes = spans && matches!(now.site.key.kind, Kind::Task | Kind::Local);
        let mut times = vec![("busy", busy)];
        if knows_wakes {
            times.push((State::Scheduled.as_str(), scheduled));
            times.push((State::Idle.as_str(), idle));
        }
        let in_seconds = |nanos| Value::Seconds(seconds(nanos));
        if now.site.key.overflow {
            let all = if knows_wakes { ages } else { busy };
            self.counter(&catalog::TIME, now, Beside::nothing(), all, in_seconds);
            return;
        }
        for (number, (name, nanos)) in (1..).zip(times) {
            let beside = Beside {
                number,
                attributes: vec![KeyValue::new(catalog::STATE, name)],
            };
            self.counter(&catalog::TIME, now, beside, nanos, in_seconds);
        }
    }

    fn orphans(&mut self, now: &SiteNow<'_>) {
        if now.site.key.overflow {
            let live = now.alive.orphans.values().sum();
            self.present(
                &catalog::ORPHANS,
                now,
                Beside::nothing(),
                live,
                Value::Count,
            );
            let ever: u64 = now.orphaned.iter().map(|(_, counted)| counted.count).sum();
            if ever > 0 {
                self.counter(
                    &catalog::ORPHANED,
                    now,
                    Beside::nothing(),
                    ever,
                    Value::Count,
                );
            }
            return;
        }
        for (number, why) in (0..).zip(whys()) {
            let beside = || Beside {
                number,
                attributes: attributes::why(why.0, why.1),
            };
            let live = now.alive.orphans.get(&why).copied().unwrap_or(0);
            self.present(&catalog::ORPHANS, now, beside(), live, Value::Count);
            let ever = now.orphaned.iter().find(|(other, _)| *other == why);
            if let Some((_, counted)) = ever {
                let value = Value::Count(counted.count);
                let point = self.point(now, beside(), value, counted.example.into_iter().collect());
                self.push(&catalog::ORPHANED, point);
            }
        }
    }

    /// What was lost, by reason; those that say what is open now are counts of tasks.
    pub(crate) fn loss(&mut self) {
        let loss = self.table.loss();
        for (number, (reason, count)) in (0..).zip(loss.counted()) {
            let count = self.memory.counter(&catalog::LOSS, 0, number, count);
            let point = Point {
                attributes: vec![KeyValue::new(catalog::REASON, reason)],
                start: self.table.clock.started(),
                value: Value::Count(count),
                exemplars: Vec::new(),
            };
            self.push(&catalog::LOSS, point);
        }
    }

    pub(crate) fn diagnoses(&mut self, found: &[Diagnosis]) {
        let codes = || found.iter().map(Diagnosis::code);
        for code in self.memory.codes(codes()).to_vec() {
            let point = Point {
                attributes: vec![KeyValue::new(catalog::CODE, code)],
                start: self.table.clock.started(),
                value: Value::Count(u64::from(codes().any(|other| other == code))),
                exemplars: Vec::new(),
            };
            self.push(&catalog::DIAGNOSIS, point);
        }
    }

    fn counter(
        &mut self,
        of: &'static Instrument,
        now: &SiteNow<'_>,
        beside: Beside,
        value: u64,
        as_value: impl Fn(u64) -> Value,
    ) {
        let value = self.memory.counter(of, now.index, beside.number, value);
        let point = self.point(now, beside, as_value(value), Vec::new());
        self.push(of, point);
    }

    fn present(
        &mut self,
        of: &'static Instrument,
        now: &SiteNow<'_>,
        beside: Beside,
        value: u64,
        as_value: impl Fn(u64) -> Value,
    ) {
        if let Some(value) = self.memory.present(of, now.index, beside.number, value) {
            let point = self.point(now, beside, as_value(value), Vec::new());
            self.push(of, point);
        }
    }

    fn histogram(
        &mut self,
        of: &'static Instrument,
        now: &SiteNow<'_>,
        histogram: &Histogram,
        exemplars: Vec<TracedValue>,
    ) {
        let buckets = Buckets::of(histogram);
        let buckets = self.memory.histogram(of, now.index, buckets);
        let value = Value::Histogram(buckets);
        let point = self.point(now, Beside::nothing(), value, exemplars);
        self.push(of, point);
    }

    fn point(
        &self,
        now: &SiteNow<'_>,
        beside: Beside,
        value: Value,
        exemplars: Vec<TracedValue>,
    ) -> Point {
        let mut attributes = attributes::site(&now.site.key);
        attributes.extend(beside.attributes);
        Point {
            attributes,
            // Before its first task there was no such series.
            start: (now.site.since).unwrap_or_else(|| self.table.clock.started()),
            value,
            exemplars,
        }
    }

    fn push(&mut self, of: &'static Instrument, point: Point) {
        let metric = (self.metrics.iter_mut()).find(|metric| metric.instrument == of);
        if let Some(metric) = metric {
            metric.points.push(point);
        }
    }
}

/// Every reason for being an orphan.
fn whys() -> impl Iterator<Item = (Cause, Certainty)> {
    (Cause::ALL.into_iter()).flat_map(|cause| {
        [Certainty::Likely, Certainty::Certain].map(|certainty| (cause, certainty))
    })
}
