//! The screen of `callgate status`.

use std::time::SystemTime;

use serde_json::Value;

use super::super::quantities::{bytes, duration};
use crate::color::Color;

/// Characters of the column of headings.
const HEADING: usize = 15;
/// Endpoints, instances and certificates that are shown, of each kind.
const MAX_LINES: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Coloured,
}

impl Style {
    fn paint(self, color: Color, text: &str) -> String {
        color.paint(self == Self::Coloured, text)
    }
}

/// What people read of a status.
pub(super) fn screen(status: &Value, address: &str, style: Style) -> String {
    let now = time(&status["time"]);
    let (word, paint) = if status["well"] == true { ("well", Color::Green) } else { ("not well", Color::Red) };
    let up = duration(number(&status["uptime_seconds"]));
    let mut text = format!(
        "callgate {} at {address} is {}: up {up}, pid {} on {}\n",
        plain(&status["version"]),
        style.paint(paint, word),
        status["pid"],
        plain(&status["host"]),
    );
    for warning in list(&status["warnings"]) {
        let ago = ago(now, &warning["since"]);
        text += &format!("  {} {} (for {ago})\n", style.paint(Color::Yellow, "!"), plain(&warning["text"]));
    }
    text.push('\n');
    let mut add = |heading: &str, lines: Vec<String>| {
        for (index, line) in lines.iter().enumerate() {
            let heading = if index == 0 { heading } else { "" };
            text += &format!("{}{line}\n", style.paint(Color::Bold, &format!("{heading:HEADING$}")));
        }
    };
    add("Requests", traffic(&status["traffic"]));
    add("Open", vec![open(status)]);
    if !status["drain"].is_null() {
        let drain = &status["drain"];
        add(
            "Drain",
            vec![format!(
                "{} connections, {} requests and {} calls are left",
                drain["connections"], drain["requests"], drain["calls"]
            )],
        );
    }
    add("Store", vec![store(&status["store"], now)]);
    add("Configuration", configuration(&status["configuration"], now));
    add("Certificates", bounded(list(&status["certificates"]).map(certificate)));
    add("Process", vec![process(status)]);
    let own = &status["instance"];
    add("Instances", bounded(list(&status["instances"]).map(|instance| of_instance(instance, own, now))));
    add("Upstreams", bounded(list(&status["upstreams"]).flat_map(|upstream| of_upstream(upstream, style))));
    text
}

fn traffic(traffic: &Value) -> Vec<String> {
    let rate = |value: &Value| format!("{:.1}", number(value));
    let statuses =
        ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| format!("{class} {}", rate(&traffic["statuses"][class])));
    let decisions = list(&traffic["decisions"]).filter(|decision| number(&decision["per_second"]) > 0.0);
    let decisions: Vec<String> = decisions
        .map(|it| format!("{} {} ({})", plain(&it["outcome"]), rate(&it["per_second"]), plain(&it["source"])))
        .collect();
    let mut lines = vec![
        format!(
            "{} a second in the last {}: {}",
            rate(&traffic["requests_per_second"]),
            duration(number(&traffic["window_seconds"])),
            statuses.join("  ")
        ),
        format!("latency {}", latency(&traffic["latency_ms"])),
    ];
    if !decisions.is_empty() {
        let took = latency(&traffic["decision_latency_ms"]);
        lines.push(format!("decisions: {}; {took}", decisions.join(", ")));
    }
    lines
}

fn latency(latency: &Value) -> String {
    let at = |share: &str| latency[share].as_f64().map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
    format!("p50 {}  p95 {}  p99 {}", at("p50"), at("p95"), at("p99"))
}

fn open(status: &Value) -> String {
    let connections = &status["connections"];
    format!(
        "{} of {} connections, {} requests, {} calls",
        connections["open"], connections["max"], status["requests"]["in_flight"], status["calls"]["open"]
    )
}

