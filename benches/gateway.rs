//! What a request costs the whole program: CPU time of the gateway's process per request, in closed loops over loopback, with
//! nginx beside it where that is installed.
//!
//! `cargo bench --bench gateway` measures everything; words choose scenarios by parts of their names (`-- flood`), and
//! `-- instructions` counts instructions under callgrind instead. README.md in this folder says how to read the numbers.

#[path = "gateway/load.rs"]
mod load;
#[path = "gateway/program.rs"]
#[allow(dead_code, reason = "shared with another benchmark")]
mod program;
#[path = "../tests/it/support/redis.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests")]
mod server;
#[path = "gateway/site.rs"]
mod site;
#[path = "gateway/upstream.rs"]
mod upstream;

use std::time::Duration;

use load::{Cost, Load, Protocol};
use program::Cores;
use site::{Site, Store, Tokens};

/// Within a round every scenario and every peer has its turn; the median of the rounds counts.
const ROUNDS: usize = 3;
/// Before and while the counting.
const STRETCH: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(1_500));
/// Requests before and while the instructions are counted.
const COUNTED: (u64, u64) = (640, 2_560);

/// One kind of request, sent to Callgate, and what nginx is asked meanwhile for comparison.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    protocol: Protocol,
    store: Store,
    access_log: bool,
    path: &'static str,
    tokens: Tokens,
    status: u16,
    nginx_path: &'static str,
    /// CPU time against nginx's that is not to be exceeded.
    goal: Option<f64>,
}

fn scenarios() -> [Scenario; 8] {
    let plain = Scenario {
        name: "plain proxy, h1",
        protocol: Protocol::Http1,
        store: Store::Memory,
        access_log: false,
        path: "/public/ping",
        tokens: Tokens::None,
        status: 200,
        nginx_path: "/ping",
        goal: Some(0.60),
    };
    let token = Scenario { path: "/api/ping", tokens: Tokens::Roomy, goal: None, ..plain };
    let redis = Scenario { store: Store::Redis, ..token };
    let flood = Scenario { nginx_path: "/refused", ..redis };
    [
        plain,
        Scenario { name: "plain proxy, h1, access log", access_log: true, goal: None, ..plain },
        Scenario { name: "plain proxy, h2", protocol: Protocol::Http2, ..plain },
        Scenario { name: "token + limits in memory, h1", ..token },
        Scenario { name: "token + limits in Redis, h1", goal: Some(0.74), ..redis },
        Scenario { name: "token + Redis, access log, h1", access_log: true, ..redis },
        Scenario { name: "429 flood (deny cache), h1", tokens: Tokens::UsedUp, status: 429, ..flood },
        Scenario { name: "401 flood, h1", tokens: Tokens::Malformed, status: 401, ..flood },
    ]
}

impl Scenario {
    fn load(&self, port: u16, path: &str, site: &Site) -> Load {
        Load {
            port,
            protocol: self.protocol,
            path: path.to_owned(),
            tokens: site.tokens(self.store, self.tokens),
            status: self.status,
            trust: site.certificate(),
        }
    }

    /// On a fresh process.
    fn callgate(&self, site: &Site) -> Cost {
        let program = site.callgate(self.store, self.access_log, None);
        self.load(program.port, self.path, site).for_a_while(STRETCH, || program.cpu())
    }

    fn nginx(&self, site: &Site) -> Option<Cost> {
        let program = site.nginx(self.access_log)?;
        let load = self.load(program.port, &format!("{}/{}", self.nginx_path, self.status), site);
        Some(load.for_a_while(STRETCH, || program.cpu()))
    }

    /// Instructions per request in user space.
    fn instructions(&self, site: &Site) -> f64 {
        let profile = site.path("callgrind.out");
        let program = site.callgate(self.store, self.access_log, Some(&profile));
        self.load(program.port, self.path, site).so_many(COUNTED.0, COUNTED.1, || program.zero_instructions());
        program.instructions(&profile) as f64 / COUNTED.1 as f64
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    let (count, words): (Vec<_>, Vec<_>) = words.into_iter().partition(|word| word == "instructions");
    let chosen: Vec<Scenario> = scenarios()
        .into_iter()
        .filter(|scenario| words.is_empty() || words.iter().any(|word| scenario.name.contains(word.as_str())))
        .collect();
    let site = Site::new(Cores::choose());
    if count.is_empty() {
        measure(&chosen, &site);
    } else {
        println!("\n{:34}{:>24}", "", "instructions / request");
        for scenario in &chosen {
            println!("{:34}{:>24.0}", scenario.name, scenario.instructions(&site));
        }
    }
}

/// Prints the table of CPU times.
fn measure(chosen: &[Scenario], site: &Site) {
    let mut table = vec![Vec::new(); chosen.len()];
    for _ in 0..ROUNDS {
        for (scenario, rounds) in chosen.iter().zip(&mut table) {
            rounds.push((scenario.callgate(site), scenario.nginx(site)));
        }
    }
    println!("\nCPU µs per request over TLS 1.3, {} (median of {ROUNDS} rounds; range)", site.cores());
    println!("{:34}{:>20}{:>9}{:>9}{:>9}{:>8}{:>7}", "", "Callgate", "req/s", "nginx", "req/s", "ratio", "goal");
    for (scenario, rounds) in chosen.iter().zip(&table) {
        let (low, cpu, high) = spread(rounds.iter().map(|(ours, _)| ours.cpu_us));
        let rate = spread(rounds.iter().map(|(ours, _)| ours.rate)).1;
        print!("{:34}{:>20}{rate:>9.0}", scenario.name, format!("{cpu:.1} ({low:.1}–{high:.1})"));
        let peers: Vec<_> = rounds.iter().filter_map(|(ours, theirs)| Some((ours, (*theirs)?))).collect();
        if !peers.is_empty() {
            let cpu = spread(peers.iter().map(|(_, theirs)| theirs.cpu_us)).1;
            let rate = spread(peers.iter().map(|(_, theirs)| theirs.rate)).1;
            // Machines have faster and slower minutes; within a round they are the same for both.
            let ratio = spread(peers.iter().map(|(ours, theirs)| ours.cpu_us / theirs.cpu_us)).1;
            let goal = scenario.goal.map_or(String::new(), |goal| format!("{goal:.2}"));
            print!("{cpu:>9.1}{rate:>9.0}{ratio:>8.2}{goal:>7}");
        }
        println!();
    }
}

/// Lowest, median, highest.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}
