//! Sends spans to the collector, in batches.

use std::collections::HashMap;
use std::time::Duration;

use http::HeaderMap;
use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry::KeyValue;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{OtlpProtocol, OtlpSettings};
use crate::telemetry::metrics::TraceMetrics;
use crate::tls::{self, TlsError};

/// Spans of one message, about.
const BATCH: usize = 512;
/// How long a span waits for others.
const MAX_DELAY: Duration = Duration::from_secs(1);
/// How long what is left may take when the process ends.
const LAST: Duration = Duration::from_secs(2);

/// Why traces can't be sent as configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    /// The trusted certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The endpoint or a header.
    #[error(transparent)]
    Exporter(#[from] ExporterBuildError),
}

/// The task that sends.
pub(crate) struct TraceExport {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Exporter {
    exporter: SpanExporter,
    metrics: TraceMetrics,
    timeout: Duration,
    /// Whether the last batch failed: only changes are logged.
    is_failing: bool,
}

impl TraceExport {
    pub(super) fn start(
        settings: &OtlpSettings,
        metrics: TraceMetrics,
        receiver: Receiver<Vec<SpanData>>,
    ) -> Result<Self, TraceError> {
        let mut exporter = exporter(settings)?;
        exporter.set_resource(
            &Resource::builder_empty()
                .with_service_name(settings.service_name.to_string())
                .with_attributes([
                    KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                    KeyValue::new("host.name", crate::accounts::host_name()),
                    KeyValue::new("process.pid", i64::from(std::process::id())),
                ])
                .build(),
        );
        // The exporter repeats what failed, within its own timeout.
        let timeout = settings.timeout + MAX_DELAY;
        let exporter = Exporter { exporter, metrics, timeout, is_failing: false };
        let stop = CancellationToken::new();
        let task = tokio::spawn(exporter.run(receiver, stop.clone()));
        Ok(Self { stop, task })
    }

    /// Sends what is left, for a short time.
    pub(crate) async fn finish(self) {
        self.stop.cancel();
        // What it can't send is lost, as it would be in a crash.
        let _ = tokio::time::timeout(LAST, self.task).await;
    }
}

impl Exporter {
    async fn run(mut self, mut receiver: Receiver<Vec<SpanData>>, stop: CancellationToken) {
        while let Some(batch) = collect(&mut receiver, &stop).await {
            self.export(batch).await;
        }
    }

    async fn export(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        let sent = tokio::time::timeout(self.timeout, self.exporter.export(batch)).await;
        let trouble = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it does not answer in time".to_owned()),
        };
        match &trouble {
            None => self.metrics.exported.inc_by(count),
            Some(_) => self.metrics.failed.inc_by(count),
        }
        match (trouble, self.is_failing) {
            (Some(error), false) => tracing::warn!(%error, "traces can't be sent to the collector (telemetry.otlp)"),
            (None, true) => tracing::info!("traces are sent to the collector again"),
            (Some(_), true) | (None, false) => return,
        }
        self.is_failing = !self.is_failing;
    }
}

/// The spans of one message; `None` when there will be no more.
async fn collect(receiver: &mut Receiver<Vec<SpanData>>, stop: &CancellationToken) -> Option<Vec<SpanData>> {
    let mut batch = tokio::select! {
        first = receiver.recv() => first?,
        () = stop.cancelled() => receiver.try_recv().ok()?,
    };
    let delay = tokio::time::sleep(MAX_DELAY);
    tokio::pin!(delay);
    while batch.len() < BATCH {
        tokio::select! {
            biased;
            more = receiver.recv() => match more {
                Some(more) => batch.extend(more),
                None => break,
            },
            () = &mut delay => break,
            () = stop.cancelled() => break,
        }
    }
    Some(batch)
}

fn exporter(settings: &OtlpSettings) -> Result<SpanExporter, TraceError> {
    let headers = settings.headers.iter().map(|(name, value)| (&**name, value.expose()));
    match settings.protocol {
        OtlpProtocol::Http => {
            let config = tls::client_config(settings.ca.as_deref(), None, false)?;
            let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
            let exporter = SpanExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_http_client(HyperClient::new(connector, settings.timeout, None))
                .with_endpoint(&*settings.endpoint)
                .with_timeout(settings.timeout)
                .with_headers(
                    headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<HashMap<_, _>>(),
                );
            Ok(exporter.build()?)
        }
        OtlpProtocol::Grpc => {
            // The configuration has only names and values that are good.
            let headers = headers.filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
            let metadata = MetadataMap::from_headers(headers.collect::<HeaderMap>());
            let mut exporter = SpanExporter::builder()
                .with_tonic()
                .with_endpoint(&*settings.endpoint)
                .with_timeout(settings.timeout)
                .with_metadata(metadata);
            if settings.endpoint.starts_with("https:") {
                let config = ClientTlsConfig::new();
                exporter = exporter.with_tls_config(match &settings.ca {
                    None => config.with_native_roots(),
                    Some(path) => {
                        let pem = std::fs::read(path).map_err(|error| TlsError::pem(path, error))?;
                        config.ca_certificate(Certificate::from_pem(pem))
                    }
                });
            }
            Ok(exporter.build()?)
        }
    }
}
