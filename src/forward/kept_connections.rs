//! The connections to one endpoint that can take a request, now or later. Each worker keeps its own; at `max_connections` a worker
//! takes those that another one keeps.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use crate::config::Upstream;

use super::connection_slot::ConnectionCount;
use super::exclusive_connection::ExclusiveConnection;
use super::shared_connection::SharedConnection;
use super::wait_queue::WaitQueues;

/// What one worker keeps.
#[derive(Default)]
pub(super) struct KeptConnections {
    pub(super) idle: VecDeque<ExclusiveConnection>,
    pub(super) shared: Vec<Arc<SharedConnection>>,
    /// Nothing is kept any longer.
    pub(super) is_retired: bool,
}

/// All workers' connections to one endpoint.
pub(super) struct EndpointConnections {
    pub(super) count: Arc<ConnectionCount>,
    /// What each worker keeps. Locked only when a worker starts, and at `max_connections`.
    workers: Mutex<Vec<Weak<Mutex<KeptConnections>>>>,
}

/// All workers' connections to one upstream, and the requests that wait for one.
pub(super) struct UpstreamConnections {
    pub(super) queues: Arc<WaitQueues>,
    /// In the order of the configuration.
    pub(super) endpoints: Vec<Arc<EndpointConnections>>,
}

impl UpstreamConnections {
    /// There are none yet.
    pub(super) fn new(upstream: &Upstream) -> Self {
        let queues = Arc::new(WaitQueues::default());
        let endpoint = || EndpointConnections {
            count: ConnectionCount::new(upstream.max_connections, upstream.max_calls, queues.clone()),
            workers: Mutex::default(),
        };
        Self { endpoints: upstream.endpoints.iter().map(|_| Arc::new(endpoint())).collect(), queues }
    }
}

impl EndpointConnections {
    /// The connections of one more worker: none yet.
    pub(super) fn join(&self) -> Arc<Mutex<KeptConnections>> {
        let kept = Arc::default();
        lock(&self.workers).push(Arc::downgrade(&kept));
        kept
    }

    /// The first that `find` returns of what one worker after the other keeps. No other of their locks may be held.
    pub(super) fn find<T>(&self, mut find: impl FnMut(&mut KeptConnections) -> Option<T>) -> Option<T> {
        // A copy: what is found is returned when all locks are free again.
        let workers: Vec<_> = lock(&self.workers).iter().filter_map(Weak::upgrade).collect();
        workers.iter().find_map(|kept| find(&mut lock(kept)))
    }
}

impl KeptConnections {
    /// The last used of the idle connections that don't rest.
    pub(super) fn take_idle(&mut self, now: Instant) -> Option<ExclusiveConnection> {
        let index = self.idle.iter().rposition(|connection| !connection.is_resting(now))?;
        self.idle.remove(index)
    }

    /// A connection that rests: closed, it makes room for a new one.
    pub(super) fn take_resting(&mut self, now: Instant) -> Option<ExclusiveConnection> {
        let index = self.idle.iter().position(|connection| connection.is_resting(now))?;
        self.idle.remove(index)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
