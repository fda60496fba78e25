//! Chunks, trailers and expectations (RFC 9112 §7, RFC 9110 §6.5, §10.1.1): what is passed on is written anew, and plain.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{Stage, statuses};
use crate::support::client::{raw, read_to_end};
use crate::support::gateway::Site;
use crate::support::upstream::Upstream;

const HEAD: &str = "POST /x HTTP/1.1\r\nhost: a\r\nAUTH\r\ntransfer-encoding: chunked\r\n\r\n";
const NEXT: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n";

/// Sends bodies that some parser ends elsewhere: none is whole for the upstream, and nothing behind one is a request.
async fn broken(bodies: &[&str]) {
    let stage = Stage::new().await;
    for body in bodies {
        let answer = stage.send(&format!("{HEAD}{body}{NEXT}")).await;
        assert!(answer.is_empty() || statuses(&answer) == ["400"], "{body:?}: {answer}");
    }
    // Its beginning may have left; never its end.
    let received = stage.upstream.received();
    assert!(!received.contains("smuggled") && !received.contains("0\r\n\r\n"), "{received}");
}

#[tokio::test]
async fn rfc9112_7_1_a_chunk_size_is_hexadecimal_digits_and_nothing_else() {
    broken(&[
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5_\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "\t5\r\nhello\r\n0\r\n\r\n",
        "5\t;a\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        ";a=b\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "\u{ff15}\r\nhello\r\n0\r\n\r\n",
    ])
    .await;
}

/// TERM.EXT, EXT.TERM, TERM.SPILL, SPILL.TERM and terminators of one or two other bytes.
#[tokio::test]
async fn rfc9112_7_1_chunks_and_their_lines_end_with_crlf_and_nothing_else() {
    broken(&[
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\rhello\r\n0\r\n\r\n",
        "5\n\nhello\r\n0\r\n\r\n",
        "5\n\rhello\r\n0\r\n\r\n",
        "5;\nhello\r\n0\r\n\r\n",
        "5;\rhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
        "5;a\0b\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n\r0\r\n\r\n",
        "5\r\nhello\r\r0\r\n\r\n",
        "0\n\r\n",
        "0\r\r\n",
        "0\r\n\n",
        "0\r\nx: a\nb\r\n\r\n",
        "0\r\nx: a\n\n",
        "0\r\nx: a\r\n b\r\n\r\n",
        "0\r\nx : a\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "\r\n",
    ])
    .await;
}

#[tokio::test]
async fn rfc9112_7_1_1_chunk_extensions_are_bounded_and_never_passed_on() {
    let stage = Stage::new().await;
    let body = "5;name=\"value\"\r\nhello\r\n6;x\r\n world\r\n0;last\r\n\r\n";
    let answer = stage.send(&format!("{}{body}", HEAD.replace("host: a", "connection: close\r\nhost: a"))).await;
    assert_eq!(statuses(&answer), ["200"], "{answer}");
    let received = stage.upstream.received();
    assert!(!received.contains(';') || !received.split("\r\n\r\n").nth(1).unwrap().contains(';'), "{received}");
    assert!(received.contains("hello") && received.ends_with("0\r\n\r\n"), "{received}");

    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(100_000));
    let many = format!("{}0\r\n\r\n", format!("1;{}\r\na\r\n", "b".repeat(1000)).repeat(1000));
    for body in [long, many] {
        let stage = Stage::new().await;
        let answer = stage.send(&format!("{HEAD}{body}{NEXT}")).await;
        assert!(answer.is_empty() || statuses(&answer) == ["400"], "{answer}");
        assert!(!stage.upstream.received().contains("0\r\n\r\n") && !stage.upstream.received().contains("smuggled"));
    }
}

#[tokio::test]
async fn rfc9112_7_1_chunks_pass_with_any_valid_spelling_of_their_size() {
    let stage = Stage::new().await;
    for body in ["0\r\n\r\n", "000005\r\nhello\r\n000\r\n\r\n", "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"] {
        let head = HEAD.replace("host: a", "connection: close\r\nhost: a");
        assert_eq!(statuses(&stage.send(&format!("{head}{body}")).await), ["200"], "{body:?}");
    }
    assert_eq!(stage.upstream.messages().len(), 3);
}

/// Some servers merge trailers into the headers: what frames, routes, authenticates or vouches stays behind, declared or not.
#[tokio::test]
async fn rfc9110_6_5_1_trailers_affect_no_framing_routing_or_authentication() {
    let names = [
        "authorization",
        "content-length",
        "transfer-encoding",
        "host",
        "connection",
        "te",
        "cookie",
        "content-type",
        "content-encoding",
        "cache-control",
        "expect",
        "x-callgate-account",
        "x_callgate_plan",
        "x.callgate.plan",
        "x-forwarded-for",
        "x-forwarded-proto",
        "forwarded",
        "x-request-id",
        "x-http-method-override",
        "proxy",
        "proxy-authorization",
        "range",
        "max-forwards",
    ];
    let declared = names.join(", ");
    let lines: String = names.iter().map(|name| format!("{name}: 7\r\n")).collect();
    for (h2, declare) in [(false, true), (true, true), (true, false)] {
        let upstream = if h2 { Upstream::http2(100).await } else { Upstream::start().await };
        let protocol = if h2 { ", protocol: http2" } else { "" };
        let site = Site::new(&format!(
            "store: memory\ntokens: {{ file: tokens.yaml }}\nroutes: [{{ path: \"/{{*rest}}\", upstream: up }}]\n\
             upstreams: {{ up: {{ endpoints: [\"http://{}\"]{protocol} }} }}",
            upstream.address
        ));
        let (token, gateway) = (site.token(&[]), site.serve());
        let declared = if declare { format!("trailer: x-sum, {declared}\r\n") } else { String::new() };
        let text = format!(
            "POST /echo HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n{declared}\
             connection: close\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 42\r\n{lines}\r\n",
            token.secret
        );
        let answer = crate::support::client::exchange(&gateway, text.as_bytes()).await;
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        let reported: Value =
            serde_json::from_str(body.trim_start_matches(|it: char| it != '{')).unwrap_or_else(|_| panic!("{answer}"));
        assert_eq!(reported["trailers"], json!({ "x-sum": "42" }), "{reported}");
    }
}

/// 100 comes only when the request may pass, and a final status comes before the body is read.
#[tokio::test]
async fn rfc9110_10_1_1_100_is_sent_when_the_request_is_admitted() {
    let stage = Stage::new().await;
    let head = |auth: &str, version: &str| {
        format!(
            "POST /x HTTP/{version}\r\nhost: a\r\n{auth}expect: 100-continue\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"
        )
    };
    let mut client = raw(&stage.gateway, "http/1.1").await;
    client.write_all(&stage.bytes(&head("AUTH\r\n", "1.1"))).await.unwrap();
    let mut asked = [0; 25];
    tokio::io::AsyncReadExt::read_exact(&mut client, &mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"hello").await.unwrap();
    assert_eq!(statuses(&read_to_end(&mut client).await), ["200"]);
    assert_eq!((stage.upstream.only().body.as_str(), stage.upstream.only().all("expect")), ("hello", vec![]));

    assert_eq!(statuses(&stage.send(&head("", "1.1")).await), ["401"]);
    // A client of HTTP/1.0 does not know what 100 is (RFC 9110 §15.2).
    let answer = stage.send(&format!("{}hello", head("AUTH\r\n", "1.0"))).await;
    assert_eq!(answer.matches("100 Continue").count(), 0, "{answer}");
    assert!(answer.contains(" 200 OK\r\n"), "{answer}");
}
