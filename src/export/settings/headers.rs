//! The headers of each request. Their values may be credentials, and are in no error.

use crate::Error;
use crate::export::env::{Env, Vars};
use http::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};

const AGENT: &str = concat!("straggler/", env!("CARGO_PKG_VERSION"));

/// They say how the body is framed and encoded, which is not the user's to choose.
const RESERVED: [&str; 9] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Those of the environment, then those given in code over them.
pub(super) fn resolve(
    given: &[(String, String)],
    vars: &Vars,
    env: &Env<'_>,
) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if let Some((source, list)) = env.first(vars.headers)? {
        // Numbered, for a part with no name can't be shown: it may be half a credential.
        for (part, entry) in (1..).zip(list.split(',')) {
            if entry.trim().is_empty() {
                continue;
            }
            let at = format!("{source}, part {part},");
            let Some((name, value)) = entry.split_once('=') else {
                return Err(Error::secret(
                    at,
                    "it has no `=`; write name=value,name=value, with `,` in a value as %2C",
                ));
            };
            let value = decode(value.trim());
            let value = value.ok_or_else(|| {
                let expected = "after each `%` there must be two hex digits; write `%` as %25";
                Error::secret(format!("header `{}` of {at}", label(name)), expected)
            })?;
            // An empty value is none: `api-key=` of an unset variable.
            if !value.is_empty() {
                insert(&mut headers, &at, name.trim(), &value)?;
            }
        }
    }
    for (name, value) in given {
        insert(&mut headers, "header(…)", name, value.as_bytes())?;
    }
    Ok(headers)
}

fn insert(headers: &mut HeaderMap, source: &str, name: &str, value: &[u8]) -> Result<(), Error> {
    let refuse = |expected: &str| {
        let name = format!("header `{}` of {source}", label(name));
        Err(Error::secret(name, expected))
    };
    let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
        return refuse("a header's name is of letters, digits and `-`, `_`, `.`");
    };
    if RESERVED.contains(&header.as_str()) || header.as_str().starts_with("grpc-") {
        return refuse("the protocol sets this one itself; leave it out");
    }
    let Ok(mut value) = HeaderValue::from_bytes(value) else {
        return refuse("a header's value has no control characters, as a line break is");
    };
    value.set_sensitive(true);
    headers.insert(header, value);
    Ok(())
}

/// A name to show. What is no name may be a credential on the wrong side of a `=`.
fn label(name: &str) -> &str {
    let name = name.trim();
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) if name.len() <= 64 => name,
        _ => "…",
    }
}

/// Undoes percent-encoding, if every `%` is followed by two hex digits.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
            decoded.push(high << 4 | low);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

fn digit(hex: u8) -> Option<u8> {
    let digit = char::from(hex).to_digit(16)?;
    u8::try_from(digit).ok()
}
