//! A connection to one endpoint: a socket, TLS where asked for, and hyper's client on top.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::body::Body;
use crate::config::Protocol;
use crate::deadline::WriteTimeout;

use super::http2::Shared;
use super::open::{Open, Settings};
use super::resolve::Name;
use super::tls::UpstreamTls;

/// When an address has not answered for this long, the next one is tried beside it (RFC 8305 §5 advises 250 ms).
const STAGGER: Duration = Duration::from_millis(250);
/// HTTP/1.1: when so much of an answer's head is there, hyper reads no more of it; what the last read brought beyond counts still. hyper's
/// own measure, 400 kB, is twice in memory for each client that reads slowly.
const BUFFER: usize = 64 * 1024;

/// Where an endpoint is.
pub(super) enum Place {
    /// At an address that the configuration tells.
    Fixed(SocketAddr),
    /// At the addresses of a name, at this port.
    Named(Arc<Name>, u16),
    /// At one of the addresses of a name.
    OneOf(Arc<Name>, SocketAddr),
    /// Behind a Unix socket.
    Unix(Arc<Path>),
}

impl Place {
    /// Whether the endpoint still is at an address that a connection was made to.
    pub(super) fn is_at(&self, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Place::Named(name, _) | Place::OneOf(name, _), Some(address)) => name.has(address),
            (Place::Named(..) | Place::OneOf(..), None) | (Place::Fixed(_) | Place::Unix(_), _) => true,
        }
    }

    /// An address of its name that is not among these, and did not fail lately.
    pub(super) fn beside(&self, used: &[IpAddr]) -> Option<Place> {
        let Place::Named(name, port) = self else { return None };
        Some(Place::OneOf(name.clone(), (name.beside(used)?, *port).into()))
    }
}

/// A connection on which requests can be sent.
pub(super) enum Connected {
    Http1(SendRequest<Body>, Open),
    Http2(Arc<Shared>),
}

/// Makes a connection and starts its task. It breaks off when the endpoint takes nothing of what is sent for
/// [`Settings::idle_timeout`].
///
/// # Errors
/// The operating system's, the TLS handshake's, or that the endpoint does not speak the protocol.
pub(super) async fn connect(
    place: &Place,
    tls: Option<&UpstreamTls>,
    protocol: Protocol,
    settings: &Settings,
    mut open: Open,
) -> io::Result<Connected> {
    let stagger = STAGGER.min(settings.connect_timeout / 4);
    let socket = match place {
        Place::Unix(path) => return speak(UnixStream::connect(path).await?, protocol, settings, open).await,
        Place::Fixed(address) => TcpStream::connect(address).await?,
        Place::OneOf(name, address) => {
            let socket = name.attempt(address.ip(), stagger, TcpStream::connect(address)).await?;
            open.made_to(address.ip());
            socket
        }
        Place::Named(name, port) => {
            let (socket, address) = any_of(name, *port, stagger).await?;
            open.made_to(address);
            socket
        }
    };
    socket.set_nodelay(true)?;
    let Some(tls) = tls else { return speak(socket, protocol, settings, open).await };
    let stream = tls.connector(protocol).connect(tls.name.clone(), socket).await.map_err(plainly)?;
    let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if protocol == Protocol::Http2 && !agreed {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the other side does not agree to HTTP/2 (ALPN)"));
    }
    let protocol = if agreed { Protocol::Http2 } else { Protocol::Http1 };
    speak(stream, protocol, settings, open).await
}

/// The commonest mistake of a configuration is told in words: https:// before a service that speaks plain HTTP.
fn plainly(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(_)) => {
            io::Error::new(io::ErrorKind::InvalidData, "the other side does not speak TLS")
        }
        Some(_) | None => error,
    }
}

/// Connects to one of a name's addresses: each is tried when the one before it fails, or has not answered for a while.
///
/// # Errors
/// Why the last of them failed, or why there is none.
async fn any_of(name: &Name, port: u16, stagger: Duration) -> io::Result<(TcpStream, IpAddr)> {
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

/// HTTP on a byte stream.
async fn speak<S>(io: S, protocol: Protocol, settings: &Settings, open: Open) -> io::Result<Connected>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = WriteTimeout::new(io, settings.idle_timeout);
    if protocol == Protocol::Http2 {
        return Shared::handshake(io, settings.ping, open).await.map(Connected::Http2);
    }
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER);
    let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        // Whoever uses the connection learns of its end by its own error.
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "an upstream connection broke off");
        }
    });
    Ok(Connected::Http1(sender, open))
}
