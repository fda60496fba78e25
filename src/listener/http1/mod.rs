//! A connection of HTTP/1.1: reads a request, has it answered, and goes on with the next. While an answer is awaited or sent, the body
//! of the request is read as its taker wants it, and otherwise the client is watched, so that its leaving ends what it has asked for.

mod chunks;
#[cfg(feature = "fuzz")]
pub mod fuzzing;
#[cfg(any(test, feature = "fuzz"))]
pub(super) mod harness;
mod output;
mod part;
mod reader;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod upload;
mod wire;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use crate::body::{IncomingBody, UpgradedConnection, pipe};
use crate::config::ListenSettings;
use crate::deadline::{Deadline, WriteTimeout};

use super::handler::Handler;
use super::head::{Asks, BodyLength, HeadLimits, RequestFault};
use super::interim::{Interim, InterimQueue};
use super::peer::Peer;

use part::{Part, ReadFault};
use reader::Reader;
use response::{Asked, Encoding};
use upload::{Rest, Upload};
use wire::{Closing, Wire};

/// A connection of HTTP/1.1; as a future it ends when the connection does, or when it has become a call's.
pub(super) struct Http1<F, H: Handler, S> {
    /// Answers a request that begins now.
    handler: F,
    peer: Arc<Peer>,
    wire: Wire<S>,
    stage: Stage<H::Body>,
    /// Interim answers to the request that is being answered.
    interims: Arc<InterimQueue>,
    /// From the first byte of a head to its last.
    head_timeout: Duration,
    head_timer: Deadline,
    /// The next answer is the last.
    is_closing: bool,
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
    Resting(Rest),
    /// Has yet to write the head of an answer that gives the connection away.
    Upgrading(Option<oneshot::Sender<UpgradedConnection>>),
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
    /// A body that somebody takes is read to its end behind the answer.
    upload_outlives: bool,
}

impl<F: Fn() -> Arc<H>, H: Handler, S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Http1<F, H, S> {
    /// Takes over a connection from its first byte.
    pub(super) fn new(handler: F, peer: Arc<Peer>, io: S, settings: &ListenSettings) -> Self {
        let reader = Reader::new(HeadLimits::of(settings), settings.remembers_header_case);
        Self {
            handler,
            peer,
            wire: Wire::new(WriteTimeout::new(io, settings.body_idle_timeout), reader),
            stage: Stage::Idle,
            interims: Arc::default(),
            head_timeout: settings.header_timeout,
            head_timer: Deadline::default(),
            is_closing: false,
        }
    }

