//! A call: the two ends of an upgraded exchange, joined until either ends, falls silent for too long, or must stop.
//!
//! When a call ends otherwise than by its sides' own Close frames, who is still there is told why by one, as soon as the frame
//! that is passing is whole.

mod client_end;
mod end;
mod frames;
mod pongs;
mod relay;
mod side;

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use tokio::time::timeout;

use crate::config::CallLimits;

use client_end::Wire;
use relay::Relay;

pub(super) use client_end::ClientEnd;
pub use end::{CutReason, EndedBy};

/// A frame that is passing when a call must stop gets so long to become whole.
const FRAME_PATIENCE: Duration = Duration::from_millis(300);
/// After its Close frame a side gets so long to say goodbye.
const GOODBYE_PATIENCE: Duration = Duration::from_millis(500);

/// The two ends of a call, before they are joined.
pub struct Tunnel {
    client: ClientEnd,
    upstream: OnUpgrade,
    limits: CallLimits,
}

/// How a call ended.
#[derive(Debug)]
pub struct TunnelEnd {
    /// What came from the client.
    pub from_client: TransferStats,
    /// What came from the upstream.
    pub from_upstream: TransferStats,
    /// Who ended it.
    pub by: EndedBy,
    /// Why it did not end by itself.
    pub cut: Option<CutReason>,
}

/// What passed one way. Callgate's own frames, and answers to them, are not in it.
#[derive(Debug, Clone, Copy, Default)]
pub struct TransferStats {
    /// Bytes, those of frame headers included.
    pub bytes: u64,
    /// Messages that became whole: texts and binary ones, of however many frames.
    pub messages: u64,
}

impl Tunnel {
    pub(super) fn new(client: ClientEnd, upstream: OnUpgrade, limits: CallLimits) -> Self {
        Self { client, upstream, limits }
    }

    /// Joins the ends until the call is over, or `told` says why it must end.
    pub async fn run(self, told: impl Future<Output = CutReason>) -> TunnelEnd {
        let upstream = async { self.upstream.await.map(Wire::of).map_err(io::Error::other) };
        let (client, upstream) = match tokio::try_join!(self.client.open(), upstream) {
            Ok(both) => both,
            Err(error) => {
                let (from_client, from_upstream) = (TransferStats::default(), TransferStats::default());
                return TunnelEnd {
                    from_client,
                    from_upstream,
                    by: EndedBy::Gateway,
                    cut: Some(CutReason::Upgrade(error)),
                };
            }
        };
        let mut relay = Relay::new(client, upstream, self.limits);
        let cut = tokio::select! {
            cut = poll_fn(|cx| relay.poll(cx)) => cut,
            why = told => Some(why),
        };
        let by = relay.first();
        if let Some(close) = cut.as_ref().and_then(CutReason::close) {
            relay.stop();
            // What does not become whole in time is left as it is, and its receiver without a goodbye.
            let _ = timeout(FRAME_PATIENCE, poll_fn(|cx| relay.poll_whole(cx))).await;
            let _ = timeout(GOODBYE_PATIENCE, relay.part(&close)).await;
        }
        let [from_client, from_upstream] = relay.heard();
        TunnelEnd { from_client, from_upstream, by, cut }
    }
}
