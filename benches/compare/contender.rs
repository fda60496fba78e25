//! One program with the load of a row on it, which comes in slices.

use std::time::Duration;

use tokio::runtime::Runtime;

use crate::line::{Calls, TransferStats, Way};
use crate::load::{Client, Load};
use crate::program::Program;
use crate::proxy::Proxy;
use crate::row::{Row, Work};
use crate::site::{Site, Tokens};
use crate::upstream::BULK;

/// Large bodies at one time.
const BODIES_IN_FLIGHT: usize = 4;
/// Connections between two requests whose memory is measured, beyond those that were there before.
const IDLE: (usize, usize) = (100, 1_000);
/// Of these and of calls, so many are opened at one time.
const OPENING: usize = 64;
/// Calls, each of which sends a frame in every period, and for how long in a slice.
const CALLS: (usize, Duration, Duration) = (64, Duration::from_millis(20), Duration::from_secs(1));

pub(crate) struct Contender {
    pub(crate) proxy: Proxy,
    program: Program,
    load: RowLoad,
}

enum RowLoad {
    /// So many requests in a slice.
    Requests(Client, u64),
    /// So many large bodies in a slice.
    Bodies(Client, u64),
    Calls(Way, Runtime),
    Idle(Way, Runtime),
}

impl Contender {
    /// Starts the program and warms it up.
    pub(crate) fn start(proxy: Proxy, row: &Row, site: &Site) -> Self {
        let scenario = &row.scenario;
        let program = proxy.start(site, scenario.store, scenario.access_log);
        let load = scenario.load(program.port, site);
        let client = |load, count| {
            let mut client = Client::open(load);
            client.send(count / 2);
            client
        };
        let way = || Way::through(program.port, &site.certificate(), &site.tokens(scenario.store, Tokens::Roomy)[0]);
        let load = match row.work {
            Work::Requests(count) => RowLoad::Requests(client(load, count), count),
            Work::Bodies { count, upload } => {
                let body = if upload { BULK } else { 0 };
                RowLoad::Bodies(client(Load { concurrency: BODIES_IN_FLIGHT, body, ..load }, count), count)
            }
            Work::Calls => RowLoad::Calls(way(), runtime()),
            Work::Idle => RowLoad::Idle(way(), runtime()),
        };
        Self { proxy, program, load }
    }

    /// Puts a slice of load on it; returns the figures of the row.
    pub(crate) fn slice(&mut self, row: &Row, site: &Site) -> Vec<f64> {
        let (before, redis_before) = (self.program.cpu(), redis_cpu_us(site));
        match &mut self.load {
            RowLoad::Requests(client, count) => {
                client.send(*count);
                let spent = [self.program.cpu() - before, redis_cpu_us(site) - redis_before];
                spent[..row.units().len()].iter().map(|us| us / *count as f64).collect()
            }
            RowLoad::Bodies(client, count) => {
                client.send(*count);
                let (seconds, gigabytes) = ((self.program.cpu() - before) / 1e6, (*count * BULK as u64) as f64 / 1e9);
                vec![seconds / gigabytes]
            }
            RowLoad::Idle(way, runtime) => runtime.block_on(async {
                let _warm = way.waiting(IDLE.0, OPENING).await;
                let before = self.program.resident();
                let _connections = way.waiting(IDLE.1, OPENING).await;
                vec![(self.program.resident() as f64 - before as f64) / 1024.0 / IDLE.1 as f64]
            }),
            RowLoad::Calls(way, runtime) => {
                let calls = runtime.block_on(Calls::open(way, CALLS.0, OPENING));
                let before = self.program.cpu();
                let heard = runtime.block_on(calls.speak(CALLS.1, CALLS.2));
                let spent = self.program.cpu() - before;
                let [p50, p99] = latencies_us(&heard);
                vec![p50, p99, spent / heard.echoed() as f64]
            }
        }
    }
}

/// The latencies of calls without a proxy, p50 and p99.
pub(crate) fn direct_us(site: &Site) -> [f64; 2] {
    let way = Way::direct(site.calls);
    runtime().block_on(async { latencies_us(&Calls::open(&way, CALLS.0, OPENING).await.speak(CALLS.1, CALLS.2).await) })
}

fn redis_cpu_us(site: &Site) -> f64 {
    let text: String = site.redis.say(&["INFO", "cpu"]);
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)).expect("a field of Redis");
        value.trim().parse::<f64>().expect("seconds")
    };
    (field("used_cpu_user:") + field("used_cpu_sys:")) * 1e6
}

fn latencies_us(heard: &TransferStats) -> [f64; 2] {
    assert_eq!((heard.lost(), heard.disordered), (0, 0), "frames were lost or overtaken");
    [0.5, 0.99].map(|quantile| f64::from(heard.latency_us(quantile)))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
