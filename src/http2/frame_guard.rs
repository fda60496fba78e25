//! The bytes that h2 reads, with the frames put right by which it would end the connection for a fault of one stream.
//!
//! Payloads pass where they are read. Only a frame that has come in part is held back, and only what is replaced is copied.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::answers::Answers;
use super::field_block::{FORBIDDEN_FIELD, FieldBlocks, Undecodable, Verdict};
use super::frame::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEAD_LENGTH, HEADERS, Head, MAX_PAYLOAD, PRIORITY, PUSH_PROMISE,
    WINDOW_UPDATE, first_fragment, frames_of_block,
};

/// What a client sends before its first frame (RFC 9113 §3.4).
const PREFACE_LENGTH: usize = 24;
/// Frames of one block of fields: more is an error of the connection, which h2 finds.
const MAX_FRAMES_OF_BLOCK: usize = 32;
/// Read at once behind a frame that has come in part.
const READ_SIZE: usize = 4096;

/// Streams that the peer has ended last, which it may not send more on (RFC 9113 §5.1).
const ENDED_STREAMS: usize = 128;

/// An increment with which any window overflows: h2 resets the stream.
const TOO_LARGE_INCREMENT: u32 = (1 << 31) - 1;

/// A byte stream that carries HTTP/2.
pub(crate) struct FrameGuard<S> {
    io: S,
    frames: Frames,
    /// Read, but a frame that has come in part.
    held: BytesMut,
    /// What h2 gets next.
    ready: BytesMut,
}

impl<S> FrameGuard<S> {
    /// Guards what a client sends.
    pub(crate) fn of_client(io: S) -> Self {
        Self::new(io, PREFACE_LENGTH, None)
    }

    /// Guards what a server sends.
    pub(crate) fn of_server(io: S) -> Self {
        Self::new(io, 0, Some(Answers::default()))
    }

    fn new(io: S, skip: usize, answers: Option<Answers>) -> Self {
        let (blocks, ended) = (FieldBlocks::default(), VecDeque::new());
        let frames =
            Frames { blocks, skip, is_readable: true, ended, highest_ended: 0, answers, heads: Arc::default() };
        Self { io, frames, held: BytesMut::new(), ready: BytesMut::new() }
    }

    /// How many heads of messages and trailers have passed: at least as many as h2 has messages. [`usize::MAX`]: nobody knows.
    pub(crate) fn heads(&self) -> Arc<AtomicUsize> {
        self.frames.heads.clone()
    }

    /// Moves what of the held bytes can go on to `ready`.
    fn release(&mut self) {
        loop {
            let Judged { passed, replacement } = self.frames.judge(&self.held);
            self.ready.unsplit(self.held.split_to(passed));
            let Some(replacement) = replacement else { break };
            self.replace(&replacement);
        }
        if self.held.is_empty() {
            // An idle connection keeps no buffer.
            self.held = BytesMut::new();
        }
    }

