//! The spans that tell of an orphan, before they have ids.

use super::{attributes, catalog};
use crate::clock::Nanos;
use crate::orphan::Finding;
use crate::query::Found;
use crate::table::{Departed, LineageTree, Outcome, ParentRef, ParentTask, Site, Table, traits};
use crate::task::{Kind, SiteKey, Spans};
use opentelemetry::trace::{Event, Link, SpanContext};
use opentelemetry::{Array, KeyValue, StringValue, Value};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A span to be.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) name: String,
    /// The span that was current where the task was spawned.
    pub(crate) parent: Option<SpanContext>,
    /// The task's, when this was written.
    pub(crate) age: Duration,
    pub(crate) start: SystemTime,
    pub(crate) end: SystemTime,
    pub(crate) attributes: Vec<KeyValue>,
    pub(crate) events: Vec<Event>,
    pub(crate) links: Vec<Link>,
}

/// What is known of a task, alive or not.
pub(crate) struct Subject<'a> {
    id: u64,
    place: SiteKey,
    parent: &'a ParentTask,
    spans: Option<&'a Spans>,
    root: u64,
    lineage: Vec<String>,
    spawned_at: Nanos,
    size: Option<u32>,
}

/// Sites of a lineage that are named; the nearest ones say most.
const LINEAGE_SHOWN: usize = 16;

impl<'a> Subject<'a> {
    pub(crate) fn of_live(task: &'a Found, sites: &[Arc<Site>], lineages: &LineageTree) -> Self {
        Self {
            id: task.id,
            place: place(task.own(), task.site, task.kind(), sites),
            parent: &task.parent,
            spans: task.spans.as_deref(),
            root: task.root,
            lineage: lineage(task.lineage, sites, lineages),
            spawned_at: task.spawned_at,
            size: task.size.checked_sub(1),
        }
    }

    pub(crate) fn of_departed(
        departed: &'a Departed,
        sites: &[Arc<Site>],
        lineages: &LineageTree,
    ) -> Self {
        let record = &departed.record;
        let kind = traits::kind(departed.traits);
        Self {
            id: departed.id,
            place: place(record.own(), departed.site, kind, sites),
            parent: &record.parent,
            spans: record.spans.as_deref(),
            root: record.root(departed.id),
            lineage: lineage(record.lineage, sites, lineages),
            spawned_at: record.spawned_at(),
            size: record.size.checked_sub(1),
        }
    }

    fn context(&self) -> Option<SpanContext> {
        self.spans?.context.clone()
    }

    fn name(&self) -> String {
        match &self.place.name {
            Some(name) => name.to_string(),
            None => self.place.location.to_string(),
        }
    }

    fn attributes(&self, finding: &Finding) -> Vec<KeyValue> {
        let mut attributes = attributes::place(&self.place);
        attributes.extend(attributes::why(finding.cause, finding.certainty));
        attributes.push(id("tokio.task.id", self.id));
        attributes.push(id("tokio.task.root.id", self.root));
        let parent = match self.parent.as_ref() {
            ParentRef::None => None,
            ParentRef::Unknown(parent) => Some(parent.as_u64()),
            ParentRef::Known(fate) => Some(fate.id.as_u64()),
        };
        attributes.extend(parent.map(|parent| id("tokio.task.parent.id", parent)));
        let span = self.spans.and_then(|spans| spans.outermost.as_ref());
        if let Some(span) = span {
            attributes.push(KeyValue::new(
                "tokio.task.parent.span.name",
                span.span().name(),
            ));
        }
        let lineage: Vec<_> = self
            .lineage
            .iter()
            .cloned()
            .map(StringValue::from)
            .collect();
        let lineage = Value::Array(Array::String(lineage));
        attributes.push(KeyValue::new("tokio.task.lineage", lineage));
        if let Some(size) = self.size {
            attributes.push(KeyValue::new("tokio.task.size", i64::from(size)));
        }
        attributes
    }
}

