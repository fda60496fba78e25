//! How a request gets a connection to an endpoint: one that its worker keeps, a new one, or one that another worker keeps.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::connection_slot::ConnectionSlot;
use super::endpoint_pool::{Channel, EndpointPool, NoConnection, PooledConnection, is_other};
use super::exclusive_connection::ExclusiveConnection;
use super::kept_connections::{KeptConnections, lock};
use super::shared_connection::{SharedConnection, StreamPermit};

/// The connection that a request needs.
#[derive(Clone, Copy, Default)]
pub(super) struct Wanted<'a> {
    /// No other request shares it: for a WebSocket.
    pub(super) exclusive: bool,
    /// The request asks for a call or for events, which may hold a connection for hours.
    pub(super) is_call: bool,
    /// One that has just refused the request.
    pub(super) avoid: Option<&'a SharedConnection>,
}

/// A connection, or the right to make one, that no other request can take any more.
pub(super) enum Reserved {
    Slot(ConnectionSlot),
    Idle(ExclusiveConnection),
    Stream(StreamPermit),
}

impl EndpointPool {
    /// A connection for one request: an existing one if possible.
    pub(super) async fn connection(self: &Arc<Self>, wanted: Wanted<'_>) -> Result<PooledConnection, NoConnection> {
        if let Some(channel) = self.reuse(wanted).await {
            return self.pooled(channel, true, wanted.is_call);
        }
        if wanted.exclusive || !self.may_share() {
            return self.connect_or_borrow(wanted).await;
        }
        let arrived = Instant::now();
        let connecting = self.connecting.lock().await;
        if let Some(channel) = self.reuse(wanted).await {
            return self.pooled(channel, true, wanted.is_call);
        }
        if !self.may_share() {
            drop(connecting);
            return self.connect_or_borrow(wanted).await;
        }
        // Requests that waited for an attempt share its failure, as they would have shared its connection.
        if let Some((_, kind, text)) = lock(&self.attempts).failure.as_ref().filter(|(when, ..)| *when >= arrived) {
            return Err(NoConnection::Failed(io::Error::new(*kind, text.to_string())));
        }
        let connection = self.connect_or_borrow(wanted).await;
        if let Err(NoConnection::Failed(error)) = &connection {
            lock(&self.attempts).failure = Some((Instant::now(), error.kind(), error.to_string().into()));
        }
        connection
    }

    /// A new connection; at the maximum one that another worker keeps.
    async fn connect_or_borrow(self: &Arc<Self>, wanted: Wanted<'_>) -> Result<PooledConnection, NoConnection> {
        let reserved = self.reserve(wanted).ok_or(NoConnection::Full)?;
        self.redeem(reserved, wanted).await
    }

    /// The connection that was reserved.
    pub(super) async fn redeem(
        self: &Arc<Self>,
        reserved: Reserved,
        wanted: Wanted<'_>,
    ) -> Result<PooledConnection, NoConnection> {
        let slot = match reserved {
            Reserved::Stream(permit) => return self.pooled(Channel::Shared(permit), true, wanted.is_call),
            Reserved::Idle(mut connection) => {
                if connection.is_ready().await {
                    return self.pooled(Channel::Exclusive(connection), true, wanted.is_call);
                }
                drop(connection);
                self.take_slot().ok_or(NoConnection::Full)?
            }
            Reserved::Slot(slot) => slot,
        };
        let channel = self.connect(&self.addr, wanted.exclusive, slot).await.map_err(NoConnection::Failed)?;
        self.pooled(channel, false, wanted.is_call)
    }

    /// Reserves what [`Self::connection`] would return, if there is something now. Below the maximum that is a new connection; at
    /// the maximum one that any worker keeps.
    pub(super) fn reserve(self: &Arc<Self>, wanted: Wanted<'_>) -> Option<Reserved> {
        if !wanted.exclusive
            && let Some(permit) = self.stream(wanted.avoid)
        {
            return Some(Reserved::Stream(permit));
        }
        let may_use_own = self.may_use_own(wanted);
        let now = Instant::now();
        let take_idle = |kept: &mut KeptConnections| {
            let mut idle = std::iter::from_fn(|| if may_use_own { kept.take_idle(now) } else { None });
            idle.find(|connection| self.is_fresh(connection, now)).map(Reserved::Idle)
        };
        let take_slot = || if may_use_own { self.take_slot().map(Reserved::Slot) } else { None };
        // Connections that their peer has closed count until they are swept.
        let own = take_idle(&mut self.lock());
        let own = own.or_else(take_slot).or_else(|| {
            self.sweep();
            take_slot()
        });
        let kept = own.or_else(|| {
            self.connections.find(|kept| {
                let shared = kept.shared.iter().filter(|shared| self.can_share(shared, wanted, now));
                if let Some(permit) = shared.into_iter().find_map(SharedConnection::try_stream) {
                    return Some(Reserved::Stream(permit));
                }
                let mut reserved = take_idle(kept);
                if let Some(Reserved::Idle(connection)) = &mut reserved {
                    connection.leave_worker();
                }
                reserved
            })
        });
        kept.or_else(|| {
            // One that rests makes room for a new one.
            let resting = if may_use_own { self.connections.find(|kept| kept.take_resting(now)) } else { None };
            drop(resting?);
            take_slot()
        })
    }

    /// Whether there is something to reserve now.
    pub(super) fn has_room(&self, wanted: Wanted<'_>) -> bool {
        let may_use_own = self.may_use_own(wanted);
        let now = Instant::now();
        if may_use_own && self.connections.count.has_room() {
            return true;
        }
        self.sweep();
        let is_kept = self.connections.find(|kept| {
            let can_take = |shared: &Arc<SharedConnection>| shared.has_room() && self.can_share(shared, wanted, now);
            ((may_use_own && !kept.idle.is_empty()) || kept.shared.iter().any(can_take)).then_some(())
        });
        is_kept.is_some() || (may_use_own && self.connections.count.has_room())
    }

    /// Whether one more call may hold a connection.
    pub(super) fn has_room_for_call(&self) -> bool {
        self.connections.count.has_room_for_call()
    }

    /// Whether the request may hold a connection alone.
    fn may_use_own(&self, wanted: Wanted<'_>) -> bool {
        !wanted.is_call || self.has_room_for_call()
    }

    /// Whether the request may have a stream of this connection.
    fn can_share(&self, shared: &SharedConnection, wanted: Wanted<'_>, now: Instant) -> bool {
        !wanted.exclusive && is_other(shared, wanted.avoid) && shared.slot.is_current(&self.addr, now)
    }

    /// An existing connection of this worker, if one is usable.
    async fn reuse(self: &Arc<Self>, wanted: Wanted<'_>) -> Option<Channel> {
        if !wanted.exclusive
            && let Some(permit) = self.stream(wanted.avoid)
        {
            return Some(Channel::Shared(permit));
        }
        loop {
            let now = Instant::now();
            let mut connection = self.lock().take_idle(now)?;
            if self.is_fresh(&connection, now) && connection.is_ready().await {
                return Some(Channel::Exclusive(connection));
            }
        }
    }
}
