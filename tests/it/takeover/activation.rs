//! Sockets that systemd passes, and what it is told.

use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;

use crate::support::client::{get, http1};
use crate::support::gateway::{PROGRAM, Site};
use crate::support::upstream::Upstream;
use crate::support::{WAIT_TIMEOUT, eventually, eventually_blocking};

#[tokio::test]
async fn the_sockets_of_systemd_are_used() {
    let upstream = Upstream::start().await;
    let site = Site::in_memory(upstream.address, "  - { path: \"/{*rest}\", upstream: up }");
    let token = site.token(&[]);
    // systemd-socket-activate binds the socket, so that a free port is looked for here.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    site.replace("https: \"127.0.0.1:0\"", &format!("https: \"{address}\""));
    let (listen, config) = (address.to_string(), site.config());
    let arguments = ["--fdname=https", "-l", &listen, PROGRAM, "serve", "--config"].map(AsRef::as_ref);
    let arguments: Vec<_> = arguments.into_iter().chain([config.as_os_str()]).collect();
    // It starts the program when the first connection comes, which waits meanwhile.
    let waiting = std::thread::spawn(move || {
        eventually_blocking("the socket to be bound", || std::net::TcpStream::connect(address).ok())
    });
    let gateway = site.try_serve("systemd-socket-activate", &[], &arguments).unwrap();
    assert_eq!(gateway.https, address);
    drop(waiting.join().unwrap());
    assert_eq!(get(&http1(&gateway), &gateway, "/echo", &token).await.status(), 200);
}

#[tokio::test]
async fn systemd_is_told() {
    let upstream = Upstream::start().await;
    let site = Site::in_memory(upstream.address, "  - { path: \"/{*rest}\", upstream: up }");
    let path = site.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    let next = || {
        let mut text = [0; 1024];
        let length = manager.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    };
    let next_but = |other: &str| std::iter::repeat_with(next).find(|text| text != other).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000")];
    let gateway = site.serve_with(&environment);
    assert_eq!(next(), "READY=1");
    assert_eq!([next(), next()], ["WATCHDOG=1", "WATCHDOG=1"]);
    gateway.signal(Signal::HUP);
    let reloading = next_but("WATCHDOG=1");
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(next_but("WATCHDOG=1"), "READY=1");
    gateway.signal(Signal::TERM);
    assert_eq!(next_but("WATCHDOG=1"), "STOPPING=1");
    eventually("the drain", async || gateway.log().iter().any(|line| line["message"] == "draining").then_some(()))
        .await;
}
