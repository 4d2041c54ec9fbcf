mod refused;

use super::*;
use crate::export::env;
use http::header::HeaderMap;
use opentelemetry::{Key, KeyValue};
use std::collections::HashMap;
use std::ffi::OsString;

type Variables<'a> = &'a [(&'a str, &'a str)];

fn in_env<T>(variables: Variables<'_>, f: impl FnOnce(&Env<'_>) -> T) -> T {
    let map: HashMap<&str, OsString> = (variables.iter())
        .map(|(name, value)| (*name, OsString::from(value)))
        .collect();
    f(&Env::of(&|name| map.get(name).cloned()))
}

fn resolve(otlp: &Otlp, variables: Variables<'_>) -> Result<Settings, Error> {
    in_env(variables, |env| otlp.resolve_in(env))
}

fn settings(variables: Variables<'_>) -> Settings {
    resolve(&Otlp::new(), variables).unwrap()
}

fn refusal(otlp: &Otlp, variables: Variables<'_>) -> String {
    let error = resolve(otlp, variables).expect_err(&format!("{variables:?}"));
    assert!(error.is_invalid_config(), "{error}");
    error.to_string()
}

fn endpoints(otlp: &Otlp, variables: Variables<'_>) -> (String, String) {
    let settings = resolve(otlp, variables).unwrap();
    let (traces, metrics) = (settings.traces.unwrap(), settings.metrics.unwrap());
    (traces.endpoint.into(), metrics.endpoint.into())
}

fn sorted(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = (headers.iter())
        .filter(|(name, _)| *name != "user-agent")
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into(),
            )
        })
        .collect();
    pairs.sort();
    pairs
}

#[test]
fn defaults_are_those_of_the_specification() {
    let settings = settings(&[]);
    let traces = settings.traces.unwrap();
    assert_eq!(traces.protocol, Protocol::HttpProtobuf);
    assert_eq!(traces.endpoint.as_str(), "http://localhost:4318/v1/traces");
    assert_eq!(traces.timeout, Duration::from_secs(10));
    assert_eq!(traces.compression, Compression::None);
    assert!(traces.tls.is_none());
    let agent = traces.headers["user-agent"].to_str().unwrap();
    assert_eq!(agent, concat!("straggler/", env!("CARGO_PKG_VERSION")));
    let metrics = settings.metrics.unwrap();
    assert_eq!(
        metrics.endpoint.as_str(),
        "http://localhost:4318/v1/metrics"
    );
    assert_eq!(settings.interval, Duration::from_secs(60));
    assert_eq!(
        (settings.max_queued_spans, settings.max_batch),
        (2_048, 512)
    );
    assert_eq!(settings.max_marked_orphans, 4_096);
    assert_eq!(settings.child_within, Duration::from_secs(3_600));
    assert!(!settings.unsampled_parents);
}

#[test]
fn endpoints_as_the_specification_has_them() {
    let new = Otlp::new();
    let general = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(
        endpoints(&new, &[(general, "http://h:1/base/")]),
        pair("http://h:1/base/v1/traces", "http://h:1/base/v1/metrics")
    );
    assert_eq!(
        endpoints(&new, &[(general, "http://h:1"), (traces, "http://t:2/own")]),
        pair("http://t:2/own", "http://h:1/v1/metrics"),
        "a signal's own is used as it is"
    );
    assert_eq!(
        endpoints(
            &Otlp::new().endpoint("http://c:3"),
            &[(traces, "http://t:2/own")]
        ),
        pair("http://c:3/v1/traces", "http://c:3/v1/metrics"),
        "code wins"
    );
    assert_eq!(
        endpoints(
            &new,
            &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), (traces, "")]
        ),
        pair("http://localhost:4317/", "http://localhost:4317/"),
        "empty is unset"
    );
    assert_eq!(
        endpoints(
            &Otlp::new().protocol(Protocol::Grpc),
            &[(general, "h:1"), ("OTEL_EXPORTER_OTLP_INSECURE", "True")]
        ),
        pair("http://h:1/", "http://h:1/")
    );
}

#[test]
fn the_signals_own_variable_wins_and_code_wins_over_both() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "3000"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,b=2"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "A=own,c=%20x%2Cy%3D"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "250"),
    ];
    let found = settings(&variables);
    let (traces, metrics) = (found.traces.unwrap(), found.metrics.unwrap());
    assert_eq!(
        (traces.protocol, metrics.protocol),
        (Protocol::Grpc, Protocol::HttpProtobuf)
    );
    assert_eq!(traces.timeout, Duration::from_secs(3));
    assert_eq!(metrics.timeout, Duration::from_secs(2));
    assert_eq!(traces.compression, Compression::Gzip);
    assert_eq!(metrics.compression, Compression::None);
    assert_eq!(found.interval, Duration::from_millis(250));
    let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter()
            .map(|(a, b)| (a.to_string(), b.to_string()))
            .collect()
    };
    assert_eq!(
        sorted(&traces.headers),
        pairs(&[("a", "own"), ("c", " x,y=")])
    );
    assert_eq!(sorted(&metrics.headers), pairs(&[("a", "1"), ("b", "2")]));

    let otlp = Otlp::new()
        .protocol(Protocol::HttpProtobuf)
        .timeout(Duration::from_secs(1))
        .compression(Compression::Gzip)
        .header("a", "code%20")
        .interval(Duration::from_secs(5));
    let found = resolve(&otlp, &variables).unwrap();
    let traces = found.traces.unwrap();
    assert_eq!(traces.protocol, Protocol::HttpProtobuf);
    assert_eq!(traces.timeout, Duration::from_secs(1));
    assert_eq!(found.metrics.unwrap().compression, Compression::Gzip);
    assert_eq!(found.interval, Duration::from_secs(5));
    let expected = pairs(&[("a", "code%20"), ("c", " x,y=")]);
    assert_eq!(
        sorted(&traces.headers),
        expected,
        "code is not percent-decoded"
    );
}

