//! The pages of `docs/reference/` and the program say the same: nothing is missing, nothing is invented.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use callgate::telemetry::{AccessRecord, WindowUse, push_json_line};
use http::{HeaderValue, Method, StatusCode, Version};
use serde_json::Value;

use crate::support::calls::{call, switchboard};
use crate::support::client::{get, http1};
use crate::support::eventually;
use crate::support::gateway::Site;

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The rows of all tables below a heading (of the whole page if it is empty), by the name in their first cell.
fn rows(page: &str, heading: &str) -> BTreeMap<String, Vec<String>> {
    let page = read(&format!("docs/reference/{page}.md"));
    let section = match heading {
        "" => &*page,
        heading => page.split("\n## ").find(|section| section.lines().next() == Some(heading)).expect(heading),
    };
    let mut rows = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        let name = cells.next().unwrap().replace('`', "");
        let cells: Vec<String> = cells.collect();
        assert!(!cells.last().unwrap().is_empty(), "{name} has no meaning");
        assert!(rows.insert(name.clone(), cells).is_none(), "{name} is there twice");
    }
    assert!(!rows.is_empty(), "{heading}");
    rows
}

fn names(rows: &BTreeMap<String, Vec<String>>) -> BTreeSet<&str> {
    rows.keys().map(String::as_str).collect()
}

/// What a cell lists: words between commas, in any order, without backticks.
fn listed(cell: &str) -> BTreeSet<String> {
    cell.split(',').map(|word| word.trim().replace('`', "")).filter(|word| !word.is_empty()).collect()
}

/// What is between each `before` and the next double quote.
fn quoted<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[tokio::test]
async fn the_page_of_metrics_has_each_with_its_type_and_labels() {
    let upstream = switchboard().await;
    let site = Site::new(&format!(
        "store: memory\ntokens: {{ file: tokens.yaml }}\n\
         routes: [{{ path: \"/{{*rest}}\", upstream: up, mirror: {{ upstream: trial }} }}]\n\
         upstreams: {{ up: {{ endpoints: [\"http://{upstream}\"] }}, trial: {{ endpoints: [\"http://localhost:{}\"] }} }}",
        upstream.port()
    ));
    let token = site.token(&[]);
    let gateway = site.serve();
    get(&http1(&gateway), &gateway, "/", &token).await;

    let rows = rows("metrics", "");
    // The program refuses to register a metric that is not in this list.
    let help = read("src/telemetry/help.rs");
    let known: BTreeSet<&str> = quoted(&help, "\"callgate_").into_iter().collect();
    let documented = rows.keys().filter_map(|name| name.strip_prefix("callgate_")).collect();
    assert_eq!(known, documented);

    let (_, page) = gateway.admin("/metrics").await;
    let types: BTreeMap<&str, &str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    assert_eq!(types.keys().copied().collect::<BTreeSet<_>>(), names(&rows));
    for (name, cells) in &rows {
        assert_eq!(cells[0], types[&**name], "the type of {name}");
        let is_histogram = cells[0] == "histogram";
        let suffix = if is_histogram { "_count" } else { "" };
        let series = page.lines().find_map(|line| {
            line.strip_prefix(&format!("{name}{suffix}")[..]).filter(|rest| rest.starts_with([' ', '{']))
        });
        let labels = series
            .expect(name)
            .strip_prefix('{')
            .and_then(|rest| rest.rsplit_once('}'))
            .map_or("", |(labels, _)| labels);
        let labels: BTreeSet<String> =
            labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned())).collect();
        assert_eq!(listed(&cells[1]), labels, "the labels of {name}");
        assert!(!cells[2].is_empty(), "the unit of {name}");
    }
}

