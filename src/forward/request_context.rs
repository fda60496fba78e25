//! What all attempts at one request have in common.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::body::{BodyCopy, Progress};
use crate::listener::Interim;

use super::acquire::Wanted;
use super::context::ForwardContext;
use super::shared_connection::SharedConnection;

/// What all attempts at one request have in common.
pub(super) struct RequestContext<'a> {
    pub(super) forward: &'a ForwardContext<'a>,
    /// Where interim answers go.
    pub(super) interim: Option<&'a Interim>,
    /// Whether the upstream's own limits are passed on.
    pub(super) keeps_limits: bool,
    /// Of the request's body.
    pub(super) progress: Option<Arc<Progress>>,
    pub(super) websocket: bool,
    /// It asks for a call or for events, which may hold a connection for hours.
    pub(super) is_call: bool,
    /// The hash that chooses the endpoint, if the upstream is balanced so.
    pub(super) key: Option<u64>,
    /// Sends a mirrored copy that has no body, when the request is sent.
    pub(super) copy: Option<oneshot::Sender<BodyCopy>>,
}

impl RequestContext<'_> {
    /// The connection that the request needs; not the one to `avoid`.
    pub(super) fn wanted<'a>(&self, avoid: Option<&'a SharedConnection>) -> Wanted<'a> {
        Wanted { exclusive: self.websocket, is_call: self.is_call, avoid }
    }
}