impl Draft {
    /// A live task was found to be an orphan.
    pub(crate) fn marker(
        table: &Table,
        subject: &Subject<'_>,
        finding: &Finding,
        task: &Found,
    ) -> Self {
        let at = table.clock.wall().time(task.now);
        let mut attributes = subject.attributes(finding);
        attributes.extend(state(task));
        attributes.push(polls(task.turn.turns));
        attributes.push(busy(task.busy()));
        attributes.push(KeyValue::new(
            "tokio.task.age",
            super::series::seconds(task.age()),
        ));
        Self {
            name: format!("orphan {}", subject.name()),
            parent: subject.context(),
            age: Duration::from_nanos(task.age()),
            start: at,
            end: at,
            attributes,
            events: Vec::new(),
            links: Vec::new(),
        }
    }

    /// An orphan ended.
    pub(crate) fn of_ended(
        table: &Table,
        subject: &Subject<'_>,
        finding: &Finding,
        departed: &Departed,
        marker: Option<&SpanContext>,
    ) -> Self {
        let mut attributes = subject.attributes(finding);
        if let Some(outcome) = outcome(departed.outcome) {
            attributes.push(KeyValue::new(catalog::OUTCOME, outcome));
        }
        attributes.push(polls(departed.polls));
        attributes.push(busy(departed.busy));
        Self::whole(table, subject, finding, departed.at, attributes, marker)
    }

    /// An orphan is alive when straggler stops looking.
    pub(crate) fn of_live(
        table: &Table,
        subject: &Subject<'_>,
        finding: &Finding,
        task: &Found,
        marker: Option<&SpanContext>,
    ) -> Self {
        let mut attributes = subject.attributes(finding);
        attributes.extend(state(task));
        attributes.push(KeyValue::new("tokio.task.live", true));
        attributes.push(polls(task.turn.turns));
        attributes.push(busy(task.busy()));
        Self::whole(table, subject, finding, task.now, attributes, marker)
    }

    fn whole(
        table: &Table,
        subject: &Subject<'_>,
        finding: &Finding,
        until: Nanos,
        attributes: Vec<KeyValue>,
        marker: Option<&SpanContext>,
    ) -> Self {
        let why = attributes::why(finding.cause, finding.certainty);
        let wall = table.clock.wall();
        let since = wall.time(finding.since);
        let age = until.saturating_sub(subject.spawned_at);
        let link = |marker: &SpanContext| {
            let what = KeyValue::new("straggler.link", "marker");
            Link::new(marker.clone(), vec![what], 0)
        };
        Self {
            name: format!("task {}", subject.name()),
            parent: subject.context(),
            age: Duration::from_nanos(age),
            start: wall.time(subject.spawned_at),
            end: wall.time(until),
            attributes,
            events: vec![Event::new("orphaned", since, why, 0)],
            links: marker.map(link).into_iter().collect(),
        }
    }
}

/// The site's key, or the task's own where the site is the overflow site.
fn place(own: Option<&SiteKey>, site: u32, kind: Kind, sites: &[Arc<Site>]) -> SiteKey {
    let known = own.or_else(|| Some(&*sites.get(site as usize)?.key));
    match known {
        Some(key) => key.clone(),
        None => SiteKey {
            location: crate::task::Location::new("(unknown)", 0, 0),
            kind,
            name: None,
            overflow: false,
        },
    }
}

fn lineage(lineage: u32, sites: &[Arc<Site>], lineages: &LineageTree) -> Vec<String> {
    (lineages.sites(lineage))
        .take(LINEAGE_SHOWN)
        .filter_map(|site| Some(sites.get(site as usize)?.key.location.to_string()))
        .collect()
}

fn id(name: &'static str, id: u64) -> KeyValue {
    // tokio counts them from 1.
    KeyValue::new(name, i64::try_from(id).unwrap_or(i64::MAX))
}

fn polls(count: u64) -> KeyValue {
    id("tokio.task.poll.count", count)
}

fn busy(nanos: u64) -> KeyValue {
    KeyValue::new("tokio.task.busy_time", super::series::seconds(nanos))
}

fn state(task: &Found) -> Option<KeyValue> {
    let state = task.state()?;
    Some(KeyValue::new(catalog::STATE, state.as_str()))
}

fn outcome(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Completed => Some("completed"),
        Outcome::Panicked => Some("panicked"),
        Outcome::Aborted => Some("aborted"),
        Outcome::Unknown => None,
    }
}
