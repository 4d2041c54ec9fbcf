//! The plainest sender: opentelemetry-proto's client, or one POST. It tries once, and says
//! what it was told.
#![allow(dead_code, unreachable_pub)]

use std::io::Write;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic_types::StatusExt;

use super::received::Signal;
use super::receiver::Protocol;

pub struct Sender {
    to: Wire,
    gzip: bool,
}

enum Wire {
    Grpc(Channel),
    Http(reqwest::Client, String),
}

/// How many were rejected.
pub type Delivered = Result<i64, Refusal>;

#[derive(Debug, PartialEq)]
pub enum Refusal {
    /// A status of HTTP.
    Http(u16, Option<Duration>),
    Grpc(tonic::Code, Option<Duration>),
    /// No answer, or none that is understood.
    Broken(String),
}

impl Sender {
    /// Connects when there is something to send. Within a runtime.
    pub fn new(protocol: Protocol, endpoint: &str, gzip: bool) -> Self {
        let to = match protocol {
            Protocol::Grpc => {
                let endpoint = Channel::from_shared(endpoint.to_owned());
                Wire::Grpc(endpoint.expect("an address").connect_lazy())
            }
            Protocol::Http => Wire::Http(http_client(), endpoint.to_owned()),
        };
        Self { to, gzip }
    }

    pub async fn traces(&self, request: ExportTraceServiceRequest) -> Delivered {
        let response = match &self.to {
            Wire::Grpc(channel) => {
                let mut client = TraceServiceClient::new(channel.clone());
                if self.gzip {
                    client = client.send_compressed(CompressionEncoding::Gzip);
                }
                let response = client.export(of_test(request)).await;
                response.map_err(refused)?.into_inner()
            }
            Wire::Http(..) => {
                let bytes = self.post("/v1/traces", request.encode_to_vec()).await?;
                ExportTraceServiceResponse::decode(&*bytes).map_err(broken)?
            }
        };
        Ok(response.partial_success.map_or(0, |it| it.rejected_spans))
    }

    pub async fn metrics(&self, request: ExportMetricsServiceRequest) -> Delivered {
        let response = match &self.to {
            Wire::Grpc(channel) => {
                let mut client = MetricsServiceClient::new(channel.clone());
                if self.gzip {
                    client = client.send_compressed(CompressionEncoding::Gzip);
                }
                let response = client.export(of_test(request)).await;
                response.map_err(refused)?.into_inner()
            }
            Wire::Http(..) => {
                let bytes = self.post("/v1/metrics", request.encode_to_vec()).await?;
                ExportMetricsServiceResponse::decode(&*bytes).map_err(broken)?
            }
        };
        let partial = response.partial_success;
        Ok(partial.map_or(0, |it| it.rejected_data_points))
    }

    /// The sample of this signal.
    pub async fn send(&self, signal: Signal) -> Delivered {
        match signal {
            Signal::Traces => self.traces(super::sample::traces()).await,
            Signal::Metrics => self.metrics(super::sample::metrics()).await,
        }
    }

    async fn post(&self, path: &str, mut body: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        let Wire::Http(client, endpoint) = &self.to else {
            unreachable!("only over HTTP");
        };
        let mut request = client
            .post(format!("{endpoint}{path}"))
            .header("content-type", "application/x-protobuf")
            .header("x-test", "yes");
        if self.gzip {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&body).expect("memory takes all");
            body = gzip.finish().expect("memory takes all");
            request = request.header("content-encoding", "gzip");
        }
        let response = request.body(body).send().await.map_err(broken)?;
        let status = response.status();
        if !status.is_success() {
            let wait = response.headers().get("retry-after");
            let wait = wait.map(|it| it.to_str().unwrap().parse().unwrap());
            return Err(Refusal::Http(
                status.as_u16(),
                wait.map(Duration::from_secs),
            ));
        }
        Ok(response.bytes().await.map_err(broken)?.to_vec())
    }
}

pub fn http_client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy();
    client.build().expect("a client")
}

fn of_test<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("x-test", "yes".parse().expect("a value"));
    request
}

fn refused(status: tonic::Status) -> Refusal {
    // A status that was not sent has a source.
    if std::error::Error::source(&status).is_some() {
        return broken(status);
    }
    let wait = status.get_details_retry_info();
    Refusal::Grpc(status.code(), wait.and_then(|it| it.retry_delay))
}

fn broken(error: impl std::error::Error) -> Refusal {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    Refusal::Broken(text)
}
