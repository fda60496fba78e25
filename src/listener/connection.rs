//! One client connection, from handshake to close: protocol by ALPN, drained when the time comes.

use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::config::{Config, ListenSettings};

use super::handler::Handler;
use super::head::HeadLimits;
use super::http1::Http1;
use super::http2::Http2;
use super::peer::{Peer, Transport};
use super::proxy_protocol::{self, ProxyError};
use super::reused_handler;
use super::service::Listener;
use super::slot::ConnectionSlot;
use super::tls::{ShownCertificate, Tls};

/// Serves one accepted connection to its end.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps room for its arguments twice, as long as the connection"
)]
pub(super) fn serve<H: Handler>(
    listener: Arc<Listener<H>>,
    config: Arc<Config>,
    mut socket: TcpStream,
    mut address: SocketAddr,
    mut slot: ConnectionSlot,
) -> impl Future<Output = ()> + Send {
    async move {
        let settings = &config.listen;
        let from_proxy = settings.https_from.iter().any(|network| network.contains(&address.ip().to_canonical()));
        let client = tokio::select! {
            client = client_address(&listener, settings, &mut socket, address) => client,
            () = listener.shutdown.gives_up_handshakes() => return,
        };
        match client {
            Some(client) => address = client,
            None => return,
        }
        if !slot.assign(address.ip(), &config) {
            listener.metrics.refused_to_client.inc();
            tracing::debug!(client = %address, "the client has as many connections as allowed (listen.max_connections_per_client)");
            return;
        }
        let peer = |transport| Peer::new(address, transport, HeadLimits::of(settings), slot, &listener.shutdown);
        let Some(tls) = listener.serving.load().tls.clone() else {
            if !from_proxy {
                return serve_http1(&listener, settings, socket, peer(Transport::Clear)).await;
            }
            let is_http2 = tokio::select! {
                is_http2 = speaks_http2(&socket, settings) => is_http2,
                () = listener.shutdown.gives_up_handshakes() => return,
            };
            let peer = peer(Transport::ClearFromProxy);
            return match is_http2 {
                Some(true) => Box::pin(serve_http2(&listener, settings, socket, peer)).await,
                Some(false) => serve_http1(&listener, settings, socket, peer).await,
                None => {}
            };
        };
        let started = Instant::now();
        // Boxed: a task is as large as the largest of its steps, and the handshake is soon over.
        let handshake = tokio::time::timeout(settings.handshake_timeout, Box::pin(handshake(&tls, socket)));
        let shaken = tokio::select! {
            shaken = handshake => shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = listener.shutdown.gives_up_handshakes() => return,
        };
        let stream = match shaken {
            Ok(stream) => stream,
            Err(error) => {
                listener.metrics.handshake_failures.inc();
                tracing::debug!(client = %address, %error, "TLS handshake failed");
                return;
            }
        };
        listener.metrics.handshake_seconds.observe(started.elapsed());
        let session = stream.get_ref().1;
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let certificate = ShownCertificate::new(&tls.certificates, session.server_name());
        drop(tls);
        if is_http2 {
            // Boxed: it is the larger of the two, and would size every connection's task.
            Box::pin(serve_http2(&listener, settings, stream, peer(Transport::Tls(certificate)))).await;
        } else {
            serve_http1(&listener, settings, stream, peer(Transport::Tls(certificate))).await;
        }
    }
}

/// The client's address: the socket's, or the one in the PROXY header where a proxy must send it; `None` when it does not.
async fn client_address<H>(
    listener: &Listener<H>,
    settings: &ListenSettings,
    socket: &mut TcpStream,
    address: SocketAddr,
) -> Option<SocketAddr> {
    let ip = address.ip().to_canonical();
    if !settings.proxy_protocol.iter().any(|network| network.contains(&ip)) {
        return Some(address);
    }
    // Boxed: few listeners have it.
    let header = tokio::time::timeout(settings.handshake_timeout, Box::pin(proxy_protocol::read(socket))).await;
    match header.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())) {
        Ok(client) => Some(client.unwrap_or(address)),
        Err(ProxyError::Closed) => None,
        Err(error @ (ProxyError::Absent | ProxyError::Malformed(_) | ProxyError::Io(_))) => {
            listener.metrics.proxy_failures.inc();
            tracing::debug!(proxy = %address, error = &error as &dyn std::error::Error, "a proxy sent no valid PROXY protocol header");
            None
        }
    }
}