    fn replace(&mut self, Replacement { length, frames }: &Replacement) {
        self.held.advance(*length);
        self.ready.extend_from_slice(frames);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FrameGuard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.ready.is_empty() {
                let taken = this.ready.len().min(buf.remaining());
                buf.put_slice(&this.ready.split_to(taken));
                if this.ready.is_empty() {
                    this.ready = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() {
                let before = buf.filled().len();
                ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
                let fresh = &buf.filled()[before..];
                let Judged { passed, replacement } = this.frames.judge(fresh);
                if passed == fresh.len() {
                    return Poll::Ready(Ok(()));
                }
                this.held.extend_from_slice(&fresh[passed..]);
                buf.set_filled(before + passed);
                if let Some(replacement) = replacement {
                    this.replace(&replacement);
                    this.release();
                }
                if passed > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.held.reserve(READ_SIZE);
                if ready!(poll_read_buf(Pin::new(&mut this.io), cx, &mut this.held))? == 0 {
                    // The end amid a frame, which h2 is to see.
                    this.ready = std::mem::take(&mut this.held);
                } else {
                    this.release();
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FrameGuard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Reads the frames of one connection, in order.
struct Frames {
    blocks: FieldBlocks,
    /// Bytes that pass unread: the preface, the rest of a payload.
    skip: usize,
    /// Not any more after an error of the connection; then everything passes, and h2 ends it.
    is_readable: bool,
    /// By the peer, the last of them.
    ended: VecDeque<u32>,
    /// The highest of all that have ended.
    highest_ended: u32,
    /// Of a server.
    answers: Option<Answers>,
    heads: Arc<AtomicUsize>,
}

/// What is known of bytes that have come.
struct Judged {
    /// So many of them go on as they are.
    passed: usize,
    /// What comes behind those is replaced; without it the rest, if any, is a frame that has come in part.
    replacement: Option<Replacement>,
}

struct Replacement {
    /// Bytes that are replaced.
    length: usize,
    frames: Bytes,
}

impl Frames {
    fn judge(&mut self, bytes: &[u8]) -> Judged {
        let mut passed = 0;
        loop {
            let skipped = self.skip.min(bytes.len() - passed);
            passed += skipped;
            self.skip -= skipped;
            let rest = &bytes[passed..];
            if !self.is_readable {
                self.heads.store(usize::MAX, Ordering::Relaxed);
                return Judged { passed: bytes.len(), replacement: None };
            }
            let Some(head) = Head::parse(rest) else { return Judged { passed, replacement: None } };
            if head.length > MAX_PAYLOAD {
                self.is_readable = false;
                continue;
            }
            let whole = rest.get(..HEAD_LENGTH + head.length);
            match (head.kind, whole) {
                (HEADERS, _) => match self.judge_block(head, rest) {
                    BlockState::Partial => return Judged { passed, replacement: None },
                    BlockState::Sound(length) => passed += length,
                    BlockState::Malformed(replacement) => return Judged { passed, replacement: Some(replacement) },
                    BlockState::Unreadable => self.is_readable = false,
                },
                // It goes on behind a block for which h2 resets the stream, and ignores what follows.
                (DATA, _) if self.has_ended(head.stream) || self.is_early(head.stream) => {
                    self.ended.retain(|stream| *stream != head.stream);
                    self.note_head(head.stream);
                    let frames = frames_of_block(Head { flags: 0, ..head }, FORBIDDEN_FIELD);
                    return Judged { passed, replacement: Some(Replacement { length: 0, frames }) };
                }
                (DATA, _) => {
                    self.note_end(head);
                    self.skip = HEAD_LENGTH + head.length;
                }
                (PUSH_PROMISE | CONTINUATION, _) => self.is_readable = false,
                (WINDOW_UPDATE, None) if head.length == 4 => return Judged { passed, replacement: None },
                // RFC 9113 §6.9: on a stream, an error of that stream.
                (WINDOW_UPDATE, Some(&[.., a, b, c, d]))
                    if head.length == 4 && head.stream != 0 && (a & 0x7f, b, c, d) == (0, 0, 0, 0) =>
                {
                    let increment = TOO_LARGE_INCREMENT.to_be_bytes();
                    return Judged { passed, replacement: Some(with_payload(head, &increment)) };
                }
                (PRIORITY, None) if head.length != 5 => return Judged { passed, replacement: None },
                // RFC 9113 §6.3: an error of that stream. One that depends on itself is one, too, for h2.
                (PRIORITY, Some(_)) if head.length != 5 && head.stream != 0 => {
                    let [a, b, c, d] = head.stream.to_be_bytes();
                    return Judged { passed, replacement: Some(with_payload(head, &[a, b, c, d, 0])) };
                }
                (..) => self.skip = HEAD_LENGTH + head.length,
            }
        }
    }

    fn has_ended(&self, stream: u32) -> bool {
        // A new one has a higher number than all before.
        if stream > self.highest_ended {
            return false;
        }
        let (newer, older) = self.ended.as_slices();
        newer.contains(&stream) || older.contains(&stream)
    }

    /// Whether a server sends a body before the head of its answer.
    fn is_early(&self, stream: u32) -> bool {
        stream != 0 && self.answers.as_ref().is_some_and(|answers| !answers.may_continue(stream))
    }

    fn note_head(&mut self, stream: u32) {
        if let Some(answers) = &mut self.answers {
            answers.begin(stream);
        }
    }

    fn note_end(&mut self, head: Head) {
        if head.flags & END_STREAM != 0 {
            if let Some(answers) = &mut self.answers {
                answers.end(head.stream);
            }
            self.ended.truncate(ENDED_STREAMS - 1);
            self.ended.push_front(head.stream);
            self.highest_ended = self.highest_ended.max(head.stream);
        }
    }

    /// Judges a block of fields, from the head of its first frame.
    fn judge_block(&mut self, head: Head, bytes: &[u8]) -> BlockState {
        let Some(first) = bytes.get(HEAD_LENGTH..HEAD_LENGTH + head.length) else { return BlockState::Partial };
        let Some((fragment, depends_on_itself)) = first_fragment(head, first) else { return BlockState::Unreadable };
        let is_refused = depends_on_itself || self.has_ended(head.stream);
        let mut length = HEAD_LENGTH + head.length;
        let mut fragments = SmallVec::<[&[u8]; 1]>::from_slice(&[fragment]);
        let mut is_last = head.flags & END_HEADERS != 0;
        let mut frames = 1;
        while !is_last {
            let Some(next) = Head::parse(&bytes[length..]) else { return BlockState::Partial };
            frames += 1;
            let is_too_long = frames > MAX_FRAMES_OF_BLOCK || next.length > MAX_PAYLOAD;
            if (next.kind, next.stream) != (CONTINUATION, head.stream) || is_too_long {
                return BlockState::Unreadable;
            }
            let fragment = bytes.get(length + HEAD_LENGTH..).and_then(|rest| rest.get(..next.length));
            let Some(fragment) = fragment else { return BlockState::Partial };
            length += HEAD_LENGTH + next.length;
            fragments.push(fragment);
            is_last = next.flags & END_HEADERS != 0;
        }
        let block = match &fragments[..] {
            [only] => Cow::Borrowed(*only),
            all => Cow::Owned(all.concat()),
        };
        let verdict = self.blocks.check(&block);
        if !self.blocks.is_interim {
            self.note_head(head.stream);
        }
        self.heads.fetch_add(1, Ordering::Relaxed);
        match verdict {
            Ok(Verdict::Sound) if !is_refused => {
                self.note_end(head);
                BlockState::Sound(length)
            }
            Ok(verdict) => {
                let block = match verdict {
                    // h2 would end the connection, or miss what the block adds to the table.
                    Verdict::Sound => [&*block, FORBIDDEN_FIELD].concat(),
                    Verdict::Malformed(block) => block,
                };
                BlockState::Malformed(Replacement { length, frames: frames_of_block(head, &block) })
            }
            Err(Undecodable) => BlockState::Unreadable,
        }
    }
}

enum BlockState {
    /// Its end has not come yet.
    Partial,
    /// All its frames, so many bytes, can go on.
    Sound(usize),
    Malformed(Replacement),
    Unreadable,
}

/// A frame with another payload in place of the first frame of `bytes`.
fn with_payload(head: Head, payload: &[u8]) -> Replacement {
    let mut out = Vec::with_capacity(HEAD_LENGTH + payload.len());
    Head { length: payload.len(), ..head }.write(&mut out);
    out.extend_from_slice(payload);
    Replacement { length: HEAD_LENGTH + head.length, frames: out.into() }
}
