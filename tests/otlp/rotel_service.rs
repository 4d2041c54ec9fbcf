//! A service with a leak, exported to a collector of other makers: every point and every span
//! that it shows is what the process says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use straggler::otlp::{self, Otlp};
use straggler::{Histogram, Site, Snapshot, Task};

use super::common::{Flavour, Gate, MS, World, settle};
use super::host::LONG;
use super::receiver::{PROTOCOLS, Protocol};
use super::rotel::Rotel;
use super::rotel_text::Printed;
use super::view::{Attributes, Point, Span, Value};

const REQUESTS: usize = 5;

fn request_span() -> SpanContext {
    SpanContext::new(
        TraceId::from(0x1234_u128),
        SpanId::from(0x56_u64),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    )
}

/// Answers, and forgets a task that writes to the log.
async fn request(number: usize, world: &World, gate: &Gate) {
    let (clock, written) = (world.clock.clone(), gate.passed());
    let around = Context::new().with_remote_span_context(request_span());
    let handler = async move {
        let reply = straggler::task("reply").spawn(async move {
            clock.advance(3 * MS);
            tokio::task::yield_now().await;
            clock.advance(Duration::from_micros(20));
            if number == 1 {
                // Without the noise of a panic's message.
                std::panic::resume_unwind(Box::new("on purpose"));
            }
        });
        {
            let _current = around.attach();
            straggler::task("log").spawn(written);
        }
        assert_eq!(reply.await.is_err(), number == 1);
    };
    straggler::task("request")
        .spawn(handler)
        .await
        .expect("the request returns");
}

#[test]
fn a_service_over_grpc() {
    a_service(Protocol::Grpc);
}

#[test]
fn a_service_over_http() {
    a_service(Protocol::Http);
}

fn a_service(protocol: Protocol) {
    assert!(PROTOCOLS.contains(&protocol));
    let Some(rotel) = Rotel::start() else {
        return;
    };
    let otlp = Otlp::new()
        .endpoint(&rotel.endpoint(protocol))
        .interval(Duration::from_secs(3_600))
        .protocol(match protocol {
            Protocol::Grpc => otlp::Protocol::Grpc,
            Protocol::Http => otlp::Protocol::HttpProtobuf,
        });
    let world = World::with(|builder| builder.otlp(otlp));
    let runtime = world.runtime(Flavour::CurrentThread);
    let gates: Vec<Gate> = (0..REQUESTS).map(|_| Gate::default()).collect();
    // The clock stands still after a flush: a snapshot sees what it saw.
    let flush = || {
        world.clock.advance(10 * MS);
        world.tasks.flush(LONG).expect("in time");
        world.snapshot()
    };
    runtime.block_on(async {
        for (number, gate) in gates.iter().enumerate() {
            request(number, &world, gate).await;
        }
        settle().await;
    });
    let all_alive = flush();
    runtime.block_on(async {
        world.clock.advance(10 * MS);
        gates[0].open();
        gates[1].open();
        settle().await;
    });
    let some_ended = flush();
    world.clock.advance(10 * MS);
    let at_last = world.snapshot();
    world.tasks.shutdown(LONG).expect("in time");
    assert!(world.snapshot().loss().is_empty(), "{}", world.snapshot());
    rotel.wait_until(|printed| {
        printed.spans.len() >= 2 * REQUESTS && of_collections(printed).len() >= 3
    });
    let printed = rotel.finish();
    let collections = of_collections(&printed);
    assert_eq!(collections.len(), 3, "two flushes and the end");
    let snapshots = [&all_alive, &some_ended, &at_last];
    for (points, snapshot) in collections.values().zip(snapshots) {
        compare_points(points, snapshot);
    }
    assert_eq!(snapshots.map(|it| it.orphans().count()), [5, 3, 3]);
    compare_spans(&printed.spans, &all_alive, &at_last);
}

/// Each has a moment of its own.
fn of_collections(printed: &Printed) -> BTreeMap<std::time::SystemTime, Vec<&Point>> {
    let mut collections = BTreeMap::<_, Vec<&Point>>::new();
    for point in &printed.points {
        collections.entry(point.time).or_default().push(point);
    }
    collections
}

