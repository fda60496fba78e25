//! A call: what a request becomes when its connection is upgraded.

use std::pin::pin;

use crate::forward::{CutReason, ResponseGuard, Tunnel};
use crate::listener::PeerCall;
use crate::live_calls::CallKind;

use super::request::{RequestLife, Stage, error_chain};

/// Runs a call until one side ends it, the drain closes it, or its token no longer allows it.
pub(super) async fn run(mut life: Box<RequestLife>, tunnel: Box<Tunnel>) {
    let permits = life.begin_call().map(ResponseGuard::into_call);
    let open_calls = life.route_metrics().calls.as_ref().map(|calls| calls.open.clone());
    if let Some(open_calls) = &open_calls {
        open_calls.inc();
    }
    let state = life.live_call(CallKind::WebSocket).clone();
    let mut open = life.watch_token();
    // Pinned here, all of them: a future that is passed on by value takes its room at each place that it passes, for as long as the call.
    let revoked = pin!(async {
        match &mut open {
            Some(open) => open.revoked().await,
            None => std::future::pending().await,
        }
    });
    let closes = life.drained_call.as_ref().map(PeerCall::closes);
    let closes = pin!(async {
        match closes {
            Some(closes) => closes.await,
            None => std::future::pending().await,
        }
    });
    let cut = pin!(async {
        tokio::select! {
            () = closes => CutReason::Ended,
            why = revoked => CutReason::Revoked(why.as_str()),
            reason = state.ended() => CutReason::Closed(reason),
        }
    });
    let end = tunnel.run(&state, cut).await;
    if let Some(open_calls) = open_calls {
        open_calls.dec();
    }
    life.metrics.call_ended(end.by);
    if let Some(calls) = &life.route_metrics().calls {
        calls.ended(life.record.started.elapsed(), end.bytes, end.messages);
    }
    let record = &mut life.record;
    record.ended_by = Some(end.by.as_str());
    [record.bytes_in, record.bytes_out] = end.bytes;
    record.messages = Some(end.messages);
    record.error = end.cut.as_ref().map(|cut| error_chain(cut).into());
    drop(permits);
    life.stage = Stage::CallEnded;
}
