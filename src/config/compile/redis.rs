//! `store.redis`: the servers, how to log in to them, and which settings don't go together.

use super::tls::client_tls;
use crate::config::units::{MILLISECOND, MINUTE, SECOND};
use crate::config::{
    Field, LoginSource, MAX_DATABASE, OnFailure, RedisLogin, RedisNode, RedisSentinel, RedisServers, RedisStore,
    RedisTls, RedisUrl, Secret, Section,
};

/// The port of a sentinel whose URL names none.
const SENTINEL_PORT: u16 = 26379;
const URL_REMEDY: &str = "for example \"redis://127.0.0.1:6379\", \"${REDIS_URL}\" or \"file:redis-url\"; \
                          or else `cluster` or `sentinel`";

/// `None` if it is not known where the servers are, which is reported.
pub(super) fn redis(field: &Field<'_>) -> Option<RedisStore> {
    let s = field.section();
    let servers = servers(&s);
    let url = servers.as_ref().map(|(_, url)| url);
    let login = login(&s, url);
    let is_cluster = matches!(servers, Some((RedisServers::Cluster(_), _)));
    let database = database(&s, url, is_cluster);
    let tls = tls(&s, url);
    let on_failure = [("local", OnFailure::Local), ("deny", OnFailure::Deny), ("allow", OnFailure::Allow)];
    // A brace would move Redis Cluster's hash tag.
    let namespace = s.or("namespace", "callgate".to_owned(), |f| f.name(64, "A-Z a-z 0-9 _ . : -"));
    let deadline = s.or("deadline", 50 * MILLISECOND, |f| f.duration(MILLISECOND..=10 * SECOND));
    let connect_timeout = s.or("connect_timeout", SECOND, |f| f.duration(10 * MILLISECOND..=MINUTE));
    let on_failure = s.or("on_failure", OnFailure::Local, |f| f.choice(&on_failure));
    let ((servers, _), namespace) = (servers?, namespace.into());
    Some(RedisStore { servers, login, database, tls, namespace, deadline, connect_timeout, on_failure })
}