fn compare_points(points: &[&Point], snapshot: &Snapshot) {
    let mut seen = BTreeSet::new();
    for point in points {
        let of = format!("{point:#?}");
        assert_eq!(point.scope.name, "straggler", "{of}");
        assert!(point.resource.contains_key("service.instance.id"), "{of}");
        let key = format!("{} {:?}", point.name, point.attributes);
        assert!(seen.insert(key), "twice: {of}");
        if point.name == "straggler.loss" {
            assert_eq!(point.number(), 0.0, "{of}");
            continue;
        }
        let site = site_of(point, snapshot);
        match &*point.name {
            "tokio.task.lifetime" => same_histogram(point, site.lifetime()),
            "tokio.task.poll.duration" => same_histogram(point, site.poll()),
            "tokio.task.schedule.duration" => same_histogram(point, site.schedule()),
            _ => {
                let wanted = number(point, site, snapshot);
                assert!((point.number() - wanted).abs() < 1e-9, "{wanted}: {of}");
            }
        }
    }
    for site in snapshot.sites() {
        let of_site = || points.iter().filter(|point| is_of(point, site));
        let names: BTreeSet<&str> = of_site().map(|point| &*point.name).collect();
        let mut wanted = vec![
            "tokio.task.spawned",
            "tokio.task.ended",
            "tokio.task.lifetime",
            "tokio.task.poll.duration",
            "tokio.task.time",
        ];
        if site.live() > 0 {
            wanted.extend(["tokio.task.count", "tokio.task.oldest"]);
        }
        if site.orphans() > 0 {
            wanted.extend(["tokio.task.orphan.count", "tokio.task.orphaned"]);
        }
        for name in wanted {
            assert!(names.contains(name), "{name} of {site:?} in {names:?}");
        }
    }
}

fn is_of(point: &Point, site: &Site) -> bool {
    let location = site.location();
    let name = point.attributes.get("tokio.task.name");
    point.attributes.get("code.file.path") == Some(&Value::from(location.file().to_owned()))
        && point.attributes.get("code.line.number") == Some(&i64::from(location.line()).into())
        && point.attributes.get("code.column.number") == Some(&i64::from(location.column()).into())
        && point.attributes.get("tokio.task.kind") == Some(&site.kind().as_str().into())
        && name == site.name().map(Value::from).as_ref()
}

fn site_of<'a>(point: &Point, snapshot: &'a Snapshot) -> &'a Site {
    let mut sites = snapshot.sites().filter(|site| is_of(point, site));
    let site = sites.next();
    assert!(sites.next().is_none(), "{point:#?}");
    site.unwrap_or_else(|| panic!("of no site: {point:#?} in\n{snapshot}"))
}

fn number(point: &Point, site: &Site, snapshot: &Snapshot) -> f64 {
    let attribute = |key: &str| match point.attributes.get(key) {
        Some(Value::Str(value)) => Some(value.as_str()),
        Some(other) => panic!("{key} is {other:?}"),
        None => None,
    };
    let tasks = || {
        let tasks = snapshot.tasks();
        tasks.filter(|task| {
            snapshot
                .site_of(task)
                .is_some_and(|it| std::ptr::eq(it, site))
        })
    };
    let state = attribute("tokio.task.state");
    let seconds = |of: fn(&Task) -> Duration| tasks().map(of).sum::<Duration>().as_secs_f64();
    let count = match &*point.name {
        "tokio.task.count" => {
            let same = |task: &&Task| task.state().map(|state| state.as_str()) == state;
            tasks().filter(same).count() as u64
        }
        "tokio.task.unconfirmed.count" => site.ending(),
        "tokio.task.spawned" => site.spawned(),
        "tokio.task.ended" => match attribute("tokio.task.outcome") {
            Some("completed") => site.completed(),
            Some("panicked") => site.panicked(),
            Some("aborted") => site.aborted(),
            Some(other) => panic!("outcome {other}"),
            None => site.ended() - site.completed() - site.panicked() - site.aborted(),
        },
        "tokio.task.time" => {
            let busy = site.poll().sum().as_secs_f64();
            let scheduled = site.schedule().sum().as_secs_f64();
            let all = site.lifetime().sum().as_secs_f64() + seconds(Task::age);
            return match state {
                Some("busy") => busy,
                Some("scheduled") => scheduled,
                Some("idle") => all - busy - scheduled,
                other => panic!("state {other:?}"),
            };
        }
        "tokio.task.oldest" => {
            return site.oldest().unwrap_or_default().as_secs_f64();
        }
        "tokio.task.orphan.count" => {
            let cause = attribute("tokio.task.orphan.cause");
            let same = |task: &&Task| {
                let orphaned = task.orphaned();
                orphaned.map(|orphaned| orphaned.cause().as_str()) == cause
            };
            tasks().filter(same).count() as u64
        }
        // Those that have ended too.
        "tokio.task.orphaned" => {
            assert_eq!(site.name(), Some("log"));
            REQUESTS as u64
        }
        other => panic!("nobody knows {other}"),
    };
    count as f64
}

