//! Ways to keep one limit over several regions.

use fastrand::Rng;

use super::demand::Arrival;
use super::leases::{Leases, Sharing};
use super::world::{World, counts};

/// A request and what became of it.
pub(crate) struct Entry {
    /// True time of the decision, µs since the run began.
    pub(crate) decided_us: u64,
    /// What the decision took beyond one within the region (µs).
    pub(crate) extra_us: u64,
    pub(crate) admitted: bool,
}

pub(crate) enum Strategy {
    /// Each region has the whole limit, by itself.
    Independent,
    /// The home decides; requests elsewhere ask it.
    HomeAsked,
    /// The home decides; requests elsewhere are refused.
    HomeOnly,
    /// Each region has a share of the limit.
    Leases(Sharing),
}

/// All that are compared.
pub(crate) const STRATEGIES: [Strategy; 8] = [
    Strategy::Independent,
    Strategy::HomeAsked,
    Strategy::HomeOnly,
    Strategy::Leases(Sharing::Even),
    Strategy::Leases(Sharing::Unused { every_s: 60 }),
    Strategy::Leases(Sharing::Unused { every_s: 10 }),
    Strategy::Leases(Sharing::Unused { every_s: 1 }),
    Strategy::Leases(Sharing::AtOnce { every_s: 10 }),
];

impl Strategy {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Independent => "independent regions, each the whole limit".into(),
            Self::HomeAsked => "home region, asked by the others".into(),
            Self::HomeOnly => "home region, refused elsewhere".into(),
            Self::Leases(Sharing::Even) => "shares, always a third".into(),
            Self::Leases(Sharing::Unused { every_s }) => format!("shares, unused parts moved every {every_s} s"),
            Self::Leases(Sharing::AtOnce { every_s }) => format!("shares, used parts moved too, every {every_s} s"),
        }
    }

    /// Whether it promises that no window ever has more than the limit.
    pub(crate) fn is_exact(&self) -> bool {
        !matches!(self, Self::Independent | Self::Leases(Sharing::AtOnce { .. }))
    }

    /// Decides on all requests of a token. Each strategy has a log of its own for it.
    pub(crate) fn decide(
        &self,
        world: &World,
        home: usize,
        token: &str,
        requests: &[Arrival],
        random: &mut Rng,
    ) -> Vec<Entry> {
        let token = format!("{token} {}", self.name());
        let at_home = |world: &World, at_us: u64, extra_us: u64| {
            let admitted = world.decide(home, &token, counts(), at_us).admitted;
            Entry { decided_us: at_us, extra_us, admitted }
        };
        match self {
            Self::Independent => {
                let decide = |arrival: &Arrival| {
                    let admitted = world.decide(arrival.region, &token, counts(), arrival.at_us).admitted;
                    Entry { decided_us: arrival.at_us, extra_us: 0, admitted }
                };
                requests.iter().map(decide).collect()
            }
            Self::HomeAsked => {
                let asked = |arrival: &Arrival| {
                    let there_us = world.delay_us(arrival.region, home, random);
                    (arrival.at_us + there_us, there_us + world.delay_us(home, arrival.region, random))
                };
                let mut questions: Vec<(u64, u64)> = requests.iter().map(asked).collect();
                questions.sort_unstable();
                questions.into_iter().map(|(at_us, extra_us)| at_home(world, at_us, extra_us)).collect()
            }
            Self::HomeOnly => {
                let decide = |arrival: &Arrival| match arrival.region == home {
                    true => at_home(world, arrival.at_us, 0),
                    false => Entry { decided_us: arrival.at_us, extra_us: 0, admitted: false },
                };
                requests.iter().map(decide).collect()
            }
            Self::Leases(sharing) => Leases::new(world, home, &token, *sharing).decide(requests, random),
        }
    }
}
