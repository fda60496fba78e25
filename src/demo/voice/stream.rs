//! The audio of a call: a WebSocket that sends back what it hears (RFC 6455).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::Voice;
use super::answer::{Answer, empty_answer};
use super::call::CallId;
use super::exchange::CallError;
use super::problem::Problem;

/// Bytes of a message: a second of uncompressed stereo audio at 48 kHz is a fifth of it.
const MAX_MESSAGE: usize = 1024 * 1024;
/// A client must take what is sent to it within this time.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// A client must answer a close within this time.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Answers the call and upgrades the connection to its audio.
///
/// # Errors
/// When the request is no handshake, or the call is not known or over.
pub(super) fn open(voice: &Arc<Voice>, id: CallId, request: &mut Request<Incoming>) -> Result<Answer, Problem> {
    let state = voice.look(|exchange| exchange.call(id).map(|call| call.state));
    state.ok_or(Problem::NoSuchCall)?;
    let accept = accept_key(request)?;
    voice.change(|exchange| exchange.answer(id, SystemTime::now())).map_err(|error| match error {
        CallError::Unknown => Problem::NoSuchCall,
        CallError::Ended => Problem::CallEnded,
    })?;
    let upgrade = hyper::upgrade::on(request);
    voice.tasks.spawn(carry(Arc::clone(voice), id, upgrade));

    let mut answer = empty_answer(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(answer)
}

/// Judges the client's handshake (RFC 6455, section 4.2.1) and gives the answer to its key.
fn accept_key<T>(request: &Request<T>) -> Result<HeaderValue, Problem> {
    let headers = request.headers();
    let asks = has_token(headers, &UPGRADE, "websocket") && has_token(headers, &CONNECTION, "upgrade");
    if request.method() != Method::GET || !asks {
        return Err(Problem::NotAnUpgrade);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Problem::WebSocketVersion);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(Problem::WebSocketKey)?.as_bytes();
    if !is_key(key) {
        return Err(Problem::WebSocketKey);
    }
    Ok(HeaderValue::from_str(&derive_accept_key(key)).expect("base64 is visible ASCII"))
}

/// Whether it is the base64 of 16 bytes.
fn is_key(key: &[u8]) -> bool {
    let is_base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_base64)
}

/// Whether any line of a list header names `token`.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|named| named.trim().eq_ignore_ascii_case(token))
}

/// Carries the audio until the client closes, the call ends or the server stops.
async fn carry(voice: Arc<Voice>, id: CallId, upgrade: OnUpgrade) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            tracing::debug!(%error, call = %id, "the audio of a call never began");
            return;
        }
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let farewell = tokio::select! {
        farewell = echo(&mut socket) => farewell,
        () = over(&voice, id) => Some(close(CloseCode::Normal, "The call has ended.")),
        () = voice.stop.cancelled() => Some(close(CloseCode::Away, "The server is stopping.")),
    };
    if let Some(frame) = farewell {
        tokio::select! {
            _ = tokio::time::timeout(CLOSE_TIMEOUT, say_goodbye(&mut socket, frame)) => {}
            () = voice.cut.cancelled() => {}
        }
    }
}

/// Sends back every message until the client closes or goes away; gives the close frame that tells it what it did wrong.
async fn echo(socket: &mut Socket) -> Option<CloseFrame> {
    while let Some(received) = socket.next().await {
        match received {
            Ok(message @ (Message::Binary(_) | Message::Text(_))) => {
                let sent = tokio::time::timeout(SEND_TIMEOUT, socket.send(message)).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return None;
                }
            }
            // Pings and closes are answered by the library when it is polled again.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {}
            Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                return Some(close(CloseCode::Size, "A message must not be larger than 1 MiB."));
            }
            Err(Error::Protocol(_)) => return Some(close(CloseCode::Protocol, "")),
            Err(Error::Utf8(_)) => return Some(close(CloseCode::Invalid, "Text must be UTF-8.")),
            Err(_) => return None,
        }
    }
    None
}

async fn over(voice: &Voice, id: CallId) {
    let mut latest = voice.latest.subscribe();
    while !voice.look(|exchange| exchange.is_over(id)) {
        if latest.changed().await.is_err() {
            return;
        }
    }
}

fn close(code: CloseCode, reason: &'static str) -> CloseFrame {
    CloseFrame { code, reason: reason.into() }
}

/// Sends a close and waits for the client's own (RFC 6455, section 7.1.1).
async fn say_goodbye(socket: &mut Socket, frame: CloseFrame) {
    if socket.close(Some(frame)).await.is_ok() {
        while let Some(Ok(_)) = socket.next().await {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(change: impl FnOnce(&mut HeaderMap)) -> Result<HeaderValue, Problem> {
        let mut request = Request::new(());
        let headers = request.headers_mut();
        headers.append(CONNECTION, HeaderValue::from_static("keep-alive"));
        headers.append(CONNECTION, HeaderValue::from_static("x, Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        change(headers);
        accept_key(&request)
    }

    #[test]
    fn the_sample_handshake_of_the_rfc_is_accepted() {
        assert_eq!(handshake(|_| {}).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn each_missing_part_is_told() {
        let refusal = |change: fn(&mut HeaderMap)| handshake(change).unwrap_err();
        assert!(matches!(refusal(|h| drop(h.remove(UPGRADE))), Problem::NotAnUpgrade));
        assert!(matches!(refusal(|h| drop(h.remove(CONNECTION))), Problem::NotAnUpgrade));
        assert!(matches!(refusal(|h| drop(h.remove(SEC_WEBSOCKET_VERSION))), Problem::WebSocketVersion));
        assert!(matches!(refusal(|h| drop(h.remove(SEC_WEBSOCKET_KEY))), Problem::WebSocketKey));
        let short = |h: &mut HeaderMap| drop(h.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("c2hvcnQ=")));
        assert!(matches!(refusal(short), Problem::WebSocketKey));
    }
}
