//! What a request keeps for its trace while it lasts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use opentelemetry::trace::{SpanId, TraceId};
use smallvec::SmallVec;

use super::context::{ParentSpan, TRACEPARENT, TRACESTATE, traceparent};
use crate::config::FULL_SHARE;
use crate::telemetry::Phase;

/// The trace of one request.
#[derive(Debug)]
pub struct RequestTrace {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) parent: Option<SpanId>,
    is_sampled: bool,
    /// When each phase ended, and how long it took.
    pub(super) phases: [Option<(Instant, Duration)>; 3],
    attempts: Mutex<SmallVec<[AttemptSpan; 1]>>,
}

/// One attempt that is over.
#[derive(Debug)]
pub(super) struct AttemptSpan {
    pub(super) span: SpanId,
    pub(super) started: Instant,
    pub(super) took: Duration,
    pub(super) endpoint: Arc<str>,
    pub(super) outcome: AttemptOutcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptOutcome {
    Answered(StatusCode),
    /// There was no connection, it broke, or no answer came in time.
    Failed,
    /// The request went away meanwhile.
    Abandoned,
}

impl RequestTrace {
    /// `sample`: the share of traces that begin here, in parts of [`FULL_SHARE`]. A sender that names a span has decided already.
    pub(super) fn begin(parent: Option<ParentSpan>, sample: u32) -> Self {
        let trace = parent.map_or_else(|| TraceId::from(fastrand::u128(1..)), |parent| parent.trace);
        // By the low 56 bits, which are random in every trace: whoever decides by them decides alike.
        let low = u128::from_be_bytes(trace.to_bytes()) & ((1 << 56) - 1);
        let is_in_share = low * u128::from(FULL_SHARE) < u128::from(sample) << 56;
        Self {
            trace,
            span: new_span(),
            parent: parent.map(|parent| parent.span),
            is_sampled: parent.map_or(is_in_share, |parent| parent.is_sampled),
            phases: [None; 3],
            attempts: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> u128 {
        u128::from_be_bytes(self.trace.to_bytes())
    }

    pub(super) fn is_sampled(&self) -> bool {
        self.is_sampled
    }

    /// A phase is over.
    #[cold]
    pub(crate) fn phase(&mut self, phase: Phase, took: Duration) {
        self.phases[phase as usize] = Some((Instant::now(), took));
    }

    /// An attempt begins: the upstream belongs to it.
    #[cold]
    pub(crate) fn begin_attempt(&self, headers: &mut HeaderMap, endpoint: &Arc<str>) -> AttemptTrace<'_> {
        let span = new_span();
        headers.insert(TRACEPARENT, traceparent(self.trace, span, self.is_sampled));
        if self.parent.is_none() {
            // It belongs to a trace that could not be read.
            headers.remove(TRACESTATE);
        }
        let endpoint = endpoint.clone();
        let outcome = Some(AttemptOutcome::Abandoned);
        AttemptTrace { request: self, span, started: Instant::now(), endpoint, outcome }
    }

    pub(super) fn with_attempts<T>(&self, look: impl FnOnce(&[AttemptSpan]) -> T) -> T {
        look(&self.attempts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An attempt that lasts until this is dropped.
pub(crate) struct AttemptTrace<'a> {
    request: &'a RequestTrace,
    span: SpanId,
    started: Instant,
    endpoint: Arc<str>,
    /// `None`: it does not count.
    outcome: Option<AttemptOutcome>,
}

impl AttemptTrace<'_> {
    /// There is an answer, or there will be none (`None`).
    pub(crate) fn end(mut self, status: Option<StatusCode>) {
        self.outcome = Some(status.map_or(AttemptOutcome::Failed, AttemptOutcome::Answered));
    }

    /// The endpoint was not tried.
    pub(crate) fn discard(mut self) {
        self.outcome = None;
    }
}

impl Drop for AttemptTrace<'_> {
    #[cold]
    fn drop(&mut self) {
        let Some(outcome) = self.outcome.filter(|_| self.request.is_sampled) else { return };
        let attempt = AttemptSpan {
            span: self.span,
            started: self.started,
            took: self.started.elapsed(),
            endpoint: self.endpoint.clone(),
            outcome,
        };
        self.request.attempts.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
    }
}

pub(super) fn new_span() -> SpanId {
    SpanId::from(fastrand::u64(1..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_new_traces_is_sampled_and_a_sender_decides_for_its_own() {
        let sampled = |sample| (0..20_000).filter(|_| RequestTrace::begin(None, sample).is_sampled).count();
        assert_eq!((sampled(0), sampled(FULL_SHARE)), (0, 20_000));
        let tenth = sampled(FULL_SHARE / 10);
        // Six standard deviations of a binomial distribution are 255.
        assert!((1_700..2_300).contains(&tenth), "{tenth}");
        for is_sampled in [true, false] {
            let parent = ParentSpan { trace: TraceId::from(7), span: SpanId::from(9), is_sampled };
            let trace = RequestTrace::begin(Some(parent), if is_sampled { 0 } else { FULL_SHARE });
            assert_eq!((trace.is_sampled, trace.trace, trace.parent), (is_sampled, parent.trace, Some(parent.span)));
            assert_ne!(trace.span, parent.span);
        }
    }

    #[test]
    fn an_attempt_names_itself_to_the_upstream_and_is_kept_whatever_becomes_of_it() {
        let trace = RequestTrace::begin(None, FULL_SHARE);
        let endpoint: Arc<str> = "10.0.0.1:80".into();
        let mut headers = HeaderMap::new();
        headers.insert(TRACESTATE, "a=b".parse().unwrap());
        trace.begin_attempt(&mut headers, &endpoint).end(Some(StatusCode::OK));
        let first = headers[TRACEPARENT].clone();
        assert!(!headers.contains_key(TRACESTATE), "it belongs to no trace");
        trace.begin_attempt(&mut headers, &endpoint).end(None);
        assert_ne!(headers[TRACEPARENT], first);
        drop(trace.begin_attempt(&mut headers, &endpoint));
        let outcomes: Vec<_> = trace.with_attempts(|all| all.iter().map(|attempt| attempt.outcome).collect());
        assert_eq!(
            outcomes,
            [AttemptOutcome::Answered(StatusCode::OK), AttemptOutcome::Failed, AttemptOutcome::Abandoned]
        );
        let span = trace.with_attempts(|all| all[0].span);
        assert_eq!(first, traceparent(trace.trace, span, true));
    }
}
