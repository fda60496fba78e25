//! How fast Redis answers, by the last heartbeats.

use std::collections::VecDeque;
use std::time::Duration;

/// Answers that are remembered: those of a minute.
const MAX_PINGS: usize = 20;

/// How long Redis took to answer the last heartbeats.
#[derive(Debug, Default)]
pub(super) struct Pings(VecDeque<Duration>);

impl Pings {
    pub(super) fn note(&mut self, took: Duration) {
        if self.0.len() == MAX_PINGS {
            self.0.pop_front();
        }
        self.0.push_back(took);
    }

    /// What half of the last answers took at most, 95 in a hundred, and 99; `None`: there was no answer yet.
    pub(super) fn times(&self) -> [Option<Duration>; 3] {
        let mut sorted: Vec<Duration> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        // The smallest that so many in a hundred don't exceed.
        let at = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        [50, 95, 99].map(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_last_answers() {
        let mut pings = Pings::default();
        assert_eq!(pings.times(), [None; 3]);
        let ms = Duration::from_millis;
        pings.note(ms(900));
        (1..=20).for_each(|took| pings.note(ms(took)));
        assert_eq!(pings.times(), [10, 19, 20].map(|took| Some(ms(took))));
    }
}
