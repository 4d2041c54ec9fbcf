//! tokio-console's layer beside us: by one call, and by hand. A console connects and sees the
//! tasks that we see. Each scenario has a process of its own.

use crate::common::{Flavour, Gate, settle};
use crate::program::{alone, output_alone, output_of};
use console_api::instrument::instrument_client::InstrumentClient;
use console_api::instrument::{InstrumentRequest, Update};
use console_api::tasks::Task;
use console_api::{Field, field};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};
use straggler::{Builder, Snapshot, Tasks};
use tokio::runtime::Runtime;
use tracing::dispatcher::{self, Dispatch};
use tracing_subscriber::prelude::*;

/// As in a program: with no other subscriber in the process, which hides mistakes.
fn straggler() -> Builder {
    Builder::new().orphan_grace(Duration::ZERO)
}

/// An address that was free just now.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// What a console knows of the tasks, by tokio's ids.
#[derive(Default)]
struct Console {
    names: HashMap<u64, Vec<String>>,
    tasks: BTreeMap<u64, (u64, String, u32)>,
    dropped: HashSet<u64>,
    lost: u64,
}

impl Console {
    fn apply(&mut self, update: Update) {
        for new in update.new_metadata.into_iter().flat_map(|new| new.metadata) {
            let names = new.metadata.unwrap().field_names;
            self.names.insert(new.id.unwrap().id, names);
        }
        let Some(update) = update.task_update else {
            return;
        };
        self.lost += update.dropped_events;
        for task in update.new_tasks {
            let id = self.task_id(&task);
            let location = task.location.unwrap();
            let (file, line) = (location.file.unwrap(), location.line.unwrap());
            self.tasks.insert(task.id.unwrap().id, (id, file, line));
        }
        let dropped = update
            .stats_update
            .into_iter()
            .filter(|(_, stats)| stats.dropped_at.is_some());
        self.dropped.extend(dropped.map(|(id, _)| id));
    }

    fn task_id(&self, task: &Task) -> u64 {
        let is_id = |field: &&Field| self.name(field) == "task.id";
        match task
            .fields
            .iter()
            .find(is_id)
            .unwrap()
            .value
            .as_ref()
            .unwrap()
        {
            field::Value::U64Val(id) => *id,
            other => panic!("{other:?}"),
        }
    }

    fn name<'a>(&'a self, field: &'a Field) -> &'a str {
        match field.name.as_ref().unwrap() {
            field::Name::StrName(name) => name,
            field::Name::NameIdx(at) => {
                &self.names[&field.metadata_id.as_ref().unwrap().id][*at as usize]
            }
        }
    }

    fn live(&self) -> BTreeSet<(u64, String, u32)> {
        let live = self
            .tasks
            .iter()
            .filter(|(id, _)| !self.dropped.contains(id));
        live.map(|(_, task)| task.clone()).collect()
    }
}

fn live(snapshot: &Snapshot) -> BTreeSet<(u64, String, u32)> {
    let place = |task: &straggler::Task| {
        let id = task.id().to_string().parse().unwrap();
        (
            id,
            task.location().file().to_owned(),
            task.location().line(),
        )
    };
    snapshot.tasks().map(place).collect()
}

/// Whether they agree; ours leaves out what a registry's path begins with.
fn agree(theirs: &BTreeSet<(u64, String, u32)>, ours: &BTreeSet<(u64, String, u32)>) -> bool {
    theirs.len() == ours.len()
        && (theirs.iter().zip(ours)).all(|(theirs, ours)| {
            theirs.0 == ours.0 && theirs.1.ends_with(&ours.1) && theirs.2 == ours.2
        })
}

