//! Questions that one instance asks all others, and their answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, FromRedisValue};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::live_calls::{CallFilter, CallReport};
use crate::store::StoreError;

use super::instance::{EndedCall, Instances, Shared};

/// What a question begins with on the channel. Nothing else that is announced there does: ids of tokens have no such character.
const MARK: &str = "?calls ";
/// How long the others may take.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the one that asks looks for answers.
const LOOK: Duration = Duration::from_millis(10);
/// How long Redis keeps answers that nobody has read.
const ANSWERS_KEPT_MS: &[u8] = b"10000";
/// Calls in one answer.
const MAX_CALLS: usize = 201;
/// Letters and digits of a question's name.
const NAME_LENGTH: usize = 16;

#[derive(Debug, Serialize, Deserialize)]
struct Question {
    name: String,
    /// The instance that asks.
    from: String,
    ask: Ask,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask {
    /// For calls, as [`crate::live_calls::LiveCalls::page`].
    List { filter: CallFilter, after: Option<String>, limit: usize },
    /// To end a call.
    End { id: String, reason: String },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    instance: String,
    #[serde(default)]
    pub(super) calls: Vec<CallReport>,
    #[serde(default)]
    pub(super) ended: Option<EndedCall>,
}

impl Instances {
    /// Answers a question of another instance. Returns whether what was announced is a question.
    pub(crate) fn hear(self: &Arc<Self>, announced: &str) -> bool {
        let Some(question) = announced.strip_prefix(MARK) else { return false };
        // One of another version, perhaps.
        let Ok(Question { name, from, ask }) = serde_json::from_str(question) else { return true };
        if from != self.id && self.shared.is_some() {
            let this = self.clone();
            tokio::spawn(async move { this.reply(&name, ask).await });
        }
        true
    }

    async fn reply(&self, name: &str, ask: Ask) {
        let Some(shared) = &self.shared else { return };
        let mut answer = Answer { instance: self.id.clone(), calls: Vec::new(), ended: None };
        match ask {
            Ask::List { filter, after, limit } => {
                let after = after.and_then(|id| id.parse().ok());
                answer.calls = self.own_calls(&filter, after, limit.min(MAX_CALLS));
            }
            Ask::End { id, reason } => answer.ended = id.parse().ok().and_then(|id| self.end_own(id, &reason)),
        }
        let text = serde_json::to_vec(&answer).unwrap_or_default();
        let key = shared.key(&format!("answers:{name}"));
        if let Err(error) = shared.redis.run(&shared.answer, &[key.as_bytes()], &[&text, ANSWERS_KEPT_MS]).await {
            tracing::debug!(%error, "can't answer another instance");
        }
    }

    /// Asks all other instances. Returns their answers and who has not answered, when all have or one is `enough`.
    pub(super) async fn ask(
        &self,
        shared: &Shared,
        ask: Ask,
        enough: impl Fn(&Answer) -> bool,
    ) -> Result<(Vec<Answer>, Vec<String>), StoreError> {
        let alive = self.beat(shared).await?;
        let mut silent: BTreeSet<String> = alive.into_iter().map(|instance| instance.id).collect();
        if silent.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let name: String = std::iter::repeat_with(fastrand::alphanumeric).take(NAME_LENGTH).collect();
        let key = shared.key(&format!("answers:{name}"));
        let question = Question { name, from: self.id.clone(), ask };
        let message = format!("{MARK}{}", serde_json::to_string(&question).unwrap_or_default());
        shared.redis.call(&Cmd::publish(shared.key("changed"), message)).await?;
        let (mut answers, until) = (Vec::<Answer>::new(), Instant::now() + ANSWER_TIMEOUT);
        while !silent.is_empty() && Instant::now() < until {
            sleep(LOOK).await;
            let seen = isize::try_from(answers.len()).unwrap_or(isize::MAX);
            let new = shared.redis.call(&Cmd::lrange(&key, seen, -1)).await?;
            let new = Vec::<Vec<u8>>::from_redis_value(new).map_err(|_| StoreError::Unexpected("a list of answers"))?;
            for answer in new.iter().filter_map(|answer| serde_json::from_slice::<Answer>(answer).ok()) {
                silent.remove(&answer.instance);
                answers.push(answer);
            }
            if answers.iter().any(&enough) {
                break;
            }
        }
        Ok((answers, silent.into_iter().collect()))
    }
}
