//! How long a service may take to begin its answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use crate::body::Progress;
use crate::deadline::Deadline;

/// Waits for the head of a response. While the request's body is moving, the deadline moves with it; while the upstream waits for the
/// client's body, that has a deadline of its own.
pub(super) async fn within<F: Future>(
    deadline: Duration,
    timer: &mut Deadline,
    progress: Option<&Progress>,
    mut sent: Pin<&mut F>,
) -> Option<F::Output> {
    let mut wait = deadline;
    let output = poll_fn(|cx| {
        loop {
            if let Poll::Ready(output) = sent.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            ready!(timer.poll(cx, wait));
            timer.disarm();
            let left = progress.and_then(|progress| deadline.checked_sub(progress.hesitation()));
            match left.filter(|left| !left.is_zero()) {
                Some(left) => wait = left,
                None => return Poll::Ready(None),
            }
        }
    });
    let output = output.await;
    timer.disarm();
    output
}