/// Reads one of the three ways to name the servers; the URL says what else is known of them.
type ReadServers = fn(&Field<'_>) -> Option<(RedisServers, RedisUrl)>;

/// Exactly one way must be used.
fn servers(s: &Section<'_>) -> Option<(RedisServers, RedisUrl)> {
    let ways: [(&str, ReadServers); 3] = [("url", single), ("cluster", cluster), ("sentinel", sentinel)];
    let given: Vec<_> = ways.into_iter().filter_map(|(key, read)| Some((key, s.get(key)?, read))).collect();
    let Some(((first, _, _), others)) = given.split_first() else {
        s.require("url", URL_REMEDY);
        return None;
    };
    for (_, other, _) in others {
        other.error(format!("can't be used together with `{first}` (use exactly one of url, cluster and sentinel)"));
    }
    let mut read: Vec<_> = given.iter().map(|(_, field, read)| read(field)).collect();
    read.pop()?.filter(|_| others.is_empty())
}

fn single(field: &Field<'_>) -> Option<(RedisServers, RedisUrl)> {
    let url = url(field)?;
    Some((RedisServers::Single(url.node.clone()), url))
}

fn cluster(field: &Field<'_>) -> Option<(RedisServers, RedisUrl)> {
    let (nodes, first) = nodes(field, None, "a cluster has only the database 0 (remove it)")?;
    Some((RedisServers::Cluster(nodes), first))
}

fn sentinel(field: &Field<'_>) -> Option<(RedisServers, RedisUrl)> {
    let s = field.section();
    let remedy = "the name of the primary in the sentinels' configuration, for example mymaster";
    let service = s.require("service", remedy).and_then(|f| f.name(128, "A-Z a-z 0-9 _ . -"));
    let no_database = "a sentinel has no databases (set `database` beside `sentinel`)";
    let list = s.require("nodes", "the sentinels, for example [\"redis://10.0.0.5:26379\"]");
    let (nodes, mut first) = list.and_then(|f| nodes(&f, Some(SENTINEL_PORT), no_database))?;
    let sentinel = RedisSentinel { service: service?.into(), nodes, login: first.login.take() };
    Some((RedisServers::Sentinel(sentinel), first))
}

/// A list of servers with the same login and scheme, and what the first URL says.
fn nodes(field: &Field<'_>, port: Option<u16>, no_database: &str) -> Option<(Vec<RedisNode>, RedisUrl)> {
    let items = field.one_or_more("name at least one server");
    let mut nodes = Vec::with_capacity(items.len());
    let mut first: Option<RedisUrl> = None;
    let mut is_good = true;
    for item in &items {
        let Some(mut url) = url(item) else {
            is_good = false;
            continue;
        };
        if let Some(port) = port.filter(|_| !url.names_port) {
            url.node.port = port;
        }
        let is_alike = first.as_ref().is_none_or(|first| first.tls == url.tls && first.is_same_login(&url));
        for (wrong, message) in [
            (url.database != 0, no_database),
            (nodes.contains(&url.node), "is given twice (keep one)"),
            (!is_alike, "must have the scheme, user and password of the first one"),
        ] {
            if wrong {
                is_good = false;
                item.error(message);
            }
        }
        nodes.push(url.node.clone());
        first.get_or_insert(url);
    }
    first.filter(|_| is_good).map(|first| (nodes, first))
}

fn url(field: &Field<'_>) -> Option<RedisUrl> {
    let text = field.secret()?;
    let mut url = field.accept(RedisUrl::parse(&text))?;
    if let (Some(login), Some(file)) = (&mut url.login, field.secret_file()) {
        login.source = LoginSource::Url(file);
    }
    Some(url)
}

/// The URL's login, or the one of `username` and `password`.
fn login(s: &Section<'_>, url: Option<&RedisUrl>) -> Option<RedisLogin> {
    let in_url = url.and_then(|url| url.login.clone());
    let not_empty = |field: Field<'_>| {
        if in_url.is_some() {
            field.error("is in the URL, too (keep one)");
        }
        let text = field.secret()?;
        field.accept(if text.is_empty() { Err("must not be empty") } else { Ok(text) })
    };
    let file = |key| s.get(key).and_then(|field| field.secret_file());
    let source = match (file("username"), file("password")) {
        (None, None) => LoginSource::Configuration,
        (user, password) => LoginSource::Files { user, password },
    };
    let user = s.get("username").map(not_empty);
    let password = s.get("password").map(not_empty);
    if user.is_some() && password.is_none() {
        s.field_of("username").error("needs a password (add `password`)");
    }
    let user = user.flatten().map(Into::into);
    password.flatten().map(|password| RedisLogin { user, password: Secret::new(password), source }).or(in_url)
}

fn database(s: &Section<'_>, url: Option<&RedisUrl>, is_cluster: bool) -> u32 {
    let in_url = url.map_or(0, |url| url.database);
    let Some(field) = s.get("database") else { return in_url };
    let database = field.number(0..=MAX_DATABASE).unwrap_or(0);
    if is_cluster && database != 0 {
        field.error("must be 0: a cluster has no other database (remove it)");
    } else if in_url != 0 {
        field.error("is in the URL, too (keep one)");
    }
    database
}

/// Without servers it is not known whether there is TLS.
fn tls(s: &Section<'_>, url: Option<&RedisUrl>) -> Option<RedisTls> {
    if url.is_some_and(|url| !url.tls) {
        for field in ["ca", "cert", "key"].into_iter().filter_map(|key| s.get(key)) {
            field.error("needs TLS (start the URLs with rediss://, or remove it)");
        }
        return None;
    }
    let (ca, client) = client_tls(s);
    url.map(|_| RedisTls { ca, client })
}
