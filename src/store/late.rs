//! The answer to a request, which may come after its deadline.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use redis::{RedisResult, Value};

use super::pipeline::Answer;

/// The answer to a request, on the connection on which it was sent, which stays open for as long as this lives. Its output
/// is what the server answered, or an error if the connection broke; dropped, the answer is ignored.
pub struct LateAnswer(pub(super) Answer);

impl Future for LateAnswer {
    type Output = RedisResult<Value>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl fmt::Debug for LateAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LateAnswer")
    }
}
