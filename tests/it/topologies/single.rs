//! One server: its database, a login, TLS with and without a certificate of ours; and what is said when these are wrong.

use std::sync::Arc;

use callgate::store::{ChannelEvent, Redis, StoreHealth};
use prometheus::IntGauge;

use super::{admitted, instance, issue, open, say, store, trouble};
use crate::support::eventually;
use crate::support::redis::RedisServer;
use crate::support::topology::{self, TlsServer};

#[tokio::test]
async fn the_configured_database_is_used() {
    let server = RedisServer::start();
    for (number, redis) in
        [(3, format!("url: \"{}/3\"", server.url())), (5, format!("url: \"{}\", database: 5", server.url()))]
    {
        let (limiter, redis) = instance(&store(&redis)).await;
        issue(&redis, "alpha").await;
        assert_eq!(admitted(&[limiter], "alpha", 60, 100).await, 60);
        let keyspace: String = topology::say(&server, "INFO keyspace");
        assert!(keyspace.contains(&format!("db{number}:keys=2,")) && !keyspace.contains("db0:"), "{keyspace}");
    }
    let reported = trouble(&format!("url: \"{}/99\"", server.url())).await;
    assert!(reported.contains("refuses to serve") && reported.contains("index"), "{reported}");
}

#[tokio::test]
async fn a_user_logs_in_and_a_wrong_password_is_reported() {
    let server = RedisServer::start();
    // No more than Callgate needs.
    let rights = "~callgate:* &callgate:changed +@read +@write +@scripting +@connection +time +role +publish +subscribe +cluster|slots +cluster|info";
    let _: redis::Value = topology::say(&server, &format!("ACL SETUSER gate on >hunter2 {rights}"));
    let _: redis::Value = topology::say(&server, "ACL SETUSER default off");
    let host = format!("127.0.0.1:{}", server.port());
    for redis in [
        format!("url: \"redis://gate:hunter2@{host}\""),
        format!("url: \"redis://{host}\", username: gate, password: hunter2"),
    ] {
        let (limiter, redis) = instance(&store(&redis)).await;
        issue(&redis, "alpha").await;
        say(&redis, "PING").await;
        admitted(&[limiter], "alpha", 60, 100).await;
    }
    for redis in [
        format!("url: \"redis://gate:hunter22@{host}\""),
        format!("url: \"redis://nobody:hunter2@{host}\""),
        format!("url: \"redis://:hunter2@{host}\""),
        format!("url: \"redis://{host}\""),
    ] {
        let reported = trouble(&redis).await;
        assert!(reported.starts_with(&format!("Redis at {host} refuses the user name or the password")), "{reported}");
    }
}

#[tokio::test]
async fn a_login_in_files_is_read_again_when_it_is_refused() {
    let server = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let write = |user: &str, password: &str| {
        std::fs::write(file("user"), user).unwrap();
        std::fs::write(file("password"), format!("{password}\n")).unwrap();
        std::fs::write(file("url"), format!("redis://{user}:{password}@127.0.0.1:{}", server.port())).unwrap();
    };
    let admin = redis::Client::open(server.url()).unwrap();
    let mut admin = admin.get_connection().unwrap();
    let mut rename = |old: &str, user: &str, password: &str| {
        let mut set = redis::cmd("ACL");
        set.arg("SETUSER").arg(user).arg("on").arg(format!(">{password}")).arg("~*").arg("&*").arg("+@all");
        set.exec(&mut admin).unwrap();
        // This ends its connections.
        redis::cmd("ACL").arg("DELUSER").arg(old).exec(&mut admin).unwrap();
    };
    rename("nobody", "gate", "hunter2");
    write("gate", "hunter2");
    let (user, password, url) = (file("user"), file("password"), file("url"));
    let host = format!("redis://127.0.0.1:{}", server.port());
    for settings in [
        format!("url: \"file:{}\"", url.display()),
        format!("url: \"{host}\", username: \"file:{}\", password: \"file:{}\"", user.display(), password.display()),
    ] {
        let (redis, health) = open(&store(&settings)).await;
        assert_eq!(health.trouble(), None);
        let mut listening = redis.subscribe("callgate:changed".to_owned());
        assert!(matches!(listening.next().await, ChannelEvent::Begins));
        write("door", "hunter3");
        rename("gate", "door", "hunter3");
        eventually("the new login", async || redis.call(&redis::cmd("PING")).await.ok()).await;
        eventually("the new login", async || matches!(listening.next().await, ChannelEvent::Begins).then_some(()))
            .await;
        write("gate", "hunter2");
        rename("door", "gate", "hunter2");
    }
}

#[tokio::test]
async fn tls_works_and_a_wrong_certificate_is_reported() {
    let tls = TlsServer::start(&["--tls-auth-clients", "yes"]);
    let url = format!("url: \"rediss://127.0.0.1:{}\"", tls.tls_port);
    let [ca, other, cert, key] =
        ["ca.pem", "other.pem", "client.pem", "client.key"].map(|name| tls.file(name).display().to_string());
    let (limiter, redis) = instance(&store(&format!("{url}, ca: {ca}, cert: {cert}, key: {key}"))).await;
    issue(&redis, "alpha").await;
    assert_eq!(admitted(&[limiter], "alpha", 60, 100).await, 60);

    let reported = trouble(&format!("{url}, ca: {other}, cert: {cert}, key: {key}")).await;
    assert!(reported.contains("TLS to Redis") && reported.contains("UnknownIssuer"), "{reported}");
    let reported = trouble(&url).await;
    assert!(reported.contains("TLS to Redis") && reported.contains("UnknownIssuer"), "{reported}");
    let reported = trouble(&format!("{url}, ca: {ca}")).await;
    assert!(reported.contains("TLS to Redis") && reported.contains("CertificateRequired"), "{reported}");
    let reported = trouble(&format!("url: \"rediss://127.0.0.1:{}\"", tls.server.port())).await;
    assert!(reported.contains("does this port speak TLS?"), "{reported}");

    let health = Arc::new(StoreHealth::new(IntGauge::new("store_up", "test").unwrap()));
    let refused = Redis::open(&store(&format!("{url}, ca: {key}")), health).await;
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("holds a private key, not a certificate"), "{refused}");
    assert!(open(&store(&format!("{url}, ca: {ca}, cert: {cert}, key: {key}"))).await.0.is_up());
}
