//! The requests of one token: when they come, and to which region.

use fastrand::Rng;

use super::world::REGIONS;

/// Requests a minute of a token in its quiet and in its busy time, and how many minutes either lasts on average. Over an hour that
/// is more than the limit, and so it is in busy minutes.
const QUIET: (f64, f64) = (6.0, 10.0);
const BUSY: (f64, f64) = (90.0, 2.0);
/// Tokens differ: each has so much of these rates.
const FACTOR: (f64, f64) = (0.5, 2.0);
/// Of a token that mostly stays at home: the share of its requests that come elsewhere.
const ELSEWHERE: f64 = 0.1;

/// Where a token's requests come.
#[derive(Clone, Copy)]
pub(crate) enum Pattern {
    /// Nine in ten to its home.
    Home,
    /// To all regions alike.
    Even,
    /// All to one region, and to another one after each quiet or busy time.
    Moving,
}

/// A request, its true time in µs since the run began.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) at_us: u64,
    pub(crate) region: usize,
}

impl Pattern {
    pub(crate) const ALL: [Self; 3] = [Self::Home, Self::Even, Self::Moving];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Even => "even",
            Self::Moving => "moving",
        }
    }
}

/// A token's home and its requests in order.
pub(crate) fn history(pattern: Pattern, hours: u64, random: &mut Rng) -> (usize, Vec<Arrival>) {
    let end_us = (hours * 3_600_000_000) as f64;
    let home = random.usize(..REGIONS);
    let factor = FACTOR.0 + (FACTOR.1 - FACTOR.0) * random.f64();
    let (mut arrivals, mut at_us, mut phase_ends_us) = (Vec::new(), 0.0, 0.0);
    let (mut is_busy, mut place) = (random.bool(), home);
    while at_us < end_us {
        if at_us >= phase_ends_us {
            is_busy = !is_busy;
            place = random.usize(..REGIONS);
            let minutes = if is_busy { BUSY.1 } else { QUIET.1 };
            phase_ends_us = at_us + exponential(60e6 * minutes, random);
        }
        let a_minute = factor * if is_busy { BUSY.0 } else { QUIET.0 };
        let next_us = at_us + exponential(60e6 / a_minute, random);
        if next_us > phase_ends_us {
            // How long one has waited says nothing of how long one will.
            at_us = phase_ends_us;
            continue;
        }
        at_us = next_us;
        let region = match pattern {
            Pattern::Home if random.f64() >= ELSEWHERE => home,
            Pattern::Home => (home + random.usize(1..REGIONS)) % REGIONS,
            Pattern::Even => random.usize(..REGIONS),
            Pattern::Moving => place,
        };
        arrivals.push(Arrival { at_us: at_us as u64, region });
    }
    (home, arrivals)
}

fn exponential(mean: f64, random: &mut Rng) -> f64 {
    -mean * (1.0 - random.f64()).ln()
}
