//! What leaves the process, by OpenTelemetry's protocol.
//!
//! ```text
//! monitor's look ─> orphans ─> draft ─> out ──┬─> outbox ──┐
//!                      │                      └─> the program's tracer provider
//!                      v                                   v
//! table ──────────> collect ─> points ─> encode ───────> sender ─┬─> wire ─> network
//!                                 │                              └─> memory (a test's)
//!                                 ├────> meter (the program's meter provider)
//!                                 └────> reader (the program's periodic reader)
//! ```

mod attributes;
mod catalog;
mod collect;
mod desk;
mod draft;
mod encode;
mod env;
pub(crate) mod exported;
mod memory;
mod meter;
mod orphans;
mod out;
mod points;
mod quiet;
mod reader;
mod sender;
mod series;
mod settings;
mod wire;

pub use memory::InMemory;
pub use reader::MetricExporter;
pub use settings::{Compression, Otlp, Protocol};

use crate::Error;
use crate::monitor::{Outlet, Witness};
use crate::tasks::Shared;
use collect::Collector;
use desk::Desk;
use encode::Which;
use opentelemetry::InstrumentationScope;
use opentelemetry::trace::TracerProvider;
use orphans::{Counts, Keeper, Limits};
use out::{Out, Outbox, Placing};
use sender::{Jobs, Sender};
use settings::Settings;
use std::sync::Arc;
use std::time::Instant;

/// Whose metrics and spans these are.
fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("straggler")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
}

/// All ways out of one table.
#[derive(Debug)]
pub(crate) struct Exporter {
    collector: Arc<Collector>,
    /// `None` where no metrics are sent.
    desk: Option<Arc<Desk>>,
    /// `None` where all goes through the program's own providers, or nothing goes at all.
    sender: Option<Sender>,
}

impl Exporter {
    /// Starts what is needed, and gives what the monitor must show each task to.
    pub(crate) fn start(
        mut settings: Settings,
        shared: &Shared,
        outlet: &Arc<Outlet>,
    ) -> Result<(Self, Box<dyn Witness>), Error> {
        let counts = Arc::new(Counts::default());
        let collector = Arc::new(Collector::new(shared, Arc::clone(&counts)));
        let placing = Placing {
            child_within: settings.child_within,
            unsampled_parents: settings.unsampled_parents,
        };
        let limits = Limits {
            max_marked: settings.max_marked_orphans,
            again_after: settings.interval,
        };
        let outbox = Outbox::new(settings.max_queued_spans);
        // The program's providers are its own to drop: nothing here may keep the meters' alive.
        let out = match (settings.tracer_provider.take(), &settings.traces) {
            (Some(provider), _) => {
                let tracer = provider.tracer_with_scope(scope());
                Some(Out::to_provider(placing, tracer, settings.max_batch))
            }
            (None, Some(_)) => {
                let spare = settings.max_marked_orphans;
                Some(Out::to_sender(placing, Arc::clone(&outbox), spare))
            }
            (None, None) => None,
        };
        let which = match settings.meter_provider.take() {
            Some(provider) => {
                meter::observe(&provider, &collector);
                Which::Histograms
            }
            None => Which::All,
        };
        let sends_metrics = settings.metrics.is_some();
        let desk = Desk::new(sends_metrics.then_some(which));
        let sender = if sends_metrics || settings.traces.is_some() {
            let jobs = Jobs {
                table: Arc::downgrade(&shared.table),
                outbox,
                max_batch: settings.max_batch,
                interval: settings.interval,
                collector: Arc::clone(&collector),
                desk: Arc::clone(&desk),
                resource: (&settings.resource).into(),
                schema_url: settings
                    .resource
                    .schema_url()
                    .unwrap_or_default()
                    .to_owned(),
            };
            Some(Sender::start(settings, Arc::clone(outlet), jobs)?)
        } else {
            None
        };
        let exporter = Self {
            collector,
            desk: sends_metrics.then_some(desk),
            sender,
        };
        Ok((exporter, Box::new(Keeper::new(limits, counts, out))))
    }

    /// Sends what there is now. False where that was not done at the deadline.
    pub(crate) fn flush(&self, deadline: Option<Instant>) -> bool {
        (self.sender.as_ref()).is_none_or(|sender| sender.flush(deadline))
    }

    /// Sends what there is, and stops. False where that was not done at the deadline.
    pub(crate) fn stop(&self, deadline: Option<Instant>) -> bool {
        (self.sender.as_ref()).is_none_or(|sender| sender.stop(deadline))
    }
}
