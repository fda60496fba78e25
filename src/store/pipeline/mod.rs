//! Requests over one connection, sent without waiting for the answers of others.
//!
//! A request is written straight into the buffer of the connection. All that are written in one turn of the event loop leave
//! together. Answers come in the same order, so one whose request has been given up still takes its turn.

mod driver;
mod in_flight;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use redis::{RedisResult, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::driver::{Driver, Shared};
use super::request::Request;

/// A connection. It is closed when this, its clones and all answers have been dropped.
#[derive(Clone)]
pub(super) struct Pipeline(Arc<OpenPipeline>);

struct OpenPipeline {
    shared: Arc<Shared>,
    _driver: AbortOnDropHandle<()>,
}

/// The answer to a request; dropped, it is ignored.
pub(super) struct Answer {
    pipeline: Pipeline,
    /// `None` once it has been taken.
    slot: Option<usize>,
}

impl Pipeline {
    /// Starts the task of a connection.
    pub(super) fn start(transport: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let shared = Arc::<Shared>::default();
        let _driver = AbortOnDropHandle::new(tokio::spawn(Driver::new(transport, shared.clone())));
        Self(Arc::new(OpenPipeline { shared, _driver }))
    }

    /// Sends a request, as soon as there is room for it; `None`: there was none before the deadline. `asking` announces that a
    /// node is meant that is about to take over the key's slot.
    pub(super) async fn send(&self, request: &dyn Request, asking: bool, ends: Option<Instant>) -> Option<Answer> {
        match self.try_send(request, asking, ends) {
            // Boxed: that there is none is rare.
            None => Box::pin(self.send_when_there_is_room(request, asking, ends)).await,
            sent => sent,
        }
    }

    async fn send_when_there_is_room(
        &self,
        request: &dyn Request,
        asking: bool,
        ends: Option<Instant>,
    ) -> Option<Answer> {
        loop {
            let room = self.0.shared.room.notified();
            let sent = self.try_send(request, asking, ends);
            if sent.is_some() {
                return sent;
            }
            match ends {
                Some(ends) => tokio::time::timeout_at(ends, room).await.ok()?,
                None => room.await,
            }
        }
    }

    /// Sends a request and waits for its answer, for as long as that takes.
    pub(super) async fn ask(&self, request: &dyn Request) -> RedisResult<Value> {
        match self.send(request, false, None).await {
            Some(answer) => answer.await,
            None => unreachable!("there is no deadline"),
        }
    }

    fn try_send(&self, request: &dyn Request, asking: bool, ends: Option<Instant>) -> Option<Answer> {
        let slot = self.0.shared.lock().add(request, asking, ends)?;
        Some(Answer { pipeline: self.clone(), slot: Some(slot) })
    }
}

impl Answer {
    /// The answer, unless the deadline of its request passes before: then it may be awaited itself, or be ignored.
    pub(super) async fn in_time(&mut self) -> Option<RedisResult<Value>> {
        poll_fn(|context| self.poll_answer(true, context)).await
    }

    fn poll_answer(&mut self, in_time: bool, context: &mut Context<'_>) -> Poll<Option<RedisResult<Value>>> {
        let slot = self.slot.expect("an answer is taken once");
        let answer = self.pipeline.0.shared.lock().poll(slot, in_time, context.waker());
        if let Poll::Ready(Some(_)) = answer {
            self.slot = None;
        }
        answer
    }
}

/// The answer, whenever it comes; an error if the connection breaks.
impl Future for Answer {
    type Output = RedisResult<Value>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_answer(false, context).map(|answer| answer.expect("there is no deadline"))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let abandoned = self.pipeline.0.shared.lock().abandon(slot);
            drop(abandoned);
        }
    }
}

#[cfg(test)]
mod tests;
