//! One stream of an HTTP/2 connection: its request goes to the handler; interim answers, the answer and its body go back. The stream is
//! reset when its client takes nothing of the answer for too long, whatever moves on the others: a closed window stalls an answer
//! without stalling the socket.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Request, Response};
use http_body::Body;
use tokio::sync::oneshot;

use crate::body::{AskForBody, BodyError, CallHalves, IncomingBody, StreamBody};
use crate::deadline::Deadline;

use super::date;
use super::interim::{Interim, InterimQueue};
use super::reused_handler::ReusedHandler;

/// Headers of HTTP/1.1 connections, which a stream must not have (RFC 9113 §8.2.2).
const CONNECTION_HEADERS: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Receives the client's end of a call when the call begins.
type CallStart = oneshot::Sender<SendStream<Bytes>>;

/// One stream, from the head of its request on. `F` and `B` are those of its [`ReusedHandler`].
pub(super) struct Stream<F, B> {
    respond: SendResponse<Bytes>,
    interims: Arc<InterimQueue>,
    stage: Stage<F, B>,
}

enum Stage<F, B> {
    /// The request is being answered.
    Asked {
        handler: ReusedHandler<F, B>,
        call: Option<CallStart>,
    },
    /// The body of the answer leaves.
    Answered(Sending<B>),
    Over,
}

/// A body on its way.
struct Sending<B> {
    body: B,
    send: SendStream<Bytes>,
    stall: Deadline,
    /// The client has no room for it.
    piece: Option<Bytes>,
    /// Why it breaks off.
    broken: Option<Reason>,
}

impl<F, B> Stream<F, B>
where
    F: Future<Output = ()>,
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    /// Begins to answer a request; `None` for a CONNECT that has a body, whose stream is reset.
    pub(super) fn begin(
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        interims: Arc<InterimQueue>,
        handler: impl FnOnce() -> ReusedHandler<F, B>,
    ) -> Option<Self> {
        let Some((request, call)) = accept(request, &interims) else {
            respond.send_reset(Reason::PROTOCOL_ERROR);
            return None;
        };
        let handler = handler();
        handler.begin(request, Interim::on(&interims));
        Some(Self { respond, interims, stage: Stage::Asked { handler, call } })
    }

    /// Cuts the request, unless it is a call.
    pub(super) fn cut(&self) {
        self.interims.cut();
    }

    /// Ready when the stream is over. `write_timeout`: how long the client may leave a piece of the answer where it is; `handlers` gets the
    /// one of an answered request, so that a long answer has none.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        write_timeout: Duration,
        handlers: &mut Vec<ReusedHandler<F, B>>,
    ) -> Poll<()> {
        let is_new = if let Stage::Asked { handler, call } = &mut self.stage {
            let polled = ready!(poll_answer(handler, &self.interims, &mut self.respond, cx));
            let Some(answer) = polled else { return Poll::Ready(()) };
            let sending = send_head(answer, call.take(), &mut self.respond);
            let next = sending.map_or(Stage::Over, Stage::Answered);
            if let Stage::Asked { handler, .. } = std::mem::replace(&mut self.stage, next) {
                handlers.push(handler);
            }
            true
        } else {
            false
        };
        let Stage::Answered(sending) = &mut self.stage else { return Poll::Ready(()) };
        if sending.poll(is_new, write_timeout, cx).is_ready() {
            return Poll::Ready(());
        }
        // Dropped unfinished, the stream is reset.
        self.interims.watch(cx);
        if self.interims.is_cut() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Sends the head of an answer, and all of it where that is all; returns the rest.
fn send_head<B>(answer: Response<B>, call: Option<CallStart>, respond: &mut SendResponse<Bytes>) -> Option<Sending<B>>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let (parts, body) = answer.into_parts();
    let mut head = Response::from_parts(parts, ());
    clean_headers(head.headers_mut());
    match call {
        Some(call) if head.status().is_success() => {
            // It has no body, and must not announce one (RFC 9110 §9.3.6).
            head.headers_mut().remove(header::CONTENT_LENGTH);
            if let Ok(send) = respond.send_response(head, false) {
                // The task of the call may be gone; then the stream is reset.
                let _ = call.send(send);
            }
            None
        }
        Some(_) | None if body.is_end_stream() => {
            let _ = respond.send_response(head, true);
            None
        }
        Some(_) | None => {
            if let Some(length) = body.size_hint().exact() {
                head.headers_mut().entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
            }
            let send = respond.send_response(head, false).ok()?;
            Some(Sending::new(body, send))
        }
    }
}

/// A request as the handler gets it, and, for a CONNECT, where its call starts; `None` for a CONNECT that has a body.
fn accept(
    request: Request<RecvStream>,
    interims: &Arc<InterimQueue>,
) -> Option<(Request<IncomingBody>, Option<CallStart>)> {
    let (parts, stream) = request.into_parts();
    if parts.method == Method::CONNECT {
        if parts.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0") {
            return None;
        }
        let (call, send) = oneshot::channel();
        let halves = CallHalves { receive: stream, send };
        return Some((Request::from_parts(parts, IncomingBody::Call(Some(halves))), Some(call)));
    }
    let ask = expects_continue(&parts.headers).then(|| {
        let interims = interims.clone();
        Box::new(move || interims.go_on()) as AskForBody
    });
    Some((Request::from_parts(parts, IncomingBody::Stream(StreamBody::new(stream, ask))), None))
}

