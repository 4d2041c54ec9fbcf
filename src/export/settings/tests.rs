use super::*;
use crate::export::env;
use opentelemetry::{Key, KeyValue};
use proptest::prelude::*;
use reqwest::header::HeaderMap;
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
    let counts = |variables| in_env(variables, resolve::endpoint_in);
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

/// Of each: the variable, a value that can't be, and what the error says to write.
#[test]
fn every_bad_variable_is_named_with_its_value_and_the_way_out() {
    let bad = [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "ten", "whole milliseconds"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1", "whole milliseconds"),
        (
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
            "0",
            "from 1 ms to 24 h",
        ),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "10s", "no unit"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0", "from 1 ms to 24 h"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1m", "whole milliseconds"),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/json",
            "http/protobuf and grpc",
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "udp",
            "http/protobuf and grpc",
        ),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip and none"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "http://"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://h", "http or https"),
        (
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "http://",
            "http://host:port",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "http://h:99999",
            "http://host:port",
        ),
        ("OTEL_TRACES_EXPORTER", "zipkin", "otlp"),
        ("OTEL_METRICS_EXPORTER", "prometheus", "otlp"),
        ("OTEL_SDK_DISABLED", "1", "true or false"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many", "whole number"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "from 1 to 1048576"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1048577", "from 1 to 1048576"),
        (
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
            "2049",
            "max_queued_spans = 2048",
        ),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0", "from 1 to 2048"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a", "key=value"),
        ("OTEL_RESOURCE_ATTRIBUTES", "=v", "key=value"),
        ("OTEL_RESOURCE_ATTRIBUTES", "k=%zz", "%25"),
        ("OTEL_RESOURCE_ATTRIBUTES", "k=%ff", "UTF-8"),
    ];
    for (name, value, way_out) in bad {
        let text = refusal(&Otlp::new(), &[(name, value)]);
        assert!(text.contains(name), "{name}: {text}");
        assert!(text.contains(value), "{name} = {value}: {text}");
        assert!(text.contains(way_out), "{name} = {value}: {text}");
    }
}

#[test]
fn every_bad_choice_in_code_is_named() {
    let day = Duration::from_secs(86_401);
    let bad = [
        (Otlp::new().endpoint("h:1"), "endpoint", "h:1"),
        (
            Otlp::new().endpoint("http://h/p").protocol(Protocol::Grpc),
            "endpoint",
            "no path",
        ),
        (Otlp::new().timeout(Duration::ZERO), "timeout", "0ns"),
        (Otlp::new().interval(day), "interval", "86401s"),
        (Otlp::new().max_queued_spans(0), "max_queued_spans", "0"),
        (
            Otlp::new().max_queued_spans(9).max_batch(10),
            "max_batch",
            "10",
        ),
        (
            Otlp::new().max_marked_orphans((1 << 20) + 1),
            "max_marked_orphans",
            "1048577",
        ),
    ];
    for (otlp, name, value) in bad {
        let text = refusal(&otlp, &[]);
        assert!(
            text.contains(&format!("{name} = ")) && text.contains(value),
            "{text}"
        );
    }
    let small = resolve(&Otlp::new().max_queued_spans(9), &[]).unwrap();
    assert_eq!(small.max_batch, 9, "the default gives way");
}

#[test]
fn compression_that_the_exporter_of_spans_would_add_is_refused() {
    let otlp = Otlp::new().compression(Compression::None);
    let gzip = [("OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP")];
    let text = refusal(&otlp, &gzip);
    assert!(
        text.contains("compression = None") && text.contains(gzip[0].0),
        "{text}"
    );
    let own = ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none");
    assert!(resolve(&otlp, &[gzip[0], own]).is_ok());
    assert!(
        resolve(&otlp.spans(false), &gzip).is_ok(),
        "metrics are ours"
    );
}

const SECRET: &str = "s3cr3t";

