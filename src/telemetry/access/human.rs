//! The line of one request for people: what every request has stands in columns, what only some have behind them.

use std::fmt::Display;
use std::time::Duration;

use super::super::text::{make_visible, push, push_json_string};
use super::client_text::{logged_method, logged_path};
use super::record::{AccessRecord, WindowUse};

/// Where the status begins: after a time such as `2023-11-14T22:13:20.000Z` and a space.
const STATUS_AT: usize = 25;
const STATUS_LENGTH: usize = 3;

/// Adds a line, with its end. Nothing of it controls a terminal but the colour of the status.
pub(super) fn push_human_line(
    line: &mut String,
    record: &AccessRecord,
    windows: &[WindowUse<'_>],
    took: Duration,
    max_text: usize,
    has_colours: bool,
) {
    let begin = line.len();
    push_columns(line, record, took, max_text);
    push_details(line, record, windows);
    make_visible(line, begin);
    if has_colours {
        let status = begin + STATUS_AT;
        line.insert_str(status + STATUS_LENGTH, "\x1b[0m");
        line.insert_str(status, colour(record.status.as_u16()));
    }
}

/// Green: it went well. Cyan: the client is to look elsewhere. Yellow: the client's fault. Red: not the client's fault.
const fn colour(status: u16) -> &'static str {
    match status {
        ..300 => "\x1b[32m",
        300..400 => "\x1b[36m",
        400..500 => "\x1b[33m",
        500.. => "\x1b[31m",
    }
}

fn push_columns(line: &mut String, record: &AccessRecord, took: Duration, max_text: usize) {
    let (received, path) = (humantime::format_rfc3339_millis(record.received), logged_path(&record.uri, max_text));
    let (status, method, millis) = (record.status.as_u16(), logged_method(&record.method), took.as_secs_f64() * 1e3);
    let bytes = record.bytes_out;
    push(line, format_args!("{received} {status} {method:<7} {millis:>9.1}ms {bytes:>9}B {path}"));
}

fn push_details(line: &mut String, record: &AccessRecord, windows: &[WindowUse<'_>]) {
    push_some(line, " route=", record.route.as_deref());
    push_some(line, " upstream=", record.upstream.as_deref());
    push_some(line, " endpoint=", record.endpoint.as_deref());
    for (name, took) in [" auth=", " decision=", " first_byte="].into_iter().zip(record.phases) {
        if let Some(took) = took {
            push(line, format_args!("{name}{:.1}ms", took.as_secs_f64() * 1e3));
        }
    }
    for window in windows {
        push(line, format_args!(" {}={}/{}", window.name, window.used, window.limit));
    }
    push_some(line, " by=", record.decided_by);
    if record.shadow_denied {
        line.push_str(" shadow=denied");
    }
    push_some(line, " token=", record.token.as_ref().map(|(id, _)| id));
    push_some(line, " account=", record.account.as_deref());
    push_some(line, " ", record.rejection);
    push_some(line, " reason=", record.reason);
    if let Some(error) = &record.error {
        line.push(' ');
        push_json_string(line, error);
    }
    push_some(line, " bytes_in=", Some(record.bytes_in).filter(|bytes| *bytes > 0));
    if let Some([from_client, from_upstream]) = record.messages {
        push(line, format_args!(" messages={from_client}/{from_upstream}"));
    }
    push_some(line, " ended_by=", record.ended_by);
    push_some(line, " attempts=", Some(record.attempts).filter(|attempts| *attempts > 1));
    if record.cut {
        line.push_str(" cut");
    }
    push(line, format_args!(" client={} id={}\n", record.client, record.request_id.to_str().unwrap_or_default()));
}

fn push_some(line: &mut String, before: &str, value: Option<impl Display>) {
    if let Some(value) = value {
        push(line, format_args!("{before}{value}"));
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::super::line::tests::{WINDOWS, record};
    use super::*;

    fn line_of(record: &AccessRecord, has_colours: bool) -> String {
        let mut line = "before\n".to_owned();
        push_human_line(&mut line, record, &WINDOWS, Duration::from_millis(7), 64, has_colours);
        line.strip_prefix("before\n").unwrap().to_owned()
    }

    #[test]
    fn the_line_is_one_line_in_columns() {
        let line = line_of(&record(), false);
        assert_eq!(line.matches('\n').count(), 1);
        let columns = "2023-11-14T22:13:20.000Z 429 GET           7.0ms         7B /api/v1/calls ";
        assert!(line.starts_with(columns), "{line}");
        assert!(
            line.contains(" route=calls auth=1.5ms decision=0.0ms first_byte=12.0ms minute=60/60 by=redis "),
            "{line}"
        );
        assert!(line.contains(" shadow=denied token=id1 account=acme rate_limited messages=3/4 client="), "{line}");
        let other = AccessRecord { method: Method::OPTIONS, bytes_out: 123_456_789, ..record() };
        assert_eq!(line_of(&other, false).find(" /api"), line.find(" /api"));
    }

    #[test]
    fn only_the_status_is_coloured() {
        for (status, colour) in [(200, 32), (304, 36), (404, 33), (499, 33), (502, 31)] {
            let mut record = record();
            record.status = StatusCode::from_u16(status).unwrap();
            record.error = Some("\u{1b}[31m".into());
            let line = line_of(&record, true);
            assert!(line.contains(&format!("Z \u{1b}[{colour}m{status}\u{1b}[0m GET ")), "{line:?}");
            assert_eq!(line.matches('\u{1b}').count(), 2, "{line:?}");
        }
    }
}
