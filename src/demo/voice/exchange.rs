//! The calls and what happened to them: a pure core that is told the time and never waits.

use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use bytes::Bytes;
use serde::Serialize;

use super::call::{Call, CallId, CallState, as_rfc3339};
use super::order::Order;

/// Calls that are remembered; the oldest makes room for a new one.
const MAX_CALLS: usize = 1_000;
/// Events that are remembered: hours of a few calls, some sixteen seconds of a thousand.
const MAX_EVENTS: usize = 16_384;
/// Ticks until a ringing call is answered.
const RINGING: u32 = 3;
/// Ticks until a call ends that nobody hangs up: four hours.
const LONGEST: u32 = 4 * 60 * 60;

/// Which events a feed tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    Call(CallId),
}

impl Scope {
    fn covers(self, call: CallId) -> bool {
        match self {
            Self::All => true,
            Self::Call(id) => id == call,
        }
    }
}

/// What a feed finds behind its cursor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// An event, as it is sent.
    Event(Bytes),
    /// Nothing yet.
    Nothing,
    /// Nothing, and nothing will come.
    End,
}

/// Why a call can't be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CallError {
    Unknown,
    Ended,
}

struct Event {
    call: CallId,
    frame: Bytes,
}

/// All calls, and the latest events of all of them in one log.
#[derive(Default)]
pub(super) struct Exchange {
    calls: BTreeMap<CallId, Call>,
    last_call: u64,
    events: VecDeque<Event>,
    /// The id of the youngest event in the log; ids have no gaps.
    last_event: u64,
}

impl Exchange {
    /// Places a call; it rings.
    pub(super) fn place(&mut self, order: Order, now: SystemTime) -> Call {
        while self.calls.len() >= MAX_CALLS {
            self.forget_oldest(now);
        }
        self.last_call += 1;
        let id = CallId(self.last_call);
        let Order { to, from, record } = order;
        let call = Call { id, to, from, record, state: CallState::Ringing, created_at: now, age: 0 };
        self.calls.insert(id, call.clone());
        self.log(id, CallState::Ringing, None, now);
        call
    }

    /// The call of that name, if it is remembered.
    pub(super) fn call(&self, id: CallId) -> Option<&Call> {
        self.calls.get(&id)
    }

    /// Whether a call is over or forgotten.
    pub(super) fn is_over(&self, id: CallId) -> bool {
        self.call(id).is_none_or(|call| call.state == CallState::Ended)
    }

    /// Calls older than `before`, the newest first, at most `limit`; and whether there are more.
    pub(super) fn page(&self, before: Option<CallId>, limit: usize) -> (Vec<Call>, bool) {
        let end = before.unwrap_or(CallId(u64::MAX));
        let mut older = self.calls.range(..end).rev().map(|(_, call)| call.clone());
        let page: Vec<Call> = older.by_ref().take(limit).collect();
        (page, older.next().is_some())
    }

    /// Answers a ringing call; an answered one stays as it is.
    ///
    /// # Errors
    /// When the call is not known or over.
    pub(super) fn answer(&mut self, id: CallId, now: SystemTime) -> Result<(), CallError> {
        match self.calls.get(&id).ok_or(CallError::Unknown)?.state {
            CallState::Ringing => self.enter(id, CallState::Answered, now),
            CallState::Answered => {}
            CallState::Ended => return Err(CallError::Ended),
        }
        Ok(())
    }

    /// Ends a call; an ended one stays as it is.
    ///
    /// # Errors
    /// When the call is not known.
    pub(super) fn hang_up(&mut self, id: CallId, now: SystemTime) -> Result<(), CallError> {
        if self.calls.get(&id).ok_or(CallError::Unknown)?.state != CallState::Ended {
            self.enter(id, CallState::Ended, now);
        }
        Ok(())
    }

    /// A second has passed: ringing calls are answered in their time, answered ones tell how loud it is.
    pub(super) fn tick(&mut self, now: SystemTime) {
        let live: Vec<CallId> =
            self.calls.values().filter(|call| call.state != CallState::Ended).map(|call| call.id).collect();
        for id in live {
            let Some(call) = self.calls.get_mut(&id) else { continue };
            call.age += 1;
            match call.state {
                _ if call.age >= LONGEST => self.enter(id, CallState::Ended, now),
                CallState::Ringing if call.age >= RINGING => self.enter(id, CallState::Answered, now),
                CallState::Answered => {
                    let level = -10.0 - f64::from(fastrand::u16(0..400)) / 10.0;
                    self.log(id, CallState::Answered, Some(level), now);
                }
                CallState::Ringing | CallState::Ended => {}
            }
        }
    }

    /// The id of the latest event.
    pub(super) fn latest_event(&self) -> u64 {
        self.last_event
    }

    /// Where a feed starts that has seen nothing: before the latest event that it covers.
    pub(super) fn start(&self, scope: Scope) -> u64 {
        let behind = self.events.iter().rev().position(|event| scope.covers(event.call));
        behind.map_or(self.last_event, |behind| self.last_event - 1 - behind as u64)
    }

