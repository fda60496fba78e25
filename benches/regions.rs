//! What limits are worth over several regions: a simulation on the limiter's own decisions.
//!
//! `cargo bench --profile dev --bench regions` prints Markdown tables; `-- seed=N runs=N hours=N` choose other numbers. Time is an
//! argument of each decision: nothing is measured, so neither the profile nor the machine changes the tables, and the same seed
//! gives the same ones. It fails if a way that promises exactness admits one request too many.

#[path = "regions/demand.rs"]
mod demand;
#[path = "../tests/it/proof/judge/mod.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, clippy::unwrap_used, reason = "shared with the tests")]
mod judge;
#[path = "regions/leases.rs"]
mod leases;
#[path = "regions/strategy.rs"]
mod strategy;
#[path = "regions/verdict.rs"]
mod verdict;
#[path = "regions/world.rs"]
mod world;

use std::process::ExitCode;

use demand::{Pattern, history};
use fastrand::Rng;
use strategy::STRATEGIES;
use verdict::Verdict;
use world::World;

/// Tokens of each pattern in each run.
const TOKENS: usize = 8;

/// `name=N` among the arguments.
fn number(name: &str, default: u64) -> u64 {
    let value = |word: String| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
    std::env::args().skip(1).find_map(value).unwrap_or(default)
}

fn main() -> ExitCode {
    let is_trial = std::env::args().any(|word| word == "--test");
    let seed = number("seed", 1);
    let (runs, hours) = if is_trial { (1, 1) } else { (number("runs", 5), number("hours", 3)) };
    let mut verdicts: Vec<[Verdict; Pattern::ALL.len()]> = STRATEGIES.iter().map(|_| Default::default()).collect();
    for run in 0..runs {
        let mut random = Rng::with_seed(seed + run);
        let world = World::new(&mut random);
        for token in 0..TOKENS {
            for (at, pattern) in Pattern::ALL.into_iter().enumerate() {
                let (home, requests) = history(pattern, hours, &mut random);
                let name = format!("{}{token:02}{run}", pattern.name());
                let delays = random.u64(..);
                for (strategy, verdicts) in STRATEGIES.iter().zip(&mut verdicts) {
                    // All of them meet the same clocks, the same requests and delays drawn alike.
                    let entries = strategy.decide(&world, home, &name, &requests, &mut Rng::with_seed(delays));
                    verdicts[at].add(&entries);
                }
            }
        }
    }
    verdict::print(&verdicts, runs, hours);
    let mut is_good = true;
    for (strategy, verdicts) in STRATEGIES.iter().zip(&verdicts) {
        let beyond: usize = verdicts.iter().map(Verdict::beyond).sum();
        if strategy.is_exact() && beyond > 0 {
            eprintln!("{}: {beyond} requests were admitted beyond a limit", strategy.name());
            is_good = false;
        }
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