    /// Ends the connection behind the answer to the request that has begun.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
    }

    /// Awaits a request.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A client that takes no answers asks for nothing more.
        ready!(self.wire.poll_flush(cx))?;
        self.stage = loop {
            match self.wire.next() {
                Ok(Some(Part::Head(request, length, asks))) => {
                    self.head_timer.disarm();
                    break self.begin(request, length, asks);
                }
                Ok(Some(Part::Data(_) | Part::End(_)) | None) => {}
                Err(ReadFault::Request(fault)) => break self.refuse(fault),
                // The request of this body is over.
                Err(ReadFault::Body) => break Stage::Closing(Closing::default()),
            }
            let rests = self.wire.rest();
            if rests && self.is_closing {
                break Stage::Closing(Closing::default());
            }
            match self.wire.poll_fill(cx) {
                Poll::Ready(Ok(0)) => break Stage::Closing(Closing::default()),
                Poll::Ready(read) => drop(read?),
                Poll::Pending if rests => {
                    // An empty line may have come.
                    self.head_timer.disarm();
                    return Poll::Pending;
                }
                Poll::Pending => {
                    ready!(self.head_timer.poll(cx, self.head_timeout));
                    self.wire.refuse(RequestFault::TooSlow);
                }
            }
        };
        Poll::Ready(Ok(()))
    }

    /// A request begins.
    fn begin(&mut self, mut request: Box<Request<IncomingBody>>, length: BodyLength, asks: Asks) -> Stage<H::Body> {
        // A client that has begun to send the body waits for nothing.
        let (asked, awaited) = (Asked::by(&request, asks), asks.expects && !self.wire.holds(1));
        let mut exchange = Exchange::new(asked);
        let mut piped = |length| {
            let (pipe, body) = pipe(length);
            exchange.upload = Upload::Piped { pipe, awaited };
            IncomingBody::Pipe(body)
        };
        let body = match length {
            // A request for another protocol is a GET without a body.
            BodyLength::None if asks.upgrade && !asked.is_http10 && *request.method() == Method::GET => {
                let (sender, receiver) = oneshot::channel();
                exchange.upgrade = Some(sender);
                self.look_ahead();
                IncomingBody::Upgrade(Some(receiver))
            }
            BodyLength::None => IncomingBody::Empty,
            BodyLength::Sized(length) if self.wire.holds(length) => match self.wire.next() {
                Ok(Some(Part::Data(body))) => IncomingBody::Whole(body),
                Ok(_) | Err(_) => IncomingBody::Empty,
            },
            BodyLength::Sized(length) => piped(Some(length)),
            BodyLength::Chunked => piped(None),
        };
        match Arc::get_mut(&mut self.interims) {
            Some(interims) => interims.begin(),
            // Somebody may still tell one of the request before.
            None => self.interims = Arc::default(),
        }
        // HTTP/1.0 has none (RFC 9110 §15.2).
        let interim = (!asked.is_http10).then(|| Interim::on(&self.interims));
        self.wire.free_read();
        *request.body_mut() = body;
        let (handler, peer) = ((self.handler)(), self.peer.clone());
        Stage::Serving(Box::pin(async move { handler.handle(request, &peer, interim).await }), exchange)
    }

    /// What follows is no request.
    fn refuse(&mut self, fault: RequestFault) -> Stage<H::Body> {
        let answer = (self.handler)().refuse(fault, &self.peer);
        self.answer(answer, Exchange::new(Asked::by_nobody()))
    }

    fn poll_serving(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Stage::Serving(answer, exchange) = &mut self.stage else { return Poll::Ready(Ok(())) };
            let answered = answer.as_mut().poll(cx);
            if answered.is_pending() {
                self.interims.watch(cx);
            }
            for interim in self.interims.take() {
                response::write_interim(interim.status(), interim.headers(), &mut self.wire.output);
            }
            if let Poll::Ready(answer) = answered {
                self.interims.over();
                if let Stage::Serving(_, exchange) = std::mem::replace(&mut self.stage, Stage::Over) {
                    self.stage = self.answer(answer, exchange);
                }
                return Poll::Ready(Ok(()));
            }
            let moved = poll_beside(&mut self.wire, &mut exchange.upload, true, cx);
            if exchange.upgrade.is_some() {
                self.look_ahead();
            }
            ready!(moved)?;
        }
    }

    /// A client that does not wait for its connection to switch protocols sends what is no request.
    fn look_ahead(&self) {
        if let Some(fault) = self.wire.fault_ahead() {
            self.peer.refuse(fault);
        }
    }

    /// Begins an answer.
    fn answer(&mut self, answer: Response<H::Body>, mut exchange: Exchange) -> Stage<H::Body> {
        let (head, body) = answer.into_parts();
        let encoding = exchange.asked.encoding(&head, &body.size_hint());
        let says_close = head.headers.get(header::CONNECTION).is_some_and(|option| option == "close");
        // An upload may outlive an answer that is none of a refusal.
        let is_refusal = !head.status.is_success() && !head.status.is_informational();
        exchange.upload.skip(&mut self.wire);
        exchange.is_last |= says_close
            || self.is_closing
            || encoding == Encoding::UntilClose
            || self.peer.shutdown.is_handed_over()
            || ((is_refusal || exchange.upload.is_awaited()) && !exchange.upload.can_end(&self.wire));
        exchange.upload_outlives = !is_refusal && encoding != Encoding::UntilClose;
        exchange.asked.write_head(&head, encoding, exchange.is_last, &mut self.wire.output);
        let upgrade = exchange.upgrade.take().filter(|_| head.status == StatusCode::SWITCHING_PROTOCOLS);
        match (upgrade, encoding) {
            (Some(upgrade), _) => Stage::Upgrading(Some(upgrade)),
            (None, Encoding::None) => exchange.end(&self.wire),
            (None, encoding) => Stage::Sending(body, encoding, exchange),
        }
    }

    fn poll_sending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Stage::Sending(body, encoding, exchange) = &mut self.stage else { return Poll::Ready(Ok(())) };
            while self.wire.poll_room(cx)?.is_ready()
                && let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx)
            {
                let (is_good, is_over) = match frame {
                    Some(Ok(frame)) => {
                        let is_good = encoding.write(frame, &exchange.asked, &mut self.wire.output);
                        (is_good, body.is_end_stream() || *encoding == Encoding::None)
                    }
                    Some(Err(_)) => (false, true),
                    None => (true, true),
                };
                if !is_good || (is_over && !encoding.end(&mut self.wire.output)) {
                    // The client sees that it is not whole, because the connection breaks off.
                    let _ = self.wire.poll_flush(cx)?;
                    return Poll::Ready(Err(io::Error::other("the answer broke off")));
                }
                if is_over {
                    if let Stage::Sending(_, _, exchange) = std::mem::replace(&mut self.stage, Stage::Over) {
                        self.stage = exchange.end(&self.wire);
                    }
                    return Poll::Ready(Ok(()));
                }
            }
            ready!(poll_beside(&mut self.wire, &mut exchange.upload, false, cx))?;
        }
    }

    /// Reads the rest of a request's body, so that the next request can come.
    fn poll_resting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Stage::Resting(rest) = &mut self.stage else { return Poll::Ready(Ok(())) };
        let goes_on = ready!(rest.poll(&mut self.wire, cx))?;
        self.stage = if goes_on { Stage::Idle } else { Stage::Closing(Closing::default()) };
        Poll::Ready(Ok(()))
    }

    /// Gives the connection away as soon as the answer that says so is written.
    fn poll_upgrading(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.wire.poll_flush(cx))?;
        if let Stage::Upgrading(call) = &mut self.stage
            && let (Some(call), Some(connection)) = (call.take(), self.wire.give_away())
        {
            // The call may be gone; then the connection closes.
            let _ = call.send(connection);
        }
        self.stage = Stage::Over;
        Poll::Ready(Ok(()))
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Stage::Closing(closing) = &mut self.stage else { return Poll::Ready(Ok(())) };
        ready!(self.wire.poll_close(closing, cx))?;
        self.stage = Stage::Over;
        Poll::Ready(Ok(()))
    }
}

