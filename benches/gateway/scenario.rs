//! The kinds of requests that are measured.

use crate::load::{Load, Protocol};
use crate::site::{Site, Store, Tokens};

/// Requests in flight.
const CONCURRENCY: usize = 64;

/// One kind of request, and how Callgate is set up for it.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) protocol: Protocol,
    pub(crate) store: Store,
    pub(crate) access_log: bool,
    pub(crate) path: &'static str,
    pub(crate) tokens: Tokens,
    pub(crate) status: u16,
}

/// A request without a token.
pub(crate) const PLAIN: Scenario = Scenario {
    name: "plain proxy, h1",
    protocol: Protocol::Http1,
    store: Store::Memory,
    access_log: false,
    path: "/public/ping",
    tokens: Tokens::None,
    status: 200,
};

pub(crate) fn scenarios() -> [Scenario; 8] {
    let token = Scenario { path: "/api/ping", tokens: Tokens::Roomy, ..PLAIN };
    let redis = Scenario { store: Store::Redis, path: "/shared/ping", ..token };
    [
        PLAIN,
        Scenario { name: "plain proxy, h1, access log", access_log: true, ..PLAIN },
        Scenario { name: "plain proxy, h2", protocol: Protocol::Http2, ..PLAIN },
        Scenario { name: "token + limits in memory, h1", ..token },
        Scenario { name: "token + limits in Redis, h1", ..redis },
        Scenario { name: "token + Redis, access log, h1", access_log: true, ..redis },
        Scenario { name: "429 flood (deny cache), h1", tokens: Tokens::UsedUp, status: 429, ..redis },
        Scenario { name: "401 flood, h1", tokens: Tokens::Malformed, status: 401, store: Store::Redis, ..token },
    ]
}

impl Scenario {
    pub(crate) fn load(&self, port: u16, site: &Site) -> Load {
        Load {
            port,
            protocol: self.protocol,
            concurrency: CONCURRENCY,
            path: self.path,
            body: 0,
            tokens: site.tokens(self.store, self.tokens),
            status: self.status,
            trust: site.certificate(),
        }
    }
}

/// Whether one of the words is a part of the name, or there are no words.
pub(crate) fn is_chosen(name: &str, words: &[String]) -> bool {
    words.is_empty() || words.iter().any(|word| name.contains(word.as_str()))
}
