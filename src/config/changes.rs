//! What one configuration changes in another, for operators, and which of it needs a restart. No value is told: it may be a secret.

use std::sync::Arc;

use super::{Config, LoginSource, Mirror, Problem, RedisStore, Route, Severity, Store};

/// What has changed, one short text each; nothing if both mean the same. The content of files is not looked at.
pub(crate) fn changes(old: &Config, new: &Config) -> Vec<String> {
    let sections = [
        ("listen", old.listen != new.listen),
        ("tls", old.tls != new.tls),
        ("admin", old.admin != new.admin),
        ("store", !same_store(&old.store, &new.store)),
        ("tokens", old.tokens != new.tokens),
        ("limits", old.limits != new.limits),
        ("default_plan", old.default_plan.name != new.default_plan.name),
        ("trusted_proxies", old.trusted_proxies != new.trusted_proxies),
        ("log", old.log != new.log),
        ("telemetry.otlp", old.otlp != new.otlp),
        ("drain", old.drain != new.drain),
        ("runtime", new.runtime.is_given && old.runtime != new.runtime),
    ];
    let sections = sections.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| format!("{name} changed"));
    let [plans_before, plans_after] = [old, new].map(|config| config.plans.values().cloned().collect::<Vec<_>>());
    let plans = named_changes("plan", &plans_before, &plans_after, |plan| &plan.name, PartialEq::eq);
    let upstreams = named_changes("upstream", &old.upstreams, &new.upstreams, |upstream| &upstream.name, PartialEq::eq);
    // A route knows its upstreams by their place.
    let place = |before: usize| {
        let name = &old.upstreams[before].name;
        new.upstreams.iter().position(|upstream| upstream.name == *name).unwrap_or(usize::MAX)
    };
    let same_route = |before: &Route, after: &Route| {
        let mirror = before.mirror.clone().map(|mirror| Mirror { upstream: place(mirror.upstream), ..mirror });
        Route { upstream: before.upstream.renumbered(place), mirror, ..before.clone() } == *after
    };
    let routes = named_changes("route", &old.routes, &new.routes, |route| &route.name, same_route);
    sections.chain(plans).chain(upstreams).chain(routes).collect()
}

/// Whether two configurations differ in a setting.
type Differ = fn(&Config, &Config) -> bool;

/// What can't be put into force in a running process.
pub(super) const NEEDS_RESTART: [(&str, Differ); 10] = [
    ("listen.https", |old, new| old.listen.https != new.listen.https),
    ("listen.http", |old, new| old.listen.http != new.listen.http),
    ("listen.admin", |old, new| old.listen.admin != new.listen.admin),
    ("listen.health", |old, new| old.listen.health != new.listen.health),
    ("runtime.workers", |old, new| new.runtime.is_given && old.runtime.workers != new.runtime.workers),
    ("store", |old, new| !same_store(&old.store, &new.store)),
    ("tokens.file", |old, new| old.tokens.file != new.tokens.file),
    ("telemetry.otlp", |old, new| old.otlp != new.otlp),
    ("log.file", |old, new| old.log.file != new.log.file),
    ("log.format", |old, new| old.log.format != new.log.format),
];

/// What of a new configuration can't be put into force in a running process.
pub(crate) fn restart_needed(old: &Config, new: &Config) -> Vec<Problem> {
    let problem = |path: &str| Problem {
        file: new.source.as_path().into(),
        line: 0,
        column: 0,
        path: path.to_owned(),
        message: "has changed, which needs a restart (restart, or undo this change)".to_owned(),
        severity: Severity::Error,
    };
    let changed = NEEDS_RESTART.iter().filter(|(_, differ)| differ(old, new));
    changed.map(|(path, _)| problem(path)).collect()
}

/// Whether both are the same store. A login that is in files is read again when Redis refuses it.
fn same_store(old: &Store, new: &Store) -> bool {
    match (old, new) {
        (Store::Memory, Store::Memory) => true,
        (Store::Redis(old), Store::Redis(new)) => {
            let in_files = |store: &RedisStore| {
                store.login.as_ref().is_some_and(|login| login.source != LoginSource::Configuration)
            };
            let same_login = old.login == new.login || (in_files(old) && in_files(new));
            same_login && RedisStore { login: new.login.clone(), ..(**old).clone() } == **new
        }
        (Store::Memory, Store::Redis(_)) | (Store::Redis(_), Store::Memory) => false,
    }
}

/// What has changed in a list of things with names.
fn named_changes<T>(
    kind: &str,
    before: &[Arc<T>],
    after: &[Arc<T>],
    name: impl Fn(&T) -> &str,
    is_same: impl Fn(&T, &T) -> bool,
) -> Vec<String> {
    let find = |list: &[Arc<T>], wanted: &T| list.iter().find(|item| name(item) == name(wanted)).cloned();
    let of_after = after.iter().filter_map(|item| match find(before, item) {
        None => Some(format!("{kind} {} added", name(item))),
        Some(known) => (!is_same(&known, item)).then(|| format!("{kind} {} changed", name(item))),
    });
    let gone = before.iter().filter(|item| find(after, item).is_none());
    of_after.chain(gone.map(|item| format!("{kind} {} removed", name(item)))).collect()
}