impl Exchange {
    fn new(asked: Asked) -> Self {
        Self { asked, upload: Upload::Over, upgrade: None, is_last: !asked.keeps_alive, upload_outlives: false }
    }

    /// What comes behind the answer.
    fn end<B, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, wire: &Wire<S>) -> Stage<B> {
        match self.upload {
            upload @ Upload::Piped { awaited: false, .. } if self.is_last && self.upload_outlives => {
                Stage::Resting(Rest::of(upload, true))
            }
            _ if self.is_last => Stage::Closing(Closing::default()),
            Upload::Over if wire.is_within_message() => Stage::Closing(Closing::default()),
            Upload::Over => Stage::Idle,
            upload => Stage::Resting(Rest::of(upload, false)),
        }
    }
}

/// What happens while an answer is awaited or sent: reads the body of the request, writes what waits, or watches the client. Ready when
/// the body has moved.
fn poll_beside<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    wire: &mut Wire<S>,
    upload: &mut Upload,
    may_ask: bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let moved = upload.poll(wire, may_ask, cx)?;
    let _ = wire.poll_flush(cx)?;
    if let (Poll::Pending, Upload::Over) = (moved, &upload) {
        wire.poll_watch(cx)?;
    }
    moved.map(Ok)
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
                Stage::Resting(_) => this.poll_resting(cx),
                Stage::Upgrading(_) => this.poll_upgrading(cx),
                Stage::Closing(_) => this.poll_closing(cx),
                Stage::Over => return Poll::Ready(Ok(())),
            })?;
        }
    }
}
