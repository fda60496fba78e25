//! What a request costs the whole program: instructions per request in user space, counted by callgrind. They repeat to a
//! percent, on a busy machine too, so that a change that makes requests dearer can be found by them.
//!
//! `cargo bench --bench gateway` counts; `-- check` also compares with the committed figures and fails when a request has
//! become dearer; `-- write` writes the figures anew. Further words choose scenarios by parts of their names (`-- flood`).
//! README.md in this folder says how to read the numbers.

#[path = "gateway/committed.rs"]
mod committed;
#[path = "gateway/load.rs"]
#[allow(dead_code, reason = "shared with another benchmark")]
mod load;
#[path = "gateway/program.rs"]
#[allow(dead_code, reason = "shared with other benchmarks")]
mod program;
#[path = "gateway/scenario.rs"]
mod scenario;
#[path = "../tests/it/support/redis.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests")]
mod server;
#[path = "gateway/site.rs"]
#[allow(dead_code, reason = "shared with another benchmark")]
mod site;
#[path = "gateway/tls.rs"]
mod tls;
#[path = "gateway/upstream.rs"]
mod upstream;

use std::process::ExitCode;

use committed::Committed;
use load::Client;
use program::Cores;
use scenario::{Scenario, is_chosen, scenarios};
use site::Site;

/// Requests before and while the instructions are counted.
const COUNTED: (u64, u64) = (640, 2_560);
/// How often a row is counted at most. What a process does beside requests, and more of on a busy machine, only ever adds: the
/// lowest count is the best.
const MAX_COUNTS: usize = 3;

impl Scenario {
    /// Instructions per request in user space: the lowest of several counts, or the first that is good enough.
    fn lowest(&self, site: &Site, is_enough: impl Fn(f64) -> bool) -> f64 {
        let mut lowest = f64::INFINITY;
        for _ in 0..MAX_COUNTS {
            lowest = self.instructions(site).min(lowest);
            if is_enough(lowest) {
                break;
            }
        }
        lowest
    }

    fn instructions(&self, site: &Site) -> f64 {
        let profile = site.path("callgrind.out");
        let program = site.callgate(self.store, self.access_log, Some(&profile));
        let mut client = Client::open(self.load(program.port, site));
        client.send(COUNTED.0);
        program.zero_instructions();
        client.send(COUNTED.1);
        program.instructions(&profile) as f64 / COUNTED.1 as f64
    }
}

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--test") {
        return ExitCode::SUCCESS;
    }
    let words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    // `instructions` says what happens anyway.
    let (orders, words): (Vec<_>, Vec<_>) =
        words.partition(|word| ["instructions", "check", "write"].contains(&word.as_str()));
    let [writes, checks] = ["write", "check"].map(|order| orders.iter().any(|word| word == order));
    let mut committed = Committed::read();
    let upstream = upstream::start();
    let site = Site::new(Cores::choose(), upstream, upstream);
    println!("\n{:34}{:>24}{:>12}{:>10}", "", "instructions / request", "committed", "change");
    let mut dearer = Vec::new();
    for scenario in scenarios().iter().filter(|scenario| is_chosen(scenario.name, &words)) {
        let name = scenario.name;
        let counted = scenario.lowest(&site, |counted| !writes && (!checks || committed.allows(name, counted)));
        print!("{name:34}{counted:>24.0}");
        if let Some(figure) = committed.figure(name) {
            print!("{figure:>12.0}{:>+9.1}%", (counted / figure - 1.0) * 100.0);
        }
        println!();
        if !committed.allows(name, counted) {
            dearer.push(name);
        }
        committed.set(name, counted);
    }
    if writes {
        committed.write();
    } else if checks && !dearer.is_empty() {
        let percent = committed::TOLERANCE * 100.0;
        eprintln!("\nMore than {percent:.0} % above the committed figures, or without one: {}.", dearer.join("; "));
        eprintln!("Find the reason; if it is worth its price, `.ci/instructions write` writes the figures anew.");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
