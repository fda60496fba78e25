//! How fast Redis answers, by the last heartbeats.

use std::collections::VecDeque;
use std::time::Duration;

/// Answers that are remembered: those of a minute.
const MAX_PINGS: usize = 20;

/// How long Redis took to answer the last heartbeats.
#[derive(Debug, Default)]
pub(super) struct Pings(VecDeque<Duration>);

/// The middle of the last answers, and the slow ones; `None`: there was no answer yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PingTimes {
    pub(crate) p50: Option<Duration>,
    pub(crate) p95: Option<Duration>,
    pub(crate) p99: Option<Duration>,
}

impl Pings {
    pub(super) fn note(&mut self, took: Duration) {
        if self.0.len() == MAX_PINGS {
            self.0.pop_front();
        }
        self.0.push_back(took);
    }

    pub(super) fn times(&self) -> PingTimes {
        let mut sorted: Vec<Duration> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        // The smallest that so many in a hundred don't exceed.
        let at = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        PingTimes { p50: at(50), p95: at(95), p99: at(99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_last_answers() {
        let mut pings = Pings::default();
        assert_eq!(pings.times(), PingTimes { p50: None, p95: None, p99: None });
        let ms = Duration::from_millis;
        pings.note(ms(900));
        (1..=20).for_each(|took| pings.note(ms(took)));
        assert_eq!(pings.times(), PingTimes { p50: Some(ms(10)), p95: Some(ms(19)), p99: Some(ms(20)) });
    }
}