#[test]
fn what_is_switched_off_is_off() {
    let off = |otlp: &Otlp, variables| {
        let found = resolve(otlp, variables).unwrap();
        (found.traces.is_none(), found.metrics.is_none())
    };
    let new = Otlp::new();
    assert_eq!(off(&new, &[("OTEL_SDK_DISABLED", "TRUE")]), (true, true));
    assert_eq!(off(&new, &[("OTEL_SDK_DISABLED", "false")]), (false, false));
    assert_eq!(
        off(&new, &[("OTEL_TRACES_EXPORTER", "none")]),
        (true, false)
    );
    assert_eq!(
        off(&new, &[("OTEL_METRICS_EXPORTER", "none")]),
        (false, true)
    );
    assert_eq!(
        off(&new, &[("OTEL_TRACES_EXPORTER", "console, otlp")]),
        (false, false)
    );
    let none = [("OTEL_TRACES_EXPORTER", "none")];
    assert!(!off(&Otlp::new().spans(true), &none).0, "code wins");
    assert_eq!(off(&Otlp::new().metrics(false), &[]), (false, true));
}

#[test]
fn a_provider_of_the_programs_takes_the_place_of_our_transport() {
    let otlp = Otlp::new()
        .tracer_provider(SdkTracerProvider::builder().build())
        .meter_provider(SdkMeterProvider::builder().build());
    let unused = [
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "x"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ];
    let found = resolve(&otlp, &unused).unwrap();
    assert!(found.traces.is_none() && found.tracer_provider.is_some());
    assert!(found.metrics.is_some() && found.meter_provider.is_some());
    let found = resolve(&otlp.spans(false), &[("OTEL_SDK_DISABLED", "false")]).unwrap();
    assert!(found.tracer_provider.is_none());
    let found = resolve(&Otlp::new(), &[("OTEL_SDK_DISABLED", "true")]).unwrap();
    assert!(found.meter_provider.is_none());
}

#[test]
fn an_endpoint_in_the_environment_counts_if_it_is_not_empty() {
    let counts = |variables| in_env(variables, resolve::endpoints_in).contains(&true);
    assert!(!counts(&[]));
    assert!(!counts(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]));
    assert!(counts(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h")]));
    assert!(counts(&[(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "http://h"
    )]));
    assert!(counts(&[(
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "http://h"
    )]));
    let disabled = ("OTEL_SDK_DISABLED", "true");
    assert!(!counts(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h"),
        disabled
    ]));
}

#[test]
fn the_resource_tells_processes_apart_and_keeps_what_is_given() {
    let get = |resource: &Resource, key: &'static str| {
        (resource.get(&Key::from_static_str(key))).map(|value| value.to_string())
    };
    let found = settings(&[
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=a, zone = x%2Cy ,host.name=h,",
        ),
        ("OTEL_SERVICE_NAME", "b"),
    ]);
    let resource = found.resource;
    assert_eq!(get(&resource, "service.name").unwrap(), "b");
    assert_eq!(get(&resource, "zone").unwrap(), "x,y");
    assert_eq!(get(&resource, "host.name").unwrap(), "h");
    assert_eq!(
        get(&resource, "process.pid").unwrap(),
        std::process::id().to_string()
    );
    assert_eq!(get(&resource, "telemetry.sdk.language").unwrap(), "rust");
    let id = get(&resource, "service.instance.id").unwrap();
    assert_eq!((id.len(), &id[14..15]), (36, "4"), "{id}");
    assert!("89ab".contains(&id[19..20]), "{id}");
    let other = get(&settings(&[]).resource, "service.instance.id").unwrap();
    assert_ne!(id, other);

    let own = Resource::builder_empty()
        .with_schema_url(
            [KeyValue::new("service.instance.id", "mine")],
            "http://schema",
        )
        .build();
    let ignored = [(env::RESOURCE, "not read")];
    let found = resolve(&Otlp::new().resource(own), &ignored)
        .unwrap()
        .resource;
    assert_eq!(get(&found, "service.instance.id").unwrap(), "mine");
    assert_eq!(found.schema_url(), Some("http://schema"));
    assert_eq!(
        get(&found, "service.name"),
        None,
        "nothing is added to it that it can do without"
    );
}
