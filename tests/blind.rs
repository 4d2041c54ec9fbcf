//! A build without tokio's spans says so through the log, and sees what goes by the wrapper.
#![allow(clippy::unwrap_used)]
#![cfg(not(tokio_unstable))]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use straggler::{Builder, Source};
use tracing::field::{Field, Visit};
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0.lock().unwrap().push(format!("{value:?}"));
        }
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut self.clone());
    }
}

#[test]
fn the_build_is_warned_of_once_and_no_more_is_said() {
    let log = Log::default();
    let (layer, tasks) = Builder::new().source(Source::Spans).build().unwrap();
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(layer).with(log.clone()));
    let _default = tracing::dispatcher::set_default(&dispatch);
    let deadline = Instant::now() + Duration::from_secs(10);
    while log.0.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "nothing is said");
        std::thread::yield_now();
    }
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.build().unwrap().block_on(async {
        tokio::spawn(std::future::pending::<()>());
        let seen = straggler::spawn(std::future::pending::<()>());
        tokio::task::yield_now().await;
        assert!(tasks.snapshot().task(seen.id()).is_some());
        let codes: Vec<_> = tasks.diagnose().iter().map(|it| it.code()).collect();
        assert_eq!(codes, ["no-tokio-unstable"]);
    });
    std::thread::sleep(Duration::from_millis(1_200));
    let said = log.0.lock().unwrap().clone();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("[no-tokio-unstable]"), "{said:?}");
}

/// A test that can't see its tasks doesn't begin, rather than pass.
#[cfg(feature = "testing")]
#[test]
fn a_watch_is_refused() {
    let error = straggler::testing::try_watch().unwrap_err();
    assert!(error.is_blind());
    assert!(error.to_string().contains("[no-tokio-unstable]"), "{error}");
    let caught = std::panic::catch_unwind(straggler::testing::watch);
    let message = caught.unwrap_err().downcast::<String>().unwrap();
    assert_eq!(*message, error.to_string());
}
