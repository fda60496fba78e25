//! What a request costs the whole program: CPU time of the gateway's process per request, in closed loops over loopback, with
//! nginx beside it where that is installed.
//!
//! `cargo bench --bench gateway` measures everything; words choose scenarios by parts of their names (`-- flood`), and
//! `-- instructions` counts instructions under callgrind instead. README.md in this folder says how to read the numbers.

#[path = "gateway/load.rs"]
mod load;
#[path = "gateway/program.rs"]
mod program;
#[path = "../tests/it/support/redis.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests")]
mod server;
#[path = "gateway/site.rs"]
mod site;
#[path = "gateway/upstream.rs"]
mod upstream;

use std::time::Duration;

use load::{Load, Protocol};
use program::Cores;
use site::{Site, Store, Tokens};

/// Within a round every scenario and every peer has its turn; the median of the rounds counts.
const ROUNDS: usize = 3;
/// Before and while the counting.
const STRETCH: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(2_000));
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

    /// Microseconds of CPU time per request, on a fresh process.
    fn callgate(&self, site: &Site) -> f64 {
        let program = site.callgate(self.store, self.access_log, None);
        self.load(program.port, self.path, site).for_a_while(STRETCH, || program.cpu())
    }

    fn nginx(&self, site: &Site) -> Option<f64> {
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
    let mut table = vec![(Vec::new(), Vec::new()); chosen.len()];
    for _ in 0..ROUNDS {
        for (scenario, (ours, theirs)) in chosen.iter().zip(&mut table) {
            let cost = scenario.callgate(site);
            ours.push(cost);
            if let Some(peer) = scenario.nginx(site) {
                theirs.push((peer, cost / peer));
            }
        }
    }
    println!("\nCPU µs per request over TLS 1.3, {} (median of {ROUNDS} rounds; range)", site.cores());
    println!("{:34}{:>22}{:>10}{:>10}{:>8}", "", "Callgate", "nginx", "ratio", "goal");
    for (scenario, (ours, theirs)) in chosen.iter().zip(&table) {
        let (low, middle, high) = spread(ours.iter().copied());
        print!("{:34}{:>22}", scenario.name, format!("{middle:.1} ({low:.1}–{high:.1})"));
        if !theirs.is_empty() {
            let (peer, ratio) = (spread(theirs.iter().map(|row| row.0)).1, spread(theirs.iter().map(|row| row.1)).1);
            print!("{peer:>10.1}{ratio:>10.2}");
            if let Some(goal) = scenario.goal {
                print!("{goal:>8.2}");
            }
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
