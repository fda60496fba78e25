//! The answer of the limiter: whether a request may pass, and the state of every window of its token.

use smallvec::SmallVec;

use crate::config::Limit;

/// What decided on the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The log in Redis that all instances share.
    Redis,
    /// This process, which remembers a denial of Redis that still holds.
    DenyCache,
    /// This process alone: the memory store, or the policy for an outage of Redis.
    Local,
}

impl Source {
    /// Every source, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Redis, Self::DenyCache, Self::Local];

    /// The source as a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::DenyCache => "deny_cache",
            Self::Local => "local",
        }
    }
}

/// The state of one window of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowStatus {
    /// Requests admitted in the window, this one included if it was admitted.
    pub used: u32,
    /// Requests that the window admits.
    pub limit: u32,
    /// The length of the window in milliseconds.
    pub window_ms: u32,
    /// The Unix millisecond at which the window frees a slot: in a window that denied, when it would admit the same
    /// request; in another, when the oldest admission that it counts leaves, or the present if it counts none. In a window
    /// that can never admit the request (its limit is below the cost), a whole window from now.
    pub frees_ms: u64,
}

impl WindowStatus {
    /// Requests that the window has room for.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        self.limit.saturating_sub(self.used)
    }
}

/// The window that is reported to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportedWindow {
    /// Its index in the plan's limits, followed by those of the route.
    pub index: usize,
    /// Requests that it admits.
    pub limit: u32,
    /// Requests that it has room for after this one.
    pub remaining: u32,
    /// The Unix second, rounded up, at which it next frees a slot.
    pub reset_s: u64,
    /// Seconds until then, rounded up, at least 1: a client that waits so long is admitted, if no other uses the token.
    pub retry_after_s: u64,
}

/// The answer for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may pass.
    pub admitted: bool,
    /// What decided on the request.
    pub source: Source,
    /// If the request was denied only because it opens a call: how many calls its token may have open.
    pub too_many_calls: Option<u32>,
    cost: u32,
    /// Unix ms, on the clock on which clients are told times.
    now_ms: u64,
    /// How far (ms) that is ahead of the clock that decided.
    ahead_ms: i64,
    /// Until then a denial may be repeated: nothing that happens meanwhile changes it.
    final_until_ms: u64,
    windows: SmallVec<[WindowStatus; 2]>,
}

impl Decision {
    /// What it counts.
    pub(super) fn cost(&self) -> u32 {
        self.cost
    }

    pub(super) fn new(
        admitted: bool,
        source: Source,
        cost: u32,
        now_ms: u64,
        windows: impl IntoIterator<Item = WindowStatus>,
    ) -> Self {
        let (windows, final_until_ms) = (windows.into_iter().collect(), u64::MAX);
        Self { admitted, source, too_many_calls: None, cost, now_ms, ahead_ms: 0, final_until_ms, windows }
    }

    /// An admission that was not counted anywhere.
    pub(super) fn uncounted(source: Source, now_ms: u64) -> Self {
        Self::new(true, source, 0, now_ms, [])
    }

