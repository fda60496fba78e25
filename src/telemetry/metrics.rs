//! The metrics: base units, fixed label sets, every cell found before the first request.

use std::sync::Arc;

use http::Method;
use prometheus::{IntGauge, TextEncoder};

use super::cells::{Counter, Histogram, UpDownCounter};
use super::families::{Families, LATENCY_BUCKETS, SeriesGuard};
use super::process::ProcessMetrics;
use super::route::RouteMetrics;
use super::upstream::UpstreamMetrics;

/// Seconds; from the deny cache to Redis's deadline.
pub(super) const DECISION_BUCKETS: &[f64] =
    &[0.000_01, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1];

/// All metrics of one process.
pub struct Metrics {
    families: Arc<Families>,
    process: ProcessMetrics,
    pub(crate) decision_seconds: Histogram,
    pub(crate) shadow_denials: Counter,
    pub(crate) store_up: IntGauge,
    pub(crate) store_clock_skew: IntGauge,
    pub(crate) merging: MergeMetrics,
    pub(crate) drain: DrainMetrics,
    pub(crate) log_dropped: Counter,
    pub(crate) traces: TraceMetrics,
    pub(super) log_sampled_out: Counter,
    /// Whether the last attempt to read the configuration again was successful.
    pub(crate) reload_successful: IntGauge,
    /// The Unix second of the last successful one, or of the start.
    pub(crate) reload_success_time: IntGauge,
    pub(crate) tokens_cached: IntGauge,
    pub(crate) tokens_limited: IntGauge,
    pub(crate) tokens_forgotten: Counter,
}

/// The cells of one listener.
#[derive(Clone)]
pub struct ListenerMetrics {
    pub(crate) open: UpDownCounter,
    pub(crate) refused: Counter,
    pub(crate) refused_to_client: Counter,
    pub(crate) proxy_failures: Counter,
    pub(crate) handshake_failures: Counter,
    pub(crate) handshake_seconds: Histogram,
}

/// The cells of the admissions that were made while Redis did not answer.
#[derive(Clone)]
pub struct MergeMetrics {
    pub(crate) waiting: IntGauge,
    pub(crate) merged: Counter,
    pub(crate) dropped: Counter,
}

/// The cells of spans, by what became of them.
#[derive(Clone)]
pub(crate) struct TraceMetrics {
    pub(crate) exported: Counter,
    pub(crate) failed: Counter,
    pub(crate) dropped: Counter,
}

/// The cells of the drain.
#[derive(Clone)]
pub struct DrainMetrics {
    pub(crate) draining: IntGauge,
    pub(crate) connections: IntGauge,
    pub(crate) requests: IntGauge,
    pub(crate) calls: IntGauge,
}

/// The cells of one host name.
#[derive(Clone)]
pub struct NameMetrics {
    pub(crate) failures: Counter,
    pub(crate) addresses: IntGauge,
    _series: Arc<SeriesGuard>,
}

/// The cell of one certificate.
pub struct CertificateMetrics {
    pub(crate) expiry: IntGauge,
    _series: SeriesGuard,
}

/// The cells of one route's copies to one upstream.
pub struct MirrorMetrics<const OUTCOMES: usize> {
    pub(crate) copies: [Counter; OUTCOMES],
    _series: SeriesGuard,
}

