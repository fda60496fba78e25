//! Where listening sockets come from: a running process that is taken over, systemd, or they are bound.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use listenfd::ListenFd;
use tokio::time::Instant;

use super::error::StartError;
use super::takeover::{HeldSocket, Inheritance, fits};
use crate::listener;

/// A process that was killed can be seen to be gone before its listening sockets are closed: they are for so long, at most.
pub(super) const MAX_CLOSING: Duration = Duration::from_secs(2);
/// How often an address is tried meanwhile.
pub(super) const BIND_INTERVAL: Duration = Duration::from_millis(10);

/// Sockets that exist before this process binds any.
#[derive(Default)]
pub(super) struct Sockets {
    /// This process takes over, if there is somebody to take over from.
    pub(super) takes_over: bool,
    pub(super) inheritance: Option<Inheritance>,
    pub(super) activated: Vec<ActivatedSocket>,
}

/// A socket that systemd passes.
pub(crate) struct ActivatedSocket {
    name: String,
    socket: TcpListener,
}

impl ActivatedSocket {
    /// All that are meant for this process (sd_listen_fds(3)).
    pub(crate) fn all() -> io::Result<Vec<Self>> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        let mut all = Vec::new();
        for index in 0..passed.len() {
            let name = names.next().unwrap_or_default().to_owned();
            if let Some(socket) = passed.take_tcp_listener(index)? {
                socket.set_nonblocking(true)?;
                all.push(Self { name, socket });
            }
        }
        Ok(all)
    }
}

impl Sockets {
    /// The sockets for a key of the configuration, such as `listen.https`.
    pub(super) async fn take(
        &mut self,
        key: &'static str,
        configured: SocketAddr,
        count: usize,
    ) -> Result<Vec<TcpListener>, StartError> {
        let inherited = self.inheritance.as_mut().map(|it| it.take(key, configured)).unwrap_or_default();
        let activated = self.take_activated(key, configured)?;
        if !inherited.is_empty() {
            return Ok(inherited);
        }
        if !activated.is_empty() {
            return Ok(activated);
        }
        let started = Instant::now();
        loop {
            match listener::bind(configured, count) {
                Ok(sockets) => return Ok(sockets),
                Err(error)
                    if self.takes_over
                        && error.kind() == io::ErrorKind::AddrInUse
                        && started.elapsed() < MAX_CLOSING => {}
                Err(source) => return Err(StartError::Bind { key, address: configured, source }),
            }
            tokio::time::sleep(BIND_INTERVAL).await;
        }
    }

    /// Those with the key's last word as a name, and those without a known name that are bound there.
    fn take_activated(&mut self, key: &'static str, configured: SocketAddr) -> Result<Vec<TcpListener>, StartError> {
        let name = key.rsplit('.').next().unwrap_or(key);
        let mut taken = Vec::new();
        for one in std::mem::take(&mut self.activated) {
            let address = one.socket.local_addr().map_err(StartError::Worker)?;
            let is_named = ["https", "http", "admin", "health"].contains(&&*one.name);
            if one.name == name && !fits(address, configured) {
                return Err(StartError::Activated { key, address, configured });
            }
            if one.name == name || (!is_named && fits(address, configured)) {
                taken.push(one.socket);
            } else {
                self.activated.push(one);
            }
        }
        Ok(taken)
    }

    /// Warns of sockets that nothing uses. Their clients would wait in vain.
    pub(super) fn warn_of_unused(&self) {
        for ActivatedSocket { name, socket } in &self.activated {
            let address = socket.local_addr().map(|address| address.to_string()).unwrap_or_default();
            tracing::warn!(name, address, "systemd passes a socket that fits no listener of the configuration");
        }
    }
}

/// Gives each worker at least one of the sockets, and each socket to at least one worker: every socket has a queue of its own.
pub(super) fn share(sockets: Vec<TcpListener>, workers: usize) -> io::Result<Vec<Vec<TcpListener>>> {
    let mut shares: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    if sockets.is_empty() {
        return Ok(shares);
    }
    for index in sockets.len()..workers {
        shares[index].push(sockets[index % sockets.len()].try_clone()?);
    }
    for (index, socket) in sockets.into_iter().enumerate() {
        shares[index % workers].push(socket);
    }
    Ok(shares)
}

/// More handles of the same sockets, for a process that takes over.
pub(super) fn hold(key: &'static str, sockets: &[TcpListener]) -> io::Result<Vec<HeldSocket>> {
    let held =
        sockets.iter().map(|socket| Ok(HeldSocket { key, address: socket.local_addr()?, socket: socket.try_clone()? }));
    held.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_socket_and_no_worker_is_left_out() {
        let bind = |count: usize| (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect::<Vec<_>>();
        for (sockets, workers) in [(1, 4), (4, 1), (3, 2), (2, 3), (2, 2)] {
            let bound = bind(sockets);
            let addresses: Vec<_> = bound.iter().map(|socket| socket.local_addr().unwrap()).collect();
            let shares = share(bound, workers).unwrap();
            assert!(shares.len() == workers && shares.iter().all(|share| !share.is_empty()));
            let shared: Vec<_> = shares.iter().flatten().map(|socket| socket.local_addr().unwrap()).collect();
            assert!(addresses.iter().all(|address| shared.contains(address)), "{sockets} {workers}");
        }
        assert_eq!(share(Vec::new(), 2).unwrap().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_sockets_of_a_dying_predecessor_are_waited_for() {
        let dying = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = dying.local_addr().unwrap();
        let mut first = Sockets::default();
        assert!(first.take("listen.https", address, 1).await.is_err());
        let mut next = Sockets { takes_over: true, ..Sockets::default() };
        let closed = async {
            tokio::time::sleep(MAX_CLOSING / 2).await;
            drop(dying);
        };
        let (bound, ()) = tokio::join!(next.take("listen.https", address, 1), closed);
        let bound = bound.unwrap();
        assert!(next.take("listen.https", address, 1).await.is_err(), "somebody who stays");
        drop(bound);
    }
}
