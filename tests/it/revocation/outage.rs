//! A right that a token lost before an outage of Redis does not come back during it, on any instance.

use futures_util::future::join_all;
use reqwest::Client;

use super::run;
use super::stage::{breaks_off, stream};
use crate::support::client::{get, http1, http2};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;

const PERMISSION: &str = "calls:read";
/// The commands that take a right from a token.
const LOSSES: [&[&str]; 4] = [
    &["token", "revoke", "--yes", "ID"],
    &["token", "disable", "ID"],
    &["token", "rotate", "ID", "--grace", "0", "--yes"],
    &["token", "update", "ID", "--permission", "calls:other"],
];

/// Two instances on one Redis.
struct Pair {
    redis: RedisServer,
    _upstream: Upstream,
    site: std::sync::Arc<Site>,
    instances: Vec<Gateway>,
    clients: Vec<[Client; 2]>,
}

impl Pair {
    async fn on(redis: RedisServer) -> Self {
        let upstream = Upstream::start().await;
        let site = Site::new(&format!(
            "store: {{ redis: {{ url: \"{}\", deadline: 3s }} }}\n\
             plans: {{ standard: {{ limits: {{ minute: 1000/1m }} }}, trial: {{ limits: {{ minute: 2/1m }}, shadow: true }} }}\n\
             routes: [{{ path: \"/{{*rest}}\", permission: \"{PERMISSION}\", upstream: up }}]\n\
             upstreams: {{ up: {{ endpoints: [\"http://{}\"] }} }}",
            redis.url(),
            upstream.address
        ));
        let instances: Vec<Gateway> = (0..2).map(|_| site.serve()).collect();
        let clients = instances.iter().map(|gateway| [http1(gateway), http2(gateway)]).collect();
        Self { redis, _upstream: upstream, site, instances, clients }
    }

    /// The statuses that a token gets, on every instance and over both protocols.
    async fn statuses(&self, token: &Token) -> Vec<u16> {
        let places = self.instances.iter().zip(&self.clients);
        let all = places.flat_map(|(gateway, clients)| clients.iter().map(move |client| (gateway, client)));
        let ask = async |(gateway, client)| get(client, gateway, "/status/200", token).await.status().as_u16();
        join_all(all.map(ask)).await
    }

    /// A token that every instance knows.
    async fn known_token(&self) -> Token {
        let token = self.site.token(&[PERMISSION]);
        self.is_admitted(&token, "at first").await;
        token
    }

    async fn is_admitted(&self, token: &Token, when: &str) {
        let statuses = self.statuses(token).await;
        assert!(statuses.iter().all(|status| *status == 200), "{when}: {statuses:?}");
    }

    async fn is_not_admitted(&self, token: &Token, why: &str) {
        let statuses = self.statuses(token).await;
        assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{why}: {statuses:?}");
    }

    fn lose(&self, how: &[&str], token: &Token) {
        run(&self.site, &how.iter().map(|word| if *word == "ID" { &*token.id } else { *word }).collect::<Vec<_>>());
    }

    /// Returns when every instance has heard all that has been announced: a stream ends by what is announced last.
    async fn all_announcements_arrive(&self) {
        let last = self.site.token(&[PERMISSION]);
        let places = self.instances.iter().zip(&self.clients);
        let streams = join_all(places.map(|(gateway, [_, client])| stream(client, gateway, &last))).await;
        self.lose(LOSSES[0], &last);
        assert!(join_all(streams.into_iter().map(breaks_off)).await.into_iter().all(|broken| broken));
    }

    /// Takes the announcements away from all instances, and returns when they have noticed.
    async fn block_announcements(&self) {
        self.redis.say::<()>(&["ACL", "SETUSER", "default", "resetchannels"]);
        let noticed = |gateway: &Gateway| gateway.output().contains("reach open calls some seconds later");
        eventually("all to notice", async || self.instances.iter().all(noticed).then_some(())).await;
    }
}

