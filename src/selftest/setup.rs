//! The Redis to test, by its URL or by a configuration, and the plans to test it with.

use std::path::Path;

use anyhow::bail;

use crate::config::{self, Config, PlansByName, RedisNode, RedisServers, RedisStore, Severity, Store};

/// The configuration of the instances, with deadlines that a slow network can meet. A limit of the plan `sliding` slides
/// during the test, and those of `wide` are never reached.
const CONFIGURATION: &str = r#"
tls: { certificates: [{ cert: cert.pem, key: key.pem }] }
store: { redis: { url: "${URL}", namespace: "${NAMESPACE}", deadline: 2s, connect_timeout: 5s, on_failure: deny } }
plans:
  usual: { limits: { minute: 60/1m, hour: 1000/1h } }
  sliding: { limits: { second: 20/1s, hour: 50/1h } }
  wide: { limits: { minute: 900000/1m, hour: 1000000/1h } }
default_plan: usual
routes: [{ path: /, upstream: none }]
upstreams: { none: { endpoints: ["http://127.0.0.1:1"] } }
"#;

pub(super) struct TestSetup {
    /// Without user and password.
    pub(super) address: String,
    pub(super) store: RedisStore,
    /// Those of [`CONFIGURATION`].
    pub(super) plans: PlansByName,
}

impl TestSetup {
    /// The Redis at a URL.
    ///
    /// # Errors
    /// What is wrong with the URL; never the URL itself.
    pub(super) fn by_url(url: &str) -> Result<Self, String> {
        let namespace = format!("cg-selftest-{}", random_suffix());
        let variable = |name: &str| match name {
            "URL" => Some(url.to_owned()),
            "NAMESPACE" => Some(namespace.clone()),
            _ => None,
        };
        let loaded = config::parse(Path::new("self-test"), CONFIGURATION, &variable);
        let Config { store, plans, .. } = loaded
            .map_err(|problems| {
                let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
                errors.map(|problem| problem.message.clone()).collect::<Vec<_>>().join("; ")
            })?
            .config;
        match store {
            Store::Redis(store) => Ok(Self { address: address(url), store: *store, plans }),
            Store::Memory => Err("is not a Redis".to_owned()),
        }
    }

    /// The Redis of a configuration. All keys begin with its namespace.
    ///
    /// # Errors
    /// What is wrong with the configuration, or that it has no Redis.
    pub(super) fn by_file(file: &Path) -> anyhow::Result<Self> {
        let Store::Redis(configured) = config::load(file)?.config.store else {
            bail!("{}: `store: memory` has no Redis to test (set store.redis)", file.display());
        };
        let own = Self::by_url("redis://127.0.0.1").map_err(anyhow::Error::msg)?;
        let address = match &configured.servers {
            RedisServers::Single(node) => node.to_string(),
            RedisServers::Cluster(nodes) => format!("the cluster of {}", listed(nodes)),
            RedisServers::Sentinel(sentinel) => format!("{} behind {}", sentinel.service, listed(&sentinel.nodes)),
        };
        let namespace = format!("{}:selftest-{}", configured.namespace, random_suffix()).into();
        let RedisStore { deadline, connect_timeout, on_failure, .. } = own.store;
        let store = RedisStore { namespace, deadline, connect_timeout, on_failure, ..*configured };
        Ok(Self { address, store, plans: own.plans })
    }
}

/// Short, so that keys are as long as a gateway's: their length counts in the memory of a token.
fn random_suffix() -> String {
    std::iter::repeat_with(fastrand::lowercase).take(6).collect()
}

fn listed(nodes: &[RedisNode]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A URL without user, password and options.
fn address(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let host = host.split(['?', '#']).next().unwrap_or_default();
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_contains_no_secret() {
        assert_eq!(address("redis://127.0.0.1:6379"), "redis://127.0.0.1:6379");
        assert_eq!(address("rediss://me:p%40ss@redis.example:6380/2?protocol=resp3"), "rediss://redis.example:6380/2");
        assert_eq!(address("redis://:a/b@c@host"), "redis://host");
        assert_eq!(address("file:/run/secrets/redis-url"), "file:/run/secrets/redis-url");
    }

    #[test]
    fn a_bad_url_is_not_repeated() {
        for url in ["http://:hunter2@host", "redis://:hunter2@host:port", "hunter2"] {
            let error = TestSetup::by_url(url).map(|_| ()).unwrap_err();
            assert!(!error.contains("hunter2") && error.contains("redis://"), "{error}");
        }
        let [one, other] = [(); 2].map(|()| TestSetup::by_url("redis://:hunter2@host").unwrap().store);
        assert_ne!(one.namespace, other.namespace);
        assert!(!format!("{one:?}").contains("hunter2"));
    }
}
