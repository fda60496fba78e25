//! The calls and their events: a pure core that is given the time and never waits.

use std::collections::{BTreeMap, VecDeque};
use std::task::Poll;
use std::time::SystemTime;

use bytes::Bytes;
use serde::Serialize;

use super::call::{CallId, CallRequest, CallState, VoiceCall, as_rfc3339};
use super::response::DemoError;

/// The oldest call is removed for a new one.
const MAX_CALLS: usize = 1_000;
/// Hours of a few calls, some sixteen seconds of a thousand.
const MAX_EVENTS: usize = 16_384;
const TICKS_UNTIL_ANSWERED: u32 = 3;
/// Ticks until a call ends that is never hung up: four hours.
const MAX_TICKS: u32 = 4 * 60 * 60;

/// The call whose events a feed sends, or `None` for those of all calls.
pub(super) type FeedScope = Option<CallId>;

/// All calls, and their latest events in one log.
#[derive(Default)]
pub(super) struct CallRegistry {
    calls: BTreeMap<CallId, VoiceCall>,
    last_call: u64,
    /// Each as it is sent.
    events: VecDeque<(CallId, Bytes)>,
    /// The id of the newest event; ids have no gaps.
    last_event: u64,
}

impl CallRegistry {
    pub(super) fn place(&mut self, request: CallRequest, now: SystemTime) -> VoiceCall {
        if self.calls.len() >= MAX_CALLS
            && let Some((&oldest, _)) = self.calls.first_key_value()
        {
            self.set_state(oldest, CallState::Ended, now);
            self.calls.remove(&oldest);
        }
        self.last_call += 1;
        let id = CallId(self.last_call);
        let CallRequest { to, from, record } = request;
        let call = VoiceCall { id, to, from, record, state: CallState::Ringing, created_at: now, age: 0 };
        self.calls.insert(id, call.clone());
        self.log(id, CallState::Ringing, None, now);
        call
    }

    pub(super) fn get(&self, id: CallId) -> Result<&VoiceCall, DemoError> {
        self.calls.get(&id).ok_or(DemoError::NoSuchCall)
    }

    /// Whether a call has ended or was removed.
    pub(super) fn has_ended(&self, id: CallId) -> bool {
        self.get(id).map_or(true, |call| call.state == CallState::Ended)
    }

    /// Calls older than `before`, the newest first, at most `limit`; and whether there are more.
    pub(super) fn page(&self, before: Option<CallId>, limit: usize) -> (Vec<VoiceCall>, bool) {
        let end = before.unwrap_or(CallId(u64::MAX));
        let mut older = self.calls.range(..end).rev().map(|(_, call)| call.clone());
        let page = older.by_ref().take(limit).collect();
        (page, older.next().is_some())
    }

    /// Answers a ringing call; an answered one stays as it is.
    pub(super) fn answer(&mut self, id: CallId, now: SystemTime) -> Result<(), DemoError> {
        if self.get(id)?.state == CallState::Ended {
            return Err(DemoError::CallEnded);
        }
        self.set_state(id, CallState::Answered, now);
        Ok(())
    }

    /// Ends a call; an ended one stays as it is.
    pub(super) fn hang_up(&mut self, id: CallId, now: SystemTime) -> Result<(), DemoError> {
        self.get(id)?;
        self.set_state(id, CallState::Ended, now);
        Ok(())
    }

    /// Runs every second: ringing calls are answered after a while, answered ones report their audio level.
    pub(super) fn tick(&mut self, now: SystemTime) {
        let live = self.calls.values_mut().filter(|call| call.state != CallState::Ended);
        let aged = live.map(|call| {
            call.age += 1;
            (call.id, call.state, call.age)
        });
        for (id, state, age) in aged.collect::<Vec<_>>() {
            if age >= MAX_TICKS {
                self.set_state(id, CallState::Ended, now);
            } else if state == CallState::Answered {
                let level = -10.0 - f64::from(fastrand::u16(0..400)) / 10.0;
                self.log(id, state, Some(level), now);
            } else if age >= TICKS_UNTIL_ANSWERED {
                self.set_state(id, CallState::Answered, now);
            }
        }
    }

    pub(super) fn last_event(&self) -> u64 {
        self.last_event
    }

    /// The cursor of a new feed: before the latest event in its scope.
    pub(super) fn start_of(&self, scope: FeedScope) -> u64 {
        let newer = self.events.iter().rev().position(|(call, _)| scope.is_none_or(|only| only == *call));
        newer.map_or(self.last_event, |newer| self.last_event - 1 - newer as u64)
    }

    /// The next event after the id `cursor`, which advances; `None` if no further one will come. Events that the log no
    /// longer has are skipped.
    pub(super) fn read(&self, scope: FeedScope, cursor: &mut u64) -> Poll<Option<Bytes>> {
        let removed = self.last_event - self.events.len() as u64;
        let skip = cursor.saturating_sub(removed);
        for ((call, frame), id) in self.events.iter().skip(skip as usize).zip(removed + skip + 1..) {
            *cursor = id;
            if scope.is_none_or(|only| only == *call) {
                return Poll::Ready(Some(frame.clone()));
            }
        }
        if scope.is_some_and(|id| self.has_ended(id)) { Poll::Ready(None) } else { Poll::Pending }
    }

