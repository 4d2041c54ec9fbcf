//! OTLP over gRPC.

use super::Signal;
use super::retry::{self, Failure, Undelivered, after_grpc};
use super::text::{chain, quote};
use crate::Error;
use crate::export::settings::Compression;
use http::header::HeaderMap;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use std::error::Error as _;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Extensions, Request, Status};

/// Connects when it is first used.
pub(super) fn channel(signal: &Signal) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(signal.endpoint.as_str().to_owned());
    let endpoint = endpoint.map_err(|error| Error::exporter(chain(&error)))?;
    #[cfg(feature = "otlp-tls")]
    let endpoint = match super::tls::tonic_config(signal) {
        Some(config) => endpoint.tls_config(config).map_err(|error| {
            Error::exporter(format!(
                "TLS: {}; set OTEL_EXPORTER_OTLP_CERTIFICATE or ca_certificate(…)",
                chain(&error)
            ))
        })?,
        None => endpoint,
    };
    // Who waits for the connection gives up by itself; this is for the connection.
    let endpoint = endpoint.connect_timeout(signal.timeout);
    Ok(endpoint.connect_lazy())
}

/// The headers as gRPC has them.
pub(super) fn metadata(signal: &Signal) -> MetadataMap {
    MetadataMap::from_headers(signal.headers.clone())
}

/// The metrics service of one endpoint.
pub(super) struct MetricsService {
    client: MetricsServiceClient<Channel>,
    metadata: MetadataMap,
    headers: HeaderMap,
}

impl MetricsService {
    pub(super) fn new(channel: Channel, signal: &Signal) -> Self {
        let mut client = MetricsServiceClient::new(channel);
        // A compressed answer is not asked for: it is a few bytes.
        if signal.compression == Compression::Gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        Self {
            client,
            metadata: metadata(signal),
            headers: signal.headers.clone(),
        }
    }

    /// All attempts, within the time of the signal.
    pub(super) async fn deliver(
        &self,
        request: &ExportMetricsServiceRequest,
        signal: &Signal,
    ) -> Result<ExportMetricsServiceResponse, Undelivered> {
        retry::within(signal.timeout, async || {
            let metadata = self.metadata.clone();
            let request = Request::from_parts(metadata, Extensions::default(), request.clone());
            match self.client.clone().export(request).await {
                Ok(response) => Ok(response.into_inner()),
                Err(status) => Err(Failure {
                    again: after_grpc(&status),
                    text: self.describe(&status),
                }),
            }
        })
        .await
    }

    fn describe(&self, status: &Status) -> String {
        let mut text = status.message().to_owned();
        if let Some(source) = status.source() {
            let cause = chain(source);
            // tonic makes the message of one of its causes.
            if cause.contains(&text) {
                text = cause;
            } else if !text.contains(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
        }
        format!("{:?}: {}", status.code(), quote(&text, &self.headers))
    }
}
