//! Shares of one token's limits, leased to regions and moved between them by one of them, the coordinator.
//!
//! A round: the coordinator asks all regions what they use and how much is asked of them, then lowers some shares, and raises
//! others when it knows that the first are lower. A region keeps what it has admitted until that has left its window. So
//! the shares never add up to more than the limit, and no region admits beyond its own: neither do all together, whatever their
//! clocks say.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use fastrand::Rng;

use super::demand::Arrival;
use super::strategy::Entry;
use super::world::{REGIONS, World, counts};

/// How far back a region counts what it is asked (µs).
const MEMORY_US: u64 = 60_000_000;

#[derive(Clone, Copy)]
pub(crate) enum Sharing {
    /// A third for each region, always.
    Even,
    /// In each round what is free goes to where requests come.
    Unused { every_s: u64 },
    /// In each round the whole limit goes to where requests come, each share as soon as its message arrives: what not to do.
    AtOnce { every_s: u64 },
}

/// A share of each of the two limits.
type Share = [u32; 2];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Request {
        region: usize,
    },
    /// A round begins.
    Begin,
    /// A region is asked what it uses.
    Asked {
        region: usize,
    },
    Report {
        region: usize,
        used: Share,
        demand: u32,
    },
    /// A region is told its share; `confirms`: it has to confirm that.
    Told {
        region: usize,
        share: Share,
        confirms: bool,
    },
    Confirmed {
        region: usize,
        share: Share,
    },
}

pub(crate) struct Leases<'a> {
    world: &'a World,
    coordinator: usize,
    token: &'a str,
    sharing: Sharing,
    /// What each region may admit, as it knows.
    shares: [Share; REGIONS],
    /// Requests of the last minute in each region.
    recent_us: [VecDeque<u64>; REGIONS],
    /// What the coordinator knows: at least what each region may admit.
    granted: [Share; REGIONS],
    reports: [Option<(Share, u32)>; REGIONS],
    targets: [Share; REGIONS],
    unconfirmed: usize,
    began_us: u64,
    events: BinaryHeap<Reverse<(u64, Event)>>,
}

impl<'a> Leases<'a> {
    pub(crate) fn new(world: &'a World, coordinator: usize, token: &'a str, sharing: Sharing) -> Self {
        let even = split(counts(), [0; REGIONS]);
        Self {
            world,
            coordinator,
            token,
            sharing,
            shares: even,
            recent_us: Default::default(),
            granted: even,
            reports: [None; REGIONS],
            targets: even,
            unconfirmed: 0,
            began_us: 0,
            events: BinaryHeap::new(),
        }
    }

    pub(crate) fn decide(mut self, requests: &[Arrival], random: &mut Rng) -> Vec<Entry> {
        let arrivals = requests.iter().map(|arrival| (arrival.at_us, Event::Request { region: arrival.region }));
        self.events.extend(arrivals.map(Reverse));
        let mut left = requests.len();
        if !matches!(self.sharing, Sharing::Even) {
            self.events.push(Reverse((0, Event::Begin)));
        }
        let mut entries = Vec::new();
        while left > 0
            && let Some(Reverse((now_us, event))) = self.events.pop()
        {
            if let Event::Request { region } = event {
                left -= 1;
                self.recent_us[region].push_back(now_us);
                let admitted = self.world.decide(region, self.token, self.shares[region], now_us).admitted;
                entries.push(Entry { decided_us: now_us, extra_us: 0, admitted });
            } else {
                self.happens(event, now_us, random);
            }
        }
        entries
    }