fn store(store: &Value, now: Option<SystemTime>) -> String {
    if store["kind"] == "memory" {
        let good = if store["token_file_good"] == true { "read" } else { "can't be used as it is" };
        return format!("memory; tokens of {}: {good}", plain(&store["token_file"]));
    }
    let addresses: Vec<String> = list(&store["addresses"]).map(plain).collect();
    let state = match store["connected"] == true {
        true => format!("answers since {}, {}", ago(now, &store["since"]), latency(&store["latency_ms"])),
        false => format!("unreachable since {} ({})", ago(now, &store["since"]), plain(&store["trouble"])),
    };
    let unmerged = match number(&store["unmerged_admissions"]) {
        0.0 => String::new(),
        count => format!("; {count} admissions are not merged yet"),
    };
    format!("Redis ({}) at {}: {state}{unmerged}", plain(&store["topology"]), addresses.join(", "))
}

fn configuration(configuration: &Value, now: Option<SystemTime>) -> Vec<String> {
    let mut lines =
        vec![format!("{}, in force for {}", plain(&configuration["file"]), ago(now, &configuration["in_force_since"]))];
    let last = &configuration["last_reload"];
    if !last.is_null() {
        let outcome = match last["successful"] == true {
            true => list(&last["changes"]).map(plain).collect::<Vec<_>>().join(", "),
            false => "refused".to_owned(),
        };
        let outcome = if outcome.is_empty() { "nothing had changed".to_owned() } else { outcome };
        lines.push(format!("last reload {} ago: {outcome}", ago(now, &last["at"])));
    }
    lines
}

fn certificate(certificate: &Value) -> String {
    let names: Vec<String> = list(&certificate["names"]).map(plain).collect();
    format!("{}: {} days left ({})", plain(&certificate["file"]), certificate["days_left"], names.join(", "))
}

