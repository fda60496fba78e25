//! Endpoints that are host names: every address is used, and answers change. Debian's nss_wrapper answers the system's look-ups
//! out of a file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::site;
use crate::support::client::{get, http2};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Token};
use crate::support::upstream::{Manner, Upstream};

/// A hosts file that a gateway's look-ups are answered from.
struct Hosts {
    folder: TempDir,
    written: AtomicU64,
}

impl Hosts {
    /// `api.test` has these addresses, the last byte of each after 127.0.0.
    fn new(addresses: &[u8]) -> Self {
        let hosts = Self { folder: TempDir::new().unwrap(), written: AtomicU64::new(0) };
        hosts.write(addresses);
        hosts
    }

    fn write(&self, addresses: &[u8]) {
        let lines: String = addresses.iter().map(|last| format!("127.0.0.{last} api.test\n")).collect();
        let (next, file) = (self.folder.path().join("next"), self.file());
        std::fs::write(&next, format!("127.0.0.9 other.test\n{lines}")).unwrap();
        // nss_wrapper tells by the second whether the file is another one.
        let seconds = self.written.fetch_add(10, Ordering::Relaxed) + 1_000_000_000;
        let times = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        std::fs::File::open(&next).unwrap().set_modified(times).unwrap();
        std::fs::rename(next, file).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }

    /// A gateway before `api.test`.
    fn stage(&self, port: u16, more: &str) -> (Gateway, Token) {
        let site = site(&[format!("http://api.test:{port}")], &format!(", resolve_interval: 1s{more}"), "");
        let token = site.token(&[]);
        let wrapper = std::fs::read_dir("/usr/lib").unwrap().filter_map(|entry| {
            let library = entry.unwrap().path().join("libnss_wrapper.so");
            library.exists().then_some(library)
        });
        let wrapper = wrapper.last().expect("nss_wrapper is installed (tests/run does that)");
        let (wrapper, file) = (wrapper.to_str().unwrap(), self.file());
        let gateway = site.serve_with(&[("LD_PRELOAD", wrapper), ("NSS_WRAPPER_HOSTS", file.to_str().unwrap())]);
        (gateway, token)
    }
}

/// Sockets at these addresses that have one port.
async fn sockets(addresses: &[u8]) -> Vec<TcpListener> {
    'ports: loop {
        let mut sockets = Vec::new();
        let mut port = 0;
        for last in addresses {
            let address = SocketAddr::from(([127, 0, 0, *last], port));
            let Ok(socket) = TcpListener::bind(address).await else { continue 'ports };
            port = socket.local_addr().unwrap().port();
            sockets.push(socket);
        }
        return sockets;
    }
}

async fn upstreams(addresses: &[u8], http2: bool) -> Vec<Upstream> {
    let manner = Manner { http2: http2.then_some(100), tls: None };
    sockets(addresses).await.into_iter().map(|socket| Upstream::on(socket, manner.clone())).collect()
}

async fn all_are_good(gateway: &Gateway, token: &Token, path: &str, count: usize) {
    let client = http2(gateway);
    let answers = join_all((0..count).map(|_| get(&client, gateway, path, token))).await;
    for answer in answers {
        let status = answer.status();
        assert_eq!(status, 200, "{}", answer.text().await.unwrap());
    }
}

#[tokio::test]
async fn every_address_is_used() {
    for (protocol, is_http2) in [("http1", false), ("http2", true)] {
        let upstreams = upstreams(&[1, 2, 3], is_http2).await;
        let hosts = Hosts::new(&[1, 2, 3]);
        let (gateway, token) = hosts.stage(upstreams[0].address.port(), &format!(", protocol: {protocol}"));
        eventually("requests at every address", async || {
            all_are_good(&gateway, &token, "/slow/50", 12).await;
            upstreams.iter().all(|upstream| !upstream.seen().is_empty()).then_some(())
        })
        .await;
        if is_http2 {
            let connections: Vec<usize> = upstreams.iter().map(Upstream::connections).collect();
            assert_eq!(connections, [1, 1, 1]);
        }
        assert_eq!(gateway.metric("callgate_name_addresses{host=\"api.test\"}").await, Some(3.0));
    }
}

