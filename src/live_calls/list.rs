//! The list of all open calls of this process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::call::{CallId, CallOrigin, CallState};
use crate::sharded::Sharded;

/// Workers that open calls at one time seldom wait for each other.
const SHARDS: usize = 16;

/// The open calls of one process.
#[derive(Default)]
pub(crate) struct LiveCalls {
    shards: Sharded<BTreeMap<CallId, Arc<CallState>>, SHARDS>,
    count: AtomicUsize,
}

/// A call that is listed. Dropped, it is not.
pub(crate) struct LiveCall {
    calls: Arc<LiveCalls>,
    state: Arc<CallState>,
}

/// Which calls are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallFilter {
    /// Of this token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// Of this account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<String>,
    /// On this route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<String>,
    /// To this upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upstream: Option<String>,
}

impl LiveCalls {
    /// Lists a call that begins now.
    #[must_use]
    pub(crate) fn open(self: &Arc<Self>, origin: CallOrigin, now: SystemTime) -> LiveCall {
        let state = Arc::new(CallState::new(origin, now));
        self.shards.lock(&state.id()).insert(state.id(), state.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        LiveCall { calls: self.clone(), state }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Up to `limit` calls that fit, the oldest first, of those that began after `after`.
    pub(crate) fn page(&self, filter: &CallFilter, after: Option<CallId>, limit: usize) -> Vec<Arc<CallState>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = Vec::new();
        for shard in self.shards.iter() {
            let of_shard = shard.range((from, Bound::Unbounded)).map(|(_, call)| call);
            found.extend(of_shard.filter(|call| filter.matches(call)).take(limit).cloned());
        }
        found.sort_unstable_by_key(|call| call.id());
        found.truncate(limit);
        found
    }

    /// Has a call end; `None`: there is none of this id.
    pub(crate) fn end(&self, id: CallId, reason: &str) -> Option<Arc<CallState>> {
        let call = self.shards.lock(&id).get(&id)?.clone();
        call.tell_end(reason);
        Some(call)
    }
}

impl CallFilter {
    fn matches(&self, call: &CallState) -> bool {
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| Some(wanted.as_str()) == value)
        };
        let CallOrigin { token, route, upstream, .. } = call.origin();
        is(&self.token, token.as_ref().map(|token| &*token.id))
            && is(&self.account, token.as_ref().map(|token| &*token.account))
            && is(&self.route, Some(route))
            && is(&self.upstream, Some(upstream))
    }
}

impl LiveCall {
    /// The call.
    pub(crate) fn state(&self) -> &Arc<CallState> {
        &self.state
    }
}

impl Drop for LiveCall {
    fn drop(&mut self) {
        self.calls.shards.lock(&self.state.id()).remove(&self.state.id());
        self.calls.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;
    use std::time::{Duration, UNIX_EPOCH};

    use futures_util::FutureExt;

    use super::super::call::{CallKind, CallToken};
    use super::*;

    fn origin(token: &str, route: &str) -> CallOrigin {
        let token = (!token.is_empty()).then(|| CallToken {
            id: token.into(),
            name: "Dialler".into(),
            account: format!("account of {token}").into(),
        });
        CallOrigin {
            kind: CallKind::WebSocket,
            token,
            client: [192, 0, 2, 7].into(),
            route: route.into(),
            upstream: "media".into(),
            request_id: "abc".into(),
        }
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + second)
    }

    #[test]
    fn calls_are_listed_from_their_beginning_to_their_end() {
        let calls = Arc::<LiveCalls>::default();
        let first = calls.open(origin("a", "stream"), at(0));
        let second = calls.open(origin("", "events"), at(1));
        first.state().set_endpoint(&"http://10.0.0.1:1".into());
        first.state().note([1, 2], [3, 4]);
        let report = calls.page(&CallFilter::default(), None, 9)[0].report("me", at(90));
        assert_eq!((report.id.as_str(), report.seconds), (&*first.state().id().to_string(), 90.0));
        assert_eq!((report.bytes_in, report.bytes_out), (1, 2));
        assert_eq!((report.messages_in, report.messages_out), (Some(3), Some(4)));
        assert_eq!(
            (report.since.as_str(), report.endpoint.as_deref()),
            ("2027-01-15T08:00:00Z", Some("http://10.0.0.1:1"))
        );
        assert_eq!(calls.len(), 2);
        drop(first);
        let left = calls.page(&CallFilter::default(), None, 9);
        assert_eq!((left.len(), left[0].id(), calls.len()), (1, second.state().id(), 1));
    }

    #[test]
    fn pages_follow_each_other_and_filters_choose() {
        let calls = Arc::<LiveCalls>::default();
        let open: Vec<_> = (0..40)
            .map(|second| calls.open(origin(if second % 2 == 0 { "a" } else { "b" }, "stream"), at(second)))
            .collect();
        let ids: Vec<_> = open.iter().map(|call| call.state().id()).collect();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = calls.page(&CallFilter::default(), after, 7);
            seen.extend(page.iter().map(|call| call.id()));
            after = seen.last().copied();
            if page.len() < 7 {
                break;
            }
        }
        assert_eq!(seen, ids);
        let count = |filter: CallFilter| calls.page(&filter, None, 100).len();
        assert_eq!(count(CallFilter { token: Some("a".into()), ..CallFilter::default() }), 20);
        assert_eq!(count(CallFilter { account: Some("account of b".into()), ..CallFilter::default() }), 20);
        assert_eq!(count(CallFilter { route: Some("stream".into()), ..CallFilter::default() }), 40);
        assert_eq!(count(CallFilter { upstream: Some("other".into()), ..CallFilter::default() }), 0);
    }

    #[test]
    fn a_call_hears_that_it_has_to_end_and_why() {
        let calls = Arc::<LiveCalls>::default();
        let call = calls.open(origin("a", "stream"), at(0));
        assert!(call.state().ended().now_or_never().is_none());
        assert!(calls.end(call.state().id(), "maintenance").is_some());
        assert_eq!(call.state().ended().now_or_never().as_deref(), Some("maintenance"));
        let id = call.state().id();
        drop(call);
        assert!(calls.end(id, "again").is_none());
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "x", &id.to_string().to_uppercase(), &id.to_string().replace('-', "")] {
            assert_eq!(CallId::from_str(bad), Err(()), "{bad}");
        }
    }
}
