//! Our metrics in the program's own `PeriodicReader`.

use super::Exporter;
use super::desk::Desk;
use super::encode::{self, Which};
use crate::{Error, Tasks};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Exports the program's own metrics over OTLP and straggler's with them, histograms and
/// exemplars included, in one request and with the program's resource.
///
/// It takes the place of an `opentelemetry_otlp::MetricExporter` in the program's
/// `PeriodicReader`, and sends by the [`Otlp`](super::Otlp) that was given to
/// [`Builder::otlp`](crate::Builder::otlp). For as long as it is there, straggler sends no metrics
/// of its own. Where [`Otlp::meter_provider`](super::Otlp::meter_provider) was given, counters and
/// gauges go through that, and it adds only the histograms: each point goes out once.
///
/// The reader collects nothing, and so exports nothing, before the program has made
/// an instrument of its own. Shut the provider down before straggler, for nothing is sent after
/// that: an export then is an error.
#[derive(Debug)]
pub struct MetricExporter {
    exporter: Arc<Exporter>,
    desk: Arc<Desk>,
    which: Which,
    is_shut_down: AtomicBool,
}

impl MetricExporter {
    /// An exporter of what these tasks do.
    ///
    /// # Errors
    ///
    /// If they were built without [`Builder::otlp`](crate::Builder::otlp), or with metrics switched
    /// off (`OTEL_SDK_DISABLED` does that too), or another one has their metrics.
    pub fn new(tasks: &Tasks) -> Result<Self, Error> {
        let exporter = tasks.exporter.as_ref().ok_or_else(Error::no_otlp)?;
        let desk = exporter.desk.as_ref().ok_or_else(Error::no_otlp)?;
        let which = desk.take().ok_or_else(Error::metrics_taken)?;
        Ok(Self {
            exporter: Arc::clone(exporter),
            desk: Arc::clone(desk),
            which,
            is_shut_down: AtomicBool::new(false),
        })
    }
}

impl Drop for MetricExporter {
    fn drop(&mut self) {
        self.desk.give_back();
    }
}

impl PushMetricExporter for MetricExporter {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        if self.is_shut_down.load(Ordering::Relaxed) {
            return Err(OTelSdkError::AlreadyShutdown);
        }
        let mut request = ExportMetricsServiceRequest::from(metrics);
        if let Some(collection) = self.exporter.collector.collect()
            && let Some(resource) = request.resource_metrics.first_mut()
        {
            let added = encode::scope_metrics(&collection, self.which);
            resource.scope_metrics.push(added);
        }
        let failed = |what: &str| OTelSdkError::InternalFailure(what.to_owned());
        let replied = (self.desk.hand_in(request))
            .ok_or_else(|| failed("straggler's sender has stopped, or has too much to send"))?;
        let sent =
            (replied.wait().await).ok_or_else(|| failed("straggler's sender has stopped"))?;
        match sent.failure {
            Some(failure) => Err(OTelSdkError::InternalFailure(failure)),
            None => Ok(()),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        // Nothing is held back: an export has been sent when it returns.
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        match self.is_shut_down.swap(true, Ordering::Relaxed) {
            true => Err(OTelSdkError::AlreadyShutdown),
            false => Ok(()),
        }
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}
