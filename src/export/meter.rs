//! Counters and gauges through the program's own meter provider. Histograms can't go that
//! way: the SDK takes single values only.

use super::catalog::{self, Instrument, InstrumentKind};
use super::collect::Collector;
use super::series::{Point, Value};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider};
use std::sync::{Arc, Weak};

/// Registers an observable instrument for each metric that is none of histograms. They fall
/// silent when the collector is gone.
pub(crate) fn observe(provider: &impl MeterProvider, collector: &Arc<Collector>) {
    let meter = provider.meter_with_scope(super::scope());
    for instrument in catalog::ALL {
        register(&meter, instrument, Arc::downgrade(collector));
    }
}

fn register(meter: &Meter, instrument: &'static Instrument, collector: Weak<Collector>) {
    macro_rules! register {
        ($builder:ident, $value:expr) => {{
            meter
                .$builder(instrument.name)
                .with_unit(instrument.unit)
                .with_description(instrument.description)
                .with_callback(move |observer| {
                    let convert = $value;
                    each_point(&collector, instrument, |point, attributes| {
                        observer.observe(convert(&point.value), attributes);
                    });
                })
                .build();
        }};
    }
    let count = |value: &Value| match value {
        Value::Count(count) => *count,
        Value::Seconds(_) | Value::Histogram(_) => 0,
    };
    let seconds = |value: &Value| match value {
        Value::Seconds(seconds) => *seconds,
        Value::Count(_) | Value::Histogram(_) => 0.0,
    };
    let signed = move |value: &Value| i64::try_from(count(value)).unwrap_or(i64::MAX);
    match (instrument.kind, instrument.unit) {
        (InstrumentKind::Histogram, _) => {}
        (InstrumentKind::Counter, "s") => register!(f64_observable_counter, seconds),
        (InstrumentKind::Counter, _) => register!(u64_observable_counter, count),
        (InstrumentKind::UpDownCounter, _) => register!(i64_observable_up_down_counter, signed),
        (InstrumentKind::Gauge, "s") => register!(f64_observable_gauge, seconds),
        (InstrumentKind::Gauge, _) => register!(u64_observable_gauge, count),
    }
}

fn each_point(
    collector: &Weak<Collector>,
    instrument: &Instrument,
    mut observe: impl FnMut(&Point, &[KeyValue]),
) {
    let collection = collector
        .upgrade()
        .and_then(|collector| collector.for_instrument(instrument.name));
    let Some(collection) = collection else { return };
    let metric = (collection.metrics.iter()).find(|metric| metric.instrument == instrument);
    for point in metric.iter().flat_map(|metric| &metric.points) {
        observe(point, &point.attributes);
    }
}