fn same_histogram(point: &Point, wanted: &Histogram) {
    let shown = point.histogram();
    let (bounds, counts): (Vec<_>, Vec<_>) = wanted.buckets().unzip();
    let bounds: Vec<f64> = (bounds.into_iter().flatten())
        .map(|bound: Duration| bound.as_secs_f64())
        .collect();
    assert_eq!(shown.bounds, bounds, "{point:#?}");
    assert_eq!(shown.counts, counts, "{point:#?}");
    assert_eq!(shown.count, wanted.count(), "{point:#?}");
    let sum = shown.sum.expect("it has one");
    let difference = sum - wanted.sum().as_secs_f64();
    assert!(difference.abs() < 1e-9, "{difference}: {point:#?}");
}

fn compare_spans(spans: &[Span], all_alive: &Snapshot, at_last: &Snapshot) {
    assert_eq!(spans.len(), 2 * REQUESTS, "{spans:#?}");
    let ids: BTreeSet<_> = spans.iter().map(|span| span.span_id.to_bytes()).collect();
    assert_eq!(ids.len(), spans.len(), "each has its own: {spans:#?}");
    let context = request_span();
    for orphan in all_alive.orphans() {
        let id = i64::try_from(orphan.id().as_u64()).expect("few tasks");
        let of_it: Vec<_> = (spans.iter())
            .filter(|span| span.attributes["tokio.task.id"] == id)
            .collect();
        let (markers, wholes): (Vec<&Span>, Vec<&Span>) = of_it
            .into_iter()
            .partition(|span| span.name == "orphan log");
        let ([marker], [whole]) = (&*markers, &*wholes) else {
            panic!("{markers:#?} {wholes:#?}");
        };
        for span in [marker, whole] {
            assert_eq!(span.trace_id, context.trace_id(), "{span:#?}");
            assert_eq!(span.parent_span_id, Some(context.span_id()), "{span:#?}");
            same_task(&span.attributes, orphan, all_alive);
        }
        assert_eq!(marker.start, orphan.spawned_at() + orphan.age());
        assert_eq!(marker.end, marker.start);
        assert_eq!(marker.attributes["tokio.task.state"], "idle");
        let age = orphan.age().as_secs_f64();
        assert_eq!(marker.attributes["tokio.task.age"], age);
        let polls = i64::try_from(orphan.polls()).expect("few polls");
        assert_eq!(marker.attributes["tokio.task.poll.count"], polls);

        assert_eq!(whole.name, "task log");
        assert_eq!(whole.start, orphan.spawned_at());
        assert_eq!(whole.links.len(), 1);
        assert_eq!(whole.links[0].span_id, marker.span_id);
        assert_eq!(whole.events[0].name, "orphaned");
        match at_last.task(orphan.id()) {
            Some(alive) => {
                assert_eq!(whole.attributes["tokio.task.live"], true);
                assert_eq!(whole.end, alive.spawned_at() + alive.age());
            }
            None => {
                assert_eq!(whole.attributes["tokio.task.outcome"], "completed");
                let lived = whole.end.duration_since(marker.end).expect("it lived on");
                assert_eq!(lived, 10 * MS);
            }
        }
    }
}

/// What doesn't change in its life.
fn same_task(shown: &Attributes, task: &Task, snapshot: &Snapshot) {
    let int = |number: u64| i64::try_from(number).expect("it is small");
    assert_eq!(shown["code.file.path"], task.location().file());
    assert_eq!(shown["code.line.number"], i64::from(task.location().line()));
    assert_eq!(shown["tokio.task.name"], task.name().expect("it has one"));
    assert_eq!(shown["tokio.task.kind"], task.kind().as_str());
    assert_eq!(shown["tokio.task.root.id"], int(task.root().as_u64()));
    let parent = task.parent().and_then(|parent| parent.task());
    let parent = parent.expect("it has one").as_u64();
    assert_eq!(shown["tokio.task.parent.id"], int(parent));
    let orphaned = task.orphaned().expect("it is one");
    assert_eq!(shown["tokio.task.orphan.cause"], orphaned.cause().as_str());
    let certainty = orphaned.certainty().as_str();
    assert_eq!(shown["tokio.task.orphan.certainty"], certainty);
    let size = i64::try_from(task.size().expect("it is known")).expect("it is small");
    assert_eq!(shown["tokio.task.size"], size);
    let lineage: Vec<Value> = (snapshot.lineage(task))
        .map(|site| Value::Str(site.location().to_string()))
        .collect();
    assert_eq!(shown["tokio.task.lineage"], Value::List(lineage));
}