#[test]
fn no_error_and_no_debug_text_shows_a_secret() {
    let name = "OTEL_EXPORTER_OTLP_HEADERS";
    for (value, named) in [
        ("s3cr3t", "part 1"),
        ("ok=1,s3cr3t", "part 2"),
        ("api-key=s3cr3t%zz", "`api-key`"),
        ("api-key=s3cr3t%0A", "`api-key`"),
        ("bad name=s3cr3t", "`…`"),
        ("content-type=s3cr3t", "`content-type`"),
        ("grpc-timeout=s3cr3t", "`grpc-timeout`"),
    ] {
        let text = refusal(&Otlp::new(), &[(name, value)]);
        assert!(text.contains(name) && text.contains(named), "{text}");
        assert!(
            text.contains("not shown") && !text.contains(SECRET),
            "{text}"
        );
    }
    let otlp = Otlp::new()
        .endpoint("http://u:s3cr3t@h?key=s3cr3t")
        .header("api-key", SECRET)
        .ca_certificate(SECRET)
        .client_identity(SECRET, SECRET);
    assert!(format!("{otlp:?}").contains("api-key"));
    assert!(!format!("{otlp:?}").contains(SECRET));
    let text = refusal(&otlp, &[]);
    assert!(
        text.contains("credentials in a header") && !text.contains(SECRET),
        "{text}"
    );
    let text = refusal(&Otlp::new().header("k", "s3cr3t\n"), &[]);
    assert!(
        text.contains("`k` of header(…)") && !text.contains(SECRET),
        "{text}"
    );
    let fine = resolve(&Otlp::new().header("k", SECRET), &[]).unwrap();
    assert!(!format!("{fine:?}").contains(SECRET));
}

#[cfg(unix)]
#[test]
fn what_is_no_utf_8_is_refused_and_not_shown() {
    use std::os::unix::ffi::OsStringExt;
    for name in [
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_SERVICE_NAME",
    ] {
        let lookup =
            |asked: &str| (asked == name).then(|| OsString::from_vec(b"s3cr3t\xff".to_vec()));
        let text = Otlp::new()
            .resolve_in(&Env::of(&lookup))
            .unwrap_err()
            .to_string();
        assert!(text.contains(name) && text.contains("UTF-8"), "{text}");
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[cfg(not(feature = "otlp-tls"))]
#[test]
fn https_names_the_feature_it_needs() {
    let text = refusal(&Otlp::new().endpoint("https://h"), &[]);
    assert!(
        text.contains("https://h") && text.contains("`otlp-tls`"),
        "{text}"
    );
}

#[cfg(feature = "otlp-tls")]
#[test]
fn certificates_are_read_when_they_are_needed() {
    let ca = "OTEL_EXPORTER_OTLP_CERTIFICATE";
    let https = Otlp::new().endpoint("https://h");
    let text = refusal(&https, &[(ca, "/no/such/file")]);
    assert!(
        text.contains(ca) && text.contains("/no/such/file"),
        "{text}"
    );
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let text = refusal(&https, &[(ca, manifest)]);
    assert!(
        text.contains(ca) && text.contains("BEGIN CERTIFICATE"),
        "{text}"
    );
    let cert = "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE";
    let text = refusal(&https, &[(cert, manifest)]);
    assert!(
        text.contains(cert) && text.contains("_CLIENT_KEY"),
        "{text}"
    );
    let text = refusal(&https.clone().ca_certificate("s3cr3t"), &[]);
    assert!(
        text.contains("ca_certificate") && !text.contains(SECRET),
        "{text}"
    );
    let unused = resolve(&Otlp::new(), &[(ca, "/no/such/file")]);
    assert!(unused.is_ok(), "there is no TLS with http");

    let made = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (one, other) = (made("one"), made("other"));
    let identity = |key: &rcgen::KeyPair| {
        https
            .clone()
            .client_identity(one.cert.pem(), key.serialize_pem())
    };
    let text = refusal(&identity(&other.signing_key), &[]);
    assert!(
        text.contains("client_identity") && text.contains("certificate"),
        "{text}"
    );
    assert!(resolve(&identity(&one.signing_key), &[]).is_ok());
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

proptest! {
    /// Any name and value of HTTP's come through the environment's encoding.
    #[test]
    fn headers_round_trip(
        headers in proptest::collection::hash_map("x-[a-z0-9_.-]{0,8}", "[ -~é€]{1,12}", 0..6)
    ) {
        let list: Vec<String> = headers.iter().map(|(name, value)| {
            let value: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            format!(" {name} = {value}")
        }).collect();
        let found = settings(&[("OTEL_EXPORTER_OTLP_HEADERS", &list.join(","))]);
        let mut expected: Vec<(String, String)> = headers.into_iter().collect();
        expected.sort();
        prop_assert_eq!(sorted(&found.traces.unwrap().headers), expected);
    }

    #[test]
    fn no_header_list_panics_or_shows_itself(list in "[a-z=%,; \\-s3]{0,40}") {
        let value = format!("k={SECRET}%,{list}");
        let text = refusal(&Otlp::new(), &[("OTEL_EXPORTER_OTLP_HEADERS", &value)]);
        prop_assert!(!text.contains(SECRET));
    }
}
