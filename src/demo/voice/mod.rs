//! The sample upstream of the demo: a small voice-call API over plain HTTP/1.1 that keeps everything in memory.
//!
//! It has what a gateway must carry: JSON answers with 422 on bad input, an audio stream over a WebSocket, a feed of
//! server-sent events, and uploads and downloads of any size. It asks nobody who they are: the gateway in front does.

mod answer;
mod api;
mod call;
mod exchange;
mod feed;
mod intake;
mod order;
mod problem;
mod recordings;
mod stream;

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use exchange::Exchange;
use order::Order;

/// A request head must be complete, and an unused connection is closed, within this time. Longer than a gateway keeps an
/// unused connection, so that it is the gateway that closes and no request meets a closing connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Requests and streams get so long to finish once the server stops.
const DRAIN: Duration = Duration::from_secs(5);
/// A pause before the next attempt when the process has no file left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Calls move on this often.
const TICK: Duration = Duration::from_secs(1);

/// Serves the voice-call API on `listener` until `stop` is cancelled; then streams are closed and requests in flight get
/// five seconds to finish. Dropping the future ends everything at once.
///
/// # Errors
/// When the listener can't accept any more; running out of files only slows it down.
pub async fn serve(listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
    let stop = stop.child_token();
    let cut = CancellationToken::new();
    let (_stop_on_drop, _cut_on_drop) = (stop.clone().drop_guard(), cut.clone().drop_guard());
    let voice = Arc::new(Voice::new(stop.clone(), cut.clone()));
    voice.tasks.spawn(Arc::clone(&voice).keep_time());

    let outcome = accept(&listener, &voice).await;
    drop(listener);
    stop.cancel();
    voice.tasks.close();
    if tokio::time::timeout(DRAIN, voice.tasks.wait()).await.is_err() {
        cut.cancel();
        voice.tasks.wait().await;
    }
    outcome
}

async fn accept(listener: &TcpListener, voice: &Arc<Voice>) -> io::Result<()> {
    loop {
        let accepted = tokio::select! {
            () = voice.stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                voice.tasks.spawn(serve_connection(Arc::clone(voice), socket));
            }
            Err(error) if passes(&error) => tokio::time::sleep(ACCEPT_PAUSE).await,
            Err(error) => return Err(error),
        }
    }
}

/// Whether a failed accept says nothing of the listener itself (accept(2)).
fn passes(error: &io::Error) -> bool {
    let Some(code) = error.raw_os_error() else { return false };
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::CONNABORTED, Errno::INTR, Errno::PERM]
        .contains(&Errno::from_raw_os_error(code))
}

async fn serve_connection(voice: Arc<Voice>, socket: TcpStream) {
    // Without it an echoed audio frame may wait for the acknowledgement of the one before.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "the sample upstream can't switch off Nagle's algorithm");
    }
    let (stop, cut) = (voice.stop.clone(), voice.cut.clone());
    let service = service_fn(move |request| {
        let voice = Arc::clone(&voice);
        async move { Ok::<_, Infallible>(api::respond(voice, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                outcome = connection => outcome,
                () = cut.cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection to the sample upstream broke off");
    }
}

/// What all connections share.
struct Voice {
    exchange: Mutex<Exchange>,
    /// The id of the latest event: whoever waits for an event waits for this to change.
    latest: watch::Sender<u64>,
    /// Every connection and stream, so that the end can wait for them.
    tasks: TaskTracker,
    /// No new work.
    stop: CancellationToken,
    /// No work at all.
    cut: CancellationToken,
}

impl Voice {
    fn new(stop: CancellationToken, cut: CancellationToken) -> Self {
        let mut exchange = Exchange::default();
        exchange.place(Order::sample(), SystemTime::now());
        let (latest, _) = watch::channel(exchange.latest_event());
        Self { exchange: Mutex::new(exchange), latest, tasks: TaskTracker::new(), stop, cut }
    }

    /// Reads the calls and events.
    fn look<T>(&self, read: impl FnOnce(&Exchange) -> T) -> T {
        read(&self.exchange.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes calls, and wakes whoever waits for the events of that.
    fn change<T>(&self, change: impl FnOnce(&mut Exchange) -> T) -> T {
        let (outcome, latest) = {
            let mut exchange = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
            (change(&mut exchange), exchange.latest_event())
        };
        // Two changes may arrive here in either order: the later one stands.
        self.latest.send_if_modified(|known| {
            let newer = latest > *known;
            *known = latest.max(*known);
            newer
        });
        outcome
    }

    async fn keep_time(self: Arc<Self>) {
        let mut clock = tokio::time::interval(TICK);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        clock.reset();
        let ticking = async {
            loop {
                clock.tick().await;
                self.change(|exchange| exchange.tick(SystemTime::now()));
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = ticking => {}
        }
    }
}
