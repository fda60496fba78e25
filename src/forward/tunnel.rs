//! A call: the two ends of an upgraded exchange, joined until either ends, falls silent for too long, or must stop.
//!
//! When Callgate ends a call, both sides are told why by a Close frame, as soon as the frame that is passing is whole.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::frames::{Frames, close_frame};
use crate::body::Progress;
use crate::config::CallLimits;

/// Once one side has said its last, the other gets so long between its own last words.
const HALF_CLOSED_PATIENCE: Duration = Duration::from_secs(10);
/// A frame that is passing when a call must stop gets so long to become whole.
const FRAME_PATIENCE: Duration = Duration::from_millis(300);
/// After its Close frame a side gets so long to say goodbye.
const GOODBYE_PATIENCE: Duration = Duration::from_millis(500);

/// The two ends of a call, before they are joined.
pub struct Tunnel {
    client: OnUpgrade,
    upstream: OnUpgrade,
    limits: CallLimits,
}

/// How a call ended.
#[derive(Debug)]
pub struct TunnelEnd {
    /// Bytes from the client.
    pub from_client: u64,
    /// Bytes from the upstream.
    pub from_upstream: u64,
    /// Who ended it.
    pub by: Ender,
    /// Why it did not end by itself.
    pub cut: Option<CutReason>,
}

/// Who ended a call: who closed first, or broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ender {
    /// The client.
    Client,
    /// The upstream.
    Upstream,
    /// Callgate.
    Gateway,
}

/// Why a call was cut.
#[derive(Debug, thiserror::Error)]
pub enum CutReason {
    /// One side's connection failed.
    #[error("the call broke off")]
    Broken(#[source] io::Error),
    /// One side never switched.
    #[error("the call never began")]
    Upgrade(#[source] hyper::Error),
    /// Nothing moved for `call.idle_timeout`.
    #[error("the call was silent for too long")]
    Silent,
    /// It reached `call.max_duration`.
    #[error("the call reached its longest duration")]
    TooLong,
    /// The instance ended.
    #[error("the instance ended")]
    Ended,
    /// The token no longer entitles to it: why, for the log alone.
    #[error("{0}")]
    Withdrawn(&'static str),
}

/// What both sides are told at the end: a status code (RFC 6455 §7.4.1 and IANA's registry) and a reason.
struct Close {
    to_client: u16,
    to_upstream: u16,
    reason: &'static str,
}

impl CutReason {
    /// `None` where there is nobody to tell.
    fn close(&self) -> Option<Close> {
        let close = |to_client, to_upstream, reason| Some(Close { to_client, to_upstream, reason });
        match self {
            Self::Broken(_) | Self::Upgrade(_) => None,
            Self::Silent => close(1001, 1001, "silent for too long"),
            Self::TooLong => close(1000, 1000, "longest duration reached"),
            // "Service restart" is for servers to say, "going away" for everybody.
            Self::Ended => close(1012, 1001, "the gateway restarts"),
            Self::Withdrawn(_) => close(1008, 1008, "the token no longer allows this call"),
        }
    }
}

impl Ender {
    /// As a word, for logs and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
        }
    }
}

impl Tunnel {
    pub(super) fn new(client: OnUpgrade, upstream: OnUpgrade, limits: CallLimits) -> Self {
        Self { client, upstream, limits }
    }

