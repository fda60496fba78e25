//! A connection of HTTP/1.1: reads a request, has it answered, and goes on with the next. While an answer is awaited or sent, the body
//! of the request is read as its taker wants it, and otherwise the client is watched, so that its leaving ends what it has asked for.
//!
//! Nothing is buffered while nothing is there: each thread lends the buffer that bytes are read into.

mod chunks;
mod output;
mod reader;
mod request;
mod response;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::body::{IncomingBody, PipeSender, Taker, UpgradedConnection, pipe};
use crate::config::ListenSettings;
use crate::deadline::{Deadline, WriteTimeout};

use super::handler::Handler;
use super::head::{BodyLength, HeadLimits, RequestFault};
use super::interim::{Interim, InterimQueue};
use super::peer::Peer;

use output::Output;
use reader::{Part, ReadFault, Reader};
use response::{Asked, Encoding};

thread_local! {
    /// What is read first of all.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 16 << 10]);
}

/// A body of which so much is still to come is read without a copy, in pieces of so many bytes.
const BULK: (u64, usize) = (16 << 10, 64 << 10);
/// Bytes that are read of further requests while one is answered.
const MAX_AHEAD: usize = 16 << 10;
/// Bytes of a left body that are read so that the connection can go on, and how long that may take.
const REST: (u64, Duration) = (64 << 10, Duration::from_secs(10));
/// A client that was refused in the middle of sending gets so long, and so many bytes, to read why (RFC 9112 §9.6). The buffers of both
/// sockets can hold some 6 MiB before a client looks up; closed over what is unread, a connection would take the answer back.
const LINGER: (Duration, usize) = (Duration::from_millis(1_000), 8 << 20);

/// A connection of HTTP/1.1; as a future it ends when the connection does, or when it has become a call's.
pub(super) struct Http1<F, H: Handler, S> {
    /// Answers a request that begins now.
    handler: F,
    peer: Arc<Peer>,
    /// `None` once it is a call's.
    io: Option<WriteTimeout<S>>,
    reader: Reader,
    /// Read, and not understood yet.
    held: BytesMut,
    output: Output,
    stage: Stage<H::Body>,
    /// Interim answers to the request that is being answered.
    interims: Arc<InterimQueue>,
    /// From the first byte of a head to its last.
    head_timeout: Duration,
    head_timer: Deadline,
    /// The next answer is the last.
    is_closing: bool,
    /// The client has ended its side.
    is_ended: bool,
}

type Answer<B> = Pin<Box<dyn Future<Output = Response<B>> + Send>>;

enum Stage<B> {
    /// Awaits the head of a request.
    Idle,
    /// Awaits the answer.
    Serving(Answer<B>, Exchange),
    /// Sends the answer's body.
    Sending(B, Encoding, Exchange),
    /// The answer is sent, the request is not read to its end.
    Rest(Upload, Option<(Deadline, u64)>),
    /// Has yet to write the head of an answer that gives the connection away.
    Upgrading(oneshot::Sender<UpgradedConnection>),
    Closing(Closing),
    Over,
}

/// A request that is being answered.
struct Exchange {
    asked: Asked,
    upload: Upload,
    /// Where the connection goes if the answer switches protocols.
    upgrade: Option<oneshot::Sender<UpgradedConnection>>,
    /// The answer is the last one.
    is_last: bool,
}

/// The body of a request, as far as it is not read.
enum Upload {
    /// All of it is read, or nothing of it ever will be.
    Over,
    /// Somebody takes it. `awaited`: the client waits to be asked for it (RFC 9110 §10.1.1).
    Piped { pipe: PipeSender, awaited: bool },
    /// Nobody takes the rest. Nobody is asked for what is thrown away.
    Left { awaited: bool },
}

#[derive(Default)]
struct Closing {
    is_shut_down: bool,
    timer: Deadline,
    swallowed: usize,
}

impl<F: Fn() -> Arc<H>, H: Handler, S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Http1<F, H, S> {
    /// Takes over a connection from its first byte.
    pub(super) fn new(handler: F, peer: Arc<Peer>, io: S, settings: &ListenSettings) -> Self {
        Self {
            handler,
            peer,
            io: Some(WriteTimeout::new(io, settings.body_idle_timeout)),
            reader: Reader::new(HeadLimits::of(settings), settings.remembers_header_case),
            held: BytesMut::new(),
            output: Output::default(),
            stage: Stage::Idle,
            interims: Arc::default(),
            head_timeout: settings.header_timeout,
            head_timer: Deadline::default(),
            is_closing: false,
            is_ended: false,
        }
    }

