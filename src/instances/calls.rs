//! Calls of all instances: listed, and ended wherever they are.

use super::instance::{EndedCall, Instances};
use super::question::{Answer, Ask};
use crate::live_calls::{CallFilter, CallId, CallReport};
use crate::store::StoreError;

/// A page of calls of all instances.
#[derive(Debug, Default)]
pub(crate) struct CallPage {
    /// The oldest first.
    pub(crate) calls: Vec<CallReport>,
    /// Instances that should have answered and did not.
    pub(crate) silent: Vec<String>,
}

/// What became of a call that was to end.
#[derive(Debug)]
pub(crate) enum EndOutcome {
    /// It ends.
    Ended {
        /// The id of its token, if it has one.
        token: Option<String>,
    },
    /// No instance has it.
    Unknown,
    /// These instances may have it, and did not answer.
    Silent(Vec<String>),
}

impl Instances {
    /// Up to `limit` calls of all instances that fit, the oldest first. While Redis does not answer, the other instances are silent.
    pub(crate) async fn all_calls(&self, filter: &CallFilter, after: Option<CallId>, limit: usize) -> CallPage {
        let mut page = CallPage { calls: self.own_calls(filter, after, limit), silent: Vec::new() };
        if let Some(shared) = &self.shared {
            let after = after.map(|id| id.to_string());
            let ask = Ask::List { filter: filter.clone(), after, limit };
            let known = || shared.others.load().iter().map(|instance| instance.id.clone()).collect();
            let asked = self.ask(shared, ask, |_| false).await;
            let (answers, silent) = asked.unwrap_or_else(|_| (Vec::new(), known()));
            page.calls.extend(answers.into_iter().flat_map(|answer| answer.calls));
            // Ids begin with the time at which their call began, and are of one length.
            page.calls.sort_by(|a, b| a.id.cmp(&b.id));
            page.calls.truncate(limit);
            page.silent = silent;
        }
        page
    }

    /// Has a call end, on whichever instance it is.
    ///
    /// # Errors
    /// [`StoreError`] when it is not on this instance, and Redis can't be asked who else is there.
    pub(crate) async fn end_call(&self, id: CallId, reason: &str) -> Result<EndOutcome, StoreError> {
        if let Some(EndedCall { token }) = self.end_own(id, reason) {
            return Ok(EndOutcome::Ended { token });
        }
        let Some(shared) = &self.shared else { return Ok(EndOutcome::Unknown) };
        let ask = Ask::End { id: id.to_string(), reason: reason.to_owned() };
        let (answers, silent) = self.ask(shared, ask, |answer: &Answer| answer.ended.is_some()).await?;
        Ok(match answers.into_iter().find_map(|answer| answer.ended) {
            Some(EndedCall { token }) => EndOutcome::Ended { token },
            None if silent.is_empty() => EndOutcome::Unknown,
            None => EndOutcome::Silent(silent),
        })
    }
}
