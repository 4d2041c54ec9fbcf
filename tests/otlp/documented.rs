//! `docs/metrics.md` against what is exported: nothing that it doesn't say, and nothing that
//! it says and nobody ever saw.

use super::common::{Gate, MS, World, settle};
use super::exporting::{LONG, audit, context, flush, orphan, otlp, within, world_with};
use super::receiver::{Protocol, Receiver};
use super::view::{Point, Span, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::time::Duration;
use straggler::{Builder, Source};
use tokio::task::{LocalSet, spawn_local, yield_now};
use tracing::{Instrument, info_span};

const PAGE: &str = include_str!("../../docs/metrics.md");

type Names = BTreeSet<String>;

fn section(heading: &str) -> &'static str {
    let from = PAGE.split(&format!("\n## {heading}\n")).nth(1);
    let from = from.unwrap_or_else(|| panic!("no section {heading}"));
    from.split("\n## ").next().unwrap()
}

/// The rows of the table whose header begins so, cell by cell.
fn table(section: &'static str, header: &str) -> Vec<Vec<&'static str>> {
    let rows = section.lines().skip_while(|line| !line.starts_with(header));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &'static str| row.trim_matches('|').split('|').map(str::trim).collect();
    let rows: Vec<_> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "no table {header}");
    rows
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn names<'a>(of: impl IntoIterator<Item = &'a str>) -> Names {
    of.into_iter().map(str::to_owned).collect()
}

/// The attributes of a spawn site, and that of the one beyond the limit.
fn of_sites() -> (Names, String) {
    let text = section("Metrics");
    let from = text
        .find("All but the last two")
        .expect("the sites' attributes");
    let text = &text[from..];
    let (own, beyond) = text.split_once("Never a task id.").expect("a rule");
    let own = names(quoted(own).filter(|name| name.contains('.')));
    let beyond = quoted(beyond).find(|name| name.contains('='));
    let (beyond, value) = beyond.unwrap().split_once('=').unwrap();
    assert_eq!(value, "true");
    (own, beyond.to_owned())
}

/// As the OpenTelemetry Collector and Prometheus itself translate it.
fn in_prometheus(point: &Point) -> String {
    let mut name = point.name.replace('.', "_");
    match &*point.unit {
        "s" => name += "_seconds",
        annotation => assert!(
            annotation.starts_with('{'),
            "{annotation} needs a rule here"
        ),
    }
    if point.is_counter() {
        name += "_total";
    }
    name
}

fn kind(point: &Point) -> &'static str {
    match () {
        () if point.is_counter() => "counter",
        () if point.is_up_down_counter() => "up-down counter",
        () if point.is_gauge() => "gauge",
        () => "histogram",
    }
}

/// All that programs sent which did everything that there is to tell of.
struct Everything {
    points: Vec<Point>,
    spans: Vec<Span>,
}

fn export(
    options: impl FnOnce(Builder) -> Builder,
    program: impl AsyncFnOnce(&World),
) -> Everything {
    let receiver = Receiver::start(Protocol::Http);
    let otlp = otlp(&receiver).child_within(Duration::from_secs(1));
    let world = world_with(otlp, options);
    world.block_on(LocalSet::new().run_until(program(&world)));
    let received = receiver.received();
    audit(&received);
    Everything {
        points: received.all_metrics(),
        spans: received.spans(),
    }
}

