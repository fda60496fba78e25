//! One stream of an HTTP/2 connection: its request goes to the handler; interim answers, the answer and its body go back. The stream is
//! reset when its client takes nothing of the answer for too long, whatever moves on the others: a closed window stalls an answer
//! without stalling the socket.

use std::future::poll_fn;
use std::pin::{Pin, pin};
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
use super::handler::Handler;
use super::interim::{Interim, InterimQueue};
use super::peer::Peer;

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

/// Carries a stream to its end; `interims` reaches it. `write_timeout`: how long the client may leave a piece of the answer where it is.
pub(super) async fn carry<H: Handler>(
    handler: Arc<H>,
    peer: Arc<Peer>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    interims: Arc<InterimQueue>,
    write_timeout: Duration,
) {
    let Some((request, call)) = accept(request, &interims) else {
        respond.send_reset(Reason::PROTOCOL_ERROR);
        return;
    };
    let answer = {
        let interims_of_request = interims.clone();
        // Boxed: it is large, and the task lasts as long as the answer. Made inside of the box, it is never copied. And a long answer
        // doesn't keep what a past configuration was served with.
        let mut handled =
            Box::pin(
                async move { handler.handle(Box::new(request), &peer, Some(Interim::on(&interims_of_request))).await },
            );
        await_answer(handled.as_mut(), &interims, &mut respond).await
    };
    let Some(answer) = answer else { return };
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
        }
        Some(_) | None if body.is_end_stream() => {
            let _ = respond.send_response(head, true);
        }
        Some(_) | None => {
            if let Some(length) = body.size_hint().exact() {
                head.headers_mut().entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
            }
            if let Ok(send) = respond.send_response(head, false) {
                let body = pin!(body);
                unless_cut(pin!(send_body(body, send, write_timeout)), &interims).await;
            }
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

/// Waits for the answer and sends interim answers in the meantime; `None` when the client has cancelled the request, or the drain
/// has cut it.
async fn await_answer<F: Future>(
    mut handled: Pin<&mut F>,
    interims: &InterimQueue,
    respond: &mut SendResponse<Bytes>,
) -> Option<F::Output> {
    poll_fn(|cx| {
        interims.watch(cx);
        let answer = handled.as_mut().poll(cx);
        if answer.is_ready() {
            interims.over();
        }
        let waiting = interims.take();
        if (answer.is_pending() || !waiting.is_empty()) && respond.poll_reset(cx).is_ready() {
            return Poll::Ready(None);
        }
        if answer.is_pending() && interims.is_cut() {
            respond.send_reset(Reason::CANCEL);
            return Poll::Ready(None);
        }
        for interim in waiting {
            if let Err(error) = respond.send_informational(interim) {
                tracing::debug!(%error, "an interim answer was not sent");
            }
        }
        answer.map(Some)
    })
    .await
}

/// Sends a body to its end, or until the drain cuts it: dropped unfinished, the stream is reset.
async fn unless_cut(mut sent: Pin<&mut impl Future<Output = ()>>, stream: &InterimQueue) {
    poll_fn(|cx| {
        if sent.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        stream.watch(cx);
        if stream.is_cut() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
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

/// Sends a body, piece by piece as the client has room for them.
async fn send_body<B>(mut body: Pin<&mut B>, mut send: SendStream<Bytes>, write_timeout: Duration)
where
    B: Body<Data = Bytes, Error = BodyError>,
{
    let mut stall = Deadline::default();
    loop {
        let polled = poll_fn(|cx| match send.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => body.as_mut().poll_frame(cx).map(Some),
        });
        // A stream that its client has reset is dropped, and so is the body.
        let Some(frame) = polled.await else { return };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                // A reset takes back what is not sent yet: what came before the error leaves first.
                tokio::task::yield_now().await;
                return send.send_reset(reason(&error));
            }
            None => {
                let _ = send.send_data(Bytes::new(), true);
                return;
            }
        };
        match frame.into_data() {
            Ok(data) => {
                let is_last = body.is_end_stream();
                if !data.is_empty() && !poll_fn(|cx| poll_room(&mut send, &mut stall, write_timeout, cx)).await {
                    return;
                }
                if send.send_data(data, is_last).is_err() || is_last {
                    return;
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    let _ = send.send_trailers(trailers);
                    return;
                }
            }
        }
    }
}

/// Ready when the client takes more, or with `false` when it does not any more, or for too long.
fn poll_room(
    send: &mut SendStream<Bytes>,
    stall: &mut Deadline,
    write_timeout: Duration,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    if send.poll_reset(cx).is_ready() {
        return Poll::Ready(false);
    }
    if send.capacity() == 0 {
        // For one byte only: whatever is reserved of the connection's window is missing for the other streams. h2 asks for the rest when
        // it has the whole piece.
        send.reserve_capacity(1);
    }
    while send.capacity() == 0 {
        match send.poll_capacity(cx) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(false),
            Poll::Pending => {
                ready!(stall.poll(cx, write_timeout));
                tracing::debug!("a client takes nothing of its answer: resetting the stream");
                return Poll::Ready(false);
            }
        }
    }
    stall.disarm();
    Poll::Ready(true)
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
