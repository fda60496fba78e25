//! The sample upstream of the demo: a small voice-call API over plain HTTP/1.1 that keeps everything in memory.
//!
//! It has what a gateway must carry: JSON answers with 422 on bad input, an audio stream over a WebSocket, a feed of
//! server-sent events, and uploads and downloads of any size. It authenticates nobody: the gateway in front does.

mod api;
mod audio;
mod call;
mod calls;
mod events;
mod recordings;
mod request_body;
mod response;
mod service;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use service::VoiceService;

/// How long a request head may take, and how long an unused connection is kept. Longer than a gateway keeps unused
/// connections, so that it is the gateway that closes and no request meets a closing connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a failed accept, for example when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the voice-call API on `listener` until `stop` is cancelled. Then streams are closed, and requests in flight
/// get five seconds to finish.
pub async fn serve(listener: TcpListener, stop: CancellationToken) {
    let service = Arc::new(VoiceService::new());
    service.shutdown.tasks().spawn(service.clone().run_clock());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => drop(service.shutdown.tasks().spawn(serve_connection(service.clone(), socket))),
            Err(error) => {
                tracing::warn!(%error, "the sample upstream can't accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    service.shutdown.drain();
    service.shutdown.finish(DRAIN_TIMEOUT).await;
}

async fn serve_connection(service: Arc<VoiceService>, socket: TcpStream) {
    // Otherwise an echoed audio frame may wait for the acknowledgement of the one before.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "the sample upstream can't switch off Nagle's algorithm");
    }
    let shutdown = service.shutdown.clone();
    let respond = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(api::respond(service, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(socket), respond)
        .with_upgrades();
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shutdown.draining() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                outcome = connection => outcome,
                () = shutdown.ended() => Ok(()),
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection to the sample upstream failed");
    }
}
