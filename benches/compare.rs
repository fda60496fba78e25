//! What the whole program costs beside nginx and HAProxy, each set up for the same job as far as it can do it.
//!
//! `benches/compare/run` installs them and runs this; `cargo bench --bench compare` runs it with what is there. Words choose rows
//! by parts of their names, `rounds=N` says how many rounds there are. README.md in this folder says how to read the table.

#[path = "compare/contender.rs"]
mod contender;
#[path = "calls/echo.rs"]
mod echo;
#[path = "calls/line.rs"]
#[allow(dead_code, reason = "shared with another benchmark")]
mod line;
#[path = "gateway/load.rs"]
mod load;
#[path = "gateway/program.rs"]
#[allow(dead_code, reason = "shared with other benchmarks")]
mod program;
#[path = "compare/proxy.rs"]
mod proxy;
#[path = "compare/row.rs"]
mod row;
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

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use contender::Contender;
use program::{Cores, raise_file_limit};
use proxy::{Proxy, version};
use row::{Row, Work, rows};
use scenario::is_chosen;
use site::Site;

/// Rounds of a row unless told otherwise. In each, every program has a slice of the load.
const ROUNDS: usize = 12;
/// When the rounds of a row took so long, there are no more of them …
const ROW_TIMEOUT: Duration = Duration::from_secs(30);
/// … but so many at least.
const MIN_ROUNDS: usize = 3;
/// Where everything of this benchmark is.
const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// By rounds, and in them by programs: each figure of the row.
type Figures = Vec<[Option<Vec<f64>>; Proxy::ALL.len()]>;

fn main() {
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    if std::env::args().any(|word| word == echo::WORD) {
        return echo::serve();
    }
    let words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let (settings, words): (Vec<_>, Vec<_>) = words.partition(|word| word.starts_with("rounds="));
    let rounds = settings.last().map_or(ROUNDS, |word| {
        word["rounds=".len()..].parse().ok().filter(|rounds| *rounds > 0).expect("rounds=N needs a number above 0")
    });
    raise_file_limit();
    let cores = Cores::choose();
    let echo = echo::start();
    let site = Site::new(cores, upstream::start(), echo.port);
    proxy::write_records(&site);
    let chosen: Vec<Row> = rows().into_iter().filter(|row| is_chosen(row.name, &words)).collect();
    println!("| | nginx | HAProxy | ratio to nginx | Callgate | ratio to nginx | rounds |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for row in &chosen {
        print(row, &measure(row, &site, rounds));
    }
    if chosen.iter().any(|row| row.work == Work::Calls) {
        let [p50, p99] = contender::direct_us(&site);
        println!("\nThe same calls without a proxy: p50 {p50} µs, p99 {p99} µs.");
    }
    println!();
    for row in &chosen {
        println!("- {}: {}", row.name, row.note);
    }
    print_settings(cores);
}

fn measure(row: &Row, site: &Site, most: usize) -> Figures {
    let start = || -> Vec<Contender> {
        let able = Proxy::ALL.into_iter().filter(|proxy| row.is_done_by(*proxy) && proxy.version().is_some());
        able.map(|proxy| Contender::start(proxy, row, site)).collect()
    };
    let began = Instant::now();
    let mut contenders = start();
    let mut figures = Figures::new();
    while figures.len() < most && (figures.len() < MIN_ROUNDS || began.elapsed() < ROW_TIMEOUT) {
        if row.work == Work::Idle && !figures.is_empty() {
            // Memory that a process has used once, it often keeps.
            contenders = start();
        }
        let mut round = [const { None }; Proxy::ALL.len()];
        for contender in &mut contenders {
            round[contender.proxy as usize] = Some(contender.slice(row, site));
        }
        figures.push(round);
        // Each has its turn at being the first.
        contenders.rotate_left(1);
    }
    figures
}

/// A line for each figure of the row.
fn print(row: &Row, figures: &Figures) {
    for (number, unit) in row.units().iter().enumerate() {
        let values = |proxy: Proxy| -> Vec<f64> {
            figures.iter().filter_map(|round| Some(round[proxy as usize].as_ref()?[number])).collect()
        };
        // Machines have faster and slower moments; within a round they are about the same for all.
        let ratios = |proxy: Proxy| -> Vec<f64> {
            values(proxy).iter().zip(values(Proxy::Nginx)).map(|(ours, nginx)| ours / nginx).collect()
        };
        print!("| {}, {unit} | {} |", row.name, median(values(Proxy::Nginx)));
        for proxy in [Proxy::Haproxy, Proxy::Callgate] {
            print!(" {} | {} |", median(values(proxy)), with_spread(ratios(proxy)));
        }
        println!(" {} |", figures.len());
    }
}

fn median(values: Vec<f64>) -> String {
    quartiles(values).map_or("–".to_owned(), |[_, median, _]| three_digits(median))
}

fn with_spread(values: Vec<f64>) -> String {
    quartiles(values).map_or("–".to_owned(), |[low, median, high]| format!("**{median:.2}** ({low:.2}–{high:.2})"))
}

/// The median, and between which bounds the middle half of the values is.
fn quartiles(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let position = (values.len().max(1) - 1) as f64 * part;
        let [below, above] = [position.floor(), position.ceil()].map(|index| values.get(index as usize));
        Some(below? + (above? - below?) * position.fract())
    };
    Some([at(0.25)?, at(0.5)?, at(0.75)?])
}

fn three_digits(value: f64) -> String {
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$}")
}

/// What the numbers depend on.
fn print_settings(cores: Cores) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let mut processors = processors.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let commit = version("git", &["describe", "--always", "--dirty"]).map(|commit| format!("commit {commit}"));
    println!(
        "\nSettings: one worker (thread or process) each, {}. TLS 1.3, AES-128-GCM, X25519, ECDSA P-256, no resumption of \
         sessions. Connections to the service are kept, at least 64 of them. Rounds are interleaved: in each, every program has \
         a slice of the load. Medians; in brackets the middle half of the rounds' ratios. \
         Load and service are not counted. There are no rows in clear: Callgate serves routes over TLS only.",
        match cores {
            Cores::Pinned => "all of them on one core; load, service and Redis on another",
            Cores::Free => "nothing pinned",
        }
    );
    let versions =
        Proxy::ALL.into_iter().filter_map(Proxy::version).chain(commit).chain(version("redis-server", &["-v"]));
    println!("\nVersions: {}", versions.collect::<Vec<_>>().join("; "));
    println!(
        "\nMachine: {} and {} more, Linux {}, load average at the end {}",
        processors.next().map_or("a processor", |(_, name)| name),
        processors.count(),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
    );
}
