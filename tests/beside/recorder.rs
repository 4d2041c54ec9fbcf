//! A layer that writes down what it is told, by names, as numbers differ.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

#[derive(Clone, Debug, Default)]
pub struct Recorder {
    name: &'static str,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    /// One that writes to the same place.
    pub fn beside(&self, name: &'static str) -> Self {
        Self {
            name,
            ..self.clone()
        }
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no panic").clone()
    }

    fn write(&self, line: String) {
        let line = format!("| {} {line}", self.name);
        self.lines.lock().expect("no panic").push(line);
    }
}

fn name<S>(ctx: &Context<'_, S>, id: &Id) -> String
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    ctx.span(id)
        .map_or_else(|| "?".to_owned(), |span| span.name().to_owned())
}

impl<S> Layer<S> for Recorder
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let mut fields = Fields::default();
        attrs.record(&mut fields);
        let parents = ctx.span_scope(id).into_iter().flatten().skip(1);
        let parents: Vec<_> = parents.map(|span| span.name()).collect();
        self.write(format!(
            "new {} in {parents:?} {}",
            name(&ctx, id),
            fields.0
        ));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        self.write(format!("record {} {}", name(&ctx, id), fields.0));
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, ctx: Context<'_, S>) {
        self.write(format!(
            "{} follows {}",
            name(&ctx, id),
            name(&ctx, follows)
        ));
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let parents = ctx.event_scope(event).into_iter().flatten();
        let parents: Vec<_> = parents.map(|span| span.name()).collect();
        self.write(format!("event in {parents:?} {}", fields.0));
    }

    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        self.write(format!("enter {}", name(&ctx, id)));
    }

    fn on_exit(&self, id: &Id, ctx: Context<'_, S>) {
        self.write(format!("exit {}", name(&ctx, id)));
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        self.write(format!("close {}", name(&ctx, &id)));
    }
}

#[derive(Default)]
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Numbers differ from process to process.
        if !field.name().ends_with("id") {
            write!(self.0, "{field}={value:?} ").expect("a string takes it");
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let source = value.source().map(ToString::to_string);
        write!(self.0, "{field}=error {value} {value:?} {source:?} ").expect("a string takes it");
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if !field.name().ends_with("id") {
            write!(self.0, "{field}=u64 {value} ").expect("a string takes it");
        }
    }
}