/// Tokens lose something while all is well; then Redis falls silent.
async fn nothing_comes_back(silence: impl Fn(&mut RedisServer)) {
    let mut pair = Pair::on(RedisServer::start()).await;
    let mut lost = Vec::new();
    for how in LOSSES {
        lost.push((how, pair.known_token().await));
    }
    let good = pair.known_token().await;
    lost.iter().for_each(|(how, token)| pair.lose(how, token));
    pair.all_announcements_arrive().await;
    silence(&mut pair.redis);
    for (how, token) in &lost {
        pair.is_not_admitted(token, how[1]).await;
    }
    pair.is_admitted(&good, "without Redis").await;
    for (how, token) in &lost {
        pair.is_not_admitted(token, how[1]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_rights_stay_removed_when_redis_dies() {
    nothing_comes_back(RedisServer::kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_rights_stay_removed_when_redis_freezes() {
    nothing_comes_back(|redis| redis.pause()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_without_announcements_admits_no_request_in_an_outage() {
    let mut pair = Pair::on(RedisServer::start()).await;
    let mut lost = Vec::new();
    for how in LOSSES {
        lost.push((how, pair.known_token().await));
    }
    let good = pair.known_token().await;
    pair.block_announcements().await;
    lost.iter().for_each(|(how, token)| pair.lose(how, token));
    pair.is_admitted(&good, "Redis answers").await;
    pair.redis.kill();
    for (how, token) in &lost {
        pair.is_not_admitted(token, how[1]).await;
    }
    pair.is_not_admitted(&good, "nobody knows").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_confirmed_after_missed_announcements() {
    let mut pair = Pair::on(RedisServer::start()).await;
    let mut lost = Vec::new();
    for how in LOSSES {
        lost.push((how, pair.known_token().await));
    }
    let (used, idle) = (pair.known_token().await, pair.known_token().await);
    pair.block_announcements().await;
    lost.iter().for_each(|(how, token)| pair.lose(how, token));
    pair.redis.say::<()>(&["ACL", "SETUSER", "default", "allchannels"]);
    let count = || pair.redis.say::<(String, usize)>(&["PUBSUB", "NUMSUB", "callgate:changed"]).1;
    eventually("all to listen again", async || (count() == 2).then_some(())).await;
    pair.all_announcements_arrive().await;
    pair.is_admitted(&used, "Redis answers").await;
    pair.redis.kill();
    for (how, token) in &lost {
        pair.is_not_admitted(token, how[1]).await;
    }
    pair.is_not_admitted(&idle, "it may have changed").await;
    pair.is_admitted(&used, "Redis has confirmed it since").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_loss_of_the_subscription_hides_no_change() {
    let mut pair = Pair::on(RedisServer::start()).await;
    let (lost, good) = (pair.known_token().await, pair.known_token().await);
    pair.redis.say::<()>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    pair.lose(LOSSES[0], &lost);
    pair.all_announcements_arrive().await;
    pair.is_admitted(&good, "Redis answers").await;
    pair.redis.kill();
    pair.is_not_admitted(&lost, "revoked").await;
    pair.is_admitted(&good, "without Redis").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_plan_admits_no_revoked_token() {
    let mut pair = Pair::on(RedisServer::start()).await;
    let token = pair.site.token_with(&[PERMISSION], &["--plan", "trial"]);
    pair.block_announcements().await;
    // The limit is used up, and the refusal is remembered for a second.
    pair.is_admitted(&token, "on trial").await;
    pair.lose(LOSSES[0], &token);
    pair.redis.kill();
    pair.is_not_admitted(&token, "revoked").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_instance_that_makes_a_change_needs_no_announcement() {
    let mut pair = Pair::on(RedisServer::start_with(&["--rename-command", "PUBLISH", ""])).await;
    let (lost, good) = (pair.known_token().await, pair.known_token().await);
    let (gateway, path) = (&pair.instances[0], format!("/api/tokens/{}/revoke", lost.id));
    let client = Client::builder().no_proxy().build().unwrap();
    let revoke = client.post(format!("http://{}{path}", gateway.admin)).header("x-callgate-admin", "1");
    assert_eq!(revoke.send().await.unwrap().status(), 200);
    pair.redis.kill();
    for client in &pair.clients[0] {
        assert_eq!(get(client, gateway, "/status/200", &lost).await.status(), 503);
        assert_eq!(get(client, gateway, "/status/200", &good).await.status(), 200);
    }
}
