//! Request lines, hosts, targets and header lines of HTTP/1.1 (RFC 9112 §2, §3, §5): what is malformed is refused, never repaired.

use super::{EVERYTHING, Stage};

#[tokio::test]
async fn rfc9112_3_an_invalid_request_line_is_400() {
    Stage::new()
        .await
        .all_refused(
            &["400"],
            &[
                "GET  / HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n",
                "GET /a b HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n",
                "GET / HTTP/1.1 \r\nhost: a\r\nAUTH\r\n\r\n",
                "GET\t/ HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n",
                " GET / HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n",
                "G(T / HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n",
                "GET / HTTP/x\r\nhost: a\r\nAUTH\r\n\r\n",
                "GET / http/1.1\r\nhost: a\r\nAUTH\r\n\r\n",
                "GET /\r\nhost: a\r\nAUTH\r\n\r\n",
                "GET\r\nhost: a\r\nAUTH\r\n\r\n",
                "GET /a#b HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n",
                "GET /\u{e9} HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n",
                "\x16\x03\x01\x02\x00 not tls inside tls\r\n\r\n",
            ],
        )
        .await;
}

#[tokio::test]
async fn rfc9112_2_6_an_unknown_version_is_505() {
    let versions = ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0"];
    let texts = versions.map(|version| format!("GET / {version}\r\nhost: a\r\nAUTH\r\n\r\n"));
    Stage::new().await.all_refused(&["505"], &texts.each_ref().map(String::as_str)).await;
}

#[tokio::test]
async fn rfc9112_3_2_no_host_or_two_or_an_invalid_one_is_400() {
    let hosts = [
        "",
        "host: a\r\nhost: a\r\n",
        "host: a\r\nHOST: b\r\n",
        "host:\r\n",
        "host: a b\r\n",
        "host: a, b\r\n",
        "host: u@a\r\n",
        "host: u:p@a\r\n",
        "host: a/b\r\n",
        "host: a?b\r\n",
        "host: a\\b\r\n",
        "host: a:80:80\r\n",
        "host: a:x\r\n",
        "host: a:65536\r\n",
        "host: [::1\r\n",
        "host: [zz]\r\n",
        "host: %61\r\n",
    ];
    let texts = hosts.map(|host| format!("GET / HTTP/1.1\r\n{host}AUTH\r\n\r\n"));
    Stage::new().await.all_refused(&["400"], &texts.each_ref().map(String::as_str)).await;
}

