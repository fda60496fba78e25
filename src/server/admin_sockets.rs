//! The sockets of the admin listener, and of the listener for health and metrics.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::StartError;
use super::path_socket::PathSocket;
use super::sockets::{self, BIND_INTERVAL, MAX_CLOSING, Sockets};
use super::takeover::HeldSocket;
use crate::admin::{Admin, AdminSocket, Scope};
use crate::config::{AdminAddress, ListenSettings, UnixSocket};

const ADMIN: &str = "listen.admin";
const HEALTH: &str = "listen.health";

pub(super) struct AdminSockets {
    admin: BoundAdmin,
    /// None where the configuration has no such listener.
    health: Vec<TcpListener>,
}

enum BoundAdmin {
    Tcp(Vec<TcpListener>),
    /// A process that takes over binds one of its own, and takes the place at the path.
    Unix(UnixSocket, PathSocket),
}

impl AdminSockets {
    pub(super) async fn take(sockets: &mut Sockets, listen: &ListenSettings) -> Result<Self, StartError> {
        let admin = match &listen.admin {
            AdminAddress::Tcp(address) => BoundAdmin::Tcp(sockets.take(ADMIN, *address, 1).await?),
            AdminAddress::Unix(socket) => {
                let bound = bind(sockets, socket).await;
                let failed = |source| StartError::BindUnix { key: ADMIN, path: socket.path.clone(), source };
                BoundAdmin::Unix(socket.clone(), bound.map_err(failed)?)
            }
        };
        let health = match listen.health {
            Some(address) => sockets.take(HEALTH, address, 1).await?,
            None => Vec::new(),
        };
        Ok(Self { admin, health })
    }

    /// Where the admin listener is: port 0 of the configuration is replaced by the actual port.
    pub(super) fn address(&self) -> io::Result<AdminAddress> {
        match &self.admin {
            BoundAdmin::Tcp(sockets) => Ok(AdminAddress::Tcp(sockets[0].local_addr()?)),
            BoundAdmin::Unix(socket, _) => Ok(AdminAddress::Unix(socket.clone())),
        }
    }

    /// Where the listener for health and metrics is, if there is one.
    pub(super) fn health_address(&self) -> io::Result<Option<std::net::SocketAddr>> {
        self.health.first().map(TcpListener::local_addr).transpose()
    }

    /// More handles of those that a process that takes over gets.
    pub(super) fn hold(&self) -> io::Result<Vec<HeldSocket>> {
        let mut held = sockets::hold(HEALTH, &self.health)?;
        if let BoundAdmin::Tcp(admin) = &self.admin {
            held.extend(sockets::hold(ADMIN, admin)?);
        }
        Ok(held)
    }

    /// Serves on all of them once connections are accepted.
    pub(super) fn serve(self, admin: &Arc<Admin>, accepting: &CancellationToken) -> io::Result<()> {
        let serve = |socket: AdminSocket, scope, mut path: Option<PathSocket>| {
            let (admin, accepting) = (admin.clone(), accepting.clone());
            tokio::spawn(async move {
                accepting.cancelled().await;
                if let Some(Err(error)) = path.as_mut().map(PathSocket::take_place) {
                    tracing::error!(%error, "can't take the place of the admin listener's socket, so no command reaches this process");
                }
                admin.run(socket, scope).await;
            });
        };
        let tcp = |socket| tokio::net::TcpListener::from_std(socket).map(AdminSocket::Tcp);
        for socket in self.health {
            serve(tcp(socket)?, Scope::Health, None);
        }
        match self.admin {
            BoundAdmin::Tcp(sockets) => {
                for socket in sockets {
                    serve(tcp(socket)?, Scope::All, None);
                }
            }
            BoundAdmin::Unix(_, path) => {
                let socket = path.listener().try_clone()?;
                socket.set_nonblocking(true)?;
                let socket = tokio::net::UnixListener::from_std(socket)?;
                serve(AdminSocket::Unix(socket), Scope::All, Some(path));
            }
        }
        Ok(())
    }
}

/// Binds beside the path. Somebody who listens there already is an error, unless this process takes over from them.
async fn bind(sockets: &Sockets, socket: &UnixSocket) -> io::Result<PathSocket> {
    let started = Instant::now();
    while sockets.inheritance.is_none() && PathSocket::is_taken(&socket.path) {
        if !sockets.takes_over || started.elapsed() > MAX_CLOSING {
            return Err(io::Error::new(ErrorKind::AddrInUse, "another process listens there"));
        }
        tokio::time::sleep(BIND_INTERVAL).await;
    }
    PathSocket::bind(&socket.path, socket.mode, socket.group)
}
