//! Files that change: the configuration itself, certificates, what they are linked to.

use std::os::unix::fs::symlink;

use super::{reload, replace, site, write};
use crate::support::client::{get, http2, try_raw_to};
use crate::support::eventually;
use crate::support::upstream::Upstream;

#[tokio::test]
async fn a_changed_configuration_is_noticed() {
    let upstream = Upstream::start().await;
    let site = site(upstream.address, "{ path: /a, upstream: up }");
    let token = site.token(&[]);
    let gateway = site.serve();
    replace(&gateway, "path: /a", "path: /b");
    eventually("the new route", async || {
        (get(&http2(&gateway), &gateway, "/b", &token).await.status() == 200).then_some(())
    })
    .await;
    // One that is refused is complained of once.
    replace(&gateway, "path: /b", "paht: /b");
    eventually("a complaint", async || gateway.output().contains("paht").then_some(())).await;
    assert_eq!(get(&http2(&gateway), &gateway, "/b", &token).await.status(), 200);
    replace(&gateway, "paht: /b", "path: /c");
    eventually("the next route", async || {
        (get(&http2(&gateway), &gateway, "/c", &token).await.status() == 200).then_some(())
    })
    .await;
    assert_eq!(gateway.output().matches("the configuration was refused").count(), 1);
}

/// As Kubernetes mounts a secret: the files are links through a folder that is itself a link, which is exchanged.
#[tokio::test]
async fn certificates_are_exchanged_behind_links() {
    let upstream = Upstream::start().await;
    let site = site(upstream.address, "{ path: /a, upstream: up }");
    let pair = || {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    };
    let put = |folder: &str, (cert, key): &(String, String)| {
        std::fs::create_dir(site.path(folder)).unwrap();
        std::fs::write(site.path(folder).join("cert.pem"), cert).unwrap();
        std::fs::write(site.path(folder).join("key.pem"), key).unwrap();
    };
    let [first, second] = [pair(), pair()];
    put("first", &first);
    put("second", &second);
    symlink("first", site.path("data")).unwrap();
    for name in ["cert.pem", "key.pem"] {
        std::fs::remove_file(site.path(name)).unwrap();
        symlink(format!("data/{name}"), site.path(name)).unwrap();
    }
    let gateway = site.serve();
    let shows = async |folder: &str| {
        try_raw_to(&gateway, &site.path(folder).join("cert.pem"), "localhost", "http/1.1").await.is_ok()
    };
    assert!(shows("first").await && !shows("second").await);
    symlink("second", site.path("data.new")).unwrap();
    std::fs::rename(site.path("data.new"), site.path("data")).unwrap();
    eventually("the new certificate", async || shows("second").await.then_some(())).await;
    eventually("a line on it", async || gateway.output().contains("exchanged").then_some(())).await;
    assert!(!shows("first").await);

    // A key of another certificate is refused, and the pair in force stays.
    write(&site.path("second").join("key.pem"), &first.1);
    assert_eq!(reload(&gateway).await.0, 422);
    assert!(shows("second").await);
}
