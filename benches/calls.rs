//! What live calls cost the whole program: WebSockets over TLS, idle ones and ones that carry audio, against one instance. Every message
//! is followed: none may be lost or overtaken.
//!
//! `cargo bench --bench calls` measures 10,000 idle calls and 1,000 active ones; `-- idle=2000 active=100 seconds=5` other numbers.
//! README.md in this folder says how to read the numbers.

#[path = "calls/echo.rs"]
mod echo;
#[path = "calls/line.rs"]
mod line;
#[path = "gateway/program.rs"]
#[allow(dead_code, reason = "shared with another benchmark")]
mod program;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use line::{Calls, Heard, Way};
use program::{Cores, Program, callgate, create_token, free_port};

/// How an active call speaks: a frame of audio each 20 ms.
const PERIOD: Duration = Duration::from_millis(20);
/// Calls that are opened at one time.
const OPENING: usize = 64;

/// What is measured.
struct Plan {
    idle: usize,
    active: usize,
    time: Duration,
}

impl Plan {
    fn read() -> Self {
        let mut plan = Self { idle: 10_000, active: 1_000, time: Duration::from_secs(10) };
        for word in std::env::args().skip(1).filter(|word| !word.starts_with("--")) {
            let (name, number) = word.split_once('=').unwrap_or((&word, ""));
            let number: u32 = number.parse().unwrap_or_else(|_| panic!("{word}: NAME=NUMBER is needed"));
            match name {
                "idle" => plan.idle = number as usize,
                "active" => plan.active = number as usize,
                "seconds" => plan.time = Duration::from_secs(number.into()),
                _ => panic!("{name}: there are idle, active and seconds"),
            }
        }
        plan
    }

    /// No more calls than can be open at one time.
    fn fit(&mut self, most: usize) {
        if self.idle > most {
            println!("the limit of open files (ulimit -Hn) leaves room for {most} calls, not for {}", self.idle);
            self.idle = most;
        }
        self.active = self.active.min(most);
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
    plan.fit(most_calls());
    let calls = plan.idle.max(plan.active);
    let cores = Cores::choose();
    let echo = echo::start();
    let upstream = echo.port;
    let folder = TempDir::new().expect("a temporary folder");
    let (program, token) = serve(cores, folder.path(), upstream, calls);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let through = Way::through(program.port, &folder.path().join("cert.pem"), &token);
        println!(
            "\n{}, over TLS 1.3 to the gateway and in clear behind it",
            match cores {
                Cores::Pinned => "gateway on a core of its own; clients and the service share another",
                Cores::Free => "nothing pinned",
            }
        );
        idle(&program, &through, plan.idle).await;
        let direct = active("direct, in clear", &Way::direct(upstream), &plan, None).await;
        let ours = active("through Callgate", &through, &plan, Some(&program)).await;
        let added = |quantile| ours.latency_us(quantile) as i64 - direct.latency_us(quantile) as i64;
        println!("added latency: p50 {} µs, p99 {} µs", added(0.5), added(0.99));
    });
}

/// Memory of calls that say nothing.
async fn idle(program: &Program, way: &Way, count: usize) {
    let before = program.resident();
    let (cpu, calls) = (program.cpu(), Calls::open(way, count, OPENING).await);
    let opened = (program.cpu() - cpu) / count as f64;
    let with = program.resident();
    println!(
        "{count} idle calls: {:.1} KiB of resident memory each, {opened:.0} µs of CPU time to open one (handshake included)",
        (with as f64 - before as f64) / 1024.0 / count as f64
    );
    drop(calls);
}

/// Calls that carry audio both ways, each frame echoed.
async fn active(name: &str, way: &Way, plan: &Plan, program: Option<&Program>) -> Heard {
    let calls = Calls::open(way, plan.active, OPENING).await;
    let cpu = || program.map_or(0.0, Program::cpu);
    let before = cpu();
    let heard = calls.speak(PERIOD, plan.time).await;
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
            "listen: {{ https: \"127.0.0.1:{port}\", admin: \"127.0.0.1:0\", max_connections: {room} }}\n\
             tls: {{ certificates: [{{ cert: cert.pem, key: key.pem }}] }}\ntokens: {{ file: tokens.yaml }}\n\
             plans: {{ standard: {{ limits: {{ minute: 1000000/1m }} }} }}\n\
             routes: [{{ path: /call, permission: \"calls:read\", upstream: media }}]\n\
             upstreams: {{ media: {{ endpoints: [\"http://127.0.0.1:{upstream}\"], max_connections: {room} }} }}\n\
             drain: {{ timeout: 1s }}\nruntime: {{ workers: 1 }}\n"
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

/// Each call takes two of the gateway's open files, of which it may have as many as the hard limit of this process says.
fn most_calls() -> usize {
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum }).expect("the hard limit");
    let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files as usize);
    files.saturating_sub(BESIDE) / 2
}

/// Open files that are no calls.
const BESIDE: usize = 200;
/// Where everything of this benchmark is.
const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
