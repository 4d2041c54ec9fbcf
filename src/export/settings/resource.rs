//! What describes this process in every export.

use super::headers::decode;
use crate::Error;
use crate::export::env::{self, Env, refused};
use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{SdkProvidedResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use std::fs;

/// The given one, or else that of the environment, with what tells processes apart.
pub(super) fn resolve(given: Option<&Resource>, env: &Env<'_>) -> Result<Resource, Error> {
    let base = match given {
        Some(given) => given.clone(),
        None => from_env(env)?,
    };
    let missing = |name: &'static str| base.get_ref(&Key::from_static_str(name)).is_none();
    let mut more = Vec::new();
    // Jaeger moves spans in time where it can't see that parent and child share a clock.
    if missing("host.name")
        && let Some(host) = host_name(env)
    {
        more.push(KeyValue::new("host.name", host));
    }
    // Without it, replicas are one and the same to Prometheus.
    if missing("service.instance.id") {
        more.push(KeyValue::new("service.instance.id", random_uuid()));
    }
    if missing("process.pid") {
        let pid = i64::from(std::process::id());
        more.push(KeyValue::new("process.pid", pid));
    }
    let kept = base.iter();
    more.extend(kept.map(|(key, value)| KeyValue::new(key.clone(), value.clone())));
    let builder = Resource::builder_empty();
    Ok(match base.schema_url() {
        Some(url) => builder.with_schema_url(more, url.to_owned()).build(),
        None => builder.with_attributes(more).build(),
    })
}

/// As the SDK has it, but that percent-encoding is undone, and what is malformed refused.
fn from_env(env: &Env<'_>) -> Result<Resource, Error> {
    let mut builder = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(SdkProvidedResourceDetector));
    if let Some(list) = env.get(env::RESOURCE)? {
        builder = builder.with_attributes(attributes(&list)?);
    }
    if let Some(name) = env.get(env::SERVICE_NAME)? {
        builder = builder.with_service_name(name);
    }
    Ok(builder.build())
}

/// <https://opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable>
fn attributes(list: &str) -> Result<Vec<KeyValue>, Error> {
    let mut attributes = Vec::new();
    for entry in list
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
    {
        let refuse = |expected| Err(refused(env::RESOURCE, entry, expected));
        let (key, value) = match entry.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => (key.trim(), value.trim()),
            _ => return refuse("write key=value,key=value, with `,` in a value as %2C"),
        };
        let Some(value) = decode(value).and_then(|value| String::from_utf8(value).ok()) else {
            return refuse("percent-encode the UTF-8 of a value; write `%` as %25");
        };
        attributes.push(KeyValue::new(key.to_owned(), value));
    }
    Ok(attributes)
}

/// std has no call for it. None where the system tells it in none of these places.
fn host_name(env: &Env<'_>) -> Option<String> {
    let read = |path| fs::read_to_string(path).ok();
    // A name that is not UTF-8 is left out like one that is not there.
    let get = |name| env.get(name).ok().flatten();
    let found = read("/proc/sys/kernel/hostname")
        .or_else(|| get("HOSTNAME"))
        .or_else(|| get("COMPUTERNAME"))
        .or_else(|| read("/etc/hostname"))?;
    let name = found.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// A version 4 UUID: RFC 9562, section 5.4.
fn random_uuid() -> String {
    let id = u128::from_be_bytes(RandomIdGenerator::default().new_trace_id().to_bytes());
    let id = id & !(0xf << 76) | 0x4 << 76;
    let id = id & !(0x3 << 62) | 0x2 << 62;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        id >> 96,
        id >> 80 & 0xffff,
        id >> 64 & 0xffff,
        id >> 48 & 0xffff,
        id & 0xffff_ffff_ffff
    )
}