    /// The next event of a feed that has seen all up to the id `cursor`, which moves on. What the log no longer holds is
    /// passed over.
    pub(super) fn read(&self, scope: Scope, cursor: &mut u64) -> Reading {
        let forgotten = self.last_event - self.events.len() as u64;
        let skip = cursor.saturating_sub(forgotten) as usize;
        for (event, id) in self.events.iter().skip(skip).zip(forgotten + skip as u64 + 1..) {
            *cursor = id;
            if scope.covers(event.call) {
                return Reading::Event(event.frame.clone());
            }
        }
        match scope {
            Scope::Call(id) if self.is_over(id) => Reading::End,
            Scope::Call(_) | Scope::All => Reading::Nothing,
        }
    }

    fn forget_oldest(&mut self, now: SystemTime) {
        let Some((&id, call)) = self.calls.first_key_value() else { return };
        if call.state != CallState::Ended {
            self.enter(id, CallState::Ended, now);
        }
        self.calls.remove(&id);
    }

    fn enter(&mut self, id: CallId, state: CallState, now: SystemTime) {
        if let Some(call) = self.calls.get_mut(&id) {
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
        self.events.push_back(Event { call, frame });
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

    fn exchange_with(calls: usize) -> Exchange {
        let mut exchange = Exchange::default();
        for _ in 0..calls {
            exchange.place(Order::sample(), NOW);
        }
        exchange
    }

    /// The names of all events behind `cursor`, and what ended the reading.
    fn drain(exchange: &Exchange, scope: Scope, mut cursor: u64) -> (Vec<String>, Reading) {
        let mut names = Vec::new();
        loop {
            match exchange.read(scope, &mut cursor) {
                Reading::Event(frame) => {
                    let text = String::from_utf8(frame.to_vec()).unwrap();
                    names.push(text.lines().nth(1).unwrap().trim_start_matches("event: call.").to_owned());
                }
                end => return (names, end),
            }
        }
    }

    #[test]
    fn a_call_rings_is_answered_and_ends() {
        let mut exchange = exchange_with(1);
        let id = CallId(1);
        for _ in 0..RINGING + 2 {
            exchange.tick(NOW);
        }
        exchange.hang_up(id, NOW).unwrap();
        exchange.hang_up(id, NOW).unwrap();
        exchange.tick(NOW);
        let (names, end) = drain(&exchange, Scope::Call(id), 0);
        assert_eq!(names, ["ringing", "answered", "audio_level", "audio_level", "ended"]);
        assert_eq!(end, Reading::End);
        assert_eq!(exchange.answer(id, NOW), Err(CallError::Ended));
        assert_eq!(exchange.hang_up(CallId(2), NOW), Err(CallError::Unknown));
    }

    #[test]
    fn a_forgotten_receiver_is_hung_up() {
        let mut exchange = exchange_with(1);
        for _ in 0..LONGEST - 1 {
            exchange.tick(NOW);
        }
        assert!(!exchange.is_over(CallId(1)));
        exchange.tick(NOW);
        assert!(exchange.is_over(CallId(1)));
    }

    #[test]
    fn the_oldest_call_makes_room_and_ends() {
        let exchange = exchange_with(MAX_CALLS + 2);
        assert_eq!(exchange.calls.len(), MAX_CALLS);
        assert!(exchange.call(CallId(2)).is_none() && exchange.call(CallId(3)).is_some());
        assert_eq!(drain(&exchange, Scope::Call(CallId(2)), 0).0, ["ringing", "ended"]);
    }

    #[test]
    fn pages_follow_each_other_from_the_newest() {
        let exchange = exchange_with(5);
        let ids = |(page, more): (Vec<Call>, bool)| (page.iter().map(|call| call.id.0).collect::<Vec<_>>(), more);
        assert_eq!(ids(exchange.page(None, 2)), (vec![5, 4], true));
        assert_eq!(ids(exchange.page(Some(CallId(4)), 2)), (vec![3, 2], true));
        assert_eq!(ids(exchange.page(Some(CallId(2)), 2)), (vec![1], false));
        assert_eq!(ids(exchange.page(Some(CallId(3)), 2)), (vec![2, 1], false));
    }

    #[test]
    fn a_feed_starts_with_the_latest_event_it_covers() {
        let mut exchange = exchange_with(2);
        exchange.answer(CallId(1), NOW).unwrap();
        assert_eq!(drain(&exchange, Scope::Call(CallId(2)), exchange.start(Scope::Call(CallId(2)))).0, ["ringing"]);
        assert_eq!(drain(&exchange, Scope::All, exchange.start(Scope::All)).0, ["answered"]);
        assert_eq!(exchange.start(Scope::Call(CallId(9))), exchange.latest_event());
    }

    #[test]
    fn a_cursor_goes_on_where_it_was_and_passes_over_what_is_forgotten() {
        let mut exchange = exchange_with(2);
        assert_eq!(drain(&exchange, Scope::All, 1).0, ["ringing"]);
        assert_eq!(drain(&exchange, Scope::All, 2), (vec![], Reading::Nothing));
        for _ in 0..MAX_EVENTS {
            exchange.tick(NOW);
        }
        let mut cursor = 0;
        let Reading::Event(frame) = exchange.read(Scope::All, &mut cursor) else { panic!("there are events") };
        assert_eq!(cursor, exchange.latest_event() - MAX_EVENTS as u64 + 1);
        assert!(frame.starts_with(format!("id: {cursor}\n").as_bytes()));
    }
}
