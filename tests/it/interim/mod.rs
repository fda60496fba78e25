//! Interim answers of upstreams (1xx): which of them reach clients, when, and in which form.

mod http2;

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::Semaphore;

use crate::support::client::{exchange, raw};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::{WAIT_TIMEOUT, eventually};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
                     X-RateLimit-Limit: 7\r\nContent-Length: 9\r\nX-Secret: s\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n";
/// The same as a client gets it.
const TOLD: &str =
    "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\n";
const DONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";

/// An upstream that answers `/hints`, `/flood`, `/large`, …; what it sends before its answer proper, which waits for `leave`
/// where the path ends with `wait`.
async fn upstream(leave: Arc<Semaphore>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(answer(BufReader::new(socket), leave.clone()));
        }
    });
    address
}

async fn answer(mut socket: BufReader<TcpStream>, leave: Arc<Semaphore>) -> std::io::Result<()> {
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if socket.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let path = head.split(' ').nth(1).unwrap();
        let interim = match path.split('/').nth(1).unwrap() {
            "hints" => HINTS.to_owned(),
            "others" => {
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 \r\nx: y\r\n\r\n".to_owned()
            }
            "flood" => "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(500),
            _ => String::new(),
        };
        socket.write_all(interim.as_bytes()).await?;
        if path.ends_with("wait") {
            leave.acquire().await.unwrap().forget();
        }
        if path.starts_with("/large") {
            let body = "x".repeat(4_000_000);
            socket
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
                .await?;
        } else {
            socket.write_all(DONE.as_bytes()).await?;
        }
    }
}

async fn stage() -> (Gateway, Token, Arc<Semaphore>) {
    let leave = Arc::new(Semaphore::new(0));
    let address = upstream(leave.clone()).await;
    let site = Site::new(&format!(
        "store: memory\ntokens: {{ file: tokens.yaml }}\n\
         routes: [{{ path: \"/{{*rest}}\", upstream: up, response_headers: {{ remove: [x-secret], set: {{ x-set: \"1\" }} }} }}]\n\
         upstreams: {{ up: {{ endpoints: [\"http://{address}\"] }} }}"
    ));
    let token = site.token(&[]);
    (site.serve(), token, leave)
}

fn request(path: &str, token: &Token) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n", token.secret)
}

fn last(path: &str, token: &Token) -> String {
    request(path, token).replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn interim_answers_come_before_the_answer() {
    let (gateway, token, leave) = stage().await;
    let mut stream = raw(&gateway, "http/1.1").await;
    for _ in 0..3 {
        stream.write_all(request("/hints/wait", &token).as_bytes()).await.unwrap();
        let mut reported = vec![0; TOLD.len()];
        tokio::time::timeout(WAIT_TIMEOUT, stream.read_exact(&mut reported)).await.expect("hints in time").unwrap();
        assert_eq!(String::from_utf8(reported).unwrap(), TOLD);
        leave.add_permits(1);
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\ndone") {
            answer.push(char::from(stream.read_u8().await.unwrap()));
        }
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("x-set: 1\r\n"), "{answer}");
    }
    assert_eq!(gateway.access("/hints/wait", 3).await[0]["status"], 200);
}

#[tokio::test]
async fn interim_answers_that_come_with_the_answer_go_first() {
    let (gateway, token, _) = stage().await;
    for _ in 0..20 {
        let answer = exchange(&gateway, last("/hints", &token).as_bytes()).await;
        let rest = answer.strip_prefix(TOLD).unwrap_or_else(|| panic!("{answer}"));
        assert!(rest.starts_with("HTTP/1.1 200 OK\r\n") && rest.ends_with("\r\n\r\ndone"), "{rest}");
    }
}

#[tokio::test]
async fn interim_answers_come_between_answers_and_never_within_one() {
    let (gateway, token, _) = stage().await;
    let requests =
        [request("/large", &token), request("/hints/1", &token), request("/large", &token), last("/hints/2", &token)];
    let mut stream = raw(&gateway, "http/1.1").await;
    stream.write_all(requests.concat().as_bytes()).await.unwrap();
    // The client takes little at first, so that answers have to wait for each other.
    let mut answer = Vec::new();
    let mut piece = vec![0; 1_000];
    for _ in 0..50 {
        let read = stream.read(&mut piece).await.unwrap();
        answer.extend_from_slice(&piece[..read]);
        tokio::task::yield_now().await;
    }
    let _ = tokio::time::timeout(WAIT_TIMEOUT, stream.read_to_end(&mut answer)).await.expect("an end in time");
    let text = String::from_utf8(answer).unwrap();
    let mut rest = text.as_str();
    for (hints, length) in [(false, 4_000_000), (true, 4), (false, 4_000_000), (true, 4)] {
        if hints {
            rest = rest.strip_prefix(TOLD).unwrap_or_else(|| panic!("no hints but {:?}", &rest[..rest.len().min(200)]));
        }
        let (head, body) = rest.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        rest = &body[length..];
    }
    assert_eq!(rest, "");
}

