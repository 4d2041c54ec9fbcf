//! Attributes that metrics and spans share.

use super::catalog;
use crate::task::{Cause, Certainty, SiteKey};
use opentelemetry::KeyValue;

/// Which spawn site. The overflow site has nothing but the mark that it is one, as in the
/// SDK.
pub(crate) fn site(key: &SiteKey) -> Vec<KeyValue> {
    if key.overflow {
        return vec![KeyValue::new(catalog::OVERFLOW, true)];
    }
    place(key)
}

/// Where a task was spawned, and what it is.
pub(crate) fn place(key: &SiteKey) -> Vec<KeyValue> {
    let location = &key.location;
    let mut attributes = vec![
        KeyValue::new(catalog::FILE, location.file().to_owned()),
        KeyValue::new(catalog::LINE, i64::from(location.line())),
        KeyValue::new(catalog::COLUMN, i64::from(location.column())),
        KeyValue::new(catalog::KIND, key.kind.as_str()),
    ];
    if let Some(name) = &key.name {
        attributes.push(KeyValue::new(catalog::NAME, name.to_string()));
    }
    attributes
}

/// Why a task is an orphan.
pub(crate) fn why(cause: Cause, certainty: Certainty) -> Vec<KeyValue> {
    vec![
        KeyValue::new(catalog::CAUSE, cause.as_str()),
        KeyValue::new(catalog::CERTAINTY, certainty.as_str()),
    ]
}
