//! The spans of a request that is over, by OpenTelemetry's semantic conventions for HTTP.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use http::Version;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::request::{AttemptOutcome, AttemptSpan, RequestTrace, new_span};
use crate::telemetry::{AccessRecord, Phase};

static SCOPE: LazyLock<InstrumentationScope> =
    LazyLock::new(|| InstrumentationScope::builder("callgate").with_version(env!("CARGO_PKG_VERSION")).build());

/// The request's own span, then those of its steps, then one for each attempt.
pub(super) fn of_request(trace: &RequestTrace, record: &AccessRecord, took: Duration) -> Vec<SpanData> {
    let mut spans = vec![server_span(trace, record, took)];
    for (phase, name) in [(Phase::Auth, "authenticate"), (Phase::Decision, "decide")] {
        let Some((ended, took)) = trace.phases[phase as usize] else { continue };
        let started = ended.checked_sub(took).unwrap_or(ended);
        let mut span = child(trace, record, new_span(), name.into(), started, took);
        let (key, value) = match phase {
            Phase::Auth => ("callgate.auth.refusal", record.reason),
            Phase::Decision | Phase::Upstream => ("callgate.decision.source", record.decided_by),
        };
        span.attributes.extend(value.map(|value| KeyValue::new(key, value)));
        spans.push(span);
    }
    trace.with_attempts(|attempts| {
        spans.extend(attempts.iter().enumerate().map(|(index, attempt)| attempt_span(trace, record, index, attempt)));
    });
    spans
}

fn server_span(trace: &RequestTrace, record: &AccessRecord, took: Duration) -> SpanData {
    let method = record.method.as_str().to_owned();
    let name = match record.route.as_deref() {
        None => method.clone(),
        // A route without a name of its own is called by its methods and its path.
        Some(route) if route.contains(' ') => route.to_owned(),
        Some(route) => format!("{method} {route}"),
    };
    let mut span = child(trace, record, trace.span, name.into(), record.started, took);
    span.parent_span_id = trace.parent.unwrap_or(SpanId::INVALID);
    span.parent_span_is_remote = trace.parent.is_some();
    span.span_kind = SpanKind::Server;
    let version = match record.version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    };
    let text = |value: &Arc<str>| Value::from(value.to_string());
    span.attributes = vec![
        KeyValue::new("http.request.method", method),
        KeyValue::new("url.path", record.uri.path().to_owned()),
        KeyValue::new("url.scheme", "https"),
        KeyValue::new("network.protocol.version", version),
        KeyValue::new("client.address", record.client.to_string()),
        KeyValue::new("http.response.status_code", i64::from(record.status.as_u16())),
        KeyValue::new("callgate.request_id", record.request_id.to_str().unwrap_or_default().to_owned()),
    ];
    let optional = [
        ("http.route", record.route.as_ref().map(text)),
        ("callgate.token.id", record.token.as_ref().map(|(id, _)| text(id))),
        ("callgate.upstream", record.upstream.as_ref().map(text)),
        ("callgate.rejection", record.rejection.map(Value::from)),
        ("callgate.ended_by", record.ended_by.map(Value::from)),
        ("error.message", record.error.as_ref().map(|error| Value::from(error.to_string()))),
    ];
    span.attributes.extend(optional.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value?))));
    if record.status.is_server_error() {
        span.attributes.push(KeyValue::new("error.type", record.status.as_u16().to_string()));
        span.status = Status::error("");
    }
    span
}

fn attempt_span(trace: &RequestTrace, record: &AccessRecord, index: usize, attempt: &AttemptSpan) -> SpanData {
    let name = record.method.as_str().to_owned();
    let mut span = child(trace, record, attempt.span, name.clone().into(), attempt.started, attempt.took);
    span.span_kind = SpanKind::Client;
    span.attributes.push(KeyValue::new("http.request.method", name));
    // As the configuration has it: a URL, or the path of a Unix socket.
    let address = attempt.endpoint.split_once("://").map_or(&*attempt.endpoint, |(_, address)| address);
    let port = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    span.attributes.push(KeyValue::new("server.address", port.map_or(address, |(host, _)| host).to_owned()));
    span.attributes.extend(port.map(|(_, port)| KeyValue::new("server.port", i64::from(port))));
    if index > 0 {
        span.attributes.push(KeyValue::new("http.request.resend_count", index as i64));
    }
    let error: Option<Cow<'static, str>> = match attempt.outcome {
        AttemptOutcome::Answered(status) => {
            span.attributes.push(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
            let is_error = status.is_client_error() || status.is_server_error();
            is_error.then(|| status.as_u16().to_string().into())
        }
        AttemptOutcome::Failed => Some("no_answer".into()),
        AttemptOutcome::Abandoned => Some("abandoned".into()),
    };
    if let Some(error) = error {
        span.attributes.push(KeyValue::new("error.type", error));
        span.status = Status::error("");
    }
    span
}

/// A span below the request's own.
fn child(
    trace: &RequestTrace,
    record: &AccessRecord,
    id: SpanId,
    name: Cow<'static, str>,
    started: Instant,
    took: Duration,
) -> SpanData {
    let start = record.received + started.saturating_duration_since(record.started);
    SpanData {
        span_context: SpanContext::new(trace.trace, id, TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: trace.span,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name,
        start_time: start,
        end_time: start + took,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: SCOPE.clone(),
    }
}