/// A record in which nothing is missing.
fn full_record() -> AccessRecord {
    AccessRecord {
        started: Instant::now(),
        received: SystemTime::now(),
        client: [127, 0, 0, 1].into(),
        method: Method::GET,
        uri: "/a".parse().unwrap(),
        version: Version::HTTP_2,
        host: "api.example.com".into(),
        user_agent: Some(HeaderValue::from_static("curl/8.5.0")),
        trace_id: Some(1),
        request_id: HeaderValue::from_static("id"),
        route: Some("a".into()),
        token: Some(("a".into(), "a".into())),
        account: Some("acme".into()),
        status: StatusCode::OK,
        rejection: Some("a"),
        reason: Some("a"),
        error: Some("a".into()),
        upstream: Some("a".into()),
        endpoint: Some("a".into()),
        attempts: 2,
        decided_by: Some("a"),
        shadow_denied: true,
        phases: [Some(Duration::from_millis(1)); 3],
        bytes_out: 1,
        bytes_in: 1,
        messages: Some([1, 1]),
        cut: true,
        ended_by: Some("a"),
    }
}

fn keys(line: &Value) -> BTreeSet<&str> {
    line.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn the_page_of_log_fields_has_each_of_both_lines() {
    let mut line = String::new();
    let windows = [WindowUse { name: "minute", used: 1, limit: 2 }];
    push_json_line(&mut line, &full_record(), &windows, Duration::from_millis(1), 1_024);
    assert_eq!(keys(&serde_json::from_str(&line).unwrap()), names(&rows("log-fields", "The line of a request")));

    let site = Site::in_memory(switchboard().await, "  - { path: /call, upstream: up }");
    let token = site.token(&[]);
    let gateway = site.serve();
    let _call = call(&gateway, &token, "/call").await.unwrap();
    let opened = eventually("the line of the call", async || {
        gateway.log().into_iter().find(|line| line["message"] == "call opened")
    });
    let opened = opened.await;
    assert_eq!(keys(&opened), names(&rows("log-fields", "The line of a call that opens")));
}

/// Each code of a file with its statuses. In the file, it follows its status; `*` is for a code that is a variable there.
fn codes_in(file: &str, status: &str) -> BTreeMap<String, BTreeSet<String>> {
    let text = read(file).replace("INVALID_REQUEST,", "\"invalid_request\",");
    let text: String = text.split_whitespace().collect();
    let mut codes = BTreeMap::<_, BTreeSet<_>>::new();
    for rest in text.split(status).skip(1) {
        let Some((name, rest)) = rest.split_once(',') else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') {
            continue;
        }
        let code = rest.strip_prefix('"').and_then(|rest| rest.split('"').next());
        let Some(code) = code.or_else(|| (rest.starts_with("code)")).then_some("*")) else {
            panic!("{file}: {name} is followed by no code")
        };
        codes.entry(code.to_owned()).or_default().insert(number(name));
    }
    codes
}

/// `NOT_FOUND` as `404`: the constants are the reason phrases in capitals.
fn number(name: &str) -> String {
    let phrase = name.replace('_', " ");
    let mut all = (100..600).filter_map(|code| StatusCode::from_u16(code).ok());
    let found = all.find(|status| status.canonical_reason().is_some_and(|reason| reason.eq_ignore_ascii_case(&phrase)));
    found.expect(name).as_u16().to_string()
}

#[test]
fn the_page_of_errors_has_each_code_with_its_statuses() {
    let mut codes = codes_in("src/response/rejection.rs", "S::");
    codes.entry("invalid_request".to_owned()).or_default().insert("400".to_owned());
    assert!(read("src/listener/connection.rs").contains("\"code\":\"https_required\""));
    codes.get_mut("https_required").unwrap().insert("400".to_owned());
    let rows_of = |heading| -> BTreeMap<String, BTreeSet<String>> {
        rows("errors", heading).into_iter().map(|(code, cells)| (code, listed(&cells[0]))).collect()
    };
    assert_eq!(codes, rows_of("For clients of the API"));

    let mut codes = codes_in("src/admin/error.rs", "StatusCode::");
    let conflicts = codes.remove("*").unwrap();
    for code in quoted(&read("src/admin/error.rs"), "Self::Conflict(message, \"") {
        codes.insert(code.to_owned(), conflicts.clone());
    }
    assert_eq!(codes, rows_of("Of the admin API"));
}