/// Of each kind, each cause and each end; some with markers, some alive to the last.
async fn all_there_is(world: &World) {
    let gate = Gate::default();
    let passed = gate.passed();
    let in_span = async move { straggler::task("closed").spawn(passed) };
    let closed = in_span.instrument(info_span!("request")).await;
    let (passed, stay) = (gate.passed(), gate.clone());
    let left = async { straggler::task("left").spawn(passed.in_current_span()) };
    let home = tokio::spawn(async move {
        let handle = left.instrument(info_span!("request")).await;
        yield_now().await;
        stay.passed().await;
        handle
    });
    // Here, under the span of another task, which then ends.
    let (passed, go) = (gate.passed(), Gate::default());
    let (lend, lent) = tokio::sync::oneshot::channel();
    let waits = go.passed();
    let lender = tokio::spawn(async move {
        lend.send(info_span!("request")).unwrap();
        waits.await;
    });
    let span = lent.await.unwrap();
    let elsewhere = span.in_scope(|| straggler::task("elsewhere").spawn(passed));
    go.open();
    lender.await.unwrap();
    let traced = orphan("traced", &gate, Some(context(1, true))).await;
    let panics = straggler::spawn(async { std::panic::resume_unwind(Box::new("meant to")) });
    let aborted = straggler::spawn(pending::<()>());
    spawn_local(async {}).await.unwrap();
    tokio::task::spawn_blocking(|| {}).await.unwrap();
    within(Some(&context(2, true)), || tokio::spawn(async {}))
        .await
        .unwrap();
    // It ends while its span is held, where no runtime counts.
    let mut held = Vec::new();
    for name in [None, Some("held")] {
        let (tell, told) = tokio::sync::oneshot::channel();
        let ends = async {
            yield_now().await;
            tell.send(tracing::Span::current()).unwrap();
        };
        let ended = match name {
            Some(name) => tokio::task::Builder::new()
                .name(name)
                .spawn_local(ends)
                .unwrap(),
            None => spawn_local(ends),
        };
        held.push(told.await.unwrap());
        ended.await.unwrap();
    }
    settle().await;
    world.clock.advance(5 * MS);
    tokio::spawn(pending::<()>());
    flush(world);
    world.clock.advance(Duration::from_secs(1));
    gate.open();
    aborted.abort();
    let left = home.await.unwrap();
    for handle in [panics, aborted, closed, left, elsewhere, traced] {
        // How each ends shows in what is exported.
        let _ended: Result<(), _> = handle.await;
    }
    let to_the_last = async { straggler::task("to the last").spawn(pending::<()>()) };
    to_the_last.instrument(info_span!("request")).await;
    flush(world);
    world.tasks.shutdown(LONG).expect("in time");
}

fn everything() -> Everything {
    let mut all = export(|builder| builder, all_there_is);
    let beyond = export(|builder| builder.max_spawn_sites(1), all_there_is);
    all.points.extend(beyond.points);
    all.spans.extend(beyond.spans);
    all.points.extend(unhooked());
    all
}

/// Hooks are the source and no runtime has them.
fn unhooked() -> Vec<Point> {
    let receiver = Receiver::start(Protocol::Http);
    let world = world_with(otlp(&receiver), |builder| builder.source(Source::Hooks));
    flush(&world);
    receiver.metrics()
}

#[test]
fn each_metric_is_as_the_page_has_it() {
    let everything = everything();
    let (of_site, overflow) = of_sites();
    let mut by_metric: BTreeMap<&str, Vec<&Point>> = BTreeMap::new();
    for point in &everything.points {
        assert_eq!(point.scope.name, "straggler");
        by_metric.entry(&point.name).or_default().push(point);
    }
    let rows = table(section("Metrics"), "| metric |");
    let documented = names(rows.iter().flat_map(|row| quoted(row[0])));
    assert_eq!(names(by_metric.keys().copied()), documented);
    for row in rows {
        let name = quoted(row[0]).next().unwrap();
        let points = &by_metric[name];
        let (said_kind, said_unit) = row[1].split_once(", ").unwrap();
        let beside = names(quoted(row[2]));
        let per_site = !name.starts_with("straggler.");
        let mut wanted = beside.clone();
        if per_site {
            wanted.extend(of_site.iter().cloned());
        }
        let mut seen = Names::new();
        let mut beyond = 0;
        for point in points {
            assert_eq!(kind(point), said_kind, "{name}");
            assert_eq!(format!("`{}`", point.unit), said_unit, "{name}");
            assert_eq!(format!("`{}`", in_prometheus(point)), row[3]);
            assert!(!point.description.is_empty());
            if point.attributes.contains_key(&overflow) {
                assert_eq!(point.attributes.len(), 1, "{point:#?}");
                beyond += 1;
            } else {
                seen.extend(point.attributes.keys().cloned());
            }
        }
        assert_eq!(seen, wanted, "attributes of {name}");
        assert_eq!(beyond > 0, per_site, "{name} beyond the limit of sites");
    }
}