fn process(status: &Value) -> String {
    let process = &status["process"];
    let memory = process["memory_bytes"].as_u64().map(|memory| format!("{} of memory", bytes(memory)));
    let files = process["open_files"].as_u64().map(|files| format!("{files} of {} files", process["max_files"]));
    let threads = process["threads"].as_u64().map(|threads| format!("{threads} threads"));
    let dropped = status["log"]["dropped_lines"].as_u64().filter(|lines| *lines > 0);
    let dropped = dropped.map(|lines| format!("{lines} log lines dropped"));
    [memory, files, threads, dropped].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn of_instance(instance: &Value, own: &Value, now: Option<SystemTime>) -> String {
    let state = match (instance["id"] == *own, instance["draining"] == true) {
        (_, true) => "draining".to_owned(),
        (true, false) => "this one".to_owned(),
        (false, false) => format!("seen {} ago", ago(now, &instance["seen_at"])),
    };
    let [id, host, version] = ["id", "host", "version"].map(|key| plain(&instance[key]));
    format!("{id} on {host}, version {version}, {} calls: {state}", instance["calls"])
}

fn of_upstream(upstream: &Value, style: Style) -> Vec<String> {
    let mut lines = vec![format!(
        "{}: {} in flight, {} waiting",
        plain(&upstream["name"]),
        upstream["in_flight"],
        upstream["waiting"]
    )];
    lines.extend(list(&upstream["endpoints"]).map(|endpoint| {
        let state = plain(&endpoint["state"]);
        let paint = if state == "up" { Color::Green } else { Color::Red };
        let ejected = match number(&endpoint["ejected_for_seconds"]) {
            0.0 => String::new(),
            seconds => format!(" for {}", duration(seconds)),
        };
        let state = style.paint(paint, &state);
        format!("  {} {state}{ejected}, {} in flight", plain(&endpoint["url"]), endpoint["in_flight"])
    }));
    lines
}

/// At most [`MAX_LINES`], and how many there are beside.
fn bounded(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    let more = lines.len().saturating_sub(MAX_LINES);
    if more > 0 {
        lines.truncate(MAX_LINES);
        lines.push(format!("… and {more} more lines; --json shows all"));
    }
    lines
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A text without what would move a terminal's cursor.
fn plain(value: &Value) -> String {
    let text = value.as_str().unwrap_or("-");
    text.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn time(value: &Value) -> Option<SystemTime> {
    humantime::parse_rfc3339(value.as_str()?).ok()
}

/// How long ago that was.
fn ago(now: Option<SystemTime>, then: &Value) -> String {
    match (now, time(then)) {
        (Some(now), Some(then)) => duration(now.duration_since(then).unwrap_or_default().as_secs_f64()),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> Value {
        json!({
            "version": "1.0.0", "instance": "k3Jx9QpA", "host": "gw-1", "pid": 4711,
            "time": "2027-01-31T12:00:00Z", "uptime_seconds": 11_100, "well": false,
            "warnings": [{ "code": "store_unreachable", "text": "Redis does not answer: \u{1b}gone.", "since": "2027-01-31T11:58:10Z" }],
            "drain": null,
            "configuration": {
                "file": "callgate.yaml", "in_force_since": "2027-01-31T09:00:00Z",
                "last_reload": { "at": "2027-01-31T11:00:00Z", "successful": true, "changes": ["plan a changed", "route b added"], "warnings": [] },
            },
            "certificates": [{ "file": "cert.pem", "names": ["api.example.com"], "expires_at": "2027-03-01T00:00:00Z", "days_left": 28 }],
            "store": {
                "kind": "redis", "topology": "single", "addresses": ["127.0.0.1:6379"], "on_failure": "local", "connected": false,
                "since": "2027-01-31T11:58:10Z", "trouble": "gone", "latency_ms": { "p50": 0.21, "p95": 0.4, "p99": 1.2 },
                "unmerged_admissions": 12, "clock_skew_seconds": 0,
            },
            "instances": [{ "id": "k3Jx9QpA", "host": "gw-1", "version": "1.0.0", "seen_at": "2027-01-31T12:00:00Z", "draining": false, "calls": 3 }],
            "upstreams": [{ "name": "calls", "in_flight": 12, "waiting": 0, "endpoints": [
                { "url": "http://10.0.0.11:3000", "state": "ejected", "ejected_for_seconds": 7, "in_flight": 0 },
            ] }],
            "connections": { "open": 40, "max": 10_000 }, "requests": { "in_flight": 5 }, "calls": { "open": 3 },
            "traffic": {
                "window_seconds": 60, "requests_per_second": 12.4,
                "statuses": { "1xx": 0.1, "2xx": 11.0, "3xx": 0, "4xx": 1.2, "5xx": 0.1 },
                "latency_ms": { "p50": 3.1, "p95": null, "p99": null },
                "decisions": [{ "outcome": "admitted", "source": "redis", "per_second": 11.2 }, { "outcome": "denied", "source": "local", "per_second": 0.0 }],
                "decision_latency_ms": { "p50": 0.2, "p95": 0.5, "p99": 1.0 },
            },
            "process": { "memory_bytes": 41_943_040, "open_files": null, "max_files": 1024, "threads": 5 },
            "log": { "dropped_lines": 0 },
        })
    }

    #[test]
    fn the_screen_says_what_is_wrong_first() {
        let shown = screen(&status(), "127.0.0.1:9901", Style::Plain);
        let wanted = "\
callgate 1.0.0 at 127.0.0.1:9901 is not well: up 3h 5m, pid 4711 on gw-1
  ! Redis does not answer: ?gone. (for 1m 50s)

Requests       12.4 a second in the last 1m: 1xx 0.1  2xx 11.0  3xx 0.0  4xx 1.2  5xx 0.1
               latency p50 3.1 ms  p95 -  p99 -
               decisions: admitted 11.2 (redis); p50 0.2 ms  p95 0.5 ms  p99 1.0 ms
Open           40 of 10000 connections, 5 requests, 3 calls
Store          Redis (single) at 127.0.0.1:6379: unreachable since 1m 50s (gone); 12 admissions are not merged yet
Configuration  callgate.yaml, in force for 3h
               last reload 1h ago: plan a changed, route b added
Certificates   cert.pem: 28 days left (api.example.com)
Process        42 MB of memory, 5 threads
Instances      k3Jx9QpA on gw-1, version 1.0.0, 3 calls: this one
Upstreams      calls: 12 in flight, 0 waiting
                 http://10.0.0.11:3000 ejected for 7s, 0 in flight
";
        assert_eq!(shown, wanted);
    }

    #[test]
    fn colours_change_no_word() {
        let coloured = screen(&status(), "127.0.0.1:9901", Style::Coloured);
        assert!(coloured.contains("\u{1b}[31mnot well\u{1b}[0m"), "{coloured}");
        let mut plain = String::new();
        for part in coloured.split('\u{1b}') {
            plain += part.split_once('m').filter(|_| part.starts_with('[')).map_or(part, |(_, text)| text);
        }
        assert_eq!(plain, screen(&status(), "127.0.0.1:9901", Style::Plain));
    }
}
