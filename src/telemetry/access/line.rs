//! The line of one request as JSON.

use std::borrow::Cow;
use std::time::Duration;

use http::Version;

use super::super::text::{push, push_ip, push_json_string, push_millis, push_number, push_text};
use super::client_text::{logged, logged_method, logged_path};
use super::record::{AccessRecord, WindowUse};

/// Adds the JSON form of a request that took so long, with its line end. It is made for every request, so it avoids `format!` where that
/// is easy.
/// Texts of the client's have at most `max_text` bytes.
pub fn push_json_line(
    line: &mut String,
    record: &AccessRecord,
    windows: &[WindowUse<'_>],
    took: Duration,
    max_text: usize,
) {
    line.push_str(r#"{"timestamp":""#);
    push(line, format_args!("{}", humantime::format_rfc3339_millis(record.received)));
    let is_failure = record.status.is_server_error();
    line.push_str(if is_failure { r#"","level":"WARN""# } else { r#"","level":"INFO""# });
    line.push_str(r#","message":"request""#);
    push_text(line, "request_id", record.request_id.to_str().unwrap_or_default());
    push_text(line, "method", logged_method(&record.method));
    if !record.host.is_empty() {
        push_text(line, "host", &record.host);
    }
    push_text(line, "path", &logged_path(&record.uri, max_text));
    push_text(line, "protocol", protocol(record.version));
    let (id, name) = record.token.as_ref().map(|(id, name)| (&**id, &**name)).unzip();
    for (key, value) in [
        ("route", record.route.as_deref()),
        ("token_id", id),
        ("token_name", name),
        ("account", record.account.as_deref()),
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
    if let Some(id) = record.trace_id {
        push(line, format_args!(r#","trace_id":"{id:032x}""#));
    }
    line.push_str(r#","client":""#);
    push_ip(line, record.client);
    line.push('"');
    if let Some(agent) = &record.user_agent {
        let agent = agent.as_bytes();
        // The second is slower for what is text, too.
        let agent = std::str::from_utf8(agent).map_or_else(|_| String::from_utf8_lossy(agent), Cow::Borrowed);
        push_text(line, "user_agent", &logged(&agent, max_text));
    }
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

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "h2",
        Version::HTTP_10 => "http/1.0",
        _ => "http/1.1",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Instant, SystemTime};

    use http::{HeaderValue, Method, StatusCode};

    use super::super::human::push_human_line;
    use super::*;

    const MAX_TEXT: usize = 1_024;

    pub(crate) const WINDOWS: [WindowUse<'_>; 1] = [WindowUse { name: "minute", used: 60, limit: 60 }];

    pub(crate) fn record() -> AccessRecord {
        AccessRecord {
            started: Instant::now(),
            received: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            client: [127, 0, 0, 1].into(),
            host: "api.example.com".into(),
            user_agent: Some(HeaderValue::from_static("probe/1.0 \"x\"")),
            trace_id: Some(0x0bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736),
            method: Method::GET,
            uri: "/api/v1/calls?access_token=hidden".parse().unwrap(),
            version: Version::HTTP_2,
            request_id: HeaderValue::from_static("abc"),
            route: Some("calls".into()),
            token: Some(("id1".into(), "my \"token\"\u{1b}[31m".into())),
            account: Some("acme".into()),
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
        push_json_line(&mut line, record, &WINDOWS, Duration::from_millis(7), MAX_TEXT);
        line
    }

    fn human_line(record: &AccessRecord) -> String {
        let mut line = String::new();
        push_human_line(&mut line, record, &WINDOWS, Duration::from_millis(7), MAX_TEXT, false);
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
        for (key, wanted) in [
            ("account", "acme"),
            ("host", "api.example.com"),
            ("user_agent", "probe/1.0 \"x\""),
            ("trace_id", "0bf92f3577b34da6a3ce929d0e0e4736"),
            ("level", "INFO"),
        ] {
            assert_eq!(value[key], wanted);
        }
        assert!(!line.contains("hidden"));
        assert!(!line.contains('\u{1b}'));
    }

    #[test]
    fn a_failure_of_the_gateway_or_of_its_upstream_is_a_warning() {
        for (status, level) in [(200, "INFO"), (499, "INFO"), (500, "WARN"), (503, "WARN")] {
            let failed = AccessRecord { status: StatusCode::from_u16(status).unwrap(), ..record() };
            assert!(json_line(&failed).contains(&format!("\"level\":\"{level}\"")), "{status}");
        }
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
        let path = format!("/{}/{token}/{}", "a".repeat(MAX_TEXT - 30), "b".repeat(8_000));
        let method = Method::from_bytes(&[b'M'; 5_000]).unwrap();
        let user_agent = Some(format!("{token} {}", "u".repeat(5_000)).parse().unwrap());
        let long = AccessRecord { uri: path.parse().unwrap(), method, user_agent, ..record() };
        for line in [json_line(&long), human_line(&long)] {
            assert!(line.len() < 3_000, "{}", line.len());
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
        assert!(human_line(&refused).contains(" token=id1 account=acme invalid_token reason=revoked "));
    }
}