/// Whether a connection in clear begins as HTTP/2 does (RFC 9113 §3.4), whose first word is no method of HTTP/1.1. `None`: nothing has
/// come, or the client is gone.
async fn speaks_http2(socket: &TcpStream, settings: &ListenSettings) -> Option<bool> {
    const BEGINNING: &[u8] = b"PRI ";
    /// A beginning in several pieces is looked at again after this time: what is only looked at wakes nobody anew.
    const PAUSE: Duration = Duration::from_millis(2);
    let judged = async {
        let mut first = [0; BEGINNING.len()];
        loop {
            match socket.peek(&mut first).await {
                Ok(0) | Err(_) => return None,
                Ok(count) if first[..count] != BEGINNING[..count] => return Some(false),
                Ok(count) if count == BEGINNING.len() => return Some(true),
                Ok(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    // As an idle connection, or one whose client never says more.
    tokio::time::timeout(settings.idle_timeout, judged).await.ok().flatten()
}

/// Makes a TLS session. A client that speaks plain HTTP gets an answer in plain HTTP. The session is boxed: it is passed on several times,
/// and would take its size in the connection's task each time.
async fn handshake(tls: &Tls, mut socket: TcpStream) -> io::Result<Box<TlsStream<TcpStream>>> {
    let mut first = [0];
    if socket.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
        const BODY: &str =
            r#"{"message":"This port speaks HTTPS. Use https:// in the address.","code":"https_required"}"#;
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             cache-control: no-store\r\nconnection: close\r\n\r\n{BODY}",
            BODY.len()
        );
        // Reads what has come of the request: closing a socket with unread bytes would destroy the answer on its way.
        if socket.read(&mut [0; 4096]).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        socket.write_all(answer.as_bytes()).await?;
        socket.shutdown().await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "plain HTTP on the HTTPS port"));
    }
    tls.acceptor.accept(socket).await.map(Box::new)
}

async fn serve_http1<H: Handler, S>(listener: &Listener<H>, settings: &ListenSettings, io: S, peer: Arc<Peer>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = pin!(Http1::new(|| listener.handler(), peer.clone(), io, settings));
    let idle = pin!(peer.idle(settings.idle_timeout));
    let ended = drive(connection, &peer, idle, pin!(pending()), |it, is_drained| {
        // An idle connection closes at once, and a request may be on its way. The next answer ends it instead.
        let waits = is_drained && peer.shutdown.is_handed_over();
        if !waits {
            it.get_mut().close();
        }
        !waits
    })
    .await;
    log_end(peer.client.address, ended);
}

async fn serve_http2<H: Handler, S>(listener: &Listener<H>, settings: &ListenSettings, io: S, peer: Arc<Peer>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handle = |slot| reused_handler::handle_all(listener, peer.clone(), slot);
    let connection = pin!(Http2::new(handle, peer.clone(), io, settings));
    let idle = pin!(peer.idle(settings.idle_timeout));
    // The last piece of an answer can wait for a closed window even after its request is over.
    let lost = pin!(peer.idle(settings.idle_timeout + settings.body_idle_timeout));
    let ended = drive(connection, &peer, idle, lost, |it, is_drained| {
        let it = it.get_mut();
        let waits = is_drained && peer.shutdown.is_handed_over() && it.is_opening();
        if !waits {
            it.close();
        }
        !waits
    })
    .await;
    log_end(peer.client.address, ended);
}

/// Polls a connection until it ends. It is asked to end when it is `idle`, drained, or cancels its requests; it must end when it is
/// `lost`, keeps cancelling, or is cut by the drain: with the requests if no call is open on it, and otherwise at the very end. The drain's
/// signal is polled once, to be woken by it, and then read as a flag: a connection wakes up for every packet, and all connections share
/// that one signal.
fn drive<'a, C, E>(
    mut connection: Pin<&'a mut C>,
    peer: &'a Peer,
    mut idle: Pin<&'a mut impl Future<Output = ()>>,
    mut lost: Pin<&'a mut impl Future<Output = ()>>,
    close: impl Fn(Pin<&mut C>, bool) -> bool,
) -> impl Future<Output = Result<(), E>>
where
    C: Future<Output = Result<(), E>>,
{
    let shutdown = &peer.shutdown;
    async move {
        let mut draining = pin!(shutdown.draining());
        let mut cut = None;
        let (mut listens, mut closing) = (false, false);
        poll_fn(|cx: &mut Context<'_>| {
            if !listens {
                listens = true;
                let _ = draining.as_mut().poll(cx);
            }
            if !closing {
                let ends = peer.cancels_too_much(1) || idle.as_mut().poll(cx).is_ready();
                if ends || shutdown.is_draining() {
                    closing = close(connection.as_mut(), !ends);
                }
            }
            if peer.cancels_too_much(2) {
                tracing::debug!(client = %peer.client.address, "the client makes requests only to cancel them");
                return Poll::Ready(Ok(()));
            }
            if lost.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            // Boxed when it is needed: an idle connection keeps no room for it.
            if shutdown.is_draining()
                && cut.get_or_insert_with(|| Box::pin(cut_by_drain(peer))).as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Ok(()));
            }
            connection.as_mut().poll(cx)
        })
        .await
    }
}

/// Resolves when a drain cuts the connection.
async fn cut_by_drain(peer: &Peer) {
    peer.shutdown.requests_cut().await;
    if peer.has_calls() {
        peer.shutdown.ended().await;
    }
}

fn log_end(address: SocketAddr, ended: Result<(), impl std::error::Error>) {
    if let Err(error) = ended {
        let cause = error.source().map(ToString::to_string);
        tracing::debug!(client = %address, %error, cause, "the connection broke off");
    }
}
