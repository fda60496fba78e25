//! A deadline that costs nothing until something has to wait for it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Bounds a silence: armed by the first poll that finds nothing, disarmed by progress.
#[derive(Default)]
pub(crate) struct Deadline {
    timer: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl Deadline {
    /// Ready `after` the first poll since it was disarmed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, after: Duration) -> Poll<()> {
        let timer = match &mut self.timer {
            Some(timer) => {
                if !self.armed {
                    timer.as_mut().reset(Instant::now() + after);
                }
                timer
            }
            empty => empty.insert(Box::pin(tokio::time::sleep(after))),
        };
        self.armed = true;
        timer.as_mut().poll(cx)
    }

    /// Something moved: the next silence starts anew.
    pub(crate) fn disarm(&mut self) {
        self.armed = false;
    }
}
