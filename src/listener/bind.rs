//! Listening sockets.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel queues while all workers are busy.
const BACKLOG: i32 = 4096;

/// Binds `workers` sockets to one address, among which Linux spreads connections. With port 0 all get the same free one. Other
/// systems pass all connections to one of several sockets, so that there is one there.
///
/// # Errors
/// The operating system's, for example when another process listens there.
pub(crate) fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    // SO_REUSEPORT would let two processes share the address unseen. A socket without it finds out who is there.
    let port = {
        let probe = socket(address, false)?;
        let bound = probe.local_addr()?.as_socket().map_or(address.port(), |bound| bound.port());
        drop(probe);
        bound
    };
    let address = SocketAddr::new(address.ip(), port);
    let sockets = if cfg!(target_os = "linux") { workers } else { 1 };
    (0..sockets)
        .map(|_| {
            let socket = socket(address, true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

fn socket(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a predecessor in TIME_WAIT don't keep the address.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if !share {
        // Only listening shows that another process listens there already.
        socket.listen(1)?;
    }
    Ok(socket)
}
