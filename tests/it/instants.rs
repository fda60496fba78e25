//! A change of a token applies to every request that is sent after its acknowledgement, on every instance. Two instances get 500
//! requests a second, and each change is made elsewhere, in the middle of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use callgate::config::{self, Store};
use callgate::store::{Redis, StoreHealth};
use callgate::tokens::{ActionContext, Actor, Change, Operation, Registry};
use prometheus::IntGauge;
use reqwest::Client;

use crate::support::client::{get, header, http2};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;

/// Each instance gets a request this often.
const PACE: Duration = Duration::from_millis(4);
/// Requests go on for so long after a change, and until so many more were sent.
const AFTER: Duration = Duration::from_millis(700);
const ENOUGH: usize = 60;

struct Stage {
    _redis: RedisServer,
    _upstream: Upstream,
    instances: Vec<(Arc<Gateway>, Client)>,
    registry: Registry,
}

/// One answer: when its request was sent, its status, and the limit that it names.
struct LimitAnswer {
    sent: Instant,
    status: u16,
    limit: String,
}

fn by() -> ActionContext {
    ActionContext { actor: Actor::person("test", "here"), now: SystemTime::now() }
}

impl Stage {
    async fn new() -> Self {
        let (redis, upstream) = (RedisServer::start(), Upstream::start().await);
        let store = format!("store: {{ redis: {{ url: \"{}\", deadline: 10s, on_failure: deny }} }}", redis.url());
        let site = Site::new(&format!(
            "{store}\ntokens: {{ failures: {{ limit: none, lookups: 100000 }} }}\n\
             plans: {{ standard: {{ limits: {{ minute: 100000/1m }} }}, other: {{ limits: {{ minute: 200000/1m }} }} }}\n\
             routes: [{{ path: \"/{{*rest}}\", permission: \"calls:read\", upstream: up }}]\n\
             upstreams: {{ up: {{ endpoints: [\"http://{}\"] }} }}",
            upstream.address
        ));
        let instances = (0..2).map(|_| Arc::new(site.serve())).map(|it| (it.clone(), http2(&it))).collect();
        let text = std::fs::read_to_string(site.config()).unwrap();
        let config = config::parse(&site.config(), &text, &|_| None).unwrap().config;
        let Store::Redis(store) = &config.store else { panic!("it is Redis") };
        let health = Arc::new(StoreHealth::new(IntGauge::new("up", "up").unwrap()));
        let registry = Registry::with_redis(&config, Redis::open(store, health).await.unwrap());
        Self { _redis: redis, _upstream: upstream, instances, registry }
    }

    fn token(&self) -> Token {
        self.instances[0].0.site.token(&["calls:read"])
    }

