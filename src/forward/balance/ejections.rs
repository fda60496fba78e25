//! Ejecting endpoints whose requests fail, for a time that grows with each ejection in a row. Pure: time and chance are arguments.

use std::time::Duration;

use crate::config::Ejection;

/// The ejections of one upstream's endpoints. It is only used when requests fail.
pub(super) struct Ejections {
    config: Ejection,
    past: Vec<PastEjections>,
}

/// How often an endpoint was ejected in a row, and until when.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PastEjections {
    times: u32,
    until: u64,
}

impl Ejections {
    /// With what is known of each endpoint from before.
    pub(super) fn new(config: Ejection, past: Vec<PastEjections>) -> Self {
        Self { config, past }
    }

    pub(super) fn past(&self, index: usize) -> PastEjections {
        self.past[index]
    }

    /// Until when (milliseconds) an endpoint is ejected; `None` when it stays because too many others are.
    /// `chance` below 1.0 lengthens the time by up to a tenth, so that not all return at one moment.
    pub(super) fn eject(&mut self, index: usize, now: u64, chance: f64) -> Option<u64> {
        let out = self.past.iter().filter(|past| now < past.until).count();
        if now < self.past[index].until || out >= self.max_ejected() {
            return None;
        }
        let times = self.remembered(index, now) + 1;
        let length = self.config.time.saturating_mul(times).min(self.config.max_time);
        let length = length.mul_f64(1.0 + chance / 10.0).max(Duration::from_millis(1));
        let until = now + length.as_millis() as u64;
        self.past[index] = PastEjections { times, until };
        Some(until)
    }

    /// How many may be ejected at one time: the share, at least one, and never all.
    fn max_ejected(&self) -> usize {
        let all = self.past.len();
        let share = all * self.config.max_share as usize / 100;
        if self.config.max_share == 0 { 0 } else { share.max(1).min(all.saturating_sub(1)) }
    }

    /// Ejections in a row that still count: one is forgotten for each period in service as long as the first ejection.
    fn remembered(&self, index: usize, now: u64) -> u32 {
        let PastEjections { times, until } = self.past[index];
        let served = now.saturating_sub(until) / self.config.time.as_millis().max(1) as u64;
        times.saturating_sub(u32::try_from(served).unwrap_or(u32::MAX))
    }
}
