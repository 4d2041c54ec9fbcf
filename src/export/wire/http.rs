//! OTLP over HTTP.

use super::retry::{Again, Failure, Undelivered, after_http};
use super::text::{chain, quote};
use super::{Signal, retry};
use crate::Error;
use crate::export::settings::Compression;
use flate2::write::GzEncoder;
use http::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_http::Bytes;
use prost::Message;
use std::error::Error as StdError;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

/// As `opentelemetry-otlp` has it. An answer to an export is a few bytes.
const MAX_ANSWER: usize = 4 << 20;
/// Of an answer that says what was wrong; only the start of it is shown.
const MAX_REASON: usize = 4 << 10;
/// <https://github.com/open-telemetry/opentelemetry-proto/blob/main/docs/specification.md#otlphttp-request>
const MAX_REQUEST: usize = 64 << 20;

/// A connection that nobody used for so long is likely to be closed at the other end.
const IDLE: Duration = Duration::from_secs(60);

#[cfg(not(feature = "otlp-tls"))]
type Connector = HttpConnector;
#[cfg(feature = "otlp-tls")]
type Connector = hyper_rustls::HttpsConnector<HttpConnector>;

/// Connections, made when they are first needed. No redirect is followed: the headers are
/// for this endpoint.
pub(super) type Client = legacy::Client<Connector, Full<Bytes>>;

pub(super) fn client(signal: &Signal) -> Result<Client, Error> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(signal.timeout));
    connector.enforce_http(false);
    #[cfg(feature = "otlp-tls")]
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(super::tls::client_config(signal)?)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(connector);
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(connector))
}

/// One endpoint over HTTP.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    endpoint: Uri,
    headers: HeaderMap,
}

/// A success.
pub(super) struct Answer {
    pub(super) body: Bytes,
}

/// No success.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There was no answer, or no end of it.
    Network(String),
    TooLarge(String),
    Status {
        status: StatusCode,
        retry_after: Option<HeaderValue>,
        text: String,
    },
}

impl Refusal {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Network(text) | Self::TooLarge(text) | Self::Status { text, .. } => text,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let (text, again) = match refusal {
            Refusal::Network(text) => (text, Again::Yes),
            Refusal::TooLarge(text) => (text, Again::Never),
            Refusal::Status {
                status,
                retry_after,
                text,
            } => {
                let delay = retry_after.as_ref().and_then(|value| value.to_str().ok());
                let again = after_http(status.as_u16(), delay, SystemTime::now());
                (text, again)
            }
        };
        Self { text, again }
    }
}

impl Http {
    pub(super) fn new(client: Client, signal: &Signal) -> Result<Self, Error> {
        let endpoint = Uri::try_from(signal.endpoint.as_str());
        Ok(Self {
            client,
            endpoint: endpoint.map_err(|error| Error::exporter(chain(&error)))?,
            headers: signal.headers.clone(),
        })
    }

    /// One attempt. `encoding` is that of the body, if it has one.
    pub(super) async fn post(
        &self,
        body: Bytes,
        encoding: Option<HeaderValue>,
    ) -> Result<Answer, Refusal> {
        let mut headers = self.headers.clone();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        );
        if let Some(encoding) = encoding {
            headers.insert(CONTENT_ENCODING, encoding);
        }
        let mut request = Request::post(self.endpoint.clone())
            .body(Full::new(body))
            .map_err(|error| self.network(&error))?;
        *request.headers_mut() = headers;
        let sent = self.client.request(request).await;
        let response = sent.map_err(|error| self.network(&error))?;
        if response.status().is_success() {
            self.answer(response).await
        } else {
            Err(self.refusal(response).await)
        }
    }

    async fn answer<B>(&self, mut response: Response<B>) -> Result<Answer, Refusal>
    where
        B: BodyExt<Data = Bytes> + Unpin,
        B::Error: StdError + 'static,
    {
        let mut body = Vec::new();
        while let Some(frame) = response.frame().await {
            let frame = frame.map_err(|error| self.network(&error))?;
            let Some(chunk) = frame.data_ref() else {
                continue;
            };
            if body.len() + chunk.len() > MAX_ANSWER {
                let text = format!("{}, with an answer of over 4 MiB", response.status());
                return Err(Refusal::TooLarge(text));
            }
            body.extend_from_slice(chunk);
        }
        Ok(Answer { body: body.into() })
    }

    async fn refusal<B>(&self, mut response: Response<B>) -> Refusal
    where
        B: BodyExt<Data = Bytes> + Unpin,
    {
        let status = response.status();
        let mut text = status.to_string();
        if status.is_redirection() {
            text.push_str("; redirects are not followed, set the final endpoint");
        }
        let mut said = Vec::new();
        // What breaks off here is only the explanation.
        while let Some(Ok(frame)) = response.frame().await {
            said.extend_from_slice(frame.data_ref().map_or(&[], |chunk| chunk));
            if said.len() >= MAX_REASON {
                said.truncate(MAX_REASON);
                break;
            }
        }
        let reason = reason(header(&response, CONTENT_TYPE), &said);
        let reason = quote(&reason, &self.headers);
        if !reason.is_empty() {
            text.push_str(": ");
            text.push_str(&reason);
        }
        Refusal::Status {
            status,
            retry_after: response.headers().get(RETRY_AFTER).cloned(),
            text,
        }
    }

    fn network(&self, error: &(dyn StdError + 'static)) -> Refusal {
        Refusal::Network(quote(&chain(error), &self.headers))
    }
}

fn header<B>(response: &Response<B>, name: HeaderName) -> &str {
    let value = response.headers().get(name);
    value.and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// What the receiver says was wrong: the message of a `google.rpc.Status`, as OTLP has it, or
/// plain text, as proxies do.
fn reason(content_type: &str, body: &[u8]) -> String {
    if content_type.starts_with("application/x-protobuf") {
        return tonic_types::Status::decode(body).map_or_else(|_| String::new(), |s| s.message);
    }
    if content_type.starts_with("text/plain") || content_type.starts_with("application/json") {
        return String::from_utf8_lossy(body).into_owned();
    }
    String::new()
}

/// A request that is ready to be sent, any number of times.
pub(super) struct Body {
    bytes: Bytes,
    encoding: Option<HeaderValue>,
}

impl Body {
    pub(super) fn of(message: &impl Message, compression: Compression) -> Result<Self, String> {
        let bytes = message.encode_to_vec();
        if bytes.len() > MAX_REQUEST {
            return Err(format!(
                "a request of {} bytes is above OTLP's 64 MiB",
                bytes.len()
            ));
        }
        Ok(match compression {
            Compression::None => Self {
                bytes: bytes.into(),
                encoding: None,
            },
            Compression::Gzip => Self {
                bytes: gzip(&bytes).map_err(|error| error.to_string())?.into(),
                encoding: Some(HeaderValue::from_static("gzip")),
            },
        })
    }
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

impl Http {
    /// All attempts, within the time of the signal.
    pub(super) async fn deliver(
        &self,
        body: &Body,
        signal: &Signal,
    ) -> Result<Answer, Undelivered> {
        retry::within(signal.timeout, async || {
            let sent = self.post(body.bytes.clone(), body.encoding.clone());
            sent.await.map_err(Failure::from)
        })
        .await
    }
}
