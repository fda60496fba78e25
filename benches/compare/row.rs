//! The rows of the table: what is asked of the programs, and what each of them does not do in it.

use crate::load::Protocol;
use crate::proxy::Proxy;
use crate::scenario::{PLAIN, Scenario, scenarios};
use crate::site::Store;
use crate::upstream::BULK_PATH;

/// What a slice of the load is, and what it costs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// So many requests; CPU time of each, of Redis too if they need it.
    Requests(u64),
    /// So many large bodies, to clients or from them; CPU time of each GB.
    Bodies { count: u64, upload: bool },
    /// Calls that speak; what their echoes take, and CPU time of each message.
    Calls,
    /// Connections between two requests; memory of each.
    Idle,
}

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) scenario: Scenario,
    pub(crate) work: Work,
    pub(crate) note: &'static str,
}

impl Row {
    /// Whether it takes Redis: refusals may be remembered anywhere, admissions that all instances count together may not.
    pub(crate) fn needs_redis(&self) -> bool {
        self.scenario.store == Store::Redis && self.scenario.status == 200
    }

    /// Whether a program can do it.
    pub(crate) fn is_done_by(&self, proxy: Proxy) -> bool {
        proxy != Proxy::Haproxy || !self.needs_redis()
    }

    /// What its figures are.
    pub(crate) fn units(&self) -> &'static [&'static str] {
        match self.work {
            Work::Requests(_) if self.needs_redis() => &["CPU µs", "CPU µs of Redis"],
            Work::Requests(_) => &["CPU µs"],
            Work::Bodies { .. } => &["CPU s per GB"],
            Work::Calls => &["p50 µs", "p99 µs", "CPU µs per message"],
            Work::Idle => &["KiB"],
        }
    }
}

/// Requests of a slice.
const REQUESTS: u64 = 4_000;
const HANDSHAKES: u64 = 300;
/// Large bodies of a slice.
const BODIES: u64 = 24;

pub(crate) fn rows() -> Vec<Row> {
    let requests = scenarios().into_iter().map(|scenario| Row {
        name: scenario.name,
        scenario,
        work: Work::Requests(REQUESTS),
        note: note(&scenario),
    });
    let bulk = Scenario { path: BULK_PATH, ..PLAIN };
    let others = [
        Row {
            name: "full TLS handshake + request, h1",
            scenario: Scenario { protocol: Protocol::Http1Once, ..PLAIN },
            work: Work::Requests(HANDSHAKES),
            note: "a connection for each request.",
        },
        Row {
            name: "bodies of 8 MiB to clients, h1",
            scenario: bulk,
            work: Work::Bodies { count: BODIES, upload: false },
            note: "four at one time; nginx with larger buffers, and without files for what a client does not take yet.",
        },
        Row {
            name: "bodies of 8 MiB from clients, h1",
            scenario: Scenario { path: PLAIN.path, ..bulk },
            work: Work::Bodies { count: BODIES, upload: true },
            note: "four at one time; nginx passes them as they come.",
        },
        Row {
            name: "idle connection, h1",
            scenario: PLAIN,
            work: Work::Idle,
            note: "1,000 connections that wait for their next request; resident memory beyond that with 100 of them. Each round has \
                   fresh processes.",
        },
        Row {
            name: "WebSocket echo",
            scenario: PLAIN,
            work: Work::Calls,
            note: "64 calls that send 320 bytes every 20 ms and get them back; a message is there and back. The token is checked once, \
                   when a call is opened. Callgate also watches calls for tokens that are revoked.",
        },
    ];
    requests.chain(others).collect()
}

/// What the programs do, and do not do, with such requests.
fn note(scenario: &Scenario) -> &'static str {
    match (scenario.status, scenario.store, scenario.path) {
        (429, ..) => {
            "Callgate and nginx remember for a second that the limit in Redis is reached (nginx: Lua and a shared dictionary). HAProxy \
             decides by a table of its own, which no other instance knows of."
        }
        (401, ..) => "a token that is none. nginx and HAProxy look it up in a list in memory and send a fixed answer.",
        (_, Store::Redis, _) => {
            "nginx: Lua with lua-nginx-redis on connections that are kept; one script looks the token up and counts it in two \
             exact windows (limits.lua). HAProxy has no client for Redis."
        }
        (_, Store::Memory, "/api/ping") => {
            "nginx: a map of tokens and two leaky buckets (limit_req). HAProxy: a list of tokens and two tables of rates, which it \
             estimates. Neither reports limits to clients or checks permissions; Callgate's windows are exact."
        }
        _ => "no token is asked for; all forward the request and set X-Forwarded-For and X-Forwarded-Proto.",
    }
}
