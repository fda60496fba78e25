//! What the decision script is asked, written from what is known of the request.

use super::super::calls::LeaseName;
use super::super::query::{Charge, LimitQuery, pack};
use crate::store::{Request, Script, write_bulk, write_bulk_of, write_number};

/// A query of the limiter as a run of a script.
pub(super) struct Question<'a> {
    pub(super) namespace: &'a str,
    pub(super) script: &'a Script,
    pub(super) query: &'a LimitQuery<'a>,
    pub(super) call: Option<RequestedCall>,
}

/// A call that the request would open.
pub(super) struct RequestedCall {
    pub(super) max_calls: u32,
    pub(super) lease: LeaseName,
    /// So long ago a lease may have ended whose call lives.
    pub(super) unrenewed_ms: u128,
}

impl Request for Question<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let LimitQuery { subject, plan, charge: Charge { cost, limits: own, .. }, .. } = *self.query;
        let (routes, calls) = (usize::from(own.is_some()), usize::from(self.call.is_some()));
        self.script.write_call(out, 2 + routes + calls, 2 + routes + 3 * calls);
        // All of them are in one slot of a cluster, that of what is in braces.
        let key = |out: &mut Vec<u8>, name: &str, route: &str| {
            let parts = [self.namespace, ":{", subject.token_id, name, route];
            write_bulk_of(out, &parts.map(str::as_bytes));
        };
        key(out, "}:token", "");
        key(out, "}:log", "");
        own.iter().for_each(|own| key(out, "}:log/", &own.route));
        self.call.iter().for_each(|_| key(out, "}:calls", ""));
        write_number(out, subject.version);
        write_bulk(out, &pack(cost, &plan.limits));
        own.iter().for_each(|own| write_bulk(out, &pack(cost, &own.limits)));
        if let Some(call) = &self.call {
            write_number(out, call.max_calls);
            write_bulk(out, &call.lease);
            write_number(out, call.unrenewed_ms);
        }
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.query.subject.token_id.as_bytes())
    }

    fn script(&self) -> Option<&Script> {
        Some(self.script)
    }
}