    /// Joins the ends until the call is over, or `told` says why it must end.
    pub async fn run(self, told: impl Future<Output = CutReason>) -> TunnelEnd {
        let (client, upstream) = match tokio::try_join!(self.client, self.upstream) {
            Ok(both) => both,
            Err(error) => {
                let cut = Some(CutReason::Upgrade(error));
                return TunnelEnd { from_client: 0, from_upstream: 0, by: Ender::Gateway, cut };
            }
        };
        let pulse = Arc::new(Pulse::new());
        let mut client = Watched::new(client, Ender::Client, &pulse);
        let mut upstream = Watched::new(upstream, Ender::Upstream, &pulse);
        let (by, cut) = {
            let mut copy = pin!(copy_bidirectional(&mut client, &mut upstream));
            let cut = tokio::select! {
                copied = &mut copy => copied.err().map(CutReason::Broken),
                () = silence(&pulse, self.limits.idle_timeout) => Some(CutReason::Silent),
                () = after(self.limits.max_duration) => Some(CutReason::TooLong),
                why = told => Some(why),
            };
            let by = pulse.first();
            if cut.as_ref().is_some_and(|cut| cut.close().is_some()) {
                pulse.stop(copy).await;
            }
            (by, cut)
        };
        if let Some(Close { to_client, to_upstream, reason }) = cut.as_ref().and_then(CutReason::close) {
            let goodbyes = async { tokio::join!(client.part(to_client, reason), upstream.part(to_upstream, reason)) };
            // Who does not answer is left without.
            let _ = timeout(GOODBYE_PATIENCE, goodbyes).await;
        }
        TunnelEnd { from_client: client.read, from_upstream: upstream.read, by, cut }
    }
}

async fn after(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// Resolves when nothing has moved for `limit`, or for a shorter time once one side has ended.
async fn silence(pulse: &Pulse, limit: Option<Duration>) {
    loop {
        let ended = pulse.one_side_ended.load(Ordering::Relaxed);
        let limit = if ended {
            Some(limit.map_or(HALF_CLOSED_PATIENCE, |limit| limit.min(HALF_CLOSED_PATIENCE)))
        } else {
            limit
        };
        let left = limit.map(|limit| limit.saturating_sub(pulse.progress.silence()));
        match left {
            Some(Duration::ZERO) => return,
            Some(left) => tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = pulse.ending.notified() => {}
            },
            None => pulse.ending.notified().await,
        }
    }
}

/// What both ends of a call tell each other and the clock that watches it.
struct Pulse {
    progress: Progress,
    one_side_ended: AtomicBool,
    ending: Notify,
    /// Only the frames that have begun may still pass.
    stopping: AtomicBool,
    /// Whether a frame has begun towards the client, and towards the upstream, that is not whole yet.
    mid_frame: [AtomicBool; 2],
    /// Who closed or failed first, as [`Ender`] plus one.
    first: AtomicU8,
}

impl Pulse {
    fn new() -> Self {
        Self {
            progress: Progress::new(),
            one_side_ended: AtomicBool::new(false),
            ending: Notify::new(),
            stopping: AtomicBool::new(false),
            mid_frame: [const { AtomicBool::new(false) }; 2],
            first: AtomicU8::new(0),
        }
    }

    /// Lets the frames that are passing become whole, and nothing after them.
    async fn stop(&self, mut copy: Pin<&mut impl Future<Output = io::Result<(u64, u64)>>>) {
        self.stopping.store(true, Ordering::Relaxed);
        let whole = std::future::poll_fn(|cx| {
            let ended = copy.as_mut().poll(cx).is_ready();
            let whole = self.mid_frame.iter().all(|mid| !mid.load(Ordering::Relaxed));
            if ended || whole { Poll::Ready(()) } else { Poll::Pending }
        });
        let _ = timeout(FRAME_PATIENCE, whole).await;
    }

    fn ends(&self, side: Ender) {
        let _ = self.first.compare_exchange(0, side as u8 + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Callgate, if neither side has.
    fn first(&self) -> Ender {
        let first = self.first.load(Ordering::Relaxed);
        [Ender::Client, Ender::Upstream].into_iter().find(|side| *side as u8 + 1 == first).unwrap_or(Ender::Gateway)
    }
}

/// One end of a call, watched for what is read from it and for the frames that are written to it.
struct Watched {
    io: TokioIo<Upgraded>,
    side: Ender,
    read: u64,
    frames: Frames,
    pulse: Arc<Pulse>,
}

impl Watched {
    fn new(upgraded: Upgraded, side: Ender, pulse: &Arc<Pulse>) -> Self {
        Self { io: TokioIo::new(upgraded), side, read: 0, frames: Frames::default(), pulse: pulse.clone() }
    }

    /// Says goodbye, unless a Close frame has passed already or another frame is not whole, and waits for the other to close.
    async fn part(&mut self, code: u16, reason: &str) {
        if self.frames.is_between() && !self.frames.is_closed() {
            // The upstream sees a client in us.
            let frame = close_frame(code, reason, self.side == Ender::Upstream);
            let _ = self.io.write_all(&frame).await;
        }
        let _ = self.io.flush().await;
        let _ = self.io.shutdown().await;
        // A socket that is closed while something in it is unread takes the goodbye back.
        let mut scratch = [0; 1024];
        while self.io.read(&mut scratch).await.is_ok_and(|read| read > 0) {}
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf)).inspect_err(|_| this.pulse.ends(this.side))?;
        let read = buf.filled().len() - before;
        this.read += read as u64;
        this.pulse.progress.note();
        if read == 0 {
            this.pulse.ends(this.side);
            if !this.pulse.one_side_ended.swap(true, Ordering::Relaxed) {
                this.pulse.ending.notify_one();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut bytes = bytes;
        if this.pulse.stopping.load(Ordering::Relaxed) {
            bytes = &bytes[..this.frames.rest_of_frame(bytes)];
            if bytes.is_empty() {
                // Nothing more goes this way; who stopped it looks by itself.
                return Poll::Pending;
            }
        }
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, bytes));
        let written = written.inspect_err(|_| this.pulse.ends(this.side))?;
        this.frames.pass(&bytes[..written]);
        this.pulse.mid_frame[this.side as usize].store(!this.frames.is_between(), Ordering::Relaxed);
        if this.frames.is_closed() {
            // Said by the other side.
            this.pulse.ends(if this.side == Ender::Client { Ender::Upstream } else { Ender::Client });
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
