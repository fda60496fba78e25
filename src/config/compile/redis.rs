//! `store.redis`: the servers, how to log in to them, and which settings don't go together.

use std::time::Duration;

use crate::config::Secret;
use crate::config::model::CertificateFiles;
use crate::config::reader::{Field, Section};
use crate::config::redis::{
    LAST_DATABASE, OnFailure, RedisLogin, RedisNode, RedisSentinel, RedisServers, RedisStore, RedisTls, RedisUrl,
};

use super::upstream_tls::client_pair;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// The port of a sentinel whose URL names none.
const SENTINEL_PORT: u16 = 26379;
const URL_REMEDY: &str = "for example \"redis://127.0.0.1:6379\", \"${REDIS_URL}\" or \"file:redis-url\"; \
                          or else `cluster` or `sentinel`";
const KEYS: &[&str] = &[
    "url",
    "cluster",
    "sentinel",
    "username",
    "password",
    "database",
    "ca",
    "cert",
    "key",
    "namespace",
    "deadline",
    "connect_timeout",
    "on_failure",
];

/// `None` when it can't be told where the servers are.
pub(super) fn redis(field: &Field<'_>) -> Option<RedisStore> {
    let s = field.section(KEYS);
    let found = servers(&s);
    let choices = [("local", OnFailure::Local), ("deny", OnFailure::Deny), ("allow", OnFailure::Allow)];
    let namespace = |f: &Field<'_>| {
        // A brace would move Redis Cluster's hash tag.
        f.name(64, "A-Z a-z 0-9 _ . : -", |b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b))
    };
    let (login, database, tls) = match &found {
        Some(found) => (login(&s, found), database(&s, found), tls(&s, Some(found.tls))),
        // What stands there is still looked at.
        None => (own_login(&s), s.or("database", 0, number), tls(&s, None)),
    };
    let namespace = s.or("namespace", "callgate".to_owned(), namespace).into();
    let deadline = s.or("deadline", 50 * MILLISECOND, |f| f.duration(MILLISECOND..=10 * SECOND));
    let connect_timeout = s.or("connect_timeout", SECOND, |f| f.duration(10 * MILLISECOND..=60 * SECOND));
    let on_failure = s.or("on_failure", OnFailure::Local, |f| f.choice(&choices));
    let servers = found?.servers;
    Some(RedisStore { servers, login, database, tls, namespace, deadline, connect_timeout, on_failure })
}

/// The servers, and what their URLs say beside.
struct Found {
    servers: RedisServers,
    login: Option<RedisLogin>,
    database: u32,
    tls: bool,
}

/// Exactly one of the three ways to name them.
fn servers(s: &Section<'_>) -> Option<Found> {
    let ways = ["url", "cluster", "sentinel"].map(|key| s.get(key).map(|field| (key, field)));
    let given: Vec<_> = ways.iter().flatten().collect();
    let Some(((first, _), others)) = given.split_first() else {
        s.require("url", URL_REMEDY);
        return None;
    };
    for (_, other) in others {
        other.error(format!("does not go with `{first}` (give exactly one of url, cluster and sentinel)"));
    }
    let alone = others.is_empty();
    let [url, cluster, sentinel] = ways.map(|way| way.map(|(_, field)| field));
    let url = url.and_then(|field| single(&field));
    let cluster = cluster.and_then(|field| cluster_of(&field));
    let sentinel = sentinel.and_then(|field| sentinel_of(&field));
    url.or(cluster).or(sentinel).filter(|_| alone)
}

fn single(field: &Field<'_>) -> Option<Found> {
    let RedisUrl { tls, node, login, database, .. } = url(field)?;
    Some(Found { servers: RedisServers::Single(node), login, database, tls })
}

fn cluster_of(field: &Field<'_>) -> Option<Found> {
    let (nodes, first) = nodes(field, None, "a cluster has database 0 alone (remove it)")?;
    Some(Found { servers: RedisServers::Cluster(nodes), login: first.login, database: 0, tls: first.tls })
}

