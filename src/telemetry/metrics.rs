//! The metrics: base units, fixed label sets, every cell resolved before the first request.

use std::sync::Arc;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use super::balance::{BalanceMetrics, BalanceVecs};
use super::calls::{CALL_BUCKETS, CallFamilies};
use super::families::Families;
use super::process::ProcessCollector;
use super::requests::RouteMetrics;

/// Seconds; from a local answer to a slow upstream.
const REQUEST_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Seconds; from the deny cache to Redis's deadline.
const DECISION_BUCKETS: &[f64] =
    &[0.000_01, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1];

/// All metrics of one process.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    upstream_seconds: HistogramVec,
    upstream_failures: IntCounterVec,
    balance: BalanceVecs,
    mirrored: IntCounterVec,
    look_up_failures: IntCounterVec,
    addresses: IntGaugeVec,
    calls: CallFamilies,
    calls_ended: IntCounterVec,
    auth: IntCounterVec,
    decisions: IntCounterVec,
    connections_open: IntGaugeVec,
    connections_refused: IntCounterVec,
    proxy_failures: IntCounterVec,
    certificate_expiry: GaugeVec,
    handshake_failures: IntCounter,
    handshake_seconds: Histogram,
    /// Seconds from asking the limiter to its answer.
    pub decision_seconds: Histogram,
    /// Requests that a plan on trial denied, forwarded all the same.
    pub shadow_denials: IntCounter,
    /// 1 while Redis answers.
    pub store_up: IntGauge,
    /// What becomes of requests that were admitted while Redis did not answer.
    pub merging: MergeMetrics,
    /// Access lines that were dropped because the log's reader is too slow.
    pub log_dropped: IntCounter,
    /// Token records in the memory of this process.
    pub tokens_cached: IntGauge,
    /// Tokens whose admissions are in the memory of this process.
    pub tokens_limited: IntGauge,
    /// Tokens whose admissions had to be forgotten for others.
    pub tokens_forgotten: IntCounter,
}

/// The cells of one listener.
#[derive(Clone)]
pub struct ListenerMetrics {
    /// Connections open at this moment.
    pub open: IntGauge,
    /// Connections closed at once because the cap was reached.
    pub refused: IntCounter,
    /// Connections of proxies that did not begin with a good PROXY protocol header.
    pub proxy_failures: IntCounter,
    /// TLS handshakes that failed or took too long.
    pub handshake_failures: IntCounter,
    /// Seconds of the TLS handshakes that succeeded.
    pub handshake_seconds: Histogram,
}

/// The cells of the admissions that were made while Redis did not answer.
#[derive(Clone)]
pub struct MergeMetrics {
    /// Those that wait to be merged into Redis.
    pub waiting: IntGauge,
    /// Those that were.
    pub merged: IntCounter,
    /// Those that will not be, because there were too many.
    pub dropped: IntCounter,
}

/// The cells of one upstream.
#[derive(Clone)]
pub struct UpstreamMetrics {
    /// Seconds from sending a request to the head of its response.
    pub seconds: Histogram,
    /// Connections that could not be made.
    pub connect_failures: IntCounter,
    /// Requests that an endpoint said it had not looked at.
    pub refused: IntCounter,
    /// Exchanges that broke off before an answer, or whose answer was no HTTP.
    pub broken: IntCounter,
    /// Responses whose head did not come in time.
    pub timeouts: IntCounter,
    /// Answers that broke off or fell silent behind their head, or could not be passed on.
    pub bad_answers: IntCounter,
}

/// The cells of one host name.
#[derive(Clone)]
pub struct NameMetrics {
    /// Look-ups that failed.
    pub failures: IntCounter,
    /// Addresses that the last look-up found.
    pub addresses: IntGauge,
}

