//! The bytes of a connection of HTTP/1.1, both ways. Nothing is buffered while nothing is there: each thread lends the buffer that bytes
//! are read into.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::UpgradedConnection;
use crate::deadline::{Deadline, WriteTimeout};

use super::super::head::RequestFault;
use super::output::Output;
use super::part::{Part, ReadFault};
use super::reader::Reader;

thread_local! {
    /// What is read first of all.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SMALL]);
}

/// What the buffer of a thread holds.
const SMALL: usize = 16 << 10;
/// A body that comes faster than that, and of which so much is still to come, is read without a copy, in pieces of so many bytes.
const BULK: (u64, usize) = (16 << 10, 64 << 10);
/// Bytes that are read of further requests while one is answered.
const MAX_AHEAD: usize = 16 << 10;
/// A client that was refused in the middle of sending gets so long, and so many bytes, to read why (RFC 9112 §9.6). The buffers of both
/// sockets can hold some 6 MiB before a client looks up; closed over what is unread, a connection would take the answer back.
const LINGER: (Duration, usize) = (Duration::from_millis(1_000), 8 << 20);

/// The bytes of a connection.
pub(super) struct Wire<S> {
    /// `None` once it is a call's.
    io: Option<WriteTimeout<S>>,
    reader: Reader,
    /// Read, and not understood yet.
    held: BytesMut,
    pub(super) output: Output,
    /// The last read filled the buffer.
    is_fast: bool,
    /// The client has ended its side.
    is_ended: bool,
}

/// How far a connection is closed.
#[derive(Default)]
pub(super) struct Closing {
    is_shut_down: bool,
    timer: Deadline,
    swallowed: usize,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Wire<S> {
    pub(super) fn new(io: WriteTimeout<S>, reader: Reader) -> Self {
        Self { io: Some(io), reader, held: BytesMut::new(), output: Output::default(), is_fast: false, is_ended: false }
    }

    /// Takes the next part of what is held; `None` when more must be read first.
    pub(super) fn next(&mut self) -> Result<Option<Part>, ReadFault> {
        self.reader.next(&mut self.held)
    }

    /// Reads what is there; 0 at the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(io) = self.io.as_mut().filter(|_| !self.is_ended) else { return Poll::Ready(Ok(0)) };
        let is_body = self.reader.is_within_message() && self.reader.owed() > BULK.0;
        let read = if self.is_fast && self.held.is_empty() && is_body {
            self.held.reserve(BULK.1);
            let read = tokio_util::io::poll_read_buf(Pin::new(io), cx, &mut self.held);
            if read.is_pending() {
                // Whoever waits holds no buffer.
                (self.held, self.is_fast) = (BytesMut::new(), false);
            }
            ready!(read)?
        } else {
            ready!(poll_read_small(io, cx, &mut self.held))?
        };
        self.is_fast = read >= SMALL;
        self.is_ended = read == 0;
        Poll::Ready(Ok(read))
    }

    /// Writes what waits.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Some(io) => self.output.poll_flush(io, cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Makes room for more to be written.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Some(io) if !self.output.has_room() => self.output.poll_write(io, cx),
            Some(_) | None => Poll::Ready(Ok(())),
        }
    }

    /// Frees the memory, if nothing is held and all is written; false if something is held.
    pub(super) fn rest(&mut self) -> bool {
        let rests = self.free_read();
        if rests {
            self.output.free();
        }
        rests
    }

    /// Frees what was read into, if nothing is held; false if something is.
    pub(super) fn free_read(&mut self) -> bool {
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
        self.held.is_empty()
    }

    /// Notices when the client leaves. What else it sends in the meantime waits.
    pub(super) fn poll_watch(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.is_ended && self.held.len() < MAX_AHEAD {
            match self.poll_fill(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(read) => drop(read?),
            }
        }
        // The last of its requests is the one that it does not wait for. An empty line is no request.
        let is_nothing = self.held.is_empty() || *self.held == *b"\r\n";
        if self.is_ended && is_nothing && !self.reader.is_within_message() {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the client left before the answer"));
        }
        Ok(())
    }

    /// Why what is held is no request.
    pub(super) fn fault_ahead(&self) -> Option<RequestFault> {
        self.reader.fault_of(&self.held)
    }

    /// Whether so many bytes are held.
    pub(super) fn holds(&self, length: u64) -> bool {
        self.held.len() as u64 >= length
    }

    /// Whether the client still owes bytes of a message, or sends what nobody will read.
    pub(super) fn is_within_message(&self) -> bool {
        self.reader.is_within_message()
    }

    /// How many bytes of a body the client has not sent yet; more than can be for a chunked one.
    pub(super) fn owed(&self) -> u64 {
        self.reader.owed().saturating_sub(self.held.len() as u64)
    }

    /// Nothing more is read.
    pub(super) fn refuse(&mut self, fault: RequestFault) {
        self.reader.refuse(fault);
    }

    /// Gives the connection away, with what was read and not understood.
    pub(super) fn give_away(&mut self) -> Option<UpgradedConnection> {
        self.free_read();
        let received = std::mem::take(&mut self.held).freeze();
        Some(UpgradedConnection::new(Box::new(self.io.take()?), received))
    }

    /// Closes the connection. If the client is in the middle of something, what it still sends is swallowed for a moment, so that closing
    /// does not destroy the answer on its way to it.
    pub(super) fn poll_close(&mut self, closing: &mut Closing, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(())) };
        if !closing.is_shut_down {
            ready!(Pin::new(&mut *io).poll_shutdown(cx))?;
            closing.is_shut_down = true;
        }
        let mut bytes = [0; 4096];
        while !self.is_ended && self.reader.is_within_message() && closing.swallowed < LINGER.1 {
            let mut buf = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => closing.swallowed += buf.filled().len(),
                Poll::Ready(_) => break,
                Poll::Pending => {
                    ready!(closing.timer.poll(cx, LINGER.0));
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads through the buffer of this thread.
fn poll_read_small(
    io: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    held: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
        held.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    })
}