    /// One decision on two logs: this one's windows come first. Either can deny.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.windows.extend(other.windows);
        let admitted = self.admitted && other.admitted;
        let final_until_ms = self.final_until_ms.min(other.final_until_ms);
        Self { admitted, cost: other.cost, now_ms: other.now_ms, final_until_ms, ..self }
    }

    /// The denial of a request whose cost is above 1, and when the oldest request of each window leaves (Unix ms). While a
    /// window that denies has room for cheaper requests they may put it off, and when one leaves, others may come.
    pub(super) fn until_slots_free(self, opens_ms: impl IntoIterator<Item = u64>) -> Self {
        let denying = self.windows.iter().zip(opens_ms).filter(|(window, _)| self.is_denied_by(window));
        let finals = denying.map(|(window, opens_ms)| if window.remaining() == 0 { opens_ms } else { 0 });
        Self { final_until_ms: finals.min().unwrap_or(u64::MAX), ..self }
    }

    /// Says that the token has as many calls open as it may, if no window denies as well.
    pub(super) fn with_too_many_calls(self, max_calls: u32) -> Self {
        let too_many_calls = (!self.windows.iter().any(|window| self.is_denied_by(window))).then_some(max_calls);
        Self { too_many_calls, ..self }
    }

    fn is_denied_by(&self, at: &WindowStatus) -> bool {
        u64::from(at.used) + u64::from(self.cost) > u64::from(at.limit)
    }

    /// Moves all its times to a clock that is so much (ms) ahead.
    pub(super) fn shift(&mut self, ahead_ms: i64) {
        self.ahead_ms += ahead_ms;
        self.now_ms = self.now_ms.saturating_add_signed(ahead_ms);
        self.final_until_ms = self.final_until_ms.saturating_add_signed(ahead_ms);
        for window in &mut self.windows {
            window.frees_ms = window.frees_ms.saturating_add_signed(ahead_ms);
        }
    }

    /// The same denial, `later_ms` milliseconds later.
    pub(super) fn repeated(&self, source: Source, later_ms: u64) -> Self {
        let mut again = Self { source, now_ms: self.now_ms + later_ms, ..self.clone() };
        for window in &mut again.windows {
            // A time relative to the present moves with it; one that has passed meanwhile becomes the present.
            let is_relative = self.cost > window.limit || window.used == 0;
            let frees_ms = if is_relative { window.frees_ms + later_ms } else { window.frees_ms };
            window.frees_ms = frees_ms.max(again.now_ms);
        }
        again
    }

    /// The answer to the same request from now on, until the window that denies frees a slot: this denial, or the one that
    /// follows an admission to the last slot.
    pub(super) fn next_denial(&self) -> Option<Self> {
        let is_last = self.cost == 1 && self.windows.iter().any(|window| self.is_denied_by(window));
        let is_final = self.too_many_calls.is_none() && self.final_until_ms > self.now_ms;
        let is_sure = if self.admitted { is_last } else { is_final };
        is_sure.then(|| Self { admitted: false, ..self.clone() })
    }

    /// How long a denial holds at least: in so many ms the last of the windows that deny frees a slot, or it may change before.
    pub(super) fn lasts_ms(&self) -> u64 {
        let denying = self.windows.iter().filter(|window| self.is_denied_by(window));
        let frees_ms = denying.map(|window| window.frees_ms).max().unwrap_or(0);
        // The clock may have been at the very end of its millisecond, and a window frees its slot at the beginning of one.
        frees_ms.min(self.final_until_ms).saturating_sub(self.now_ms + 1)
    }

    /// How many more requests of this cost all windows have room for.
    pub(super) fn room(&self) -> u32 {
        self.windows.iter().map(|window| window.remaining() / self.cost.max(1)).min().unwrap_or(u32::MAX)
    }

    /// The windows in the order of the plan's limits, followed by the route's own. Empty if there are none, or if nothing was
    /// counted because Redis does not answer and every request is admitted.
    #[must_use]
    pub fn windows(&self) -> &[WindowStatus] {
        &self.windows
    }

    /// When it was decided, Unix ms, on the clock on which clients are told times.
    #[must_use]
    pub fn clock_ms(&self) -> u64 {
        self.now_ms
    }

    /// The same on the clock that decided: with Redis, one for all instances.
    pub(crate) fn decided_ms(&self) -> u64 {
        self.now_ms.saturating_add_signed(-self.ahead_ms)
    }

    /// The window that is reported to the client: on admission the one with the fewest remaining, on denial the one that
    /// denies; if none does, because the open calls are too many, as on admission. If several qualify, the one that frees
    /// later; if they free together, the longest.
    #[must_use]
    pub fn reported(&self) -> Option<ReportedWindow> {
        let all = self.admitted || self.too_many_calls.is_some();
        let candidates = self.windows.iter().enumerate().filter(|(_, window)| all || self.is_denied_by(window));
        let (index, window) = candidates.max_by_key(|(_, window)| {
            let room = if all { window.remaining() } else { 0 };
            (std::cmp::Reverse(room), window.frees_ms)
        })?;
        Some(ReportedWindow {
            index,
            limit: window.limit,
            remaining: window.remaining(),
            reset_s: window.frees_ms.div_ceil(1000),
            retry_after_s: self.wait_s(window).max(1),
        })
    }

    /// Seconds until a window frees a slot, rounded up.
    #[must_use]
    pub fn wait_s(&self, window: &WindowStatus) -> u64 {
        window.frees_ms.saturating_sub(self.now_ms).div_ceil(1000)
    }
}

