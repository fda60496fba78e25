//! One program with the load of a row on it, which comes in slices.

use std::time::Duration;

use tokio::runtime::Runtime;

use crate::line::{Calls, TransferStats, Way};
use crate::load::Client;
use crate::program::Program;
use crate::proxy::Proxy;
use crate::row::{Row, Work};
use crate::site::{Site, Tokens};
use crate::upstream::BULK;

/// Connections between two requests whose memory is measured, beyond those that were there before.
const IDLE: (usize, usize) = (100, 1_000);
/// Connections that are opened at one time.
const OPENING: usize = 64;
/// Calls, each of which sends a frame in every period, and for how long in a slice.
const CALLS: (usize, Duration, Duration) = (64, Duration::from_millis(20), Duration::from_secs(1));

pub(crate) struct Contender {
    pub(crate) proxy: Proxy,
    program: Program,
    load: RowLoad,
}

enum RowLoad {
    Requests(Client),
    Calls(Way, Runtime),
}

impl Contender {
    /// Starts the program and warms it up.
    pub(crate) fn start(proxy: Proxy, row: &Row, site: &Site) -> Self {
        let scenario = &row.scenario;
        let program = proxy.start(site, scenario.store, scenario.access_log);
        let load = match row.work {
            Work::Requests(count) | Work::Download(count) | Work::Upload(count) => {
                let mut load = scenario.load(program.port, site);
                if row.work.moves_bodies() {
                    load.concurrency = 4;
                }
                if let Work::Upload(_) = row.work {
                    load.body = BULK;
                }
                let mut client = Client::open(load);
                client.send(count / 2);
                RowLoad::Requests(client)
            }
            Work::Calls | Work::Idle => {
                let token = &site.tokens(scenario.store, Tokens::Roomy)[0];
                let way = Way::through(program.port, &site.certificate(), token);
                RowLoad::Calls(way, runtime())
            }
        };
        Self { proxy, program, load }
    }

    /// Puts a slice of load on it; returns the figures of the row.
    pub(crate) fn slice(&mut self, row: &Row, site: &Site) -> Vec<f64> {
        let before = self.program.cpu();
        match (&mut self.load, row.work) {
            (RowLoad::Requests(client), Work::Requests(count)) => {
                let redis_before = redis_cpu_us(site);
                client.send(count);
                let spent = [self.program.cpu() - before, redis_cpu_us(site) - redis_before];
                spent[..row.units().len()].iter().map(|us| us / count as f64).collect()
            }
            (RowLoad::Requests(client), Work::Download(count) | Work::Upload(count)) => {
                client.send(count);
                let (seconds, gigabytes) = ((self.program.cpu() - before) / 1e6, (count * BULK as u64) as f64 / 1e9);
                vec![seconds / gigabytes]
            }
            (RowLoad::Calls(way, runtime), Work::Idle) => runtime.block_on(async {
                let _warm = way.waiting(IDLE.0, OPENING).await;
                let before = self.program.resident();
                let _connections = way.waiting(IDLE.1, OPENING).await;
                vec![(self.program.resident() as f64 - before as f64) / 1024.0 / IDLE.1 as f64]
            }),
            (RowLoad::Calls(way, runtime), _) => {
                let calls = runtime.block_on(Calls::open(way, CALLS.0, OPENING));
                let before = self.program.cpu();
                let heard = runtime.block_on(calls.speak(CALLS.1, CALLS.2));
                let spent = self.program.cpu() - before;
                let [p50, p99] = latencies_us(&heard);
                vec![p50, p99, spent / heard.echoed() as f64]
            }
            (RowLoad::Requests(_), Work::Calls | Work::Idle) => unreachable!("such work has another load"),
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
