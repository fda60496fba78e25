//! Streams that are opened only to be reset, by the client or after a protocol error of its own (CVE-2023-44487, CVE-2025-8671).

use super::{ENHANCE_YOUR_CALM, Stage};
use crate::support::frames::{END_HEADERS, END_STREAM, Frames, encode, kind, request};

const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// A request on a stream, as bytes.
fn open(stream: u32, path: &str) -> Vec<u8> {
    encode(kind::HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", path, None))
}

fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| number * 2 + 1)
}

#[tokio::test]
async fn a_burst_of_rapid_resets_ends_the_connection() {
    let stage = Stage::new("").await;
    let code = stage
        .beside_good_clients(async {
            let mut frames = Frames::connect(&stage.gateway).await;
            let one =
                |stream| [open(stream, "/open/slow/60000"), encode(kind::RST_STREAM, 0, stream, &CANCEL)].concat();
            let all: Vec<u8> = streams(20_000).flat_map(one).collect();
            // The gateway may close the connection in the middle of the write.
            for piece in all.chunks(16 * 1024) {
                if frames.write(piece).await.is_err() {
                    break;
                }
            }
            frames.goodbye().await
        })
        .await;
    assert!(matches!(code, Some(ENHANCE_YOUR_CALM) | None), "{code:?}");
    assert!(stage.arrived() < 500, "{} requests of the attack arrived", stage.arrived());
}

/// Each stream lives until the gateway has surely taken it up, so that none is counted as reset before it began.
#[tokio::test]
async fn slow_rapid_resets_end_the_connection_too() {
    let stage = Stage::new("").await;
    let sent = stage
        .beside_good_clients(async {
            let mut frames = Frames::connect(&stage.gateway).await;
            for (sent, stream) in streams(3_000).enumerate() {
                let ping = encode(kind::PING, 0, 0, &u64::from(stream).to_be_bytes());
                if frames.write(&[open(stream, "/open/slow/60000"), ping].concat()).await.is_err() {
                    return sent;
                }
                loop {
                    match frames.next().await {
                        None => return sent,
                        Some(frame) if frame.kind == kind::PING && frame.payload == u64::from(stream).to_be_bytes() => {
                            break;
                        }
                        Some(_) => {}
                    }
                }
                frames.send(kind::RST_STREAM, 0, stream, &CANCEL).await;
            }
            3_000
        })
        .await;
    assert!(sent < 1_000, "{sent} streams were taken up");
    assert!(stage.arrived() < 1_000, "{} requests of the attack arrived", stage.arrived());
}

/// A client that cancels a request now and then, and lets most of them finish, keeps its connection.
#[tokio::test]
async fn a_client_that_cancels_some_requests_keeps_its_connection() {
    let stage = Stage::new("").await;
    let mut frames = Frames::connect(&stage.gateway).await;
    for round in 0..150 {
        let [given_up, kept] = [round * 4 + 1, round * 4 + 3];
        frames.write(&[open(given_up, "/open/slow/60000"), open(kept, "/open/status/204")].concat()).await.unwrap();
        let mut answered = false;
        while !answered {
            let frame = frames.next().await.expect("the connection stays");
            assert_ne!(frame.kind, kind::GOAWAY);
            answered = frame.kind == kind::HEADERS && frame.stream == kept;
        }
        frames.send(kind::RST_STREAM, 0, given_up, &CANCEL).await;
    }
}

/// The client makes the gateway do the resetting, which must not be for nothing.
#[tokio::test]
async fn resets_provoked_by_protocol_errors_count_made_you_reset() {
    for (what, broken) in [
        ("a window that grows by nothing", (kind::WINDOW_UPDATE, vec![0; 4])),
        ("a window that overflows", (kind::WINDOW_UPDATE, 0x7fff_ffffu32.to_be_bytes().to_vec())),
        ("data behind the end", (kind::DATA, b"x".to_vec())),
        ("a dependency on itself", (kind::PRIORITY, vec![])),
    ] {
        let stage = Stage::new("").await;
        stage
            .beside_good_clients(async {
                let mut frames = Frames::connect(&stage.gateway).await;
                for stream in streams(5_000) {
                    let (kind, mut payload) = broken.clone();
                    if payload.is_empty() {
                        payload = [&stream.to_be_bytes()[..], &[0]].concat();
                    }
                    let bytes = [open(stream, "/open/slow/60000"), encode(kind, 0, stream, &payload)].concat();
                    if frames.write(&bytes).await.is_err() {
                        break;
                    }
                }
                frames.goodbye().await;
            })
            .await;
        assert!(stage.arrived() < 500, "{what}: {} requests of the attack arrived", stage.arrived());
    }
}

#[tokio::test]
async fn rfc9113_5_1_2_more_streams_than_announced_are_refused() {
    let stage = Stage::new(", max_concurrent_streams: 20").await;
    let refused = stage
        .beside_good_clients(async {
            let mut frames = Frames::connect(&stage.gateway).await;
            let all: Vec<u8> = streams(100).flat_map(|stream| open(stream, "/open/slow/60000")).collect();
            frames.write(&all).await.unwrap();
            let mut refused = 0;
            while refused < 80 {
                let Some(frame) = frames.next().await else { break };
                // REFUSED_STREAM: it was not looked at, and may be sent again.
                refused += usize::from(frame.kind == kind::RST_STREAM && frame.payload == [0, 0, 0, 7]);
            }
            refused
        })
        .await;
    assert_eq!(refused, 80);
    assert!(stage.arrived() <= 20, "{}", stage.arrived());
}
