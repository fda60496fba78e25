//! The answer to a command, which may come after its deadline.

use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use redis::{Cmd, RedisResult, Value};

/// The answer to a command, on the connection on which it was sent, which stays open for as long as this lives. Its output
/// is what the server answered, or an error if the connection broke; dropped, the answer is ignored.
///
/// Nothing ever locks it: errors are shared between threads, and a future that only one may poll is not.
pub struct LateAnswer(Mutex<AnswerInFlight>);

/// A command that was sent, and its answer. It gives the command back.
pub(super) type AnswerInFlight = Pin<Box<dyn Future<Output = (Cmd, RedisResult<Value>)> + Send>>;

impl From<AnswerInFlight> for LateAnswer {
    fn from(answer: AnswerInFlight) -> Self {
        Self(Mutex::new(answer))
    }
}

impl Future for LateAnswer {
    type Output = RedisResult<Value>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        answer.as_mut().poll(context).map(|(_, answer)| answer)
    }
}

impl fmt::Debug for LateAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LateAnswer")
    }
}
