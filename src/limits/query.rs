//! What the limiter is asked: whose request it is, what it counts, and against which limits.

use smallvec::SmallVec;

use crate::config::{Limit, Plan, RouteLimits};

/// The token and account that a request counts for.
#[derive(Debug, Clone, Copy)]
pub struct LimitSubject<'a> {
    /// The token's public id.
    pub token_id: &'a str,
    /// The version of its record, as this instance knows it.
    pub version: u64,
}

/// What a request counts, and where beside the log of its token's plan.
#[derive(Debug, Clone, Copy)]
pub struct Charge<'a> {
    /// What it counts in each window, all or nothing; 0 counts as 1.
    pub cost: u32,
    /// The limits of its route, which have a log of their own.
    pub limits: Option<&'a RouteLimits>,
    /// Whether it opens a call, of which its token may have a limited number open.
    pub opens_call: bool,
}

/// A cost where the plan's limits are the only ones.
impl From<u32> for Charge<'_> {
    fn from(cost: u32) -> Self {
        Self { cost, limits: None, opens_call: false }
    }
}

/// Whether the record behind a request is known to be current. Called only where Redis does not say so.
pub type IsCurrent<'a> = &'a (dyn Fn() -> bool + Sync);

/// One question to the limiter.
#[derive(Clone, Copy)]
pub(super) struct LimitQuery<'a> {
    pub(super) subject: LimitSubject<'a>,
    pub(super) plan: &'a Plan,
    pub(super) charge: Charge<'a>,
    pub(super) is_current: IsCurrent<'a>,
}

impl<'a> LimitQuery<'a> {
    /// Whether a cached denial may answer. With a plan in shadow mode that admits the request.
    pub(super) fn takes_denial(&self) -> bool {
        !self.plan.shadow || (self.is_current)()
    }

    /// All limits that must have room.
    pub(super) fn limits(&self) -> impl Iterator<Item = &'a Limit> {
        self.plan.limits_with(self.charge.limits)
    }

    /// How many calls the token may have open, if the request opens one and their number is limited.
    pub(super) fn max_calls(&self) -> Option<u32> {
        self.plan.concurrent_calls.filter(|_| self.charge.opens_call)
    }
}

/// Limits as the merging script takes them: the largest, and then all windows; 4 bytes each.
pub(super) fn pack_windows(limits: &[Limit]) -> SmallVec<[u8; 20]> {
    let largest = limits.iter().map(|limit| limit.count).max().unwrap_or_default();
    let windows = limits.iter().map(|limit| limit.window_ms.get());
    std::iter::once(largest).chain(windows).flat_map(u32::to_le_bytes).collect()
}

/// Limits as the decision script takes them: 4 bytes each, behind the cost.
pub(super) fn pack(cost: u32, limits: &[Limit]) -> SmallVec<[u8; 36]> {
    let mut packed = SmallVec::from_slice(&cost.to_le_bytes());
    for limit in limits {
        packed.extend_from_slice(&limit.count.to_le_bytes());
        packed.extend_from_slice(&limit.window_ms.get().to_le_bytes());
    }
    packed
}
