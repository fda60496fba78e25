//! The body of a request beside its answer: read as its taker wants it, and what nobody takes is thrown away.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::{PipeSender, Taker};
use crate::deadline::Deadline;

use super::part::Part;
use super::response::write_interim;
use super::wire::Wire;

/// Bytes of a body that are thrown away so that the connection can go on, and how long they may take to come.
const REST: (u64, Duration) = (64 << 10, Duration::from_secs(10));

/// The body of a request, as far as it is not read.
pub(super) enum Upload {
    /// All of it is read, or nothing of it ever will be.
    Over,
    /// Somebody takes it. `awaited`: the client waits to be asked for it (RFC 9110 §10.1.1).
    Piped { pipe: PipeSender, awaited: bool },
    /// Nobody takes the rest. Nobody is asked for what is thrown away.
    Left { awaited: bool },
}

/// What is left of a request when its answer is sent.
pub(super) struct Rest {
    upload: Upload,
    /// The connection ends behind it.
    is_last: bool,
    /// For what nobody takes.
    timer: Deadline,
    /// Bytes of that which may still come.
    left: u64,
}

impl Upload {
    /// Reads as much as its taker wants; ready when it has moved. `may_ask`: the client may be asked for it, because no answer has begun.
    pub(super) fn poll<S>(&mut self, wire: &mut Wire<S>, may_ask: bool, cx: &mut Context<'_>) -> io::Result<Poll<()>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self::Piped { pipe, awaited } = self else { return Ok(Poll::Pending) };
        match pipe.watch(cx) {
            Taker::Waits => return Ok(Poll::Pending),
            Taker::Left => {
                *self = Self::Left { awaited: *awaited };
                return Ok(Poll::Ready(()));
            }
            Taker::Wants => {}
        }
        let trailers = loop {
            match wire.next() {
                Ok(Some(Part::Data(piece))) => {
                    *awaited = false;
                    pipe.push(piece);
                    if wire.is_within_message() {
                        return Ok(Poll::Ready(()));
                    }
                    break None;
                }
                Ok(Some(Part::End(trailers))) => break trailers,
                Ok(None) => {
                    if may_ask && std::mem::take(awaited) {
                        write_interim(StatusCode::CONTINUE, &HeaderMap::new(), &mut wire.output);
                    }
                    let Poll::Ready(read) = wire.poll_fill(cx) else { return Ok(Poll::Pending) };
                    if read? > 0 {
                        continue;
                    }
                }
                Ok(Some(Part::Head(..))) | Err(_) => {}
            }
            // It is not whole, and never will be.
            *self = Self::Over;
            return Ok(Poll::Ready(()));
        };
        if let Self::Piped { pipe, .. } = std::mem::replace(self, Self::Over) {
            pipe.finish(trailers);
        }
        Ok(Poll::Ready(()))
    }

    /// Whether its client waits to be asked for it.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self, Self::Piped { awaited: true, .. } | Self::Left { awaited: true })
    }

    /// Throws away what has come of a body that nobody takes.
    pub(super) fn skip<S>(&mut self, wire: &mut Wire<S>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let is_left = match self {
            Self::Over => false,
            Self::Piped { pipe, .. } => pipe.is_left(),
            Self::Left { .. } => true,
        };
        while is_left && wire.is_within_message() {
            match wire.next() {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
        if is_left {
            *self = Self::Over;
        }
    }

    /// Whether the rest of it can be read, so that another request can follow.
    pub(super) fn can_end<S>(&self, wire: &Wire<S>) -> bool
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match self {
            Self::Over => !wire.is_within_message(),
            Self::Piped { awaited: true, .. } | Self::Left { awaited: true } => wire.owed() == 0,
            Self::Piped { awaited: false, .. } | Self::Left { awaited: false } => wire.owed() <= REST.0,
        }
    }
}

impl Rest {
    pub(super) fn of(upload: Upload, is_last: bool) -> Self {
        Self { upload, is_last, timer: Deadline::default(), left: REST.0 }
    }

    /// Reads it to its end; ready with whether the connection goes on.
    pub(super) fn poll<S>(&mut self, wire: &mut Wire<S>, cx: &mut Context<'_>) -> Poll<io::Result<bool>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        ready!(wire.poll_flush(cx))?;
        while let Upload::Piped { .. } = self.upload {
            if self.upload.poll(wire, false, cx)?.is_pending() {
                let _ = wire.poll_flush(cx)?;
                return Poll::Pending;
            }
            let is_left = matches!(self.upload, Upload::Left { .. });
            if is_left && (self.is_last || !self.upload.can_end(wire)) {
                return Poll::Ready(Ok(false));
            }
        }
        if matches!(self.upload, Upload::Over) {
            return Poll::Ready(Ok(!self.is_last && !wire.is_within_message()));
        }
        while wire.is_within_message() {
            match wire.next() {
                Ok(Some(Part::Data(data))) => match self.left.checked_sub(data.len() as u64) {
                    Some(left) => self.left = left,
                    None => return Poll::Ready(Ok(false)),
                },
                Ok(Some(Part::End(_))) => {}
                Ok(Some(Part::Head(..))) | Err(_) => return Poll::Ready(Ok(false)),
                Ok(None) => {
                    let Poll::Ready(read) = wire.poll_fill(cx) else {
                        return self.timer.poll(cx, REST.1).map(|()| Ok(false));
                    };
                    if read? == 0 {
                        return Poll::Ready(Ok(false));
                    }
                }
            }
        }
        Poll::Ready(Ok(true))
    }
}
