//! The heartbeat of an instance, by which the others know that it is alive.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use redis::FromRedisValue;

use crate::store::StoreError;

use super::instance::{Instances, Shared};
use super::report::{InstanceReport, from_unix_ms, rfc3339};

/// How often.
const INTERVAL: Duration = Duration::from_secs(3);
/// An instance that was silent for so long is not asked any longer.
const ALIVE_MS: u64 = 10_000;
/// An instance that was silent for so long is forgotten.
const FORGOTTEN_MS: u64 = 60_000;
/// How long the end of an instance waits to say goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

impl Instances {
    /// Lets the others know of this instance. Returns when there are none.
    pub(crate) async fn run(self: Arc<Self>) {
        let Some(shared) = &self.shared else { return };
        let mut tick = tokio::time::interval(INTERVAL);
        loop {
            tick.tick().await;
            match self.beat(shared).await {
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "can't let other instances know of this one"),
            }
        }
    }

    /// The last thing that the others hear of it.
    pub(crate) async fn leave(&self) {
        let Some(shared) = &self.shared else { return };
        let command = redis::Cmd::hdel(shared.key("instances"), &self.id);
        // Otherwise they notice by its silence.
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, shared.redis.call(&command)).await;
    }

    /// Writes this instance, and reads the others; returns those that are alive.
    pub(super) async fn beat(&self, shared: &Shared) -> Result<Vec<InstanceReport>, StoreError> {
        let report = serde_json::to_string(&self.report()).unwrap_or_default();
        let args = [self.id.as_bytes(), report.as_bytes(), &FORGOTTEN_MS.to_string().into_bytes()];
        let asked = Instant::now();
        let answer = shared.redis.run(&shared.beat, &[shared.key("instances").as_bytes()], &args).await?;
        shared.pings.lock().unwrap_or_else(PoisonError::into_inner).note(asked.elapsed());
        let unexpected = |_| StoreError::Unexpected("a list of instances");
        let (now, all) = <(u64, Vec<String>)>::from_redis_value(answer).map_err(unexpected)?;
        let (others, alive) = others(&self.id, now, &all);
        shared.others.store(Arc::new(others));
        Ok(alive)
    }
}

/// The other instances, and those of them that are alive at this time of Redis.
fn others(own: &str, now: u64, all: &[String]) -> (Vec<InstanceReport>, Vec<InstanceReport>) {
    let (mut others, mut alive) = (Vec::new(), Vec::new());
    for text in all {
        let Some((seen, report)) = text.split_once(' ') else { continue };
        let (Ok(seen), Ok(report)) = (seen.parse::<u64>(), serde_json::from_str::<InstanceReport>(report)) else {
            // Of another version, or not Callgate's.
            continue;
        };
        if report.id == own {
            continue;
        }
        let report = InstanceReport { seen_at: rfc3339(from_unix_ms(seen)), ..report };
        if now.saturating_sub(seen) <= ALIVE_MS {
            alive.push(report.clone());
        }
        others.push(report);
    }
    others.sort_by(|a, b| (&a.host, &a.started_at, &a.id).cmp(&(&b.host, &b.started_at, &b.id)));
    (others, alive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_instances_are_shown_and_not_asked() {
        let line = |seen: u64, id: &str| {
            let rest =
                r#""host":"gw","pid":1,"version":"1","started_at":"2027-01-15T08:00:00Z","draining":false,"calls":0"#;
            format!(r#"{seen} {{"id":"{id}",{rest}}}"#)
        };
        let all = [line(100_000, "me"), line(99_000, "b"), line(80_000, "a"), "rubbish".into(), "1 {}".into()];
        let (others, alive) = others("me", 100_000, &all);
        let ids = |of: &[InstanceReport]| of.iter().map(|it| it.id.clone()).collect::<Vec<_>>();
        assert_eq!((ids(&others), ids(&alive)), (vec!["a".into(), "b".into()], vec!["b".to_owned()]));
        assert_eq!(others[0].seen_at, "1970-01-01T00:01:20Z");
    }
}
