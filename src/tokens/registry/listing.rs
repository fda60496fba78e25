//! Which tokens a listing is to have, and what it answers.

use std::time::SystemTime;

use crate::tokens::permission::covers;
use crate::tokens::record::{Record, State, StoredRecord};

/// Which tokens are wanted: all that fit everything that is told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Of this account.
    pub account: Option<String>,
    /// With this in their name, in capitals or not.
    pub name: Option<String>,
    /// On this plan; those without a plan are on the default one.
    pub plan: Option<String>,
    /// In this state.
    pub state: Option<State>,
    /// That may do this.
    pub permission: Option<String>,
}

impl Filter {
    pub(super) fn matches(&self, record: &Record, default_plan: &str, now: SystemTime) -> bool {
        let named = |part: &String| record.name.to_lowercase().contains(&part.to_lowercase());
        let plan = record.plan.as_deref().unwrap_or(default_plan);
        self.account.as_ref().is_none_or(|account| *account == record.account)
            && self.name.as_ref().is_none_or(named)
            && self.plan.as_ref().is_none_or(|wanted| wanted == plan)
            && self.state.is_none_or(|state| record.state(now) == state)
            && self.permission.as_ref().is_none_or(|asked| record.permissions.iter().any(|held| covers(held, asked)))
    }
}

/// A part of all tokens, in the order of their creation.
#[derive(Debug, Default)]
pub struct Listing {
    /// The tokens that fit; may be fewer than asked for although more follow.
    pub tokens: Vec<StoredRecord>,
    /// What to ask for to get those behind them; `None` if there are none.
    pub next: Option<String>,
}