/// Routing, the forwarded host and the log must speak of the same host.
#[tokio::test]
async fn rfc9112_3_2_2_the_host_of_an_absolute_target_counts_and_the_header_does_not() {
    let stage = Stage::with(
        "routes:\n  - { path: \"/{*rest}\", host: a.test, upstream: up }\n  - { path: \"/{*rest}\", host: b.test, methods: [DELETE], upstream: up }",
    )
    .await;
    let ask = "GET http://a.test/x HTTP/1.1\r\nhost: b.test\r\nAUTH\r\nconnection: close\r\n\r\n";
    assert!(stage.send(ask).await.starts_with("HTTP/1.1 200 "));
    let message = stage.upstream.only();
    assert_eq!((message.line(), message.all("host")), ("GET /x HTTP/1.1", vec!["a.test"]));
    assert_eq!(message.all("x-forwarded-host"), ["a.test"]);
    assert_eq!(message.all("forwarded"), ["for=127.0.0.1;proto=https;host=\"a.test\""]);
    assert!(!stage.gateway.output().contains("b.test"));
    // The other way round, the header's host is of no use.
    let ask = "GET http://b.test/x HTTP/1.1\r\nhost: a.test\r\nAUTH\r\nconnection: close\r\n\r\n";
    assert!(stage.send(ask).await.starts_with("HTTP/1.1 405 "));
    // Nor does a target choose where a request goes.
    for target in ["http://u@a.test/x", "http://a.test:80:80/x", "http:///x", "ftp://a.test/x", "a.test/x"] {
        stage.refused(&["400"], &format!("GET {target} HTTP/1.1\r\nhost: a.test\r\nAUTH\r\n\r\n")).await;
    }
    assert_eq!(stage.upstream.messages().len(), 1);
    let other = Stage::new().await;
    for target in ["http://a.test", "https://a.test/", "http://a.test:1/"] {
        other.send(&format!("GET {target} HTTP/1.1\r\nhost: b\r\nAUTH\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(other.upstream.last().line(), "GET / HTTP/1.1", "{target}");
    }
}

#[tokio::test]
async fn rfc9112_3_2_3_an_authority_is_a_target_of_connect_only_and_connect_is_405() {
    let stage = Stage::new().await;
    for (status, line) in
        [("405", "CONNECT a:443"), ("400", "CONNECT /"), ("400", "CONNECT http://a/"), ("400", "GET a:443")]
    {
        let text = format!("{line} HTTP/1.1\r\nhost: a\r\nAUTH\r\nconnection: close\r\n\r\n");
        let answer = stage.send(&text).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
    }
    assert_eq!(stage.upstream.received(), "");
}

#[tokio::test]
async fn rfc9112_3_2_4_an_asterisk_is_a_target_of_options_only_and_never_a_path() {
    let stage = Stage::new().await;
    for method in ["GET", "POST", "options", "TRACE"] {
        stage.refused(&["400"], &format!("{method} * HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n")).await;
    }
    let answer = stage.send("OPTIONS * HTTP/1.1\r\nhost: a\r\nAUTH\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 204 ") && answer.contains("allow: "), "{answer}");
    assert_eq!(stage.upstream.received(), "");
}

#[tokio::test]
async fn rfc9110_9_3_8_trace_reflects_nothing() {
    let stage = Stage::new().await;
    let trace =
        "TRACE /x HTTP/1.1\r\nhost: a\r\nAUTH\r\ncookie: secret=1\r\nmax-forwards: 0\r\nconnection: close\r\n\r\n";
    let answer = stage.send(trace).await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nallow: "), "{answer}");
    assert!(!answer.contains("secret") && !answer.contains(&stage.token.secret), "{answer}");
    assert_eq!(stage.upstream.received(), "");
}

#[tokio::test]
async fn rfc9112_2_2_lines_end_with_crlf_and_nothing_else() {
    Stage::new()
        .await
        .all_refused(
            &["400"],
            &[
                "GET / HTTP/1.1\nhost: a\r\nAUTH\r\n\r\n",
                "GET / HTTP/1.1\rhost: a\r\nAUTH\r\n\r\n",
                "GET / HTTP/1.1\r\nhost: a\nAUTH\r\n\r\n",
                "GET / HTTP/1.1\r\nhost: a\r\nAUTH\n\r\n",
                "GET / HTTP/1.1\r\nhost: a\r\nAUTH\n\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
                "GET / HTTP/1.1\r\nhost: a\r\nx: a\rb\r\nAUTH\r\n\r\n",
                "GET / HTTP/1.1\r\nhost: a\r\nx: a\r\r\nAUTH\r\n\r\n",
                "GET / HTTP/1.1\r\n\nhost: a\r\nAUTH\r\n\r\n",
            ],
        )
        .await;
}

#[tokio::test]
async fn rfc9112_2_2_a_blank_before_the_first_header_is_400() {
    let texts = ["GET / HTTP/1.1\r\n host: a\r\nAUTH\r\n\r\n", "GET / HTTP/1.1\r\n\thost: a\r\nAUTH\r\n\r\n"];
    Stage::new().await.all_refused(&["400"], &texts).await;
}

#[tokio::test]
async fn rfc9112_5_1_a_blank_before_the_colon_is_400() {
    let lines =
        ["host : a", "host: a\r\nx\t: y", "host: a\r\ncontent-length : 5", "host: a\r\ntransfer-encoding : chunked"];
    let texts = lines.map(|lines| format!("POST / HTTP/1.1\r\n{lines}\r\nAUTH\r\n\r\n"));
    Stage::new().await.all_refused(&["400"], &texts.each_ref().map(String::as_str)).await;
}

#[tokio::test]
async fn rfc9112_5_2_a_folded_line_is_400() {
    let texts = [
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\nAUTH\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n\tb\r\nAUTH\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\nAUTH\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\nAUTH\r\nx: a\r\n content-length: 5\r\n\r\nhello",
    ];
    Stage::new().await.all_refused(&["400"], &texts).await;
}

#[tokio::test]
async fn rfc9110_5_5_control_characters_in_a_value_are_400() {
    let texts: Vec<String> = (0..0x20u8)
        .chain([0x7f])
        .filter(|byte| *byte != b'\t')
        .map(|byte| format!("GET / HTTP/1.1\r\nhost: a\r\nx: a{}b\r\nAUTH\r\n\r\n", char::from(byte)))
        .collect();
    Stage::new().await.all_refused(&["400"], &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn rfc9110_5_6_2_a_field_name_is_a_token() {
    let names = ["", "a b", "a(b", "a/b", "a[b]", "a\u{e9}", "a\0b", "\"a\"", "a@b", "a=b", "no colon\r\nx"];
    let texts = names.map(|name| format!("GET / HTTP/1.1\r\nhost: a\r\n{name}: y\r\nAUTH\r\n\r\n"));
    Stage::new().await.all_refused(&["400"], &texts.each_ref().map(String::as_str)).await;
}

#[tokio::test]
async fn rfc9112_3_a_request_line_of_8000_bytes_passes_and_a_longer_target_is_414() {
    let stage = Stage::new().await;
    let line = |length: usize| {
        let target = format!("/{}", "a".repeat(length - 1));
        format!("GET {target} HTTP/1.1\r\nhost: a\r\nAUTH\r\nconnection: close\r\n\r\n")
    };
    assert!(stage.send(&line(8000)).await.starts_with("HTTP/1.1 200 "));
    for length in [8193, 100_000] {
        assert!(stage.send(&line(length)).await.starts_with("HTTP/1.1 414 "), "{length}");
    }
    assert_eq!(stage.upstream.messages().len(), 1);
}

#[tokio::test]
async fn rfc6585_5_a_head_that_is_too_large_is_431() {
    let stage = Stage::new().await;
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nAUTH\r\nx: {}\r\n\r\n", "a".repeat(40_000));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\nAUTH\r\n{}\r\n", "x: y\r\n".repeat(101));
    let endless = format!("GET / HTTP/1.1\r\nhost: a\r\nAUTH\r\nx: {}", "a".repeat(100_000));
    stage.all_refused(&["431"], &[&long, &many, &endless]).await;
}

/// The gateway speaks for itself: its own version, and nothing that a client of HTTP/1.0 does not know.
#[tokio::test]
async fn rfc9112_2_3_versions_are_those_of_each_hop() {
    let chunked = crate::support::recorder::Recorder::answering(|_| {
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec()
    })
    .await;
    let stage = Stage::before(chunked, EVERYTHING);
    let answer = stage.send("GET /x HTTP/1.0\r\nhost: a\r\nAUTH\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\nhello") && !answer.contains("transfer-encoding"), "{answer}");
    let message = stage.upstream.only();
    assert_eq!((message.line(), message.all("via")), ("GET /x HTTP/1.1", vec!["1.0 callgate"]));
}

/// Answers come in the order of the requests, also when the first is the slowest.
#[tokio::test]
async fn rfc9112_9_3_2_pipelined_requests_are_answered_in_their_order() {
    let upstream = crate::support::upstream::Upstream::start().await;
    let site = crate::support::gateway::Site::in_memory(upstream.address, "  - { path: \"/{*rest}\", upstream: up }");
    let token = site.token(&[]);
    let gateway = site.serve();
    let ask = |path: &str, more: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n{more}\r\n", token.secret)
    };
    let pipeline = [ask("/slow/300", ""), ask("/status/404", ""), ask("/echo/last", "connection: close\r\n")].concat();
    let answer = crate::support::client::exchange(&gateway, pipeline.as_bytes()).await;
    assert_eq!(super::statuses(&answer), ["200", "404", "200"], "{answer}");
    assert!(answer.find("late") < answer.find("from the upstream"), "{answer}");
}
