//! Listeners: bound sockets, what accepts on them, and the connections that come out.

mod connection;
mod date;
mod framing;
mod gate;
mod head;
mod http2;
mod interim;
mod peer;
mod proxy_protocol;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::config::ListenSettings;
use crate::shutdown::Shutdown;
use crate::telemetry::ListenerMetrics;

pub use connection::Handler;
pub use head::{Fault, is_authority};
pub use interim::{Interim, InterimSender};
pub use peer::{Attention, Busy, Peer};
pub use tls::{Certificates, TlsError, server_config};

/// Connections that the kernel keeps for us while we are busy.
const BACKLOG: i32 = 4096;
/// After a failed accept (no file descriptors left, for example) so long a pause.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The same trouble with accepting is told again after this time.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(60);

/// What one worker accepts connections with.
pub struct Listener<H> {
    /// What answers requests.
    pub handler: Arc<H>,
    /// Certificates and settings; `None`: a plain listener.
    pub tls: Option<Tls>,
    /// Bounds on what a client may do.
    pub settings: ListenSettings,
    /// Connections open in this process, over all listeners and workers.
    pub open: Arc<AtomicUsize>,
    /// The cells of this listener.
    pub metrics: ListenerMetrics,
    /// When to stop.
    pub shutdown: Shutdown,
}

/// TLS on a listener.
#[derive(Clone)]
pub struct Tls {
    /// Makes handshakes.
    pub acceptor: TlsAcceptor,
    /// Which certificate belongs to which name.
    pub certificates: Arc<Certificates>,
}

/// Binds `workers` sockets to one address, among which the kernel spreads connections. With port 0 all get the same free one.
///
/// # Errors
/// The operating system's, for example when another process listens there.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    // SO_REUSEPORT would let two processes share the address unseen. A socket without it finds out who is there.
    let port = {
        let probe = socket(address, false)?;
        let bound = probe.local_addr()?.as_socket().map_or(address.port(), |bound| bound.port());
        drop(probe);
        bound
    };
    let address = SocketAddr::new(address.ip(), port);
    (0..workers)
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

impl<H: Handler> Listener<H> {
    /// Accepts until the drain begins; each connection is a task that the drain waits for.
    pub async fn run(self: Arc<Self>, socket: TcpListener) {
        let mut trouble = Trouble::default();
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = self.shutdown.draining() => return,
            };
            match accepted {
                Ok((stream, address)) => self.admit(stream, address),
                // Somebody left before we came to it; that says nothing of the next one.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if let Some(times) = trouble.tell(error.raw_os_error(), Instant::now()) {
                        tracing::error!(%error, times, "can't accept connections; trying on");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let Some(place) = Place::take(&self.open, self.settings.max_connections, &self.metrics) else {
            self.metrics.refused.inc();
            return;
        };
        // Answers are small and urgent. A socket that can't be set up so still works.
        let _ = stream.set_nodelay(true);
        let listener = self.clone();
        self.shutdown.tasks().spawn(async move {
            connection::serve(&listener, stream, address, place).await;
        });
    }

    fn head_limits(&self) -> head::HeadLimits {
        head::HeadLimits {
            bytes: self.settings.max_head_bytes,
            lines: self.settings.max_headers,
            // hyper, which must never be the one to refuse, takes no longer ones.
            target: self.settings.max_target_bytes.min(usize::from(u16::MAX) - 1),
        }
    }

    fn patience(&self) -> gate::Timeouts {
        gate::Timeouts { head: self.settings.header_timeout, write: self.settings.body_idle_timeout }
    }
}

/// What went wrong with accepting: told when it changes, and now and then while it lasts.
#[derive(Debug, Default)]
struct Trouble {
    last: Option<(Option<i32>, Instant)>,
    /// Failures since it was told.
    untold: u64,
}

impl Trouble {
    /// Takes note of a failure; how many there were since the last time, when it is to be told.
    fn tell(&mut self, error: Option<i32>, now: Instant) -> Option<u64> {
        self.untold += 1;
        let known = self.last.is_some_and(|(last, at)| last == error && now.duration_since(at) < TROUBLE_INTERVAL);
        if known {
            return None;
        }
        self.last = Some((error, now));
        Some(std::mem::take(&mut self.untold))
    }
}

/// A connection's place under the cap.
#[derive(Debug)]
struct Place {
    open: Arc<AtomicUsize>,
    gauge: prometheus::IntGauge,
}

impl Place {
    fn take(open: &Arc<AtomicUsize>, cap: usize, metrics: &ListenerMetrics) -> Option<Self> {
        if open.fetch_add(1, Ordering::Relaxed) >= cap {
            open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        metrics.open.inc();
        Some(Self { open: open.clone(), gauge: metrics.open.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}