impl Metrics {
    /// Makes and registers every metric.
    ///
    /// # Errors
    /// When two metrics have one name or a name is malformed: a mistake in this file.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let make = Families(&registry);
        let certificate_expiry = GaugeVec::new(
            Opts::new("callgate_certificate_expiry_timestamp_seconds", "Unix time at which a certificate expires."),
            &["certificate"],
        )?;
        registry.register(Box::new(certificate_expiry.clone()))?;
        registry.register(Box::new(ProcessCollector::new()?))?;
        let build = make.gauges("callgate_build_info", "1, with the version as a label.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            requests: make.counters(
                "callgate_requests_total",
                "Requests answered, when their answer has ended.",
                &["route", "method", "status"],
            )?,
            request_seconds: make.histograms(
                "callgate_request_duration_seconds",
                "From the head of a request to the end of its answer; calls are not in it.",
                REQUEST_BUCKETS,
                &["route"],
            )?,
            upstream_seconds: make.histograms(
                "callgate_upstream_duration_seconds",
                "From sending a request to the head of its response, for each attempt that was answered.",
                REQUEST_BUCKETS,
                &["upstream"],
            )?,
            upstream_failures: make.counters(
                "callgate_upstream_failures_total",
                "Attempts at an upstream that failed, by kind, also those whose request was saved by a retry: before an answer \
                 connect, refused, broken, timeout; behind its head bad_answer.",
                &["upstream", "kind"],
            )?,
            balance: BalanceVecs::register(&make)?,
            mirrored: make.counters(
                "callgate_mirrored_total",
                "Requests drawn to be copied to their route's mirror, by what became of the copy.",
                &["route", "upstream", "outcome"],
            )?,
            look_up_failures: make.counters(
                "callgate_name_failures_total",
                "Host names of upstreams that could not be looked up.",
                &["host"],
            )?,
            addresses: make.gauges(
                "callgate_name_addresses",
                "Addresses behind a host name of an upstream, by the last look-up that succeeded.",
                &["host"],
            )?,
            calls: CallFamilies {
                open: make.gauges("callgate_calls_open", "Calls (upgraded streams) open at this moment.", &["route"])?,
                seconds: make.histograms(
                    "callgate_call_duration_seconds",
                    "From the head of a call's request to its end.",
                    CALL_BUCKETS,
                    &["route"],
                )?,
                bytes: make.counters(
                    "callgate_call_bytes_total",
                    "Bytes of calls that have ended, by who sent them: client, upstream.",
                    &["route", "from"],
                )?,
                messages: make.counters(
                    "callgate_call_messages_total",
                    "Whole messages of calls that have ended, by who sent them: client, upstream.",
                    &["route", "from"],
                )?,
            },
            calls_ended: make.counters(
                "callgate_calls_ended_total",
                "Calls (upgraded streams) that ended, by who ended them: client, upstream, gateway.",
                &["by"],
            )?,
            auth: make.counters("callgate_auth_total", "Authentications, by outcome.", &["outcome"])?,
            decisions: make.counters(
                "callgate_decisions_total",
                "Decisions of the limiter, by outcome and by what decided.",
                &["outcome", "source"],
            )?,
            connections_open: make.gauges("callgate_connections_open", "Connections open at this moment.", &["listener"])?,
            connections_refused: make.counters(
                "callgate_connections_refused_total",
                "Connections closed at once because listen.max_connections was reached.",
                &["listener"],
            )?,
            proxy_failures: make.counters(
                "callgate_proxy_protocol_failures_total",
                "Connections closed because a proxy of listen.proxy_protocol did not say whose they are.",
                &["listener"],
            )?,
            handshake_failures: make.counter("callgate_tls_handshake_failures_total", "TLS handshakes that failed.")?,
            handshake_seconds: make.histograms(
                "callgate_tls_handshake_duration_seconds",
                "TLS handshakes that succeeded.",
                REQUEST_BUCKETS,
                &[],
            )?
            .with_label_values::<&str>(&[]),
            decision_seconds: make.histograms(
                "callgate_decision_duration_seconds",
                "From asking the limiter to its answer.",
                DECISION_BUCKETS,
                &[],
            )?
            .with_label_values::<&str>(&[]),
            shadow_denials: make.counter(
                "callgate_shadow_denials_total",
                "Requests that were forwarded although their plan, which has shadow: true, denied them.",
            )?,
            store_up: make.gauge("callgate_store_up", "1 while the store answers, else 0.")?,
            merging: MergeMetrics {
                waiting: make.gauge(
                    "callgate_unmerged_admissions",
                    "Requests admitted while Redis did not answer, which it has not been told of yet.",
                )?,
                merged: make.counter(
                    "callgate_merged_admissions_total",
                    "Requests admitted while Redis did not answer, which it has been told of since.",
                )?,
                dropped: make.counter(
                    "callgate_dropped_admissions_total",
                    "Requests admitted while Redis did not answer, which it will not be told of: they were too many.",
                )?,
            },
            log_dropped: make.counter("callgate_log_lines_dropped_total", "Log lines lost because their reader is too slow.")?,
            tokens_cached: make.gauge("callgate_token_records_cached", "Token records in the memory of this process.")?,
            tokens_limited: make.gauge(
                "callgate_limited_tokens",
                "Tokens whose admissions are in the memory of this process.",
            )?,
            tokens_forgotten: make.counter(
                "callgate_forgotten_tokens_total",
                "Tokens whose admissions were forgotten for want of room (limits.max_tokens): they may be admitted anew.",
            )?,
            certificate_expiry,
            registry,
        })
    }

    /// The cells of a route.
    #[must_use]
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        Arc::new(RouteMetrics::new(
            name,
            self.requests.clone(),
            self.request_seconds.with_label_values(&[name]),
            self.calls.route(name),
        ))
    }

    /// The cells of an upstream.
    #[must_use]
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        UpstreamMetrics {
            seconds: self.upstream_seconds.with_label_values(&[name]),
            connect_failures: self.upstream_failures.with_label_values(&[name, "connect"]),
            refused: self.upstream_failures.with_label_values(&[name, "refused"]),
            broken: self.upstream_failures.with_label_values(&[name, "broken"]),
            timeouts: self.upstream_failures.with_label_values(&[name, "timeout"]),
            bad_answers: self.upstream_failures.with_label_values(&[name, "bad_answer"]),
        }
    }

    /// The cells of an upstream's balancing, with those of its endpoints.
    #[must_use]
    pub fn balance(&self, upstream: &str, endpoints: &[Arc<str>]) -> BalanceMetrics {
        self.balance.cells(upstream, endpoints)
    }

    /// The counter of one outcome of the copies of a route's requests that go to this upstream.
    #[must_use]
    pub fn mirrored(&self, route: &str, upstream: &str, outcome: &str) -> IntCounter {
        self.mirrored.with_label_values(&[route, upstream, outcome])
    }

    /// The cells of an upstream's host name.
    #[must_use]
    pub fn name(&self, host: &str) -> NameMetrics {
        NameMetrics {
            failures: self.look_up_failures.with_label_values(&[host]),
            addresses: self.addresses.with_label_values(&[host]),
        }
    }

    /// The cells of a listener (`https` or `http`).
    #[must_use]
    pub fn listener(&self, name: &str) -> ListenerMetrics {
        ListenerMetrics {
            open: self.connections_open.with_label_values(&[name]),
            refused: self.connections_refused.with_label_values(&[name]),
            proxy_failures: self.proxy_failures.with_label_values(&[name]),
            handshake_failures: self.handshake_failures.clone(),
            handshake_seconds: self.handshake_seconds.clone(),
        }
    }

    /// The counter of calls that `by` ended.
    #[must_use]
    pub fn calls_ended(&self, by: &str) -> IntCounter {
        self.calls_ended.with_label_values(&[by])
    }

    /// The counter of one outcome of authentication.
    #[must_use]
    pub fn auth(&self, outcome: &str) -> IntCounter {
        self.auth.with_label_values(&[outcome])
    }

    /// The counter of one outcome of decisions, by their source.
    #[must_use]
    pub fn decisions(&self, outcome: &str, source: &str) -> IntCounter {
        self.decisions.with_label_values(&[outcome, source])
    }

    /// The expiry of one certificate, by its file.
    #[must_use]
    pub fn certificate_expiry(&self, file: &str) -> Gauge {
        self.certificate_expiry.with_label_values(&[file])
    }

    /// All of it in Prometheus's text format.
    ///
    /// # Errors
    /// When a metric can't be encoded.
    pub fn encode(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
