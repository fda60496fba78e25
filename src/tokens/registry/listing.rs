//! Which tokens a listing is to have, and what it answers.

use std::time::SystemTime;

use crate::tokens::error::{Fault, RegistryError};
use crate::tokens::permission::covers;
use crate::tokens::record::{Record, State, Usage};
use crate::tokens::stored::{Cursor, StoredRecord};
use crate::tokens::token;

/// Which tokens are wanted: all that fit everything that is told.
#[derive(Debug, Clone, Default)]
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
    pub(super) fn is_empty(&self) -> bool {
        let Self { account, name, plan, state, permission } = self;
        [account, name, plan, permission].into_iter().all(Option::is_none) && state.is_none()
    }

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

/// A token on a list.
#[derive(Debug)]
pub struct Listed {
    /// The version of its record.
    pub version: u64,
    /// Its record.
    pub record: Record,
    /// How it is used.
    pub usage: Usage,
}

impl From<StoredRecord> for Listed {
    fn from(stored: StoredRecord) -> Self {
        Self { version: stored.version, record: stored.record, usage: stored.usage }
    }
}

/// A part of all tokens, in the order of their creation.
#[derive(Debug, Default)]
pub struct Listing {
    /// The tokens that fit; may be fewer than asked for although more follow.
    pub tokens: Vec<Listed>,
    /// What to ask for to get those behind them; `None` if there are none.
    pub next: Option<String>,
}

/// Reads what [`Listing::next`] said.
pub(super) fn parse_cursor(text: &str) -> Result<Cursor, RegistryError> {
    let cursor = text.split_once('.').and_then(|(created, id)| {
        let created = created.parse().ok().filter(|_| created.bytes().all(|b| b.is_ascii_digit()))?;
        token::is_id(id).then(|| Cursor { created, id: id.to_owned() })
    });
    let message = "must be what the page before said".to_owned();
    cursor.ok_or_else(|| RegistryError::Invalid(vec![Fault { field: "after", message }]))
}

pub(super) fn cursor_text(cursor: &Cursor) -> String {
    format!("{}.{}", cursor.created, cursor.id)
}
