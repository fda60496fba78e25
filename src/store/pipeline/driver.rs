//! The task of a connection: it sends what requests have written, hands out the answers, and keeps the time.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use redis::{RedisError, RedisResult};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep};
use tokio_util::io::poll_read_buf;

use super::in_flight::InFlight;
use crate::store::resp::ReplyReader;

/// Bytes read at one time.
const READ_SIZE: usize = 4 * 1024;
/// A buffer that a large message has made larger than this is not kept.
const MAX_KEPT: usize = 64 * 1024;

/// What the requests and the task of a connection share. The lock is held for moments, and never while anything waits.
#[derive(Default)]
pub(super) struct Shared {
    in_flight: Mutex<InFlight>,
    /// Notified when there is room for requests again.
    pub(super) room: Notify,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until the connection breaks. Dropped, it closes the connection.
pub(super) struct Driver<T> {
    shared: Arc<Shared>,
    transport: T,
    input: BytesMut,
    reader: ReplyReader,
    output: Vec<u8>,
    /// So much of the output has been written.
    written: usize,
    is_flushed: bool,
    /// One for the deadlines of all requests.
    timer: Pin<Box<Sleep>>,
    /// When it goes off.
    timer_at: Option<Instant>,
    /// Requests to be woken; empty between two turns.
    wakers: Vec<Waker>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    pub(super) fn new(transport: T, shared: Arc<Shared>) -> Self {
        Self {
            shared,
            transport,
            input: BytesMut::new(),
            reader: ReplyReader::new(),
            output: Vec::new(),
            written: 0,
            is_flushed: true,
            timer: Box::pin(tokio::time::sleep_until(Instant::now())),
            timer_at: None,
            wakers: Vec::new(),
        }
    }

    /// Answers first: one that is there is in time, whatever the clock says.
    fn turn(&mut self, context: &mut Context<'_>) -> RedisResult<()> {
        self.read(context)?;
        self.expire(context);
        self.write(context)?;
        if self.shared.lock().has_room_again() {
            self.shared.room.notify_waiters();
        }
        Ok(())
    }

    fn read(&mut self, context: &mut Context<'_>) -> RedisResult<()> {
        loop {
            self.input.reserve(READ_SIZE);
            match poll_read_buf(Pin::new(&mut self.transport), context, &mut self.input) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(closed()),
                Poll::Ready(bytes) => bytes?,
            };
            let mut in_flight = self.shared.lock();
            while let Some(answer) = self.reader.next(&mut self.input)? {
                in_flight.answer(answer, &mut self.wakers);
            }
            drop(in_flight);
            self.wakers.drain(..).for_each(Waker::wake);
            if self.input.is_empty() && self.input.capacity() > MAX_KEPT {
                self.input = BytesMut::new();
            }
        }
    }

    fn expire(&mut self, context: &mut Context<'_>) {
        loop {
            let Some(next) = self.shared.lock().timer() else { return };
            if self.timer_at != Some(next) {
                self.timer.as_mut().reset(next);
                self.timer_at = Some(next);
                // It wakes this task from now on. (Constrained, it might be postponed, and not be polled again.)
                if pin!(unconstrained(self.timer.as_mut())).poll(context).is_pending() {
                    return;
                }
            } else if !self.timer.is_elapsed() {
                return;
            }
            self.timer_at = None;
            self.shared.lock().expire(next.max(Instant::now()), &mut self.wakers);
            self.wakers.drain(..).for_each(Waker::wake);
        }
    }

    fn write(&mut self, context: &mut Context<'_>) -> RedisResult<()> {
        match self.poll_write(context) {
            Poll::Ready(written) => Ok(written?),
            Poll::Pending => Ok(()),
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.written < self.output.len() {
                let rest = &self.output[self.written..];
                match ready!(Pin::new(&mut self.transport).poll_write(context, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    count => self.written += count,
                }
                self.is_flushed = false;
            }
            self.written = 0;
            self.output.clear();
            if self.output.capacity() > MAX_KEPT {
                self.output = Vec::new();
            }
            self.shared.lock().take_unsent(&mut self.output, context.waker());
            if self.output.is_empty() {
                break;
            }
        }
        if !self.is_flushed {
            ready!(Pin::new(&mut self.transport).poll_flush(context))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T> Driver<T> {
    fn fail(&mut self, why: &RedisError) {
        self.shared.lock().fail(why, &mut self.wakers);
        self.wakers.drain(..).for_each(Waker::wake);
        self.shared.room.notify_waiters();
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Driver<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.turn(context) {
            Ok(()) => Poll::Pending,
            Err(why) => {
                self.fail(&why);
                Poll::Ready(())
            }
        }
    }
}

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        self.fail(&closed());
    }
}

fn closed() -> RedisError {
    RedisError::from(io::Error::from(io::ErrorKind::BrokenPipe))
}
