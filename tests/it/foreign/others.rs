//! uvicorn, node, undici and ws on either side of a gateway.

use std::process::Command;

use super::{PYTHON, javascript, python_of, script, stage};
use crate::support::client::{header, http1, http2};

/// Where tests/run installs uvicorn.
const UVICORN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/foreign/bin/python");

/// The digest that uvicorn's application makes.
fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn bodies_stream_to_uvicorn_in_both_directions_at_once() {
    let (_server, address, _lines) = python_of(UVICORN, "asgi.py");
    let (gateway, token) = stage(address);
    let pieces: Vec<Vec<u8>> = (0..100u8).map(|number| vec![number; 10_000]).collect();
    let whole = pieces.concat();
    for client in [http1(&gateway), http2(&gateway)] {
        for method in [http::Method::POST, http::Method::PUT, http::Method::DELETE] {
            let stream = futures_util::stream::iter(pieces.clone().into_iter().map(Ok::<_, std::io::Error>));
            let request = client.request(method.clone(), gateway.url("/a%20b?c=d")).bearer_auth(&token.secret);
            let answer = request.body(reqwest::Body::wrap_stream(stream)).send().await.unwrap();
            assert_eq!(
                (header(&answer, "x-seen-method"), header(&answer, "x-seen-target")),
                (method.as_str(), "/a%20b")
            );
            let answered = answer.bytes().await.unwrap();
            assert_eq!(answered.len(), whole.len() + 64, "{method}");
            assert_eq!(&answered[..whole.len()], &whole[..]);
            assert_eq!(&answered[whole.len()..], sha256(&whole).as_bytes());
        }
        let events = client.get(gateway.url("/events")).bearer_auth(&token.secret).send().await.unwrap();
        assert_eq!(events.text().await.unwrap().matches("data: ").count(), 20);
    }
}

#[test]
fn a_call_of_the_websockets_package_passes_unchanged_to_uvicorn() {
    let (_server, address, mut lines) = python_of(UVICORN, "asgi.py");
    let (gateway, token) = stage(address);
    let url = gateway.url("/calls/1/stream").replace("https", "wss");
    for python in [PYTHON, UVICORN] {
        let mut client = Command::new(python);
        client.arg(script("talk.py")).arg(&url).arg(gateway.site.path("cert.pem")).arg(&token.secret);
        let output = client.output().unwrap();
        assert!(output.status.success(), "{python}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(lines.next().unwrap().trim_end(), "closed 1000");
        assert_eq!(lines.next().unwrap(), "closed 4001 the client is done");
        assert_eq!(lines.next().unwrap(), "closed 4002 as asked");
    }
}

#[test]
fn undici_and_ws_reach_node_through_the_gateway() {
    let (_server, address, mut lines) = javascript("server.js");
    let (gateway, token) = stage(address);
    let mut client = super::node("client.js");
    let output = client.arg(gateway.url("")).arg(gateway.site.path("cert.pem")).arg(&token.secret).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(lines.next().unwrap(), "closed 4002 as asked");
}

#[test]
fn a_call_that_uvicorn_refuses_is_refused_to_ws() {
    let (_server, address, _lines) = python_of(UVICORN, "asgi.py");
    let (gateway, token) = stage(address);
    let mut client = super::node("refused.js");
    let url = gateway.url("/refused").replace("https", "wss");
    let output = client.arg(url).arg(gateway.site.path("cert.pem")).arg(&token.secret).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
