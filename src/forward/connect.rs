//! Connects to one endpoint: a socket, TLS where configured, and hyper's client on top.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::body::{Body, Driver};
use crate::config::{HeaderCase, Protocol, Upstream};
use crate::deadline::WriteTimeout;

use super::answer_first::AnswerFirst;
use super::connection_slot::ConnectionSlot;
use super::resolve::{EndpointAddr, HostName};
use super::shared_connection::SharedConnection;
use super::tls::EndpointTls;

/// When an address has not answered for this long, the next one is tried in parallel (RFC 8305 §5 advises 250 ms).
const STAGGER: Duration = Duration::from_millis(250);
/// HTTP/1.1: hyper reads an answer's head up to this size, plus what the last read brought beyond it. hyper's default, 400 kB, is
/// allocated twice for each client that reads slowly.
const MAX_BUFFER: usize = 64 * 1024;

/// A connection that requests can be sent on.
pub(super) enum Connected {
    Http1(SendRequest<Body>, Driver, ConnectionSlot),
    Http2(Arc<SharedConnection>),
}

/// Makes a connection. It breaks off when the endpoint takes nothing of what is sent for the upstream's
/// `idle_timeout`.
///
/// # Errors
/// The operating system's, the TLS handshake's, or that the endpoint does not support the protocol.
pub(super) async fn connect(
    addr: &EndpointAddr,
    tls: Option<&EndpointTls>,
    protocol: Protocol,
    upstream: &Upstream,
    mut slot: ConnectionSlot,
) -> io::Result<Connected> {
    let stagger = STAGGER.min(upstream.connect_timeout / 4);
    let socket = match addr {
        EndpointAddr::Unix(path) => {
            return start_http(UnixStream::connect(path).await?, protocol, upstream, slot).await;
        }
        EndpointAddr::Fixed(address) => TcpStream::connect(address).await?,
        EndpointAddr::OneOf(name, address) => {
            slot.address = Some(address.ip());
            name.attempt(address.ip(), stagger, TcpStream::connect(address)).await?
        }
        EndpointAddr::Named(name, port) => {
            let (socket, address) = any_of(name, *port, stagger).await?;
            slot.address = Some(address);
            socket
        }
    };
    socket.set_nodelay(true)?;
    let Some(tls) = tls else { return start_http(socket, protocol, upstream, slot).await };
    let stream = tls.connector(protocol).connect(tls.name.clone(), socket).await.map_err(explain)?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if protocol == Protocol::Http2 && !is_http2 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the server does not agree to HTTP/2 (ALPN)"));
    }
    let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
    start_http(stream, protocol, upstream, slot).await
}

/// Puts the most common misconfiguration into words: `https://` for a service that speaks plain HTTP.
fn explain(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(_)) => {
            io::Error::new(io::ErrorKind::InvalidData, "the server does not speak TLS")
        }
        Some(_) | None => error,
    }
}

/// Connects to one of a name's addresses: each is tried when the one before it fails, or has not answered for a while.
///
/// # Errors
/// Why the last of them failed, or why there is none.
async fn any_of(name: &HostName, port: u16, stagger: Duration) -> io::Result<(TcpStream, IpAddr)> {
    let order = name.order().await?;
    let mut rest = order.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        match rest.next() {
            Some(address) => attempts.push(async move {
                (address, name.attempt(address, stagger, TcpStream::connect((address, port))).await)
            }),
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        tokio::select! {
            Some((address, made)) = attempts.next() => match made {
                Ok(socket) => return Ok((socket, address)),
                Err(error) => failure = error,
            },
            () = tokio::time::sleep(stagger), if rest.len() > 0 => {}
        }
    }
}

/// Starts HTTP on a byte stream.
async fn start_http<S>(io: S, protocol: Protocol, upstream: &Upstream, slot: ConnectionSlot) -> io::Result<Connected>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = WriteTimeout::new(AnswerFirst::new(io), upstream.idle_timeout);
    if protocol == Protocol::Http2 {
        // Boxed: otherwise each new connection over HTTP/1.1 reserves the 8 KB of this future, too.
        let handshake = Box::pin(SharedConnection::handshake(io, upstream.ping, slot));
        return handshake.await.map(Connected::Http2);
    }
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(MAX_BUFFER)
        // They are removed, as a proxy must do (RFC 9112 §5.1).
        .allow_spaces_after_header_name_in_responses(true)
        // hyper writes names that it remembers in their own case, without being asked.
        .title_case_headers(upstream.header_case != HeaderCase::Lower);
    let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
    let driver = Driver::new(async move {
        // The request on this connection gets an error of its own.
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "an upstream connection broke off");
        }
    });
    Ok(Connected::Http1(sender, driver, slot))
}
