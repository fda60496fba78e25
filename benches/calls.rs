//! What live calls cost the whole program: WebSockets over TLS, idle ones and ones that carry audio, against one instance. Every message
//! is followed: none may be lost or overtaken.
//!
//! `cargo bench --bench calls` measures 10,000 idle calls and, at the same time, 1,000 active ones, and before that connections between
//! two requests; `-- idle=2000 shared=100 active=100 connections=100 seconds=5` other numbers (`shared`: idle
//! calls over HTTP/2; `period`: milliseconds between the frames of an active call).
//! README.md in this folder says how to read the numbers.

#[path = "calls/echo.rs"]
mod echo;
#[path = "calls/line.rs"]
mod line;
#[path = "gateway/program.rs"]
#[allow(dead_code, reason = "shared with another benchmark")]
mod program;
#[path = "calls/streams.rs"]
mod streams;
#[path = "gateway/tls.rs"]
mod tls;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use line::{Calls, TransferStats, Way};
use program::{Cores, Program, callgate, create_token, free_port, raise_file_limit};
use streams::Stream;

/// Calls that are opened at one time.
const OPENING: usize = 64;

/// What is measured.
struct Plan {
    idle: usize,
    /// Of these, so many over HTTP/2.
    shared: usize,
    active: usize,
    connections: usize,
    /// Each active call says a frame so often.
    period: Duration,
    time: Duration,
}

impl Plan {
    fn read() -> Self {
        let (period, time) = (Duration::from_millis(20), Duration::from_secs(10));
        let mut plan = Self { idle: 10_000, shared: 0, active: 1_000, connections: 2_000, period, time };
        for word in std::env::args().skip(1).filter(|word| !word.starts_with("--")) {
            let (name, number) = word.split_once('=').unwrap_or((&word, ""));
            let number: u32 = number.parse().unwrap_or_else(|_| panic!("{word}: NAME=NUMBER is needed"));
            match name {
                "idle" => plan.idle = number as usize,
                "shared" => plan.shared = number as usize,
                "active" => plan.active = number as usize,
                "connections" => plan.connections = number as usize,
                "period" => plan.period = Duration::from_millis(number.into()),
                "seconds" => plan.time = Duration::from_secs(number.into()),
                _ => panic!("{name}: there are idle, shared, active, connections, period and seconds"),
            }
        }
        plan
    }

    /// Each call over HTTP/1.1 takes two of the gateway's open files, one over HTTP/2 little more than one: as many of the idle ones as
    /// must are carried over HTTP/2.
    fn fit(&mut self, files: usize) {
        let missing = (2 * (self.idle + self.active)).saturating_sub(files);
        self.shared = self.shared.max((missing * streams::EACH).div_ceil(streams::EACH - 1));
        assert!(self.shared <= self.idle, "the limit of open files (ulimit -Hn) is too low for so many calls");
    }
}

fn main() {
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    if std::env::args().any(|word| word == echo::WORD) {
        return echo::serve();
    }
    let mut plan = Plan::read();
    plan.fit(raise_file_limit().saturating_sub(BESIDE));
    let cores = Cores::choose();
    let echo = echo::start();
    let upstream = echo.port;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    println!(
        "\n{}, over TLS 1.3 to the gateway and in clear behind it",
        match cores {
            Cores::Pinned => "gateway on a core of its own; clients and the service share another",
            Cores::Free => "nothing pinned",
        }
    );
    let gateway = || {
        let folder = TempDir::new().expect("a temporary folder");
        let most = plan.connections.max(plan.idle + plan.active);
        let (program, token) = serve(cores, folder.path(), upstream, most);
        let way = Way::through(program.port, &folder.path().join("cert.pem"), &token);
        (program, way, folder)
    };
    runtime.block_on(async {
        if plan.connections > 0 {
            let (program, through, _folder) = gateway();
            waiting(&program, &through, plan.connections).await;
        }
        let direct = active("direct, in clear", &Way::direct(upstream), &plan, None).await;
        let (program, through, _folder) = gateway();
        let mut idle = idle(&program, &through, plan.idle - plan.shared).await;
        let mut shared = shared(&program, &through, plan.shared).await;
        let ours = active("through Callgate beside them", &through, &plan, Some(&program)).await;
        let added = |quantile| ours.latency_us(quantile) as i64 - direct.latency_us(quantile) as i64;
        println!("added latency: p50 {} µs, p99 {} µs", added(0.5), added(0.99));
        idle.are_answered().await;
        for call in &mut shared {
            call.is_answered().await;
        }
        println!("then each of the {} idle calls said a frame, and had it back", plan.idle);
    });
}