impl Metrics {
    /// # Errors
    /// When a name is malformed: a mistake in this folder.
    pub fn new() -> prometheus::Result<Self> {
        let families = Arc::<Families>::default();
        let spans = |outcome| families.counter("callgate_trace_spans_total", &[("outcome", outcome)]);
        let left = |kind| families.gauge("callgate_drain_left", &[("kind", kind)]);
        families.gauge("callgate_build_info", &[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        Ok(Self {
            process: ProcessMetrics::new(&families.registry)?,
            decision_seconds: families.histogram("callgate_decision_duration_seconds", DECISION_BUCKETS, &[]),
            shadow_denials: families.counter("callgate_shadow_denials_total", &[]),
            store_up: families.gauge("callgate_store_up", &[]),
            store_clock_skew: families.gauge("callgate_store_clock_skew_seconds", &[]),
            merging: MergeMetrics {
                waiting: families.gauge("callgate_unmerged_admissions", &[]),
                merged: families.counter("callgate_merged_admissions_total", &[]),
                dropped: families.counter("callgate_dropped_admissions_total", &[]),
            },
            reload_successful: families.gauge("callgate_config_last_reload_successful", &[]),
            reload_success_time: families.gauge("callgate_config_last_reload_success_timestamp_seconds", &[]),
            drain: DrainMetrics {
                draining: families.gauge("callgate_draining", &[]),
                connections: left("connections"),
                requests: left("requests"),
                calls: left("calls"),
            },
            log_dropped: families.counter("callgate_log_lines_dropped_total", &[]),
            traces: TraceMetrics { exported: spans("exported"), failed: spans("failed"), dropped: spans("dropped") },
            log_sampled_out: families.counter("callgate_log_lines_sampled_out_total", &[]),
            tokens_cached: families.gauge("callgate_token_records_cached", &[]),
            tokens_limited: families.gauge("callgate_limited_tokens", &[]),
            tokens_forgotten: families.counter("callgate_forgotten_tokens_total", &[]),
            families,
        })
    }

    /// The cells of a route, with those for what requests of these methods can lead to.
    pub fn route(&self, name: &str, methods: &[Method]) -> Arc<RouteMetrics> {
        self.route_after(name, methods, None)
    }

    /// The cells of a route that another configuration had, too.
    pub(crate) fn route_after(
        &self,
        name: &str,
        methods: &[Method],
        before: Option<&RouteMetrics>,
    ) -> Arc<RouteMetrics> {
        Arc::new(RouteMetrics::new(&self.families, name, methods, before))
    }

    /// The cells of an upstream, with those of its endpoints.
    pub fn upstream(&self, name: &str, endpoints: &[Arc<str>]) -> UpstreamMetrics {
        UpstreamMetrics::new(&self.families, name, endpoints)
    }

    /// Requests of a route that were chosen for a copy to this upstream, by the outcome of the copy.
    pub fn mirrored<const OUTCOMES: usize>(
        &self,
        route: &str,
        upstream: &str,
        outcomes: [&str; OUTCOMES],
    ) -> MirrorMetrics<OUTCOMES> {
        let pair = [("route", route), ("upstream", upstream)];
        let series = self.families.keep(&pair);
        let [route, upstream] = pair;
        let counter =
            |outcome| self.families.counter("callgate_mirrored_total", &[route, upstream, ("outcome", outcome)]);
        MirrorMetrics { copies: outcomes.map(counter), _series: series }
    }

    /// The cells of an upstream's host name.
    pub fn name(&self, host: &str) -> NameMetrics {
        let label = &[("host", host)];
        NameMetrics {
            _series: Arc::new(self.families.keep(label)),
            failures: self.families.counter("callgate_name_failures_total", label),
            addresses: self.families.gauge("callgate_name_addresses", label),
        }
    }

    /// The cells of a listener (`https` or `http`).
    pub fn listener(&self, name: &str) -> ListenerMetrics {
        let label = &[("listener", name)];
        ListenerMetrics {
            open: self.families.up_down_counter("callgate_connections_open", label),
            refused: self.families.counter("callgate_connections_refused_total", label),
            refused_to_client: self.families.counter("callgate_client_connections_refused_total", label),
            proxy_failures: self.families.counter("callgate_proxy_protocol_failures_total", label),
            handshake_failures: self.families.counter("callgate_tls_handshake_failures_total", &[]),
            handshake_seconds: self.families.histogram("callgate_tls_handshake_duration_seconds", LATENCY_BUCKETS, &[]),
        }
    }

    /// Whether the token file is in force as it is.
    pub fn token_file(&self) -> IntGauge {
        self.families.gauge("callgate_token_file_last_read_successful", &[])
    }

    /// Calls that `by` ended.
    pub fn calls_ended(&self, by: &str) -> Counter {
        self.families.counter("callgate_calls_ended_total", &[("by", by)])
    }

    /// Authentications with this outcome.
    pub fn auth(&self, outcome: &str) -> Counter {
        self.families.counter("callgate_auth_total", &[("outcome", outcome)])
    }

    /// Decisions with this outcome from this source.
    pub fn decisions(&self, outcome: &str, source: &str) -> Counter {
        self.families.counter("callgate_decisions_total", &[("outcome", outcome), ("source", source)])
    }

    /// The cell of the certificate in this file.
    pub fn certificate(&self, file: &str) -> CertificateMetrics {
        let label = &[("certificate", file)];
        CertificateMetrics {
            _series: self.families.keep(label),
            expiry: self.families.gauge("callgate_certificate_expiry_timestamp_seconds", label),
        }
    }

    /// All metrics in the text format of Prometheus.
    ///
    /// # Errors
    /// When a metric can't be encoded.
    pub fn encode(&self) -> prometheus::Result<String> {
        // What can't be read is exported as it was.
        let _ = self.process.update();
        TextEncoder::new().encode_to_string(&self.families.registry.gather())
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::super::help::HELP;
    use super::*;

    #[test]
    fn every_metric_can_be_made_and_every_help_text_is_used() {
        let metrics = Metrics::new().unwrap();
        let route = metrics.route("r", &[Method::GET]);
        route.count(&Method::GET, StatusCode::OK);
        let _upstream = metrics.upstream("u", &["http://127.0.0.1:1".into()]);
        let _mirror = metrics.mirrored("r", "u", ["answered"]);
        let _name = metrics.name("host");
        metrics.listener("https");
        metrics.token_file();
        metrics.calls_ended("client");
        metrics.auth("ok");
        metrics.decisions("admitted", "redis");
        let _certificate = metrics.certificate("cert.pem");
        let text = metrics.encode().unwrap();
        for (name, help) in HELP {
            assert!(text.contains(&format!("# HELP {name} {help}\n")), "{name} is in no family: {text}");
        }
    }
    #[test]
    fn series_live_as_long_as_what_they_are_of() {
        let metrics = Metrics::new().unwrap();
        let [first, second] = ["a", "b"].map(|name| metrics.route(name, &[Method::GET]));
        let same = metrics.route("a", &[Method::GET]);
        let endpoints = ["http://127.0.0.1:1".into(), "http://127.0.0.1:2".into()];
        let (both, one) = (metrics.upstream("u", &endpoints), metrics.upstream("u", &endpoints[..1]));
        let has = |text: &str| metrics.encode().unwrap().contains(text);
        drop(first);
        assert!(has(r#"route="a""#) && has(r#"route="b""#));
        drop(same);
        assert!(!has(r#"route="a""#) && has(r#"route="b""#));
        drop(both);
        assert!(has(r#"endpoint="http://127.0.0.1:1""#) && !has(r#"endpoint="http://127.0.0.1:2""#));
        assert!(has(r#"callgate_upstream_in_flight{upstream="u"}"#));
        drop((second, one));
        assert!(!has(r#"upstream="u""#) && !has(r#"route="b""#));
        let again = metrics.route("a", &[Method::GET]);
        again.count(&Method::GET, StatusCode::OK);
        assert!(has(r#"callgate_requests_total{method="GET",route="a",status="200"} 1"#));
    }
}
