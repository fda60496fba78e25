//! W3C Trace Context: `traceparent` of a request, read and written.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of a `traceparent` of version 00; later versions may append to it.
const LENGTH: usize = 55;

/// The span that a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ParentSpan {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) is_sampled: bool,
}

/// The span that the sender of a request names; `None` if it names none, several, or one that can't be (§3.2 of the recommendation).
pub(super) fn parent(headers: &HeaderMap) -> Option<ParentSpan> {
    let mut all = headers.get_all(TRACEPARENT).iter();
    let (text, None) = (all.next()?.as_bytes(), all.next()) else { return None };
    parse(text)
}

/// The id of the trace that a request belongs to, if its sender names it.
pub(crate) fn trace_id(headers: &HeaderMap) -> Option<u128> {
    parent(headers).map(|parent| u128::from_be_bytes(parent.trace.to_bytes()))
}

fn parse(text: &[u8]) -> Option<ParentSpan> {
    let (known, rest) = text.split_at_checked(LENGTH)?;
    let [version, trace, span, flags] = [&known[..2], &known[3..35], &known[36..52], &known[53..]];
    let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let has_form =
        [2, 35, 52].iter().all(|at| known[*at] == b'-') && [version, trace, span, flags].into_iter().all(is_hex);
    let may_go_on = if version == b"00" { rest.is_empty() } else { rest.is_empty() || rest[0] == b'-' };
    if !has_form || version == b"ff" || !may_go_on {
        return None;
    }
    let [trace, span, flags] = [trace, span, flags].map(|part| std::str::from_utf8(part).unwrap_or_default());
    let trace = TraceId::from_hex(trace).ok().filter(|id| *id != TraceId::INVALID)?;
    let span = SpanId::from_hex(span).ok().filter(|id| *id != SpanId::INVALID)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some(ParentSpan { trace, span, is_sampled: TraceFlags::new(flags).is_sampled() })
}

/// The `traceparent` that names this span as the parent of what follows.
pub(super) fn traceparent(trace: TraceId, span: SpanId, is_sampled: bool) -> HeaderValue {
    let text = format!("00-{trace}-{span}-0{}", u8::from(is_sampled));
    // Digits and hyphens.
    let mut value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
    // HPACK keeps it out of its table: it never comes again.
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_parent_is_read_and_written_alike() {
        let parent = parse(GOOD.as_bytes()).unwrap();
        assert!(parent.is_sampled);
        assert_eq!(traceparent(parent.trace, parent.span, true), GOOD);
        let unsampled = parse(GOOD.replace("-01", "-00").as_bytes()).unwrap();
        assert!(!unsampled.is_sampled && unsampled.trace == parent.trace);
        // Other flags, and what a later version appends.
        assert!(parse(GOOD.replace("-01", "-03").as_bytes()).unwrap().is_sampled);
        assert_eq!(parse(format!("cc{}-more", &GOOD[2..]).as_bytes()), Some(parent));
    }

    #[test]
    fn what_is_no_parent_is_none() {
        for bad in [
            "",
            &GOOD[..54],
            &format!("{GOOD}0"),
            &format!("{GOOD}-more"),
            &format!("ff{}", &GOOD[2..]),
            &format!("cc{}.more", &GOOD[2..]),
            &GOOD.to_uppercase(),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace("-00f0", "_00f0"),
            &GOOD.replace("-01", "-0g"),
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(parent(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(parent(&headers), None, "two of them");
    }
}
