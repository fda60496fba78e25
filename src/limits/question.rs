//! What the limiter is asked: whose request it is, what it counts, and against which limits.

use smallvec::SmallVec;

use super::Asker;
use crate::config::{Limit, Plan, Route, RouteLimits};

/// What a request counts, and where beside the log of its token's plan.
#[derive(Debug, Clone, Copy)]
pub struct Charge<'a> {
    /// What it counts in each window, all or nothing; 0 stands for 1.
    pub cost: u32,
    /// Limits that its route has of its own, on a log of their own.
    pub limits: Option<&'a RouteLimits>,
}

/// A cost where no limits are but the plan's.
impl From<u32> for Charge<'_> {
    fn from(cost: u32) -> Self {
        Self { cost, limits: None }
    }
}

impl<'a> From<&'a Route> for Charge<'a> {
    fn from(route: &'a Route) -> Self {
        Self { cost: route.cost, limits: route.limits.as_ref() }
    }
}

/// Whether the record behind a request is known to be current. Looked at only where Redis does not say so.
pub type IsCurrent<'a> = &'a (dyn Fn() -> bool + Sync);

/// What was asked of Redis: the same question has the same answer for as long as that stands.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) asker: Asker<'a>,
    pub(super) plan: &'a Plan,
    pub(super) charge: Charge<'a>,
    pub(super) is_current: IsCurrent<'a>,
}

impl<'a> Question<'a> {
    /// Whether a remembered refusal may be its answer. With a plan on trial that admits the request.
    pub(super) fn takes_refusal(&self) -> bool {
        !self.plan.shadow || (self.is_current)()
    }

    /// All limits that have to have room.
    pub(super) fn limits(&self) -> impl Iterator<Item = &'a Limit> {
        self.plan.limits_with(self.charge.limits)
    }
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