#[tokio::test]
async fn clients_of_http_1_0_get_no_interim_answers() {
    let (gateway, token, _) = stage().await;
    let old = last("/hints", &token).replace("HTTP/1.1", "HTTP/1.0");
    let answer = exchange(&gateway, old.as_bytes()).await;
    assert!(answer.contains(" 200 OK\r\n") && !answer.contains(" 103 "), "{answer}");
}

#[tokio::test]
async fn the_gateways_own_interim_answers_are_left_out_and_a_flood_is_cut() {
    let (gateway, token, _) = stage().await;
    let answer = exchange(&gateway, last("/others", &token).as_bytes()).await;
    let expected = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 \r\nx: y\r\n\r\nHTTP/1.1 200 OK\r\n";
    assert!(answer.starts_with(expected), "{answer}");
    let answer = exchange(&gateway, last("/flood", &token).as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 103 ").count(), 16);
    assert!(answer.ends_with("done"), "{answer}");
}

#[tokio::test]
async fn a_client_that_leaves_between_interim_answers_is_noticed() {
    let (gateway, token, _leave) = stage().await;
    let mut stream = raw(&gateway, "http/1.1").await;
    stream.write_all(request("/hints/wait", &token).as_bytes()).await.unwrap();
    tokio::time::timeout(WAIT_TIMEOUT, stream.read_u8()).await.expect("hints in time").unwrap();
    drop(stream);
    eventually("the exchange to be over", async || {
        let line = gateway.log().into_iter().find(|line| line["path"] == "/hints/wait");
        line.filter(|line| line["status"] == 499)
    })
    .await;
}

#[tokio::test]
async fn curl_understands_interim_answers() {
    let (gateway, token, _) = stage().await;
    for (option, head) in [("--http1.1", "HTTP/1.1 103 Early Hints\r\n"), ("--http2", "HTTP/2 103 \r\n")] {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--include", "--ipv4", "--noproxy", "*", "--max-time", "60", option]);
        command.arg("--cacert").arg(gateway.site.path("cert.pem")).arg("--oauth2-bearer").arg(&token.secret);
        let urls = [gateway.url("/hints"), gateway.url("/hints"), gateway.url("/plain")];
        let output = command.args(urls).stdin(Stdio::null()).output().await.expect("curl is installed");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!((text.matches(head).count(), text.matches("done").count()), (2, 3), "{text}");
    }
}

/// Breaks off on its first request behind an interim answer, if `tells`; answers the others with one.
async fn forgetful(tells: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut is_first = true;
        while let Ok((mut socket, _)) = listener.accept().await {
            socket.read_buf(&mut Vec::with_capacity(4096)).await.unwrap();
            let rest =
                if std::mem::take(&mut is_first) { if tells { HINTS } else { "" } } else { &[HINTS, DONE].concat() };
            socket.write_all(rest.as_bytes()).await.unwrap();
            socket.shutdown().await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn interim_answers_of_every_attempt_are_passed_on() {
    for tells in [false, true] {
        let address = forgetful(tells).await;
        let site = Site::new(&format!(
            "store: memory\ntokens: {{ file: tokens.yaml }}\n\
             routes: [{{ path: \"/{{*rest}}\", upstream: up, response_headers: {{ remove: [x-secret] }} }}]\n\
             upstreams: {{ up: {{ endpoints: [\"http://{address}\", \"http://localhost:{}\"] }} }}",
            address.port()
        ));
        let token = site.token(&[]);
        let gateway = site.serve();
        let answer = exchange(&gateway, last("/again", &token).as_bytes()).await;
        let hints = TOLD.repeat(1 + usize::from(tells));
        let rest = answer.strip_prefix(&hints).unwrap_or_else(|| panic!("{answer}"));
        assert!(rest.starts_with("HTTP/1.1 200 OK\r\n") && rest.ends_with("\r\n\r\ndone"), "{rest}");
        assert_eq!(gateway.access("/again", 1).await[0]["attempts"], 2);
    }
}
