//! Regions with clocks of their own, the limiter of each, and how long messages between them take.

use callgate::config::{Limit, Plan};
use callgate::limits::{Decision, MemoryLimiter};
use fastrand::Rng;

/// Regions.
pub(crate) const REGIONS: usize = 3;
/// The limits of each token: count and window (ms).
pub(crate) const LIMITS: [(u32, u32); 2] = [(60, 60_000), (1_000, 3_600_000)];

/// The round trip between two regions is drawn from this range (µs).
pub(crate) const ROUND_TRIP_US: std::ops::Range<u64> = 40_000..200_000;
/// A message may take longer than half of that, by up to so much of it.
const JITTER: f64 = 0.2;
/// One message in so many is lost, and comes so much later (µs).
const LOST: (u32, u64) = (100, 200_000);
/// How far a clock is off (ms), and how much faster or slower it may be.
const OFFSET_MS: i64 = 3_600_000;
const DRIFT: f64 = 1.0 / 2_000.0;
/// Unix ms at the beginning of a run, on a clock that is right.
const BEGINNING_MS: i64 = 1_700_000_000_000;
/// A cost that no limit admits: a request that only looks.
const LOOK: u32 = u32::MAX;

/// True times are µs since the run began.
pub(crate) struct World {
    clocks: [Clock; REGIONS],
    /// Between each two regions (µs).
    round_trips: [[u64; REGIONS]; REGIONS],
    /// One for each region. Each strategy has tokens of its own in them.
    limiters: [MemoryLimiter; REGIONS],
}

struct Clock {
    offset_ms: i64,
    rate: f64,
}

impl World {
    pub(crate) fn new(random: &mut Rng) -> Self {
        let clocks = std::array::from_fn(|_| Clock {
            offset_ms: random.i64(-OFFSET_MS..=OFFSET_MS),
            rate: 1.0 + DRIFT * (2.0 * random.f64() - 1.0),
        });
        let mut round_trips = [[0; REGIONS]; REGIONS];
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let round_trip_us = random.u64(ROUND_TRIP_US);
            round_trips[one][other] = round_trip_us;
            round_trips[other][one] = round_trip_us;
        }
        Self { clocks, round_trips, limiters: std::array::from_fn(|_| MemoryLimiter::new(1_000_000)) }
    }

    /// How long a message takes (µs); nothing within a region.
    pub(crate) fn delay_us(&self, from: usize, to: usize, random: &mut Rng) -> u64 {
        if from == to {
            return 0;
        }
        let usual_us = self.round_trips[from][to] / 2;
        let late_us = (usual_us as f64 * JITTER * random.f64()) as u64;
        usual_us + late_us + if random.u32(..LOST.0) == 0 { LOST.1 } else { 0 }
    }

    /// The decision of a region's limiter at a true time.
    pub(crate) fn decide(&self, region: usize, token: &str, limits: [u32; 2], at_us: u64) -> Decision {
        self.limiters[region].decide(token, &plan(limits), 1, self.clock_ms(region, at_us))
    }

    /// What a region has admitted that its windows still count.
    pub(crate) fn used(&self, region: usize, token: &str, at_us: u64) -> [u32; 2] {
        let denial = self.limiters[region].decide(token, &plan(counts()), LOOK, self.clock_ms(region, at_us));
        std::array::from_fn(|at| denial.windows()[at].used)
    }

    fn clock_ms(&self, region: usize, at_us: u64) -> u64 {
        let clock = &self.clocks[region];
        let since_ms = (at_us as f64 * clock.rate / 1_000.0) as i64;
        (BEGINNING_MS + clock.offset_ms + since_ms).unsigned_abs()
    }
}

/// The counts of the whole limits.
pub(crate) fn counts() -> [u32; 2] {
    LIMITS.map(|(count, _)| count)
}

fn plan(counts: [u32; 2]) -> Plan {
    let limit = |(count, (_, window_ms)): (u32, (u32, u32))| Limit {
        name: "w".into(),
        count,
        window_ms: window_ms.try_into().expect("no window is empty"),
    };
    Plan { name: "regions".into(), limits: counts.into_iter().zip(LIMITS).map(limit).collect(), ..Plan::default() }
}
