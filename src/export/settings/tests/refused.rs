//! What can't be used, and what no text may show.

use super::*;
use proptest::prelude::*;

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

#[test]
fn what_may_be_a_password_is_not_shown_of_an_endpoint() {
    for endpoint in [
        "http://user:pa#ssword@host:4318",
        "https://user:s3cr/et#x@host",
        "user:pa?ssword@host",
        "http://host/?key=ssword",
    ] {
        let shown = super::super::shown(endpoint);
        assert!(!shown.contains("pa"), "{shown}");
        assert!(!shown.contains("ssword"), "{shown}");
        assert!(!shown.contains("s3cr"), "{shown}");
    }
}
