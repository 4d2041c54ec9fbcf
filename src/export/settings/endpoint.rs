//! Where to send to.

use super::Protocol;
use crate::Error;
use crate::export::env::{Env, Vars, refused};
use url::Url;

pub(super) fn resolve(
    given: Option<&str>,
    protocol: Protocol,
    vars: &Vars,
    env: &Env<'_>,
) -> Result<Url, Error> {
    if let Some(url) = given {
        let endpoint = parse("endpoint", url, protocol)?;
        return Ok(base(endpoint, protocol, vars));
    }
    let [own, _] = vars.endpoint;
    let Some((name, mut value)) = env.first(vars.endpoint)? else {
        let default = match protocol {
            Protocol::Grpc => "http://localhost:4317",
            Protocol::HttpProtobuf => "http://localhost:4318",
        };
        return Ok(base(parse("endpoint", default, protocol)?, protocol, vars));
    };
    if protocol == Protocol::Grpc && scheme(&value).is_none() {
        value = by_insecure(value, vars, env)?;
    }
    let endpoint = parse(name, &value, protocol)?;
    // The signal's own endpoint is complete.
    Ok(match name == own {
        true => endpoint,
        false => base(endpoint, protocol, vars),
    })
}

/// Without a word on TLS, `host:port` stays as it is, to be refused: the specification would
/// have it be TLS, most who write it don't.
fn by_insecure(value: String, vars: &Vars, env: &Env<'_>) -> Result<String, Error> {
    for name in vars.insecure {
        match env.flag(name)? {
            Some(true) => return Ok(format!("http://{value}")),
            Some(false) => return Ok(format!("https://{value}")),
            None => {}
        }
    }
    Ok(value)
}

/// `host:port` parses as a URL whose scheme is the host.
fn scheme(endpoint: &str) -> Option<&str> {
    let (scheme, _) = endpoint.split_once("://")?;
    (!scheme.contains(['/', '?', '#'])).then_some(scheme)
}

fn parse(name: &'static str, value: &str, protocol: Protocol) -> Result<Url, Error> {
    let refuse = |expected: String| Err(refused(name, &shown(value), expected));
    match scheme(value).map(str::to_ascii_lowercase).as_deref() {
        Some("http" | "https") => {}
        Some(_) => return refuse("its scheme must be http or https".into()),
        None => return refuse("begin it with http:// or https://".into()),
    }
    let url = match Url::parse(value) {
        Ok(url) if url.has_host() => url,
        Ok(_) => return refuse("it names no host; write http://host:port".into()),
        Err(error) => return refuse(format!("{error}; write http://host:port")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("send credentials in a header, not in the URL".into());
    }
    if protocol == Protocol::Grpc && (url.path() != "/" || url.query().is_some()) {
        return refuse("gRPC has no path; write http://host:port, or use http/protobuf".into());
    }
    if url.scheme() == "https" && !cfg!(feature = "otlp-tls") {
        return refuse("https needs straggler's cargo feature `otlp-tls`".into());
    }
    Ok(url)
}

/// <https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp>
fn base(mut url: Url, protocol: Protocol, vars: &Vars) -> Url {
    if protocol == Protocol::HttpProtobuf {
        let path = format!("{}/{}", url.path().trim_end_matches('/'), vars.path);
        url.set_path(&path);
    }
    url
}

/// The endpoint without what may be a credential: user and password, and the query.
pub(crate) fn shown(endpoint: &str) -> String {
    // Up to the last `@` of all, first: where it is no URL, a password may well have a slash, a
    // question mark or a hash in it.
    let without = match (endpoint.find("://"), endpoint.rfind('@')) {
        (Some(start), Some(end)) if start + 3 <= end => {
            format!("{}…{}", &endpoint[..start + 3], &endpoint[end..])
        }
        (_, Some(end)) => format!("…{}", &endpoint[end..]),
        (_, None) => endpoint.to_owned(),
    };
    match without.split_once(['?', '#']) {
        Some((without, _)) => format!("{without}?…"),
        None => without,
    }
}
