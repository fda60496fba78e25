//! The line of one request, as JSON and for people.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use http::{Method, Uri, Version};

use super::super::text::{push, push_ip, push_json_string, push_millis, push_number, push_text};
use super::record::{AccessRecord, WindowUse};

/// Bytes of a path that are logged. Clients choose paths, and lines must not fill the log.
const MAX_PATH_BYTES: usize = 1_024;
/// The same for a method.
const MAX_METHOD_BYTES: usize = 32;

/// The path without secrets of tokens, and cut when it is long; a hyphen where the target has no path.
pub(super) fn logged_path(uri: &Uri) -> Cow<'_, str> {
    match uri.path() {
        "" => "-".into(),
        path => match without_secrets(path) {
            long if long.len() > MAX_PATH_BYTES => {
                (long[..long.floor_char_boundary(MAX_PATH_BYTES)].to_owned() + "…").into()
            }
            short => short,
        },
    }
}

fn logged_method(method: &Method) -> &str {
    // Methods are ASCII.
    &method.as_str()[..method.as_str().len().min(MAX_METHOD_BYTES)]
}

/// Adds the JSON form of a request that took so long, with its line end. It is made for every request, so it avoids `format!` where that
/// is easy.
pub fn push_json_line(line: &mut String, record: &AccessRecord, windows: &[WindowUse<'_>], took: Duration) {
    line.push_str(r#"{"timestamp":""#);
    push(line, format_args!("{}", humantime::format_rfc3339_millis(record.received)));
    line.push_str(r#"","level":"INFO","message":"request""#);
    push_text(line, "request_id", record.request_id.to_str().unwrap_or_default());
    push_text(line, "method", logged_method(&record.method));
    push_text(line, "path", &logged_path(&record.uri));
    push_text(line, "protocol", protocol(record.version));
    let (id, name) = record.token.as_ref().map(|(id, name)| (&**id, &**name)).unzip();
    for (key, value) in [
        ("route", record.route.as_deref()),
        ("token_id", id),
        ("token_name", name),
        ("code", record.rejection),
        ("reason", record.reason),
        ("error", record.error.as_deref()),
        ("ended_by", record.ended_by),
        ("upstream", record.upstream.as_deref()),
        ("endpoint", record.endpoint.as_deref()),
        ("decided_by", record.decided_by),
    ] {
        if let Some(value) = value {
            push_text(line, key, value);
        }
    }
    line.push_str(r#","client":""#);
    push_ip(line, record.client);
    line.push('"');
    push_number(line, r#","status":"#, record.status.as_u16().into());
    for (at, window) in windows.iter().enumerate() {
        line.push_str(if at == 0 { r#","limits":{"# } else { "," });
        push_json_string(line, window.name);
        push_number(line, r#":{"used":"#, window.used.into());
        push_number(line, r#","limit":"#, window.limit.into());
        line.push('}');
    }
    if !windows.is_empty() {
        line.push('}');
    }
    if record.shadow_denied {
        line.push_str(r#","shadow":"denied""#);
    }
    push_number(line, r#","bytes_out":"#, record.bytes_out);
    if record.bytes_in > 0 {
        push_number(line, r#","bytes_in":"#, record.bytes_in);
    }
    if let Some([from_client, from_upstream]) = record.messages {
        push_number(line, r#","messages_in":"#, from_client);
        push_number(line, r#","messages_out":"#, from_upstream);
    }
    if record.cut {
        line.push_str(r#","cut":true"#);
    }
    if record.attempts > 1 {
        push_number(line, r#","attempts":"#, record.attempts.into());
    }
    for (key, took) in [r#","auth_ms":"#, r#","decision_ms":"#, r#","upstream_ms":"#].into_iter().zip(record.phases) {
        if let Some(took) = took {
            push_millis(line, key, took);
        }
    }
    push_millis(line, r#","duration_ms":"#, took);
    line.push_str("}\n");
}

pub(super) fn push_human_line(line: &mut String, record: &AccessRecord, windows: &[WindowUse<'_>], took: Duration) {
    let (received, path) = (humantime::format_rfc3339_millis(record.received), logged_path(&record.uri));
    let (status, method, millis) = (record.status.as_u16(), logged_method(&record.method), took.as_secs_f64() * 1e3);
    push(line, format_args!("{received} {status} {method} {path} {millis:.1}ms"));
    for window in windows {
        push(line, format_args!(" {}={}/{}", window.name, window.used, window.limit));
    }
    push_some(line, " by=", record.decided_by);
    if record.shadow_denied {
        line.push_str(" shadow=denied");
    }
    push_some(line, " token=", record.token.as_ref().map(|(id, _)| id));
    push_some(line, " ", record.rejection);
    push_some(line, " reason=", record.reason);
    if let Some(error) = &record.error {
        line.push(' ');
        push_json_string(line, error);
    }
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

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "h2",
        Version::HTTP_10 => "http/1.0",
        _ => "http/1.1",
    }
}

/// The text with each of Callgate's tokens cut after its id. After its prefix and an underscore (which may be escaped), a
/// token has 45 letters and digits, of which the first 12 are the id. Its checksum is not verified.
fn without_secrets(text: &str) -> Cow<'_, str> {
    const ID: usize = 12;
    const BODY: usize = 45;
    let bytes = text.as_bytes();
    let mut logged = String::new();
    let mut from = 0;
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| matches!(**byte, b'_' | b'F' | b'f')) {
        let escaped = bytes[at] != b'_';
        if at < from || (escaped && !bytes[..at].ends_with(b"%5")) {
            continue;
        }
        let run = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        if run == BODY {
            logged.push_str(&text[from..=at + ID]);
            logged.push('…');
            from = at + 1 + BODY;
        }
    }
    if from == 0 {
        return text.into();
    }
    logged.push_str(&text[from..]);
    logged.into()
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use http::{HeaderValue, StatusCode};

    use super::*;

    const WINDOWS: [WindowUse<'_>; 1] = [WindowUse { name: "minute", used: 60, limit: 60 }];

    pub(crate) fn record() -> AccessRecord {
        AccessRecord {
            started: Instant::now(),
            received: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            client: [127, 0, 0, 1].into(),
            method: Method::GET,
            uri: "/api/v1/calls?access_token=hidden".parse().unwrap(),
            version: Version::HTTP_2,
            request_id: HeaderValue::from_static("abc"),
            route: Some("calls".into()),
            token: Some(("id1".into(), "my \"token\"\u{1b}[31m".into())),
            status: StatusCode::TOO_MANY_REQUESTS,
            rejection: Some("rate_limited"),
            reason: None,
            error: None,
            upstream: None,
            endpoint: None,
            attempts: 1,
            decided_by: Some("redis"),
            shadow_denied: true,
            phases: [1_500, 7, 12_034].map(|us| Some(Duration::from_micros(us))),
            bytes_out: 7,
            bytes_in: 0,
            messages: Some([3, 4]),
            cut: false,
            ended_by: None,
        }
    }

    fn json_line(record: &AccessRecord) -> String {
        let mut line = String::new();
        push_json_line(&mut line, record, &WINDOWS, Duration::from_millis(7));
        line
    }

    fn human_line(record: &AccessRecord) -> String {
        let mut line = String::new();
        push_human_line(&mut line, record, &WINDOWS, Duration::from_millis(7));
        line
    }

    #[test]
    fn the_json_line_has_everything_but_the_query() {
        let line = json_line(&record());
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["path"], "/api/v1/calls");
        assert_eq!(value["limits"]["minute"]["used"], 60);
        assert_eq!(value["status"], 429);
        assert_eq!(value["shadow"], "denied");
        assert_eq!((&value["messages_in"], &value["messages_out"]), (&3.into(), &4.into()));
        assert_eq!(value["auth_ms"], 1.5);
        assert!(line.contains(r#""auth_ms":1.500,"decision_ms":0.007,"upstream_ms":12.034,"duration_ms":"#), "{line}");
        assert_eq!(value["token_name"], "my \"token\"\u{1b}[31m");
        assert!(!line.contains("hidden"));
        assert!(!line.contains('\u{1b}'));
    }

    #[test]
    fn attempts_are_logged_when_there_was_more_than_one() {
        assert!(!json_line(&record()).contains("attempts") && !human_line(&record()).contains("attempts"));
        let twice = AccessRecord { attempts: 2, ..record() };
        assert!(json_line(&twice).contains(r#","attempts":2,"#));
        assert!(human_line(&twice).contains(" attempts=2 "));
    }

    #[test]
    fn a_token_in_a_path_is_cut_after_its_id() {
        let token = "kal_live_0123456789AB0123456789ABCDEFGHIJKLMNOPQ1eHJcq";
        let escaped = token.replace('_', "%5F");
        for (path, logged) in [
            (format!("/a/{token}"), "/a/kal_live_0123456789AB…".to_owned()),
            (format!("/{token}/b/{token}.json"), "/kal_live_0123456789AB…/b/kal_live_0123456789AB….json".to_owned()),
            (format!("/{escaped}"), "/kal%5Flive%5F0123456789AB…".to_owned()),
            ("/files_of_f/%5F/f".to_owned(), "/files_of_f/%5F/f".to_owned()),
            (format!("/x_{}", "a".repeat(46)), format!("/x_{}", "a".repeat(46))),
            (format!("/x_{}", "a".repeat(44)), format!("/x_{}", "a".repeat(44))),
            (format!("/xf{}", "a".repeat(45)), format!("/xf{}", "a".repeat(45))),
        ] {
            let line = json_line(&AccessRecord { uri: path.parse().unwrap(), ..record() });
            assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["path"], logged);
        }
    }

    #[test]
    fn long_paths_and_methods_are_cut() {
        let token = "kal_live_0123456789AB0123456789ABCDEFGHIJKLMNOPQ1eHJcq";
        let path = format!("/{}/{token}/{}", "a".repeat(MAX_PATH_BYTES - 30), "b".repeat(8_000));
        let method = Method::from_bytes(&[b'M'; 5_000]).unwrap();
        let long = AccessRecord { uri: path.parse().unwrap(), method, ..record() };
        for line in [json_line(&long), human_line(&long)] {
            assert!(line.len() < 2_000, "{}", line.len());
            assert!(
                line.contains("a/kal_live_0123456789AB…/bb") && line.contains("b…") && !line.contains("PQ1eHJcq"),
                "{line}"
            );
        }
    }

    #[test]
    fn the_reason_of_a_401_is_logged() {
        let refused = AccessRecord { rejection: Some("invalid_token"), reason: Some("revoked"), ..record() };
        assert!(json_line(&refused).contains(r#""code":"invalid_token","reason":"revoked""#));
        assert!(human_line(&refused).contains(" token=id1 invalid_token reason=revoked "));
    }

    #[test]
    fn the_human_line_is_one_line() {
        let line = human_line(&record());
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.starts_with("2023-11-14T22:13:20.000Z 429 GET /api/v1/calls "), "{line}");
        assert!(line.contains(" minute=60/60 by=redis shadow=denied token=id1 rate_limited"), "{line}");
    }
}
