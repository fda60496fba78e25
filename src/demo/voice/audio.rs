//! The audio of a call: a WebSocket that echoes what it receives (RFC 6455).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{SinkExt, StreamExt};
use http::Request;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::call::CallId;
use super::response::{DemoError, DemoResponse};
use super::service::VoiceService;

/// A second of uncompressed stereo audio at 48 kHz is a fifth of it.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

type AudioSocket = WebSocketStream<TokioIo<Upgraded>>;

/// Answers the call and upgrades the connection to its audio.
pub(super) fn open(
    service: &Arc<VoiceService>,
    id: CallId,
    request: &mut Request<Incoming>,
) -> Result<DemoResponse, DemoError> {
    service.calls().get(id)?;
    let response = create_response_with_body(request, Default::default).map_err(|error| match error {
        Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => DemoError::WebSocketVersion,
        Error::Protocol(ProtocolError::MissingSecWebSocketKey | ProtocolError::InvalidSecWebSocketKey) => {
            DemoError::WebSocketKey
        }
        _ => DemoError::NotAnUpgrade,
    })?;
    service.update(|calls| calls.answer(id, SystemTime::now()))?;
    service.shutdown.tasks().spawn(carry(service.clone(), id, hyper::upgrade::on(request)));
    Ok(response)
}

/// Carries the audio until the client closes, the call ends or the server stops.
async fn carry(service: Arc<VoiceService>, id: CallId, upgrade: OnUpgrade) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return tracing::debug!(%error, call = %id, "the WebSocket upgrade of a call failed"),
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let close_frame = tokio::select! {
        close_frame = echo(&mut socket) => close_frame,
        () = call_ended(&service, id) => close(CloseCode::Normal, "The call has ended."),
        () = service.shutdown.draining() => close(CloseCode::Away, "The server is stopping."),
    };
    if close_frame.is_none() {
        return;
    }
    // RFC 6455, section 7.1.1: the server waits for the client's close frame.
    let closing = tokio::time::timeout(CLOSE_TIMEOUT, async {
        if socket.close(close_frame).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    });
    tokio::select! {
        _ = closing => {}
        () = service.shutdown.ended() => {}
    }
}

/// Echoes every message until the client closes or disconnects. Returns a close frame when the client broke a rule.
async fn echo(socket: &mut AudioSocket) -> Option<CloseFrame> {
    while let Some(received) = socket.next().await {
        match received {
            Ok(message @ (Message::Binary(_) | Message::Text(_))) => {
                tokio::time::timeout(SEND_TIMEOUT, socket.send(message)).await.ok()?.ok()?;
            }
            // The library answers pings and closes when it is polled again.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {}
            Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                return close(CloseCode::Size, "A message must not be larger than 1 MiB.");
            }
            Err(Error::Protocol(_)) => return close(CloseCode::Protocol, ""),
            Err(Error::Utf8(_)) => return close(CloseCode::Invalid, "Text must be UTF-8."),
            Err(_) => return None,
        }
    }
    None
}

async fn call_ended(service: &VoiceService, id: CallId) {
    let mut changes = service.changes();
    while !service.calls().has_ended(id) && changes.changed().await.is_ok() {}
}

fn close(code: CloseCode, reason: &'static str) -> Option<CloseFrame> {
    Some(CloseFrame { code, reason: reason.into() })
}