/// The numbers of a limit without its name, as the algorithm needs them.
pub(super) fn numbers(limit: &Limit) -> (u32, u32) {
    (limit.count, limit.window_ms.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(used: u32, limit: u32, window_ms: u32, frees_ms: u64) -> WindowStatus {
        WindowStatus { used, limit, window_ms, frees_ms }
    }

    #[test]
    fn an_admission_reports_the_fewest_remaining() {
        let windows = [window(10, 60, 60_000, 160_000), window(980, 1000, 3_600_000, 150_001)];
        let reported = Decision::new(true, Source::Redis, 1, 120_000, windows).reported().unwrap();
        assert_eq!(reported, ReportedWindow { index: 1, limit: 1000, remaining: 20, reset_s: 151, retry_after_s: 31 });
    }

    #[test]
    fn a_tie_goes_to_the_one_that_frees_later_then_to_the_longest() {
        let windows = [window(1, 5, 1_000, 9_000), window(3, 7, 2_000, 8_000)];
        assert_eq!(Decision::new(true, Source::Redis, 1, 8_000, windows).reported().unwrap().index, 0);
        let windows = [window(1, 5, 1_000, 9_000), window(3, 7, 2_000, 9_000)];
        assert_eq!(Decision::new(true, Source::Redis, 1, 8_000, windows).reported().unwrap().index, 1);
    }

    #[test]
    fn a_denial_reports_the_window_that_denies_and_frees_later() {
        let windows = [window(5, 5, 1_000, 8_500), window(6, 7, 2_000, 9_900)];
        assert_eq!(Decision::new(false, Source::Local, 1, 8_000, windows).reported().unwrap().index, 0);
        let both = Decision::new(false, Source::Local, 2, 8_000, windows).reported().unwrap();
        assert_eq!((both.index, both.remaining, both.retry_after_s), (1, 1, 2));
    }

    #[test]
    fn waiting_is_rounded_up_and_never_nothing() {
        let at = |frees| Decision::new(false, Source::Redis, 1, 10_000, [window(1, 1, 1_000, frees)]).reported();
        assert_eq!(at(10_001).map(|it| (it.reset_s, it.retry_after_s)), Some((11, 1)));
        assert_eq!(at(11_000).map(|it| (it.reset_s, it.retry_after_s)), Some((11, 1)));
        assert_eq!(at(11_001).map(|it| (it.reset_s, it.retry_after_s)), Some((12, 2)));
        assert_eq!(at(10_000).map(|it| (it.reset_s, it.retry_after_s)), Some((10, 1)));
    }

    #[test]
    fn a_repeated_denial_waits_less() {
        let first = Decision::new(false, Source::Redis, 1, 10_000, [window(1, 1, 3_000, 12_500)]);
        let again = first.repeated(Source::DenyCache, 600);
        assert_eq!(first.reported().unwrap().retry_after_s, 3);
        assert_eq!(again.reported().unwrap().retry_after_s, 2);
        assert_eq!(again.reported().unwrap().reset_s, 13);
    }
}
