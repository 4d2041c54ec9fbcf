//! Error texts: whole, short, and without secrets.

use super::Signal;
use crate::export::settings::{Protocol, shown};
use http::header::{HeaderMap, USER_AGENT};
use std::error::Error;

/// Of a text that somebody else wrote, in characters.
const LONGEST: usize = 200;

/// What failed and where, for an error text to begin with.
pub(super) fn target(what: &str, signal: &Signal) -> String {
    let protocol = match signal.protocol {
        Protocol::Grpc => "gRPC",
        Protocol::HttpProtobuf => "HTTP",
    };
    let endpoint = shown(signal.endpoint.as_str());
    format!("{what} were not taken by {endpoint} ({protocol})")
}

/// An error with its causes. Many repeat theirs, so what was said is not said again.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// What the other side said, on one line, with no value of our headers, and not too long.
pub(super) fn quote(said: &str, headers: &HeaderMap) -> String {
    let mut text = said.to_owned();
    for (name, value) in headers {
        // Shorter ones are found by chance.
        if name != USER_AGENT
            && let Ok(value) = str::from_utf8(value.as_bytes())
            && value.len() >= 4
        {
            text = text.replace(value, "…");
            // Only the credential may come back, without the scheme before it.
            if let Some((_, credential)) = value.split_once(' ')
                && credential.len() >= 4
            {
                text = text.replace(credential, "…");
            }
        }
    }
    let mut short: String = text.trim().chars().take(LONGEST).collect();
    if short.len() < text.trim().len() {
        short.push('…');
    }
    short.escape_debug().to_string()
}
