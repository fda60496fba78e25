//! The end of the server: streams and feeds are closed, and no client delays it.

use super::*;

#[tokio::test]
async fn a_stop_closes_streams_and_feeds_and_ends_the_server() {
    let mut upstream = Upstream::start().await;
    let mut socket = upstream.open_stream("/api/v1/calls/call_1").await.unwrap();
    let mut feed = upstream.feed("/api/v1/events", None).await;
    feed.event().await.unwrap();
    upstream.stop.cancel();
    assert_eq!(close_code(&mut socket).await, CloseCode::Away);
    while feed.frame().await.is_some() {}
    timeout(DEADLINE, &mut upstream.served).await.expect("the server ends in time").unwrap();
    assert!(TcpStream::connect(upstream.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn an_endless_upload_does_not_delay_the_stop() {
    let mut upstream = Upstream::start().await;
    let mut upload = TcpStream::connect(upstream.address).await.unwrap();
    let head = b"POST /api/v1/recordings HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    upload.write_all(head).await.unwrap();
    // The server says this once it waits for the body, which never comes.
    let mut said = [0; 25];
    timeout(DEADLINE, upload.read_exact(&mut said)).await.unwrap().unwrap();
    assert_eq!(&said, b"HTTP/1.1 100 Continue\r\n\r\n");
    upstream.stop.cancel();
    timeout(DEADLINE, &mut upstream.served).await.expect("the server ends in time").unwrap();
    let rest = timeout(DEADLINE, upload.read(&mut said)).await.expect("the upload is cut");
    assert!(matches!(rest, Ok(0) | Err(_)), "{rest:?}");
}
