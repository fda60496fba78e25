//! Connections to the admin listener: over TCP, TLS or a Unix socket, and what is known of who made them.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Facts;

/// A bound socket of the admin listener.
pub(crate) enum AdminSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection that was accepted.
pub(super) enum Accepted {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(super) enum AdminPeer {
    /// `names`: those of the certificate that it has shown; none without one.
    Network { address: IpAddr, names: Arc<[String]> },
    /// A process of this machine, by the user that it belongs to.
    Local { uid: Option<u32> },
}

/// A connection as HTTP is spoken on it.
pub(super) trait AdminStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> AdminStream for S {}

impl AdminSocket {
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                Accepted::Tcp(stream, address.ip().to_canonical())
            }
            Self::Unix(socket) => Accepted::Unix(socket.accept().await?.0),
        })
    }
}

impl Accepted {
    /// Makes the handshake, if there is one to make.
    pub(super) async fn open(self, tls: Option<TlsAcceptor>) -> io::Result<(Box<dyn AdminStream>, AdminPeer)> {
        match (self, tls) {
            (Self::Tcp(stream, address), None) => Ok((Box::new(stream), AdminPeer::network(address, &[]))),
            (Self::Tcp(stream, address), Some(tls)) => {
                let stream = tls.accept(stream).await?;
                let peer = AdminPeer::network(address, stream.get_ref().1.peer_certificates().unwrap_or_default());
                Ok((Box::new(stream), peer))
            }
            (Self::Unix(stream), _) => {
                let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                Ok((Box::new(stream), AdminPeer::Local { uid }))
            }
        }
    }
}

impl AdminPeer {
    fn network(address: IpAddr, chain: &[CertificateDer<'_>]) -> Self {
        // rustls has verified it; what can't be read names nobody.
        let facts = chain.first().and_then(|certificate| Facts::read(certificate).ok());
        let names = facts.map(|facts| facts.all_names()).unwrap_or_default();
        Self::Network { address, names: names.into() }
    }

    /// The address that wrong tokens are counted for.
    pub(super) fn address(&self) -> IpAddr {
        match self {
            Self::Network { address, .. } => *address,
            Self::Local { .. } => Ipv4Addr::LOCALHOST.into(),
        }
    }
}