fn sentinel_of(field: &Field<'_>) -> Option<Found> {
    let s = field.section(&["service", "nodes"]);
    let service =
        |f: &Field<'_>| f.name(128, "A-Z a-z 0-9 _ . -", |b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    let name = s.require("service", "the name that the sentinels watch the servers by, for example mymaster");
    let service = name.and_then(|f| service(&f));
    let list = s.require("nodes", "the sentinels, for example [\"redis://10.0.0.5:26379\"]");
    let nodes = list.and_then(|f| {
        nodes(&f, Some(SENTINEL_PORT), "a sentinel has no databases (give `database` beside `sentinel`)")
    });
    let (nodes, first) = nodes?;
    let sentinel = RedisSentinel { service: service?.into(), nodes, login: first.login };
    Some(Found { servers: RedisServers::Sentinel(sentinel), login: None, database: 0, tls: first.tls })
}

/// A list of servers that are spoken to alike, and what the first URL says.
fn nodes(field: &Field<'_>, port: Option<u16>, no_database: &str) -> Option<(Vec<RedisNode>, RedisUrl)> {
    let items = field.one_or_many();
    if items.is_empty() && field.is_list() {
        field.error("must name at least one server");
    }
    let mut nodes = Vec::with_capacity(items.len());
    let mut first: Option<RedisUrl> = None;
    let mut good = true;
    for item in &items {
        let Some(mut url) = url(item) else {
            good = false;
            continue;
        };
        if let Some(port) = port.filter(|_| !url.names_port) {
            url.node.port = port;
        }
        let mut refuse = |message: &str| {
            good = false;
            item.error(message);
        };
        if url.database != 0 {
            refuse(no_database);
        }
        if nodes.contains(&url.node) {
            refuse("is given twice (keep one)");
        }
        if first.as_ref().is_some_and(|first| (first.tls, &first.login) != (url.tls, &url.login)) {
            refuse("must have the scheme, user and password of the first one");
        }
        nodes.push(url.node.clone());
        first.get_or_insert(url);
    }
    first.filter(|_| good).map(|first| (nodes, first))
}

fn url(field: &Field<'_>) -> Option<RedisUrl> {
    let text = field.secret()?;
    RedisUrl::parse(&text).map_err(|message| field.error(message)).ok()
}

/// The URL's login, or the one of `username` and `password`.
fn login(s: &Section<'_>, found: &Found) -> Option<RedisLogin> {
    let own = own_login(s);
    if found.login.is_some() {
        for key in ["username", "password"] {
            if let Some(field) = s.get(key) {
                field.error("is given in the URL, too (keep one)");
            }
        }
    }
    own.or_else(|| found.login.clone())
}

fn own_login(s: &Section<'_>) -> Option<RedisLogin> {
    let not_empty = |field: Field<'_>| {
        let text = field.secret()?;
        if text.is_empty() {
            field.error("must not be empty");
        }
        Some(text)
    };
    let user = s.get("username").map(not_empty);
    let password = s.get("password").map(not_empty);
    if user.is_some() && password.is_none() {
        s.field_of("username").error("goes with a password (add `password`)");
    }
    let user = user.flatten().map(Into::into);
    password.flatten().map(|password| RedisLogin { user, password: Secret::new(password) })
}

fn number(field: &Field<'_>) -> Option<u32> {
    field.number(0..=LAST_DATABASE)
}

fn database(s: &Section<'_>, found: &Found) -> u32 {
    let Some(field) = s.get("database") else { return found.database };
    let database = number(&field).unwrap_or(0);
    if matches!(found.servers, RedisServers::Cluster(_)) && database != 0 {
        field.error("must be 0: a cluster has no other database (remove it)");
    } else if found.database != 0 {
        field.error("is given in the URL, too (keep one)");
    }
    database
}

/// `used` is `None` when it is not known whether there is TLS.
fn tls(s: &Section<'_>, used: Option<bool>) -> Option<RedisTls> {
    if used == Some(false) {
        for key in ["ca", "cert", "key"] {
            if let Some(field) = s.get(key) {
                field.error("goes with TLS only (start the URLs with rediss://, or remove it)");
            }
        }
        return None;
    }
    let file = |f: Field<'_>| f.file(false);
    let ca = s.get("ca").and_then(file);
    let client = client_pair(s).and_then(|(cert, key)| match (file(cert), file(key)) {
        (Some(cert), Some(key)) => Some(CertificateFiles { cert, key }),
        _ => None,
    });
    used.map(|_| RedisTls { ca, client })
}