fn values(points: &[Point], metric: &str, attribute: &str) -> Names {
    let points = points.iter().filter(|point| point.name.starts_with(metric));
    let values = points.filter_map(|point| match point.attributes.get(attribute)? {
        Value::Str(value) => Some(value.clone()),
        other => panic!("{attribute} is {other:?}"),
    });
    values.collect()
}

#[test]
fn each_value_is_one_that_the_page_names() {
    let everything = everything();
    let seen = |metric, attribute| values(&everything.points, metric, attribute);
    for row in table(section("Metrics"), "| attribute |") {
        let attribute = quoted(row[0]).next().unwrap();
        let documented = names(quoted(row[1]));
        let metric = match row[0].rsplit("` ").next().unwrap() {
            "of the count" => "tokio.task.count",
            "of the time" => "tokio.task.time",
            _ => "tokio.task",
        };
        match attribute {
            // Those lists are on other pages.
            "straggler.loss.reason" | "straggler.diagnosis.code" => {
                assert!(row[1].contains("operations.md"), "{row:?}");
                assert!(!seen("straggler", attribute).is_empty());
            }
            _ => assert_eq!(seen(metric, attribute), documented, "{}", row[0]),
        }
    }
    let kinds = seen("tokio.task", "tokio.task.kind");
    assert_eq!(kinds, names(["block_on", "blocking", "local", "task"]));
    assert!(
        kinds
            .iter()
            .all(|kind| section("Metrics").contains(&format!("`{kind}`")))
    );
}

#[test]
fn each_span_is_as_the_page_has_it() {
    let spans = everything().spans;
    let (of_site, _) = of_sites();
    let is_marker = |span: &Span| span.name.starts_with("orphan ");
    let is_alive = |span: &Span| span.attributes.contains_key("tokio.task.live");
    let sorts: [(&[&str], Vec<&Span>); 3] = [
        (
            &["all", "the living", "markers"],
            spans.iter().filter(|it| is_marker(it)).collect(),
        ),
        (
            &["all", "the living", "the living at the shutdown"],
            spans.iter().filter(|it| is_alive(it)).collect(),
        ),
        (
            &["all", "the ended"],
            spans
                .iter()
                .filter(|it| !is_marker(it) && !is_alive(it))
                .collect(),
        ),
    ];
    for (of, spans) in sorts {
        let mut documented = Names::new();
        for row in table(section("Spans"), "| attribute |") {
            if of.contains(&row[1]) {
                documented.extend(quoted(row[0]).map(str::to_owned));
                if row[0].starts_with("the site's") {
                    documented.extend(of_site.iter().cloned());
                }
            }
        }
        let keys = spans.iter().flat_map(|span| span.attributes.keys());
        assert_eq!(names(keys.map(String::as_str)), documented, "{of:?}");
    }
    assert!(
        spans
            .iter()
            .all(|it| is_marker(it) || it.name.starts_with("task "))
    );
    let text = section("Spans");
    let mut links = Names::new();
    for span in &spans {
        for event in &span.events {
            assert!(text.contains(&format!("`{}`", event.name)), "{event:?}");
        }
        for link in &span.links {
            let Value::Str(what) = &link.attributes["straggler.link"] else {
                panic!("{link:?}");
            };
            links.insert(format!("straggler.link={what}"));
        }
    }
    let documented = quoted(text).filter(|it| it.starts_with("straggler.link="));
    assert_eq!(links, names(documented));
}
