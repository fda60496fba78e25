//! A call: the two ends of an upgraded exchange, joined until either ends, falls silent for too long, or must stop.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

use crate::body::Progress;
use crate::config::CallLimits;

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
    /// Why it did not end by itself.
    pub cut: Option<CutReason>,
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
}

impl Tunnel {
    pub(super) fn new(client: OnUpgrade, upstream: OnUpgrade, limits: CallLimits) -> Self {
        Self { client, upstream, limits }
    }

    /// Joins the ends until the call is over, or `ended` resolves.
    pub async fn run(self, ended: impl Future<Output = ()>) -> TunnelEnd {
        let (client, upstream) = match tokio::try_join!(self.client, self.upstream) {
            Ok(both) => both,
            Err(error) => {
                return TunnelEnd { from_client: 0, from_upstream: 0, cut: Some(CutReason::Upgrade(error)) };
            }
        };
        let progress = Arc::new(Progress::new());
        let (mut client, mut upstream) = (Watched::new(client, &progress), Watched::new(upstream, &progress));
        let cut = tokio::select! {
            copied = copy_bidirectional(&mut client, &mut upstream) => copied.err().map(CutReason::Broken),
            () = silence(&progress, self.limits.idle_timeout) => Some(CutReason::Silent),
            () = after(self.limits.max_duration) => Some(CutReason::TooLong),
            () = ended => Some(CutReason::Ended),
        };
        TunnelEnd { from_client: client.read, from_upstream: upstream.read, cut }
    }
}

async fn after(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// Resolves when nothing has moved for `limit`.
async fn silence(progress: &Progress, limit: Option<Duration>) {
    let Some(limit) = limit else { return std::future::pending().await };
    loop {
        let left = limit.saturating_sub(progress.silence());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}

/// One end of a call, watched for what is read from it.
struct Watched {
    io: TokioIo<Upgraded>,
    read: u64,
    progress: Arc<Progress>,
}

impl Watched {
    fn new(upgraded: Upgraded, progress: &Arc<Progress>) -> Self {
        Self { io: TokioIo::new(upgraded), read: 0, progress: progress.clone() }
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        this.read += (buf.filled().len() - before) as u64;
        this.progress.note();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
