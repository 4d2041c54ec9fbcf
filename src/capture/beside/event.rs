//! An event once more, under another parent.

use std::error::Error;
use std::fmt;
use tracing_core::field::{self, Field, Value, Visit};
use tracing_core::span::Id;
use tracing_core::{Event, Metadata};

/// As many fields as every version of `tracing-core` takes.
const MOST: usize = 32;

/// Calls `f` with a copy of the event that has this parent, or none. An event doesn't give its
/// values out, only shows them: so what is `Debug` is a text in the copy.
pub(super) fn under(event: &Event<'_>, parent: Option<Id>, f: impl FnOnce(&Event<'_>)) {
    let mut copied = Copied(Vec::new());
    event.record(&mut copied);
    let metadata: &'static Metadata<'static> = event.metadata();
    let Some(any) = metadata.fields().iter().next() else {
        return f(&Event::new_child_of(
            parent,
            metadata,
            &metadata.fields().value_set(&[]),
        ));
    };
    let mut values: [(&Field, Option<&dyn Value>); MOST] = [(&any, None); MOST];
    for (slot, (field, value)) in values.iter_mut().zip(&copied.0) {
        *slot = (field, Some(&**value));
    }
    let values = metadata.fields().value_set(&values);
    f(&Event::new_child_of(parent, metadata, &values));
}

struct Copied(Vec<(Field, Box<dyn Value>)>);

impl Copied {
    fn push(&mut self, field: &Field, value: impl Value + 'static) {
        self.0.push((field.clone(), Box::new(value)));
    }
}

impl Visit for Copied {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.push(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.push(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value.to_owned());
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        self.push(field, Box::<[u8]>::from(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let told: Box<dyn Error + 'static> = Box::new(Told::new(value));
        self.push(field, told);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, field::debug(Text(format!("{value:?}"))));
    }
}

/// What `Debug` wrote.
struct Text(String);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an error said, and its sources.
struct Told {
    display: String,
    debug: String,
    source: Option<Box<Told>>,
}

impl Told {
    fn new(error: &dyn Error) -> Self {
        Self {
            display: error.to_string(),
            debug: format!("{error:?}"),
            source: error.source().map(|source| Box::new(Self::new(source))),
        }
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.debug)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

impl Error for Told {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}
