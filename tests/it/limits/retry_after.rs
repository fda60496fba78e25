//! The limit headers that clients get, over both protocols and from both stores: a client that waits for `Retry-After` is not
//! refused a second time, whatever the status of its other answers.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use reqwest::{Client, Response};

use crate::support::client::{header, http1, http2};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;

/// Clients of each store and protocol, each with a token of its own.
const CLIENTS: usize = 3;
/// Refusals that each of them waits out.
const WAITS: usize = 3;
/// Paths, and the status of each if no limit refuses it.
const PATHS: [(&str, u16); 5] = [("/echo", 200), ("/limits", 200), ("/closed", 403), ("/nowhere", 404), ("/dead", 502)];

/// Count and window in seconds, by the names that the plan gives them.
struct Limits(Vec<(usize, u64)>);

impl Limits {
    /// The window of seconds that slides during the test, and one that refuses for longer.
    fn any(random: &mut Rng) -> Self {
        let short = (random.usize(2..6), 1);
        Self(vec![short, (short.0 + random.usize(0..3), random.u64(2..4))])
    }

    fn arguments(&self) -> Vec<String> {
        let names = ["minute", "hour"].iter().zip(&self.0);
        names.flat_map(|(name, (count, window))| ["--limit".to_owned(), format!("{name}={count}/{window}s")]).collect()
    }

    /// Whether a limit of this count may have refused what was asked then, after these admissions.
    fn may_refuse(&self, reported: usize, asked: Instant, admitted: &[Instant]) -> bool {
        let is_full = |(count, window): &&(usize, u64)| {
            // Until they were answered they may have been counted, to the millisecond.
            let inside =
                |answered: &&Instant| **answered + Duration::from_secs(*window) + Duration::from_millis(2) > asked;
            *count == reported && admitted.iter().filter(inside).count() >= *count
        };
        self.0.iter().any(|limit| is_full(&limit))
    }
}

fn number(response: &Response, name: &str) -> u64 {
    header(response, name).parse().unwrap_or_else(|_| panic!("{name} of {response:?}"))
}

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// One client, until it was refused and waited a few times.
async fn client(client: Client, gateway: &Gateway, token: &Token, limits: &Limits, mut random: Rng) {
    let (mut admitted, mut waits) = (Vec::new(), 0);
    let mut has_waited = false;
    while waits < WAITS {
        let (path, expected) = PATHS[random.usize(..PATHS.len())];
        let asked = Instant::now();
        let request = client.get(gateway.url(path)).bearer_auth(&token.secret);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let [limit, remaining] = ["limit", "remaining"].map(|name| number(&response, &format!("x-ratelimit-{name}")));
        let reset = number(&response, "x-ratelimit-reset");
        assert!(limits.0.iter().any(|(count, _)| *count as u64 == limit), "{response:?}");
        if status != 429 {
            assert_eq!(status, expected, "{response:?}");
            assert!(remaining < limit && response.headers().get("retry-after").is_none(), "{response:?}");
            admitted.push(Instant::now());
            has_waited = false;
            continue;
        }
        assert!(!has_waited, "refused after having waited as told: {response:?}");
        let refused = Instant::now();
        let retry_after = number(&response, "retry-after");
        assert_eq!(remaining, 0, "{response:?}");
        assert!(limits.may_refuse(limit as usize, asked, &admitted), "{admitted:?} at {asked:?}: {response:?}");
        assert!((1..=limits.0[1].1).contains(&retry_after), "{response:?}");
        if random.bool() {
            tokio::time::sleep_until((refused + Duration::from_secs(retry_after)).into()).await;
        } else {
            let wait = Duration::from_secs(reset).saturating_sub(unix());
            // Both are rounded up, the one as a time, the other as a moment.
            assert!(wait <= Duration::from_secs(retry_after + 1), "{response:?}");
            tokio::time::sleep(wait).await;
        }
        (has_waited, waits) = (true, waits + 1);
    }
}

async fn clients(store: &str) {
    let upstream = Upstream::start().await;
    let site = Site::new(&format!(
        "{store}\nroutes:\n  - {{ path: /echo, upstream: up }}\n  - {{ path: /limits, upstream: up }}\n  \
         - {{ path: /closed, permission: \"x:y\", upstream: up }}\n  - {{ path: /dead, upstream: dead }}\n\
         upstreams: {{ up: {{ endpoints: [\"http://{}\"] }}, dead: {{ endpoints: [\"http://127.0.0.1:1\"] }} }}",
        upstream.address
    ));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let holders: Vec<(Token, Limits, Rng)> = (0..2 * CLIENTS)
        .map(|_| {
            let limits = Limits::any(&mut random);
            let arguments = limits.arguments();
            let token = site.token_with(&[], &arguments.iter().map(String::as_str).collect::<Vec<_>>());
            (token, limits, random.fork())
        })
        .collect();
    let gateway = Arc::new(site.serve());
    let each = holders.into_iter().enumerate().map(|(i, (token, limits, random))| {
        let gateway = gateway.clone();
        let http = if i % 2 == 0 { http1(&gateway) } else { http2(&gateway) };
        async move { client(http, &gateway, &token, &limits, random).await }
    });
    futures_util::future::join_all(each).await;
}

#[tokio::test]
async fn retry_after_is_sufficient_with_the_memory_store() {
    clients("store: memory\ntokens: { file: tokens.yaml }").await;
}

#[tokio::test]
async fn retry_after_is_sufficient_with_redis() {
    let redis = RedisServer::start();
    clients(&format!("store: {{ redis: {{ url: \"{}\", deadline: 5s }} }}", redis.url())).await;
}