    fn set_state(&mut self, id: CallId, state: CallState, now: SystemTime) {
        if let Some(call) = self.calls.get_mut(&id)
            && call.state != state
        {
            call.state = state;
            self.log(id, state, None, now);
        }
    }

    fn log(&mut self, call: CallId, state: CallState, level_dbfs: Option<f64>, now: SystemTime) {
        let name = match (level_dbfs, state) {
            (Some(_), _) => "call.audio_level",
            (None, CallState::Ringing) => "call.ringing",
            (None, CallState::Answered) => "call.answered",
            (None, CallState::Ended) => "call.ended",
        };
        let data = serde_json::to_string(&EventData { call_id: call, state, level_dbfs, at: now })
            .expect("an event has text keys and finite numbers");
        self.last_event += 1;
        // The wire format of WHATWG HTML, section 9.2.5; JSON has no line break of its own.
        let frame = format!("id: {}\nevent: {name}\ndata: {data}\n\n", self.last_event).into();
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back((call, frame));
    }
}

#[derive(Serialize)]
struct EventData {
    call_id: CallId,
    state: CallState,
    #[serde(skip_serializing_if = "Option::is_none")]
    level_dbfs: Option<f64>,
    #[serde(serialize_with = "as_rfc3339")]
    at: SystemTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn registry_with(calls: usize) -> CallRegistry {
        let mut registry = CallRegistry::default();
        for _ in 0..calls {
            registry.place(CallRequest::sample(), NOW);
        }
        registry
    }

    /// The names of all events after `cursor`, and the item that ended the loop.
    fn drain(registry: &CallRegistry, scope: FeedScope, mut cursor: u64) -> (Vec<String>, Poll<Option<Bytes>>) {
        let mut names = Vec::new();
        loop {
            match registry.read(scope, &mut cursor) {
                Poll::Ready(Some(frame)) => {
                    let text = String::from_utf8(frame.to_vec()).unwrap();
                    names.push(text.lines().nth(1).unwrap().trim_start_matches("event: call.").to_owned());
                }
                end => return (names, end),
            }
        }
    }

    #[test]
    fn a_call_rings_is_answered_and_ends() {
        let mut registry = registry_with(1);
        let id = CallId(1);
        for _ in 0..TICKS_UNTIL_ANSWERED + 2 {
            registry.tick(NOW);
        }
        registry.hang_up(id, NOW).unwrap();
        registry.hang_up(id, NOW).unwrap();
        registry.tick(NOW);
        let (names, end) = drain(&registry, Some(id), 0);
        assert_eq!(names, ["ringing", "answered", "audio_level", "audio_level", "ended"]);
        assert_eq!(end, Poll::Ready(None));
        assert_eq!(registry.answer(id, NOW), Err(DemoError::CallEnded));
        assert_eq!(registry.hang_up(CallId(2), NOW), Err(DemoError::NoSuchCall));
    }

    #[test]
    fn a_call_that_is_never_hung_up_ends() {
        let mut registry = registry_with(1);
        for _ in 0..MAX_TICKS - 1 {
            registry.tick(NOW);
        }
        assert!(!registry.has_ended(CallId(1)));
        registry.tick(NOW);
        assert!(registry.has_ended(CallId(1)));
    }

    #[test]
    fn the_oldest_call_ends_for_a_new_one() {
        let registry = registry_with(MAX_CALLS + 2);
        assert_eq!(registry.calls.len(), MAX_CALLS);
        assert!(registry.get(CallId(2)).is_err() && registry.get(CallId(3)).is_ok());
        assert_eq!(drain(&registry, Some(CallId(2)), 0).0, ["ringing", "ended"]);
    }

    #[test]
    fn pages_follow_each_other_from_the_newest() {
        let registry = registry_with(5);
        let ids = |(page, more): (Vec<VoiceCall>, bool)| (page.iter().map(|call| call.id.0).collect::<Vec<_>>(), more);
        assert_eq!(ids(registry.page(None, 2)), (vec![5, 4], true));
        assert_eq!(ids(registry.page(Some(CallId(4)), 2)), (vec![3, 2], true));
        assert_eq!(ids(registry.page(Some(CallId(2)), 2)), (vec![1], false));
        assert_eq!(ids(registry.page(Some(CallId(3)), 2)), (vec![2, 1], false));
    }

    #[test]
    fn a_feed_starts_with_the_last_event_it_covers() {
        let mut registry = registry_with(2);
        registry.answer(CallId(1), NOW).unwrap();
        assert_eq!(drain(&registry, Some(CallId(2)), registry.start_of(Some(CallId(2)))).0, ["ringing"]);
        assert_eq!(drain(&registry, None, registry.start_of(None)).0, ["answered"]);
        assert_eq!(registry.start_of(Some(CallId(9))), registry.last_event());
    }

    #[test]
    fn a_cursor_continues_and_skips_removed_events() {
        let mut registry = registry_with(2);
        assert_eq!(drain(&registry, None, 1).0, ["ringing"]);
        assert_eq!(drain(&registry, None, 2), (vec![], Poll::Pending));
        for _ in 0..MAX_EVENTS {
            registry.tick(NOW);
        }
        let mut cursor = 0;
        let Poll::Ready(Some(frame)) = registry.read(None, &mut cursor) else { panic!("there are events") };
        assert_eq!(cursor, registry.last_event() - MAX_EVENTS as u64 + 1);
        assert!(frame.starts_with(format!("id: {cursor}\n").as_bytes()));
    }
}