    /// Has requests with this token sent to both instances at their pace, makes a change in the midst of them, and returns what
    /// was told to what was sent after it held.
    async fn change(&self, token: &Token, change: impl Future<Output = Instant>) -> Vec<LimitAnswer> {
        let (over, ended) = tokio::sync::watch::channel(false);
        let (sent, admitted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut lanes = tokio::task::JoinSet::new();
        for (gateway, client) in &self.instances {
            let (gateway, client, token, ended) = (gateway.clone(), client.clone(), token.clone(), ended.clone());
            let (count, admitted) = (sent.clone(), admitted.clone());
            lanes.spawn(async move {
                let mut pace = tokio::time::interval(PACE);
                let mut answers = tokio::task::JoinSet::new();
                while !*ended.borrow() {
                    pace.tick().await;
                    let (gateway, client, token) = (gateway.clone(), client.clone(), token.clone());
                    let (count, admitted) = (count.clone(), admitted.clone());
                    answers.spawn(async move {
                        let sent = Instant::now();
                        count.fetch_add(1, Ordering::Relaxed);
                        let answer = get(&client, &gateway, "/status/200", &token).await;
                        admitted.fetch_add(usize::from(answer.status() == 200), Ordering::Relaxed);
                        LimitAnswer {
                            sent,
                            status: answer.status().as_u16(),
                            limit: header(&answer, "x-ratelimit-limit").into(),
                        }
                    });
                }
                answers.join_all().await
            });
        }
        let reaches = async |count: &AtomicUsize, most: usize| {
            eventually("enough requests", async || (count.load(Ordering::Relaxed) >= most).then_some(())).await;
        };
        reaches(&admitted, 2 * ENOUGH).await;
        let began = Instant::now();
        let held = change.await;
        let so_far = sent.load(Ordering::Relaxed);
        tokio::time::sleep_until((held + AFTER).into()).await;
        reaches(&sent, so_far + ENOUGH).await;
        over.send(true).unwrap();
        let reported: Vec<LimitAnswer> = lanes.join_all().await.into_iter().flatten().collect();
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for reported in reported {
            // A request in flight during the change may have been answered either way.
            if reported.sent < began {
                before.push(reported);
            } else if reported.sent > held {
                after.push(reported);
            }
        }
        let admitted = before.iter().filter(|reported| (reported.status, &*reported.limit) == (200, "100000")).count();
        assert!(admitted > 20, "{admitted} requests were admitted before the change");
        assert!(after.len() > 50, "{} requests were sent after the change", after.len());
        after
    }

    /// The same, after which every request must be answered with this status, and name this limit.
    async fn holds(&self, what: &str, token: &Token, change: impl Future<Output = Instant>, expected: (u16, &str)) {
        let after = self.change(token, change).await;
        let wrong: Vec<_> =
            after.iter().map(|reported| (reported.status, &*reported.limit)).filter(|it| *it != expected).collect();
        assert!(wrong.is_empty(), "{what}: {} of {} requests, the first {:?}", wrong.len(), after.len(), wrong[0]);
        println!("{what}: {} requests were sent after it, none was answered otherwise", after.len());
    }

    async fn update(&self, token: &Token, change: Change) -> Instant {
        self.registry.update(&token.id, change, None, &by()).await.unwrap();
        Instant::now()
    }
}

const REFUSED: (u16, &str) = (401, "");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_sent_after_the_acknowledgement_is_admitted() {
    let stage = Stage::new().await;
    let token = stage.token();
    let revoked = async {
        stage.registry.operate(&token.id, Operation::Revoke, None, &by()).await.unwrap();
        Instant::now()
    };
    stage.holds("revocation", &token, revoked, REFUSED).await;

    let token = stage.token();
    let disabled = async {
        stage.registry.operate(&token.id, Operation::Disable, None, &by()).await.unwrap();
        Instant::now()
    };
    stage.holds("disabling", &token, disabled, REFUSED).await;

    let token = stage.token();
    let permissions = Change { permissions: Some(vec!["calls:write".into()]), ..Change::default() };
    stage.holds("permissions", &token, stage.update(&token, permissions), (403, "100000")).await;

    let token = stage.token();
    let plan = Change { plan: Some(Some("other".into())), ..Change::default() };
    stage.holds("the plan", &token, stage.update(&token, plan), (200, "200000")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiry_applies_at_its_second() {
    let stage = Stage::new().await;
    let token = stage.token();
    let rotated = async {
        let registry = &stage.registry;
        let grace = Duration::ZERO;
        registry.rotate(&token.id, grace, None, &by()).await.unwrap();
        Instant::now()
    };
    stage.holds("rotation without grace", &token, rotated, REFUSED).await;

    let token = stage.token();
    let rotated = async {
        let (registry, now) = (&stage.registry, SystemTime::now());
        let grace = Duration::from_secs(2);
        let rotated = registry.rotate(&token.id, grace, None, &by()).await.unwrap();
        let (gateway, client) = &stage.instances[0];
        let new = Token { id: token.id.clone(), secret: rotated.secret.expose().to_owned() };
        assert_eq!(get(client, gateway, "/status/200", &new).await.status(), 200);
        let old = get(client, gateway, "/status/200", &token).await.status();
        assert!(old == 200 || now.elapsed().unwrap() > Duration::from_secs(1), "{old}");
        held_at(rotated.old_until.unwrap().time()).await
    };
    stage.holds("the end of a rotation's grace", &token, rotated, REFUSED).await;

    let token = stage.token();
    let expires = async {
        let end = SystemTime::now() + Duration::from_secs(3);
        stage.update(&token, Change { expires_at: Some(Some(end)), ..Change::default() }).await;
        held_at(end).await
    };
    stage.holds("expiry", &token, expires, REFUSED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_over_the_admin_api_of_one_instance_apply_on_all() {
    let stage = Stage::new().await;
    let third = stage.instances[0].0.site.serve();
    let (third, client) = (&third, &Client::builder().no_proxy().build().unwrap());
    let post = async |path: &str, body: &'static str| {
        let request = client.post(format!("http://127.0.0.1:{}{path}", third.admin.port())).body(body);
        let request = request.header("x-callgate-admin", "1").header("content-type", "application/json");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text().await.unwrap());
        Instant::now()
    };
    let token = stage.token();
    let path = format!("/api/tokens/{}/revoke", token.id);
    stage.holds("a revocation on another instance", &token, post(&path, ""), REFUSED).await;

    let token = stage.token();
    let path = format!("/api/tokens/{}/rotate", token.id);
    stage.holds("a rotation on another instance", &token, post(&path, r#"{ "grace_seconds": 0 }"#), REFUSED).await;

    // It revokes the tokens of all the changes above too.
    let token = stage.token();
    let account = post("/api/accounts/revoke", r#"{ "account": "acme" }"#);
    stage.holds("the revocation of an account", &token, account, REFUSED).await;
}

/// Waits for a time on the clock.
async fn held_at(time: SystemTime) -> Instant {
    tokio::time::sleep(time.duration_since(SystemTime::now()).unwrap_or_default()).await;
    Instant::now()
}

#[tokio::test]
async fn without_redis_a_cached_token_works_for_exactly_the_configured_time() {
    let (mut redis, upstream) = (RedisServer::start(), Upstream::start().await);
    let keys = ", deadline: 10s, on_failure: local";
    let site = Site::on_redis(&redis.url(), keys, upstream.address, "tokens: { cache_ttl: 6s }");
    let token = site.token_with(&[], &["--limit", "minute=100000/1m", "--limit", "hour=100000/1h"]);
    let gateway = site.serve();
    let client = http2(&gateway);
    let asked = Instant::now();
    assert_eq!(get(&client, &gateway, "/echo", &token).await.status(), 200);
    let last_known = Instant::now();
    redis.kill();
    let (mut passed, mut refused) = (0, None);
    while refused.is_none() {
        let sent = Instant::now();
        let answer = get(&client, &gateway, "/echo", &token).await;
        match answer.status().as_u16() {
            200 => {
                passed += 1;
                assert!(sent < last_known + Duration::from_millis(6_200), "it lives for longer than configured");
            }
            503 => {
                assert_eq!(header(&answer, "retry-after"), "1");
                refused = Some(Instant::now());
            }
            other => panic!("{other}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(passed > 0, "nothing passed while Redis was out");
    assert!(refused.unwrap() > asked + Duration::from_millis(5_900), "it does not live as long as configured");
}
