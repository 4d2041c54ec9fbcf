//! Metrics, which the SDK's own exporter can't be given: its data types have no constructors.

use super::grpc::MetricsService;
use super::http::{Body, Http};
use super::retry::Undelivered;
use super::{Line, Signal};
use crate::Error;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message;

pub(super) struct Metrics {
    signal: Signal,
    service: Service,
}

enum Service {
    Grpc(MetricsService),
    Http(Http),
}

impl Metrics {
    pub(super) fn new(signal: &Signal, line: Line) -> Result<Self, Error> {
        Ok(Self {
            signal: signal.clone(),
            service: match line {
                Line::Grpc(channel) => Service::Grpc(MetricsService::new(channel, signal)),
                Line::Http(client) => Service::Http(Http::new(*client, signal)?),
            },
        })
    }

    /// How many points were rejected.
    pub(super) async fn send(
        &self,
        request: ExportMetricsServiceRequest,
    ) -> Result<u64, Undelivered> {
        let answered = match &self.service {
            Service::Grpc(service) => service.deliver(&request, &self.signal).await,
            Service::Http(http) => self.post(http, &request).await,
        };
        match answered {
            Ok(answer) => Ok(rejected(&answer)),
            Err(why) => Err(why.of("metrics", &self.signal)),
        }
    }

    async fn post(
        &self,
        http: &Http,
        request: &ExportMetricsServiceRequest,
    ) -> Result<ExportMetricsServiceResponse, Undelivered> {
        let body = Body::of(request, self.signal.compression)?;
        let answer = http.deliver(&body, &self.signal).await?;
        // The status said that it was taken. A body that is none of OTLP's says nothing more.
        Ok(ExportMetricsServiceResponse::decode(answer.body).unwrap_or_default())
    }
}

/// A message with no rejected points is a warning only, and nothing is lost.
fn rejected(answer: &ExportMetricsServiceResponse) -> u64 {
    let partial = answer.partial_success.as_ref();
    partial.map_or(0, |partial| {
        u64::try_from(partial.rejected_data_points).unwrap_or(0)
    })
}
