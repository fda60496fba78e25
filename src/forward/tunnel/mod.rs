//! A call: the two ends of an upgraded request, joined until either ends, is silent for too long, or must stop.
//!
//! When a call ends without the Close frames of its sides, each remaining side gets one from Callgate, as soon as the frame that is being
//! passed on is complete.

mod client_end;
mod end;
mod frames;
mod pongs;
mod relay;
mod side;

use std::future::poll_fn;

use hyper::upgrade::OnUpgrade;

use crate::config::CallLimits;
use crate::live_calls::CallState;

use client_end::upgraded;
use relay::CallRelay;

pub(super) use client_end::ClientEnd;
pub use end::{CutReason, EndedBy, TunnelEnd};

/// The two ends of a call, before they are joined.
pub struct Tunnel {
    pub(super) client: ClientEnd,
    pub(super) upstream: OnUpgrade,
    pub(super) limits: CallLimits,
}

impl Tunnel {
    /// Joins the ends until the call is over, or `stop` returns why it must end. `state` shows meanwhile what has passed.
    pub(crate) async fn run(self, state: &CallState, stop: impl Future<Output = CutReason>) -> TunnelEnd {
        let (client, upstream) = match tokio::try_join!(self.client.open(), upgraded(self.upstream)) {
            Ok(both) => both,
            Err(error) => {
                let cut = Some(CutReason::Upgrade(error));
                return TunnelEnd { bytes: [0; 2], messages: [0; 2], by: EndedBy::Gateway, cut };
            }
        };
        let mut relay = CallRelay::new(client, upstream, self.limits);
        let cut = tokio::select! {
            cut = poll_fn(|cx| {
                let polled = relay.poll(cx);
                state.note(relay.bytes(), relay.messages());
                polled
            }) => cut,
            why = stop => Some(why),
        };
        let by = relay.ended_by;
        if let Some(frames) = cut.as_ref().and_then(CutReason::close_frames) {
            // Boxed: it is the last moment of a call, and would take room in it from the first.
            Box::pin(relay.close(&frames)).await;
        }
        relay.end(by, cut)
    }
}
