//! The line of a call that begins, as JSON and for people. The line of its request is written when it ends.

use std::fmt::Display;

use super::super::text::{push, push_ip, push_text};
use super::client_text::logged_path;
use super::record::AccessRecord;

/// The JSON form, with its line end.
pub(super) fn json_opened(record: &AccessRecord, call: &dyn Display, kind: &str, max_text: usize) -> String {
    let mut line = String::with_capacity(480);
    line.push_str(r#"{"timestamp":""#);
    push(&mut line, format_args!("{}", humantime::format_rfc3339_millis(std::time::SystemTime::now())));
    line.push_str(r#"","level":"INFO","message":"call opened""#);
    push(&mut line, format_args!(r#","call_id":"{call}""#));
    push_text(&mut line, "kind", kind);
    push_text(&mut line, "request_id", record.request_id.to_str().unwrap_or_default());
    push_text(&mut line, "path", &logged_path(&record.uri, max_text));
    let (id, name) = record.token.as_ref().map(|(id, name)| (&**id, &**name)).unzip();
    for (key, value) in [
        ("route", record.route.as_deref()),
        ("token_id", id),
        ("token_name", name),
        ("account", record.account.as_deref()),
        ("upstream", record.upstream.as_deref()),
        ("endpoint", record.endpoint.as_deref()),
    ] {
        if let Some(value) = value {
            push_text(&mut line, key, value);
        }
    }
    line.push_str(r#","client":""#);
    push_ip(&mut line, record.client);
    line.push_str("\"}\n");
    line
}

/// The form for people.
pub(super) fn human_opened(record: &AccessRecord, call: &dyn Display, kind: &str, max_text: usize) -> String {
    let mut line = String::with_capacity(256);
    let now = humantime::format_rfc3339_millis(std::time::SystemTime::now());
    push(&mut line, format_args!("{now} call opened {} {kind}", logged_path(&record.uri, max_text)));
    for (key, value) in [
        ("token", record.token.as_ref().map(|(id, _)| &**id)),
        ("account", record.account.as_deref()),
        ("upstream", record.upstream.as_deref()),
        ("endpoint", record.endpoint.as_deref()),
    ] {
        if let Some(value) = value {
            push(&mut line, format_args!(" {key}={value}"));
        }
    }
    let id = record.request_id.to_str().unwrap_or_default();
    push(&mut line, format_args!(" client={} call={call} id={id}\n", record.client));
    line
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::record;
    use super::*;

    #[test]
    fn both_lines_say_which_call_it_is_and_whose() {
        let record =
            AccessRecord { upstream: Some("media".into()), endpoint: Some("http://10.0.0.1:1".into()), ..record() };
        let line = json_opened(&record, &"0193", "websocket", 64);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        for (key, wanted) in [
            ("message", "call opened"),
            ("call_id", "0193"),
            ("kind", "websocket"),
            ("request_id", "abc"),
            ("path", "/api/v1/calls"),
            ("route", "calls"),
            ("token_id", "id1"),
            ("account", "acme"),
            ("upstream", "media"),
            ("endpoint", "http://10.0.0.1:1"),
            ("client", "127.0.0.1"),
        ] {
            assert_eq!(value[key], wanted, "{key}");
        }
        assert!(!line.contains("hidden"), "{line}");
        let line = human_opened(&record, &"0193", "events", 64);
        assert_eq!(line.matches('\n').count(), 1);
        let end = "call opened /api/v1/calls events token=id1 account=acme upstream=media endpoint=http://10.0.0.1:1 client=127.0.0.1 call=0193 id=abc\n";
        assert!(line.ends_with(end), "{line}");
    }
}
