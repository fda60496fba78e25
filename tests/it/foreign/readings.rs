//! nginx and Callgate in front of one service: whatever a client says in valid HTTP/1.1, the service hears the same from both.

use std::fmt::Write as _;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{nginx_with, stage};
use crate::support::WAIT_TIMEOUT;
use crate::support::client::raw;
use crate::support::upstream::Upstream;

/// One connection's requests, valid and written as oddly as that may be.
fn stream(random: &mut fastrand::Rng, token: &str) -> String {
    let mut text = String::new();
    let count = random.usize(1..6);
    for number in 0..count {
        let blank = [" ", "", "  "][random.usize(0..3)];
        let method = ["GET", "POST", "PUT", "DELETE", "PATCH"][random.usize(0..5)];
        let query = ["", "?", "?a=b&c", "?x=/%20/.."][random.usize(0..4)];
        let _ = write!(text, "{method} /echo/{number}{query} HTTP/1.1\r\nHoSt:{blank}localhost{blank}\r\n");
        let _ = write!(
            text,
            "AUTHORIZATION: Bearer {token}\r\nx-odd-{number}:{blank}{}{blank}\r\n",
            "v".repeat(random.usize(0..200))
        );
        if number + 1 == count {
            text += "Connection: close\r\n";
        }
        let mut body = "b".repeat(random.usize(0..3_000));
        match random.usize(0..3) {
            0 => text += "\r\n",
            1 => {
                let _ = write!(text, "content-length:{blank}{}\r\n\r\n{body}", body.len());
            }
            _ => {
                text += "transfer-encoding: Chunked\r\n\r\n";
                while !body.is_empty() {
                    let chunk = body.split_off(body.len() - random.usize(1..=body.len()));
                    let size =
                        if random.bool() { format!("{:x}", chunk.len()) } else { format!("{:04X}", chunk.len()) };
                    let extension = ["", ";a", ";a=b", ";a=\"b\""][random.usize(0..4)];
                    let _ = write!(text, "{size}{extension}\r\n{chunk}\r\n");
                }
                text += ["0\r\n\r\n", "000\r\n\r\n"][random.usize(0..2)];
            }
        }
    }
    text
}

/// What the service says that it has heard of each request.
async fn heard(
    mut connection: impl AsyncRead + AsyncWrite + Unpin,
    text: &str,
    random: &mut fastrand::Rng,
) -> Vec<Value> {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(random.usize(1..=rest.len()));
        connection.write_all(piece).await.unwrap();
        connection.flush().await.unwrap();
        rest = after;
    }
    let mut answers = Vec::new();
    // A close without a goodbye ends the answers too.
    let _ = tokio::time::timeout(WAIT_TIMEOUT, connection.read_to_end(&mut answers)).await.expect("a close in time");
    let answers = String::from_utf8(answers).unwrap();
    let bodies = answers.split("HTTP/1.1 ").skip(1).map(|answer| {
        let (status, answer) = answer.split_at(3);
        assert_eq!(status, "200", "{answer}");
        let body = &answer[answer.find('{').unwrap()..=answer.rfind('}').unwrap()];
        let mut told: Value = serde_json::from_str(body).unwrap();
        // Each adds headers of its own.
        told["headers"].as_array_mut().unwrap().retain(|line| line[0].as_str().unwrap().starts_with("x-odd"));
        told
    });
    bodies.collect()
}

#[tokio::test]
async fn a_service_hears_the_same_from_nginx_and_callgate() {
    let upstream = Upstream::start().await;
    let proxied = format!("location / {{ proxy_pass http://{}; proxy_http_version 1.1; }}", upstream.address);
    let (_nginx, _folder, address) = nginx_with("", &proxied);
    let (gateway, token) = stage(upstream.address);
    let mut requests = 0;
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let text = stream(&mut random, &token.secret);
        let by_nginx = heard(TcpStream::connect(address).await.unwrap(), &text, &mut random).await;
        let by_callgate = heard(raw(&gateway, "http/1.1").await, &text, &mut random).await;
        assert_eq!(by_callgate, by_nginx, "seed {seed}: {text}");
        assert_eq!(by_nginx.len(), text.matches("Bearer").count(), "seed {seed}: {text}");
        requests += by_nginx.len();
    }
    assert!(requests > 100, "{requests}");
}