    fn happens(&mut self, event: Event, now_us: u64, random: &mut Rng) {
        match event {
            Event::Request { .. } => {}
            Event::Begin => {
                self.began_us = now_us;
                self.reports = [None; REGIONS];
                (0..REGIONS).for_each(|region| self.send(region, Event::Asked { region }, now_us, random));
            }
            Event::Asked { region } => {
                let recent_us = &mut self.recent_us[region];
                while recent_us.front().is_some_and(|at_us| at_us + MEMORY_US < now_us) {
                    recent_us.pop_front();
                }
                let demand = recent_us.len() as u32;
                let used = self.world.used(region, self.token, now_us);
                self.send(region, Event::Report { region, used, demand }, now_us, random);
            }
            Event::Report { region, used, demand } => {
                self.reports[region] = Some((used, demand));
                if let [Some(one), Some(two), Some(three)] = self.reports {
                    self.share_out([one, two, three], now_us, random);
                }
            }
            Event::Told { region, share, confirms } => {
                let used = match self.sharing {
                    Sharing::AtOnce { .. } => [0; 2],
                    Sharing::Even | Sharing::Unused { .. } => self.world.used(region, self.token, now_us),
                };
                // What it has admitted meanwhile it has: it keeps that much of its old share.
                let old = self.shares[region];
                let share = std::array::from_fn(|at| share[at].max(used[at].min(old[at])));
                self.shares[region] = share;
                if confirms {
                    self.send(region, Event::Confirmed { region, share }, now_us, random);
                }
            }
            Event::Confirmed { region, share } => {
                self.granted[region] = share;
                self.unconfirmed -= 1;
                if self.unconfirmed == 0 {
                    self.raise(now_us, random);
                }
            }
        }
    }

    /// The coordinator knows what is used, and lowers the shares that are larger than they should be.
    fn share_out(&mut self, reports: [(Share, u32); REGIONS], now_us: u64, random: &mut Rng) {
        let demand = reports.map(|(_, demand)| demand);
        if let Sharing::AtOnce { every_s } = self.sharing {
            self.targets = split(counts(), demand);
            for region in 0..REGIONS {
                let share = self.targets[region];
                self.send(region, Event::Told { region, share, confirms: false }, now_us, random);
            }
            self.begin_again(every_s, now_us);
            return;
        }
        let used = reports.map(|(used, _)| used);
        let free = std::array::from_fn(|at| counts()[at].saturating_sub(used.iter().map(|used| used[at]).sum()));
        let parts = split(free, demand);
        self.targets = std::array::from_fn(|region| std::array::from_fn(|at| used[region][at] + parts[region][at]));
        // First all that is to be lower, either limit of it; then the rest.
        self.unconfirmed = REGIONS;
        for region in 0..REGIONS {
            let share = std::array::from_fn(|at| self.targets[region][at].min(self.granted[region][at]));
            self.send(region, Event::Told { region, share, confirms: true }, now_us, random);
        }
    }

    /// All regions have confirmed their lower shares: what is free by that goes to the others.
    fn raise(&mut self, now_us: u64, random: &mut Rng) {
        for at in 0..2 {
            let mut free = counts()[at].saturating_sub(self.granted.iter().map(|share| share[at]).sum());
            for region in 0..REGIONS {
                let more = self.targets[region][at].saturating_sub(self.granted[region][at]).min(free);
                self.granted[region][at] += more;
                free -= more;
            }
        }
        for region in 0..REGIONS {
            let share = self.granted[region];
            self.send(region, Event::Told { region, share, confirms: false }, now_us, random);
        }
        if let Sharing::Unused { every_s } = self.sharing {
            self.begin_again(every_s, now_us);
        }
    }

    fn begin_again(&mut self, every_s: u64, now_us: u64) {
        // Messages of two rounds never overtake each other: the next waits for longer than one takes.
        let next_us = (self.began_us + every_s * 1_000_000).max(now_us + 500_000);
        self.events.push(Reverse((next_us, Event::Begin)));
    }

    /// A message between the coordinator and a region, either way.
    fn send(&mut self, region: usize, event: Event, now_us: u64, random: &mut Rng) {
        let delay_us = self.world.delay_us(self.coordinator, region, random);
        self.events.push(Reverse((now_us + delay_us, event)));
    }
}

/// Parts of two numbers by demand, each region a little of it; all of either number.
fn split(whole: Share, demand: [u32; REGIONS]) -> [Share; REGIONS] {
    let weights = demand.map(|demand| 10 * demand + 1);
    let total: u32 = weights.iter().sum();
    let mut parts: [Share; REGIONS] = std::array::from_fn(|region| {
        whole.map(|whole| (u64::from(whole) * u64::from(weights[region]) / u64::from(total)) as u32)
    });
    // What rounding leaves goes to the busiest.
    let busiest = (0..REGIONS).max_by_key(|region| weights[*region]).unwrap_or(0);
    for at in 0..2 {
        let left = whole[at] - parts.iter().map(|part| part[at]).sum::<u32>();
        parts[busiest][at] += left;
    }
    parts
}