    /// Ends the connection behind the answer to the request that has begun.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
    }

    /// Awaits a request.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A client that takes no answers asks for nothing more.
        ready!(self.poll_flush(cx))?;
        loop {
            match self.reader.next(&mut self.held) {
                Ok(Some(Part::Head(request, length))) => {
                    self.head_timer.disarm();
                    self.begin(request, length);
                    return Poll::Ready(Ok(()));
                }
                Ok(Some(Part::Data(_) | Part::End(_)) | None) => {}
                Err(ReadFault::Request(fault)) => return self.refuse(fault),
                // The request of this body is over.
                Err(ReadFault::Body) => return self.end(),
            }
            if self.held.is_empty() {
                self.held = BytesMut::new();
                self.output.free();
                if self.is_closing || self.is_ended {
                    return self.end();
                }
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return self.end(),
                Poll::Ready(read) => drop(read?),
                Poll::Pending => {
                    if !self.held.is_empty() {
                        ready!(self.head_timer.poll(cx, self.head_timeout));
                        self.reader.refuse(RequestFault::TooSlow);
                        return self.refuse(RequestFault::TooSlow);
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// A request begins.
    fn begin(&mut self, request: Request<()>, length: BodyLength) {
        let asked = Asked::by(&request);
        let awaited = request.headers().contains_key(header::EXPECT);
        let mut exchange = Exchange { asked, upload: Upload::Over, upgrade: None, is_last: !asked.keeps_alive };
        let body = match length {
            BodyLength::None if may_switch(&request) => {
                let (sender, receiver) = oneshot::channel();
                exchange.upgrade = Some(sender);
                IncomingBody::Upgrade(Some(receiver))
            }
            BodyLength::None => IncomingBody::Empty,
            BodyLength::Sized(length) if self.held.len() as u64 >= length => match self.reader.next(&mut self.held) {
                Ok(Some(Part::Data(body))) => IncomingBody::Whole(body),
                Ok(_) | Err(_) => IncomingBody::Empty,
            },
            BodyLength::Sized(_) | BodyLength::Chunked => {
                let (pipe, body) = pipe(if let BodyLength::Sized(length) = length { Some(length) } else { None });
                exchange.upload = Upload::Piped { pipe, awaited };
                IncomingBody::Pipe(body)
            }
        };
        if exchange.upgrade.is_some() {
            self.look_ahead();
        }
        match Arc::get_mut(&mut self.interims) {
            Some(interims) => interims.begin(),
            // Somebody may still tell one of the request before.
            None => self.interims = Arc::default(),
        }
        // HTTP/1.0 has none (RFC 9110 §15.2).
        let interim = (!asked.is_http10).then(|| Interim::on(&self.interims));
        let (handler, peer, request) = ((self.handler)(), self.peer.clone(), request.map(|()| body));
        let answer = Box::pin(async move { handler.handle(request, &peer, interim).await });
        self.stage = Stage::Serving(answer, exchange);
    }

    /// What follows is no request.
    fn refuse(&mut self, fault: RequestFault) -> Poll<io::Result<()>> {
        let answer = (self.handler)().refuse(fault, &self.peer);
        let exchange = Exchange { asked: Asked::by_nobody(), upload: Upload::Over, upgrade: None, is_last: true };
        self.answer(answer, exchange);
        Poll::Ready(Ok(()))
    }

    fn poll_serving(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Stage::Serving(answer, exchange) = &mut self.stage else { return Poll::Ready(Ok(())) };
            let answered = answer.as_mut().poll(cx);
            if answered.is_pending() {
                self.interims.watch(cx);
            }
            for interim in self.interims.take() {
                response::write_interim(interim.status(), interim.headers(), &mut self.output);
            }
            if let Poll::Ready(answer) = answered {
                self.interims.over();
                if let Stage::Serving(_, exchange) = std::mem::replace(&mut self.stage, Stage::Over) {
                    self.answer(answer, exchange);
                }
                return Poll::Ready(Ok(()));
            }
            let mut upload = std::mem::replace(&mut exchange.upload, Upload::Over);
            let moved = self.poll_beside(&mut upload, cx);
            if let Stage::Serving(_, exchange) = &mut self.stage {
                exchange.upload = upload;
            }
            ready!(moved)?;
        }
    }

    /// Begins an answer.
    fn answer(&mut self, answer: Response<H::Body>, mut exchange: Exchange) {
        let (head, body) = answer.into_parts();
        let encoding = exchange.asked.encoding(&head, &body.size_hint());
        let says_close = head.headers.get(header::CONNECTION).is_some_and(|option| option == "close");
        // An upload may outlive an answer that is none of a refusal.
        let is_refusal = !head.status.is_success() && !head.status.is_informational();
        exchange.is_last |= says_close
            || self.is_closing
            || encoding == Encoding::UntilClose
            || self.peer.shutdown.is_handed_over()
            || (is_refusal && !self.can_go_on(&exchange.upload));
        exchange.asked.write_head(&head, encoding, exchange.is_last, &mut self.output);
        let upgrade = exchange.upgrade.take().filter(|_| head.status == StatusCode::SWITCHING_PROTOCOLS);
        self.stage = match (upgrade, encoding) {
            (Some(upgrade), _) => Stage::Upgrading(upgrade),
            (None, Encoding::None) => return self.answered(exchange),
            (None, encoding) => Stage::Sending(body, encoding, exchange),
        };
    }

    /// Whether the rest of a request's body can be read, so that another request can follow.
    fn can_go_on(&self, upload: &Upload) -> bool {
        let owed = self.reader.owed().saturating_sub(self.held.len() as u64);
        match upload {
            Upload::Over => !self.reader.is_within_message(),
            Upload::Piped { awaited: true, .. } | Upload::Left { awaited: true } => owed == 0,
            Upload::Piped { awaited: false, .. } | Upload::Left { awaited: false } => owed <= REST.0,
        }
    }

    /// The answer is handed over as a whole.
    fn answered(&mut self, exchange: Exchange) {
        self.stage = match exchange.upload {
            _ if exchange.is_last => Stage::Closing(Closing::default()),
            Upload::Over if self.reader.is_within_message() => Stage::Closing(Closing::default()),
            Upload::Over => Stage::Idle,
            upload => Stage::Rest(upload, None),
        };
    }

    fn poll_sending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Stage::Sending(body, encoding, exchange) = &mut self.stage else { return Poll::Ready(Ok(())) };
            let mut is_over = false;
            while !is_over {
                if !self.output.has_room() {
                    let io = self.io.as_mut().ok_or(io::ErrorKind::NotConnected)?;
                    if self.output.poll_write(io, cx)?.is_pending() {
                        break;
                    }
                }
                let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else { break };
                let is_good = match frame {
                    Some(Ok(frame)) => {
                        let is_good = encoding.write(frame, &exchange.asked, &mut self.output);
                        is_over = body.is_end_stream();
                        is_good
                    }
                    Some(Err(_)) => false,
                    None => {
                        is_over = true;
                        true
                    }
                };
                if !is_good || (is_over && !encoding.end(&mut self.output)) {
                    // The client sees that it is not whole, because the connection breaks off.
                    let _ = self.poll_flush(cx)?;
                    return Poll::Ready(Err(io::Error::other("the answer broke off")));
                }
            }
            if is_over {
                if let Stage::Sending(_, _, exchange) = std::mem::replace(&mut self.stage, Stage::Over) {
                    self.answered(exchange);
                }
                return Poll::Ready(Ok(()));
            }
            let mut upload = std::mem::replace(&mut exchange.upload, Upload::Over);
            let moved = self.poll_beside(&mut upload, cx);
            if let Stage::Sending(_, _, exchange) = &mut self.stage {
                exchange.upload = upload;
            }
            ready!(moved)?;
        }
    }

    /// What happens while an answer is awaited or sent: writes what waits, reads the body of the request, or watches the client. Ready
    /// when the body has moved.
    fn poll_beside(&mut self, upload: &mut Upload, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let moved = self.poll_upload(upload, cx)?;
        let _ = self.poll_flush(cx)?;
        if moved.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if let Upload::Over = upload {
            self.poll_watch(cx)?;
        }
        Poll::Pending
    }

    /// Reads as much of the body as its taker wants; ready when it has moved.
    fn poll_upload(&mut self, upload: &mut Upload, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let Upload::Piped { pipe, awaited } = upload else { return Ok(Poll::Pending) };
        match pipe.watch(cx) {
            Taker::Waits => return Ok(Poll::Pending),
            Taker::Left => {
                *upload = Upload::Left { awaited: *awaited };
                return Ok(Poll::Ready(()));
            }
            Taker::Wants => {}
        }
        loop {
            let trailers = match self.reader.next(&mut self.held) {
                Ok(Some(Part::Data(piece))) => {
                    pipe.push(piece);
                    if self.reader.is_within_message() {
                        return Ok(Poll::Ready(()));
                    }
                    None
                }
                Ok(Some(Part::End(trailers))) => trailers,
                Ok(None) => {
                    if std::mem::take(awaited) {
                        response::write_interim(StatusCode::CONTINUE, &http::HeaderMap::new(), &mut self.output);
                    }
                    let Poll::Ready(read) = self.poll_fill(cx) else { return Ok(Poll::Pending) };
                    if read? > 0 {
                        continue;
                    }
                    self.is_ended = true;
                    *upload = Upload::Over;
                    return Ok(Poll::Ready(()));
                }
                Ok(Some(Part::Head(..))) | Err(_) => {
                    *upload = Upload::Over;
                    return Ok(Poll::Ready(()));
                }
            };
            if let Upload::Piped { pipe, .. } = std::mem::replace(upload, Upload::Over) {
                pipe.finish(trailers);
            }
            return Ok(Poll::Ready(()));
        }
    }

    /// Notices when the client leaves. What else it sends in the meantime waits.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.is_ended && self.held.len() < MAX_AHEAD {
            match self.poll_fill(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(read) => self.is_ended = read? == 0,
            }
            self.look_ahead();
        }
        // The last of its requests is the one that it does not wait for.
        if self.is_ended && self.held.is_empty() && !self.reader.is_within_message() {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the client left before the answer"));
        }
        Ok(())
    }

    /// A client that does not wait for its connection to switch protocols sends what is no request.
    fn look_ahead(&self) {
        if let Some(fault) = self.reader.fault_of(&self.held) {
            self.peer.refuse(fault);
        }
    }

    /// Reads the rest of a request's body, so that the next request can come.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        let Stage::Rest(upload, rest) = &mut self.stage else { return Poll::Ready(Ok(())) };
        let (mut upload, mut rest) = (std::mem::replace(upload, Upload::Over), rest.take());
        loop {
            match upload {
                Upload::Over if self.reader.is_within_message() => return self.end(),
                Upload::Over => {
                    self.stage = Stage::Idle;
                    return Poll::Ready(Ok(()));
                }
                Upload::Piped { .. } => {
                    if self.poll_upload(&mut upload, cx)?.is_pending() {
                        let _ = self.poll_flush(cx)?;
                        self.stage = Stage::Rest(upload, rest);
                        return Poll::Pending;
                    }
                }
                Upload::Left { .. } if rest.is_none() && !self.can_go_on(&upload) => return self.end(),
                Upload::Left { .. } => {
                    let (timer, left) = rest.get_or_insert_with(|| (Deadline::default(), REST.0));
                    match self.reader.next(&mut self.held) {
                        Ok(Some(Part::Data(data))) => match left.checked_sub(data.len() as u64) {
                            Some(fewer) => *left = fewer,
                            None => return self.end(),
                        },
                        Ok(Some(Part::End(_))) => {}
                        Ok(Some(Part::Head(..))) | Err(_) => return self.end(),
                        Ok(None) => match self.poll_fill(cx) {
                            Poll::Ready(Ok(0)) => return self.end(),
                            Poll::Ready(read) => drop(read?),
                            Poll::Pending if timer.poll(cx, REST.1).is_ready() => return self.end(),
                            Poll::Pending => {
                                self.stage = Stage::Rest(upload, rest);
                                return Poll::Pending;
                            }
                        },
                    }
                    if !self.reader.is_within_message() {
                        upload = Upload::Over;
                    }
                }
            }
        }
    }

    /// Gives the connection away as soon as the answer that says so is written.
    fn poll_upgrading(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        if let (Stage::Upgrading(call), Some(io)) = (std::mem::replace(&mut self.stage, Stage::Over), self.io.take()) {
            let received = std::mem::take(&mut self.held).freeze();
            // The call may be gone; then the connection closes.
            let _ = call.send(UpgradedConnection::new(Box::new(io), received));
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the connection in good order.
    fn end(&mut self) -> Poll<io::Result<()>> {
        self.stage = Stage::Closing(Closing::default());
        Poll::Ready(Ok(()))
    }

    /// Closes the connection. If the client is in the middle of something, what it still sends is swallowed for a moment, so that closing
    /// does not destroy the answer on its way to it.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        let (Stage::Closing(closing), Some(io)) = (&mut self.stage, &mut self.io) else { return Poll::Ready(Ok(())) };
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
        self.stage = Stage::Over;
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Some(io) => self.output.poll_flush(io, cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Reads what is there; 0 at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(0)) };
        if self.reader.is_within_message() && self.reader.owed() > BULK.0 && self.held.is_empty() {
            self.held.reserve(BULK.1);
            return tokio_util::io::poll_read_buf(Pin::new(io), cx, &mut self.held);
        }
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
            self.held.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }
}

impl<F, H, S> Future for Http1<F, H, S>
where
    F: Fn() -> Arc<H> + Unpin,
    H: Handler,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            ready!(match this.stage {
                Stage::Idle => this.poll_idle(cx),
                Stage::Serving(..) => this.poll_serving(cx),
                Stage::Sending(..) => this.poll_sending(cx),
                Stage::Rest(..) => this.poll_rest(cx),
                Stage::Upgrading(_) => this.poll_upgrading(cx),
                Stage::Closing(_) => this.poll_closing(cx),
                Stage::Over => return Poll::Ready(Ok(())),
            })?;
        }
    }
}

/// Whether an answer could switch protocols: who asks for that sends a GET without a body.
fn may_switch(request: &Request<()>) -> bool {
    request.version() == Version::HTTP_11
        && *request.method() == Method::GET
        && request.headers().contains_key(header::UPGRADE)
}
