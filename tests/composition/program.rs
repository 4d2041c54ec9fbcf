//! The program that runs beside the neighbours, what is true of it, and a neighbour that
//! writes down all it is told.

use crate::common::{Flavour, Gate, settle};
use std::env;
use std::ffi::OsStr;
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use straggler::{Builder, ParentStatus, Source, Tasks};
use tokio::runtime::Runtime;
use tokio::task::Id;
use tracing::dispatcher::{self, Dispatch};
use tracing::field::{Field, Visit};
use tracing::span::Attributes;
use tracing::subscriber::NoSubscriber;
use tracing::{Event, Instrument, Subscriber, debug_span, info, info_span};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// With one subscriber in the process tracing asks the calling thread's about callsites.
static MORE_THAN_ONE: LazyLock<[Dispatch; 2]> =
    LazyLock::new(|| [(); 2].map(|()| Dispatch::new(NoSubscriber::default())));

/// A builder whose layer judges at once and has no thread.
pub(crate) fn straggler() -> Builder {
    LazyLock::force(&MORE_THAN_ONE);
    Builder::new()
        .orphan_grace(Duration::ZERO)
        .warn_on_orphans(false)
}

/// A request that leaves a task behind and waits for another.
async fn request(gate: Gate) -> Id {
    info!("started");
    let leaked = debug_span!("work").in_scope(|| tokio::spawn(gate.passed()).id());
    let helper = async {
        tokio::task::yield_now().await;
        info!(answer = 42, "helped");
    };
    tokio::spawn(helper.in_current_span()).await.unwrap();
    info!("done");
    leaked
}

/// Runs the program under this subscriber. `ours` is asked while a task is left behind.
pub(crate) fn run(dispatch: &Dispatch, flavour: Flavour, ours: Option<&Tasks>) {
    LazyLock::force(&MORE_THAN_ONE);
    let _default = dispatcher::set_default(dispatch);
    let runtime = runtime(dispatch, flavour, ours);
    runtime.block_on(async {
        let gate = Gate::default();
        let handler = request(gate.clone()).instrument(info_span!("request", number = 1));
        let leaked = tokio::spawn(handler).await.unwrap();
        if let Some(tasks) = ours {
            // A hook may tell of the end after the handle was woken.
            until(tasks, "two have ended", |tasks| ended(tasks) == 2).await;
            assert_left_behind(tasks, leaked, flavour);
        }
        info!("between");
        gate.open();
        settle().await;
        if let Some(tasks) = ours {
            until(tasks, "it ends", |tasks| {
                tasks.snapshot().task(leaked).is_none()
            })
            .await;
        }
    });
}

/// Every thread of it reports to this subscriber.
pub(crate) fn runtime(dispatch: &Dispatch, flavour: Flavour, ours: Option<&Tasks>) -> Runtime {
    let mut builder = match flavour {
        Flavour::CurrentThread => tokio::runtime::Builder::new_current_thread(),
        Flavour::MultiThread => tokio::runtime::Builder::new_multi_thread(),
    };
    let dispatch = dispatch.clone();
    builder
        .worker_threads(2)
        .enable_all()
        .on_thread_start(move || std::mem::forget(dispatcher::set_default(&dispatch)));
    if let Some(tasks) = ours {
        tasks.hook(&mut builder);
    }
    builder.build().unwrap()
}

pub(crate) async fn until(tasks: &Tasks, what: &str, so: impl Fn(&Tasks) -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !so(tasks) {
        let now = std::time::Instant::now();
        assert!(now < deadline, "{what}:\n{}", tasks.snapshot());
        tokio::task::yield_now().await;
    }
}

fn ended(tasks: &Tasks) -> u64 {
    tasks.snapshot().sites().map(|site| site.ended()).sum()
}

fn assert_left_behind(tasks: &Tasks, leaked: Id, flavour: Flavour) {
    let snapshot = tasks.snapshot();
    let orphans: Vec<_> = snapshot.orphans().map(|task| task.id()).collect();
    assert_eq!(orphans, [leaked], "{snapshot}");
    let orphan = snapshot.task(leaked).unwrap();
    let parent = orphan.parent().unwrap();
    assert_eq!(parent.status(), ParentStatus::Ended, "{snapshot}");
    let span = parent.outermost_span().unwrap();
    assert_eq!(span.name(), "request", "{snapshot}");
    let here = |task: &&straggler::Task| task.location().file().contains("composition");
    let own = snapshot.tasks().filter(here).count();
    let block_on = usize::from(snapshot.source() != Source::Hooks);
    assert_eq!(own, 1 + block_on, "{flavour:?}\n{snapshot}");
    assert!(snapshot.loss().is_empty(), "{snapshot}");
    assert_eq!(snapshot.diagnoses(), [], "{snapshot}");
}

/// What a neighbour was told, in its order.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Vec<String>>>);

impl Record {
    pub(crate) fn layer(&self) -> Recorder {
        Recorder(self.clone())
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Where threads take turns, the order is not the same twice.
    pub(crate) fn sorted(&self) -> Vec<String> {
        let mut lines = self.lines();
        lines.sort();
        lines
    }

    fn push(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

pub(crate) struct Recorder(Record);

/// Numbers of tasks and spans differ from run to run.
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if !field.name().ends_with("id") && !field.name().starts_with("loc.") {
            self.0 += &format!(" {}={value:?}", field.name());
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &tracing::Id, ctx: Context<'_, S>) {
        let mut fields = Fields(String::new());
        attrs.record(&mut fields);
        let parent = ctx.span(id).unwrap().parent().map(|span| span.name());
        let metadata = attrs.metadata();
        self.0.push(format!(
            "new {} {} {} in {parent:?}{}",
            metadata.level(),
            metadata.target(),
            metadata.name(),
            fields.0
        ));
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        let scope: Vec<_> = (ctx.event_scope(event).into_iter().flatten())
            .map(|span| span.name())
            .collect();
        let metadata = event.metadata();
        let (level, target) = (metadata.level(), metadata.target());
        (self.0).push(format!("event {level} {target} in {scope:?}{}", fields.0));
    }

    fn on_enter(&self, id: &tracing::Id, ctx: Context<'_, S>) {
        (self.0).push(format!("enter {}", ctx.span(id).unwrap().name()));
    }

    fn on_exit(&self, id: &tracing::Id, ctx: Context<'_, S>) {
        (self.0).push(format!("exit {}", ctx.span(id).unwrap().name()));
    }

    fn on_close(&self, id: tracing::Id, ctx: Context<'_, S>) {
        (self.0).push(format!("close {}", ctx.span(&id).unwrap().name()));
    }
}

/// For what a process has one of: runs this test again in a process of its own, where it
/// gives true.
#[must_use]
pub(crate) fn alone(test: &str, variables: &[(&str, &str)]) -> bool {
    output_alone(test, variables).is_none()
}

/// The same; what that process said, or nothing inside of it.
#[must_use]
pub(crate) fn output_alone(test: &str, variables: &[(&str, &str)]) -> Option<String> {
    let variables: Vec<_> = variables
        .iter()
        .map(|&(name, value)| (name, value.as_ref()))
        .collect();
    output_of(test, &variables)
}

/// The same, with values that need be no text.
#[must_use]
pub(crate) fn output_of(test: &str, variables: &[(&str, &OsStr)]) -> Option<String> {
    const ALONE: &str = "STRAGGLER_TEST_ALONE";
    if env::var(ALONE).is_ok_and(|alone| alone == test) {
        return None;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, test)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "a test of that name: {text}");
    Some(text.into_owned())
}