/// Memory of connections between two requests.
async fn waiting(program: &Program, way: &Way, count: usize) {
    let before = program.resident();
    let connections = way.waiting(count, OPENING).await;
    println!(
        "{count} connections between two requests: {:.1} KiB of resident memory each",
        each(program, before, count)
    );
    drop(connections);
}

/// Memory of calls that say nothing.
async fn idle(program: &Program, way: &Way, count: usize) -> Calls {
    let before = program.resident();
    let (cpu, calls) = (program.cpu(), Calls::open(way, count, OPENING).await);
    let opened = (program.cpu() - cpu) / count as f64;
    if count > 0 {
        println!(
            "{count} idle calls: {:.1} KiB of resident memory each, {opened:.0} µs of CPU time to open one (handshake included)",
            each(program, before, count)
        );
    }
    calls
}

/// The same of calls that share connections.
async fn shared(program: &Program, way: &Way, count: usize) -> Vec<Stream> {
    let before = program.resident();
    let calls = streams::open(way, count).await;
    if count > 0 {
        println!(
            "{count} idle calls over HTTP/2, {} on a connection: {:.1} KiB of resident memory each",
            streams::EACH,
            each(program, before, count)
        );
    }
    calls
}

/// KiB of resident memory for each, beyond what there was before.
fn each(program: &Program, before: u64, count: usize) -> f64 {
    (program.resident() as f64 - before as f64) / 1024.0 / count as f64
}

/// Calls that carry audio both ways, each frame echoed.
async fn active(name: &str, way: &Way, plan: &Plan, program: Option<&Program>) -> TransferStats {
    let calls = Calls::open(way, plan.active, OPENING).await;
    let cpu = || program.map_or(0.0, Program::cpu);
    let before = cpu();
    let heard = calls.speak(plan.period, plan.time).await;
    let spent = cpu() - before;
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|quantile| heard.latency_us(quantile));
    print!(
        "{name}: {} calls, {} frames sent, {} echoed, {} lost, {} out of order; there and back p50 {p50} µs, p99 {p99} µs, max {max} µs",
        plan.active,
        heard.sent,
        heard.echoed(),
        heard.lost(),
        heard.disordered
    );
    if program.is_some() {
        let seconds = heard.took.as_secs_f64();
        print!(
            "; CPU {:.1} µs a frame each way, {:.0} % of a core",
            spent / (2.0 * heard.echoed() as f64),
            spent / 1e4 / seconds
        );
    }
    println!();
    assert_eq!((heard.lost(), heard.disordered), (0, 0), "frames were lost or overtaken");
    heard
}

/// A gateway with one worker that has room for so many calls, and a token for it.
fn serve(cores: Cores, folder: &Path, upstream: u16, calls: usize) -> (Program, String) {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).expect("a written file");
    write("cert.pem", pair.cert.pem());
    write("key.pem", pair.signing_key.serialize_pem());
    let (port, room) = (free_port(), calls + 1_000);
    write(
        "callgate.yaml",
        format!(
            "listen: {{ https: \"127.0.0.1:{port}\", admin: \"127.0.0.1:0\", max_connections: {room}, max_connections_per_client: {room} }}\n\
             tls: {{ certificates: [{{ cert: cert.pem, key: key.pem }}] }}\ntokens: {{ file: tokens.yaml }}\n\
             plans: {{ standard: {{ limits: {{ minute: 1000000/1m }} }} }}\n\
             routes: [{{ path: /call, permission: \"calls:read\", upstream: media }}]\n\
             upstreams: {{ media: {{ endpoints: [\"http://127.0.0.1:{upstream}\"], max_connections: {room}, max_calls: {room} }} }}\n\
             drain: {{ timeout: 1s, calls: 1s, spread: 0s }}\nruntime: {{ workers: 1 }}\n"
        ),
    );
    let config = folder.join("callgate.yaml");
    let token = create_token(&config, "standard");
    let mut command = cores.server(&callgate());
    command.args(["serve", "--config"]).arg(config);
    let log = folder.join("log");
    let serves = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains(r#""message":"serving""#));
    (Program::start(command, port, &log, serves), token)
}

/// Open files that are no calls.
const BESIDE: usize = 200;
/// Where everything of this benchmark is.
const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
