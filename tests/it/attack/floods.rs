//! Frames and fields without end and without sense (CVE-2019-9511 to 9518, VU#421644): they cost whoever sends them.

use super::Stage;
use crate::support::frames::{END_HEADERS, Frames, encode, field, kind, request};

const COUNT: usize = 10_000;

/// Sends a frame again and again, and behind it a question that is answered when all have been read; nothing is read before.
/// Whether the connection stood it.
async fn flood(stage: &Stage, prelude: &[u8], frame: &[u8]) -> bool {
    let mut frames = Frames::connect(&stage.gateway).await;
    let all = [prelude, &frame.repeat(COUNT), &encode(kind::PING, 0, 0, b"are we y")].concat();
    // It may take this many answers for the gateway to see that nobody reads them; then it closes, as it may.
    if frames.write(&all).await.is_err() {
        return false;
    }
    while let Some(frame) = frames.next().await {
        if frame.kind == kind::PING && frame.payload == b"are we y" {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn floods_of_small_frames_affect_no_other_client() {
    let stage = Stage::new("").await;
    let upload = encode(kind::HEADERS, END_HEADERS, 1, &request("POST", "/open/x", None));
    let priority = [&7u32.to_be_bytes()[..], &[1]].concat();
    let long_settings: Vec<u8> = [0, 4, 0, 0, 0xff, 0xff].repeat(1000);
    for (what, prelude, frame) in [
        ("pings", vec![], encode(kind::PING, 0, 0, b"12345678")),
        ("empty settings", vec![], encode(kind::SETTINGS, 0, 0, &[])),
        ("settings that change the window", vec![], encode(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])),
        ("priorities of one idle stream", vec![], encode(kind::PRIORITY, 0, 9, &priority)),
        ("windows", vec![], encode(kind::WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes())),
        ("empty data", upload, encode(kind::DATA, 0, 1, &[])),
        ("frames of no known kind", vec![], encode(0xfa, 0, 0, b"what?")),
        ("a long list of settings", vec![], encode(kind::SETTINGS, 0, 0, &long_settings[..600])),
    ] {
        let survived = stage.beside_good_clients(flood(&stage, &prelude, &frame)).await;
        // Either is well; that nobody else notices is what counts.
        eprintln!("{what}: {}", if survived { "read" } else { "closed" });
    }
    assert!(stage.arrived() <= 1, "{}", stage.arrived());
    stage.gone().await;
}

/// A head that never ends is given up when it is larger than any that passes, without keeping it.
#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection() {
    for payload in [field(b"x-padding", &[b'y'; 16_000]), field(b"x", b"y"), Vec::new()] {
        let stage = Stage::new("").await;
        let sent = stage
            .beside_good_clients(async {
                let mut frames = Frames::connect(&stage.gateway).await;
                let head = encode(kind::HEADERS, 0, 1, &request("GET", "/open/x", None));
                frames.write(&head).await.unwrap();
                let piece = encode(kind::CONTINUATION, 0, 1, &payload).repeat(10);
                for sent in 0..5_000 {
                    if frames.write(&piece).await.is_err() {
                        return sent * 10;
                    }
                }
                frames.goodbye().await;
                50_000
            })
            .await;
        eprintln!("closed after {sent} frames of {} bytes", payload.len());
        assert!(sent < 50_000, "{} bytes each", payload.len());
        assert_eq!(stage.arrived(), 0);
    }
}

/// One field of four kilobytes is put into the table, and named by one byte each fifteen thousand times.
#[tokio::test]
async fn a_bomb_of_compressed_fields_is_not_decompressed() {
    let stage = Stage::new("").await;
    stage
        .beside_good_clients(async {
            for _ in 0..10 {
                let mut frames = Frames::connect(&stage.gateway).await;
                let mut block = request("GET", "/open/x", None);
                // Literal, to be added to the table (RFC 7541 §6.2.1); then index 62, which is the newest entry.
                let mut planted = field(b"x-bomb", &[b'y'; 3_900]);
                planted[0] = 0x40;
                block.extend(planted);
                block.extend([0xbe].repeat(12_000));
                frames.headers(1, &block, true).await;
                for stream in [3, 5, 7] {
                    let again = [request("GET", "/open/x", None), [0xbe].repeat(15_000)].concat();
                    frames.headers(stream, &again, true).await;
                }
                let mut answered = 0;
                while answered < 4 {
                    let Some(frame) = frames.next().await else { break };
                    answered += usize::from(matches!(frame.kind, kind::HEADERS | kind::RST_STREAM));
                }
            }
        })
        .await;
    assert_eq!(stage.arrived(), 0);
}

/// Names and values of nothing cost 32 bytes each all the same (RFC 9113 §6.5.2).
#[tokio::test]
async fn a_list_of_thousands_of_tiny_fields_is_refused() {
    let stage = Stage::new("").await;
    stage
        .beside_good_clients(async {
            for count in [1_000, 2_000, 3_000] {
                let mut frames = Frames::connect(&stage.gateway).await;
                let block = [request("GET", "/open/x", None), field(b"x", b"").repeat(count)].concat();
                frames.headers(1, &block, true).await;
                let answer = loop {
                    match frames.next().await {
                        Some(frame) if frame.kind == kind::HEADERS => break Some(frame.status()),
                        Some(frame) if frame.kind != kind::RST_STREAM => {}
                        Some(_) | None => break None,
                    }
                };
                assert!(matches!(answer, Some(431) | None), "{count}: {answer:?}");
            }
        })
        .await;
    assert_eq!(stage.arrived(), 0);
}

/// A table of compressed fields that is made larger and smaller again and again stays as small as announced.
#[tokio::test]
async fn the_hpack_table_stays_within_its_announced_size() {
    let stage = Stage::new("").await;
    stage
        .beside_good_clients(async {
            let mut frames = Frames::connect(&stage.gateway).await;
            // "Maximum dynamic table size: 2^28" (RFC 7541 §6.3): more than was announced ends the connection.
            let block = [&[0x3f, 0xe1, 0xff, 0xff, 0x7f][..], &request("GET", "/open/x", None)].concat();
            frames.headers(1, &block, true).await;
            frames.goodbye().await
        })
        .await;
    assert_eq!(stage.arrived(), 0);
}