/// Connects as a console does, from a thread that nobody looks at, until `done` says so.
fn watch<R: Send>(address: &str, done: impl Fn(&Console) -> Option<R> + Sync) -> R {
    let deadline = Instant::now() + Duration::from_secs(20);
    let watch = async || {
        let url = format!("http://{address}");
        let mut client = loop {
            match InstrumentClient::connect(url.clone()).await {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        let updates = client.watch_updates(InstrumentRequest {}).await.unwrap();
        let mut updates = updates.into_inner();
        let mut console = Console::default();
        loop {
            console.apply(updates.message().await.unwrap().expect("it serves on"));
            if let Some(result) = done(&console) {
                return result;
            }
            assert!(
                Instant::now() < deadline,
                "it stays so: {:#?}",
                console.live()
            );
        }
    };
    let here = || {
        let _nobody = dispatcher::set_default(&Dispatch::none());
        let builder = &mut tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(watch())
    };
    std::thread::scope(|scope| scope.spawn(here).join().unwrap())
}

fn runtime(flavour: Flavour) -> Runtime {
    let mut builder = match flavour {
        Flavour::CurrentThread => tokio::runtime::Builder::new_current_thread(),
        Flavour::MultiThread => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// Some tasks that live, some that have ended, and a console that looks.
fn both_see_the_same(tasks: &Tasks, address: &str, flavour: Flavour) {
    runtime(flavour).block_on(async {
        let gate = Gate::default();
        for _ in 0..3 {
            tokio::spawn(gate.passed());
            tokio::spawn(async {}).await.unwrap();
        }
        let inner = gate.clone();
        let orphan = tokio::spawn(async move { tokio::spawn(inner.passed()).id() });
        let orphan = orphan.await.unwrap();
        straggler::task("named").spawn(gate.passed());
        let (kept, waits) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || waits.recv());
        let agreed = watch(address, |console| {
            assert_eq!(console.lost, 0);
            let (theirs, ours) = (console.live(), live(&tasks.snapshot()));
            (agree(&theirs, &ours)).then_some(theirs)
        });
        let own = |task: &&(u64, String, u32)| task.1.ends_with("console.rs");
        assert_eq!(agreed.iter().filter(own).count(), 7, "{agreed:#?}");
        let snapshot = tasks.snapshot();
        assert!(
            snapshot.task(orphan).unwrap().orphaned().is_some(),
            "{snapshot}"
        );
        assert_eq!(snapshot.diagnoses(), [], "{snapshot}");
        assert!(snapshot.loss().is_empty(), "{snapshot}");
        gate.open();
        drop(kept);
        settle().await;
        let ended = watch(address, |console| {
            let (theirs, ours) = (console.live(), live(&tasks.snapshot()));
            (agree(&theirs, &ours) && theirs.iter().filter(own).count() == 1).then_some(theirs)
        });
        assert!(ended.len() < agreed.len());
    });
}

fn quick(address: &str) -> [(&str, &str); 2] {
    [
        ("TOKIO_CONSOLE_BIND", address),
        ("TOKIO_CONSOLE_PUBLISH_INTERVAL", "50ms"),
    ]
}

fn address() -> String {
    std::env::var("TOKIO_CONSOLE_BIND").unwrap()
}

#[test]
fn one_call_gives_both() {
    let address = free().to_string();
    if alone("console::one_call_gives_both", &quick(&address)) {
        let straggler = straggler().console(true).init().unwrap();
        both_see_the_same(straggler.tasks(), &self::address(), Flavour::CurrentThread);
        both_see_the_same(straggler.tasks(), &self::address(), Flavour::MultiThread);
    }
}

#[test]
fn its_own_layer_beside_ours_is_the_same() {
    let address = free().to_string();
    if alone(
        "console::its_own_layer_beside_ours_is_the_same",
        &quick(&address),
    ) {
        let (layer, tasks) = straggler().build().unwrap();
        tracing_subscriber::registry()
            .with(console_subscriber::spawn())
            .with(layer)
            .init();
        both_see_the_same(&tasks, &self::address(), Flavour::MultiThread);
    }
}

/// The console's view of one program, with us and without.
#[allow(clippy::print_stdout)] // How one process tells the other.
#[test]
fn a_console_is_shown_the_same_without_us() {
    const NAME: &str = "console::a_console_is_shown_the_same_without_us";
    const SHOWN: &str = "shown: ";
    let shown = |with: &str| {
        let address = free().to_string();
        let [bind, interval] = quick(&address);
        let text = output_alone(NAME, &[bind, interval, ("WITH_STRAGGLER", with)])?;
        let shown = text.lines().filter_map(|line| line.split_once(SHOWN));
        Some(shown.map(|(_, shown)| shown.to_owned()).collect::<Vec<_>>())
    };
    let Some(without) = shown("no") else {
        let (layer, _tasks) = straggler().build().unwrap();
        let with = std::env::var("WITH_STRAGGLER").unwrap() == "yes";
        tracing_subscriber::registry()
            .with(with.then_some(layer))
            .with(console_subscriber::spawn())
            .init();
        runtime(Flavour::CurrentThread).block_on(async {
            let gate = Gate::default();
            for _ in 0..3 {
                tokio::spawn(gate.passed());
                tokio::spawn(async {}).await.unwrap();
            }
            watch(&address(), |console| {
                let all = console.tasks.values().map(|(_, file, line)| (file, line));
                let all: Vec<_> = all
                    .map(|(file, line)| format!("{SHOWN}{file}:{line}"))
                    .collect();
                let done = all.len() == 7 && console.live().len() == 4;
                done.then(|| println!("\n{}", all.join("\n")))
            });
        });
        return;
    };
    assert_eq!(without.len(), 7, "{without:?}");
    assert_eq!(shown("yes"), Some(without));
}

#[test]
fn a_port_that_is_taken_is_an_error_and_nothing_is_installed() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    const NAME: &str = "console::a_port_that_is_taken_is_an_error_and_nothing_is_installed";
    if alone(NAME, &quick(&address)) {
        let address = self::address();
        // Taken by this process here, by its parent there.
        let error = straggler().console(true).init().unwrap_err();
        assert!(error.is_console_unavailable(), "{error}");
        assert!(error.to_string().contains(&address), "{error}");
        let _guard = straggler().init().expect("nothing was installed");
    }
}

#[test]
fn a_subscriber_that_is_there_is_an_error_and_the_port_is_free_again() {
    let address = free().to_string();
    const NAME: &str = "console::a_subscriber_that_is_there_is_an_error_and_the_port_is_free_again";
    if alone(NAME, &quick(&address)) {
        let _guard = straggler().init().unwrap();
        let error = straggler().console(true).init().unwrap_err();
        assert!(error.is_subscriber_already_set(), "{error}");
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = TcpListener::bind(self::address()) {
            assert!(Instant::now() < deadline, "{error}");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_variable_it_cannot_read_is_an_error_that_names_it() {
    const NAME: &str = "console::a_variable_it_cannot_read_is_an_error_that_names_it";
    for (variable, value) in [
        ("TOKIO_CONSOLE_BIND", "6669"),
        ("TOKIO_CONSOLE_RETENTION", "an hour"),
        ("TOKIO_CONSOLE_PUBLISH_INTERVAL", "0s"),
        ("TOKIO_CONSOLE_BUFFER_CAPACITY", "0"),
        ("TOKIO_CONSOLE_BUFFER_CAPACITY", "18446744073709551615"),
        ("TOKIO_CONSOLE_RECORD_PATH", "/no/such/directory/record"),
    ] {
        // The recording is looked at once the port is ours.
        let address = free().to_string();
        let [bind, _] = quick(&address);
        if alone(NAME, &[bind, (variable, value), ("VARIABLE", variable)]) {
            let variable = std::env::var("VARIABLE").unwrap();
            let error = straggler().console(true).init().unwrap_err();
            assert!(error.is_invalid_config(), "{error}");
            assert!(error.to_string().contains(&variable), "{error}");
            return;
        }
    }
}

#[test]
fn a_variable_that_is_no_text_is_an_error_that_names_it() {
    const NAME: &str = "console::a_variable_that_is_no_text_is_an_error_that_names_it";
    for variable in [
        "TOKIO_CONSOLE_BIND",
        "TOKIO_CONSOLE_RETENTION",
        "TOKIO_CONSOLE_PUBLISH_INTERVAL",
        "TOKIO_CONSOLE_BUFFER_CAPACITY",
        "TOKIO_CONSOLE_RECORD_PATH",
    ] {
        let value = OsStr::from_bytes(b"\xff");
        let address = free().to_string();
        let variables = [
            ("TOKIO_CONSOLE_BIND", address.as_ref()),
            (variable, value),
            ("VARIABLE", variable.as_ref()),
        ];
        if output_of(NAME, &variables).is_none() {
            let variable = std::env::var("VARIABLE").unwrap();
            let error = straggler().console(true).init().unwrap_err();
            assert!(error.is_invalid_config(), "{error}");
            assert!(error.to_string().contains(&variable), "{error}");
            return;
        }
    }
}

#[test]
fn a_recording_outlives_a_start_that_fails() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let record = std::env::temp_dir().join(format!("straggler-record-{}", std::process::id()));
    let path = record.to_str().unwrap();
    std::fs::write(path, "of before").unwrap();
    const NAME: &str = "console::a_recording_outlives_a_start_that_fails";
    let [bind, interval] = quick(&address);
    if alone(NAME, &[bind, interval, ("TOKIO_CONSOLE_RECORD_PATH", path)]) {
        let error = straggler().console(true).init().unwrap_err();
        assert!(error.is_console_unavailable(), "{error}");
        let path = std::env::var("TOKIO_CONSOLE_RECORD_PATH").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "of before");
    }
    std::fs::remove_file(record).unwrap();
}

#[test]
fn build_can_not_hold_a_second_layer_and_says_what_to_write() {
    let built = Builder::new()
        .console(true)
        .build::<tracing_subscriber::Registry>();
    let error = built.map(drop).unwrap_err();
    assert!(error.is_invalid_config());
    let text = error.to_string();
    assert!(
        text.contains(".with(console_subscriber::spawn())"),
        "{text}"
    );
}
