//! What a listener hands requests to.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};

use crate::body::{BodyError, IncomingBody};

use super::head::RequestFault;
use super::interim::Interim;
use super::peer::Peer;

/// What answers requests.
pub(crate) trait Handler: Send + Sync + 'static {
    /// The body of its answers.
    type Body: http_body::Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static;

    /// Answers one request, which is boxed because it passes through many hands. `interim` passes interim answers on; `None` where the client can't be sent any.
    fn handle(
        self: &Arc<Self>,
        request: Box<Request<IncomingBody>>,
        peer: &Arc<Peer>,
        interim: Option<Interim>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Answers what is no request.
    fn refuse(self: &Arc<Self>, fault: RequestFault, peer: &Arc<Peer>) -> Response<Self::Body>;
}