#[tokio::test]
async fn a_dead_or_silent_address_is_skipped() {
    for protocol in ["http1", "http2"] {
        let mut sockets = sockets(&[1, 2]).await;
        let port = sockets[0].local_addr().unwrap().port();
        // The backlog of this socket is full: connections to it get no answer.
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        silent.bind(&SocketAddr::from(([127, 0, 0, 3], port)).into()).unwrap();
        silent.listen(0).unwrap();
        let mut waiting = Vec::new();
        for _ in 0..2 {
            let address = SocketAddr::from(([127, 0, 0, 3], port));
            let long_enough = Duration::from_secs(2);
            waiting.push(tokio::time::timeout(long_enough, tokio::net::TcpStream::connect(address)).await);
        }
        let manner = Manner { http2: (protocol == "http2").then_some(100), tls: None };
        let good = Upstream::on(sockets.remove(0), manner);
        drop(sockets);
        let hosts = Hosts::new(&[3, 2, 1]);
        let (gateway, token) = hosts.stage(port, &format!(", protocol: {protocol}, connect_timeout: 15s"));
        for _ in 0..5 {
            all_are_good(&gateway, &token, "/slow/20", 6).await;
        }
        assert_eq!(good.seen().len(), 30, "{protocol}");
        drop(waiting);
    }
}

#[tokio::test]
async fn requests_follow_when_the_addresses_change() {
    for (protocol, is_http2) in [("http1", false), ("http2", true)] {
        let upstreams = upstreams(&[1, 2], is_http2).await;
        let hosts = Hosts::new(&[1]);
        let (gateway, token) = hosts.stage(upstreams[0].address.port(), &format!(", protocol: {protocol}"));
        all_are_good(&gateway, &token, "/slow/20", 8).await;
        assert!(upstreams[1].seen().is_empty() && upstreams[0].open_connections() > 0);
        hosts.write(&[2]);
        eventually("the other address to be used", async || {
            all_are_good(&gateway, &token, "/x", 1).await;
            (!upstreams[1].seen().is_empty()).then_some(())
        })
        .await;
        let before = upstreams[0].seen().len();
        all_are_good(&gateway, &token, "/slow/20", 8).await;
        assert_eq!(upstreams[0].seen().len(), before, "{protocol}: an address that is gone gets nothing");
        eventually("the connections to the address that is gone to close", async || {
            (upstreams[0].open_connections() == 0).then_some(())
        })
        .await;
        let changes = |line: &serde_json::Value| line["message"] == "the addresses of an upstream have changed";
        assert_eq!(gateway.log().iter().filter(|line| changes(line)).count(), 1);
    }
}

#[tokio::test]
async fn known_addresses_stay_while_the_name_cannot_be_looked_up() {
    let upstreams = upstreams(&[1], false).await;
    let hosts = Hosts::new(&[1]);
    let (gateway, token) = hosts.stage(upstreams[0].address.port(), ", max_lifetime: 1s");
    all_are_good(&gateway, &token, "/x", 4).await;
    hosts.write(&[]);
    eventually("look-ups to fail twice", async || {
        let failures = gateway.metric("callgate_name_failures_total{host=\"api.test\"}").await;
        failures.filter(|failures| *failures >= 2.0)
    })
    .await;
    all_are_good(&gateway, &token, "/slow/20", 12).await;
    hosts.write(&[1]);
    let reported =
        |text: &str| gateway.log().iter().filter(|line| line["message"].as_str().unwrap().contains(text)).count();
    eventually("the name to be found again", async || (reported("can be looked up again") == 1).then_some(())).await;
    assert_eq!(reported("can't look up the host name"), 1, "told once");
    assert_eq!(reported("have changed"), 0);
}

#[tokio::test]
async fn an_unknown_name_does_not_stop_the_start() {
    let upstreams = upstreams(&[1], false).await;
    let hosts = Hosts::new(&[]);
    let (gateway, token) = hosts.stage(upstreams[0].address.port(), "");
    let client = http2(&gateway);
    assert_eq!(get(&client, &gateway, "/x", &token).await.status(), 502);
    hosts.write(&[1]);
    eventually("the name to be found", async || {
        (get(&client, &gateway, "/x", &token).await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_ends_at_max_lifetime() {
    for (protocol, is_http2) in [("http1", false), ("http2", true)] {
        let upstreams = upstreams(&[1], is_http2).await;
        let hosts = Hosts::new(&[1]);
        let port = upstreams[0].address.port();
        let (gateway, token) = hosts.stage(port, &format!(", protocol: {protocol}, max_lifetime: 1s"));
        eventually("a third connection", async || {
            all_are_good(&gateway, &token, "/x", 1).await;
            (upstreams[0].connections() >= 3).then_some(())
        })
        .await;
        assert!(upstreams[0].seen().len() > 3, "{protocol}: connections are used more than once");
    }
}