/// Whether the client waits to be told to send its body (RFC 9110 §10.1.1).
fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Ready with the answer; meanwhile sends interim answers. `None` when the client has cancelled the request, or the drain has cut it.
fn poll_answer<F: Future<Output = ()>, B>(
    handler: &mut ReusedHandler<F, B>,
    interims: &InterimQueue,
    respond: &mut SendResponse<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Option<Response<B>>> {
    interims.watch(cx);
    let polled = handler.poll(cx);
    if polled.is_ready() {
        interims.over();
    }
    let waiting = interims.take();
    if (polled.is_pending() || !waiting.is_empty()) && respond.poll_reset(cx).is_ready() {
        return Poll::Ready(None);
    }
    if polled.is_pending() && interims.is_cut() {
        respond.send_reset(Reason::CANCEL);
        return Poll::Ready(None);
    }
    for interim in waiting {
        if let Err(error) = respond.send_informational(interim) {
            tracing::debug!(%error, "an interim answer was not sent");
        }
    }
    polled.map(Some)
}

/// Makes the headers of an answer fit for HTTP/2.
fn clean_headers(headers: &mut HeaderMap) {
    // The first letter rules out most names.
    let is_about_connection =
        |name: &&HeaderName| b"ctukp".contains(&name.as_str().as_bytes()[0]) && CONNECTION_HEADERS.contains(name);
    while let Some(name) = headers.keys().find(is_about_connection).cloned() {
        headers.remove(name);
    }
    headers.entry(header::DATE).or_insert_with(date::now);
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Sending<B> {
    fn new(body: B, send: SendStream<Bytes>) -> Self {
        Self { body, send, stall: Deadline::default(), piece: None, broken: None }
    }

    /// Sends piece by piece as the client has room for them; ready when that is over. `is_new`: the head was sent just now, and as h2 is
    /// polled in the same task, the client can't have reset the stream since.
    fn poll(&mut self, is_new: bool, write_timeout: Duration, cx: &mut Context<'_>) -> Poll<()> {
        // A stream that its client has reset is dropped, and so is the body.
        if !is_new && self.send.poll_reset(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Some(reason) = self.broken {
            self.send.send_reset(reason);
            return Poll::Ready(());
        }
        loop {
            let piece = match self.piece.take() {
                Some(piece) => piece,
                None => match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(piece) => piece,
                        Err(frame) => {
                            let Ok(trailers) = frame.into_trailers() else { continue };
                            let _ = self.send.send_trailers(trailers);
                            return Poll::Ready(());
                        }
                    },
                    Poll::Ready(Some(Err(error))) => {
                        // A reset takes back what is not sent yet: what came before the error leaves first.
                        self.broken = Some(reason(&error));
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Poll::Ready(None) => {
                        let _ = self.send.send_data(Bytes::new(), true);
                        return Poll::Ready(());
                    }
                    Poll::Pending if is_new => return self.send.poll_reset(cx).map(drop),
                    Poll::Pending => return Poll::Pending,
                },
            };
            match self.poll_room(piece.len(), write_timeout, cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(()),
                Poll::Pending => {
                    self.piece = Some(piece);
                    return Poll::Pending;
                }
            }
            let is_last = self.body.is_end_stream();
            if self.send.send_data(piece, is_last).is_err() || is_last {
                return Poll::Ready(());
            }
        }
    }

    /// Ready when the client takes some of a piece, or with `false` when it does not any more, or for too long.
    fn poll_room(&mut self, length: usize, write_timeout: Duration, cx: &mut Context<'_>) -> Poll<bool> {
        if length == 0 {
            return Poll::Ready(true);
        }
        // It is sent at once if there is room for any of it: h2 asks for the rest.
        self.send.reserve_capacity(length);
        if self.send.capacity() == 0 {
            // For one byte only: whatever is reserved of the connection's window while this waits is missing for the other streams.
            self.send.reserve_capacity(1);
        }
        while self.send.capacity() == 0 {
            match self.send.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(false),
                Poll::Pending => {
                    ready!(self.stall.poll(cx, write_timeout));
                    tracing::debug!("a client takes nothing of its answer: resetting the stream");
                    return Poll::Ready(false);
                }
            }
        }
        self.stall.disarm();
        Poll::Ready(true)
    }
}

/// Why a stream is reset whose answer broke off: what the upstream said, if it spoke HTTP/2.
fn reason(error: &BodyError) -> Reason {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(reason) = error.downcast_ref::<h2::Error>().and_then(h2::Error::reason) {
            return reason;
        }
        cause = error.source();
    }
    Reason::INTERNAL_ERROR
}
