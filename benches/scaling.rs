//! What it costs that workers share things: CPU time per request on 1 to 4 workers of one process, beside as many workers that share
//! nothing. Without that second number nobody could tell a shared cache line from a busy machine.
//!
//! Each thread is a whole world: a worker as the program makes it, with its listener, gateway, limits and connections, and in the same
//! event loop the clients and the service, over loopback and TLS. So no request crosses a thread, and what grows with the number of
//! threads is the price of what they share.
//!
//! `cargo bench --bench scaling`; `-- rounds=N` other than 40, and words choose rows (`-- log`). README.md in this folder says how to
//! read the numbers.

#[path = "scaling/guest.rs"]
mod guest;
#[path = "gateway/program.rs"]
#[allow(dead_code, reason = "shared with other benchmarks")]
mod program;
#[path = "gateway/tls.rs"]
mod tls;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::Duration;

use callgate::InProcess;
use rustls::ClientConfig;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use guest::{Guest, Load};

/// Workers at most.
const MAX_THREADS: usize = 4;
/// How long the threads of a slice are busy.
const SLICE: Duration = Duration::from_millis(50);

/// One kind of request.
struct Row {
    name: &'static str,
    path: &'static str,
    has_token: bool,
    access_log: bool,
    /// Endpoints of the service.
    endpoints: usize,
}

const ROWS: [Row; 4] = [
    Row { name: "plain proxy", path: "/public/ping", has_token: false, access_log: false, endpoints: 1 },
    Row { name: "plain proxy, 3 endpoints", path: "/public/ping", has_token: false, access_log: false, endpoints: 3 },
    Row { name: "plain proxy, access log", path: "/public/ping", has_token: false, access_log: true, endpoints: 1 },
    Row { name: "token + limits, access log", path: "/api/ping", has_token: true, access_log: true, endpoints: 1 },
];

/// A slice for one thread: what it has to wait for, so that all begin at one time.
type Order = Arc<Barrier>;

/// What a slice has cost one thread.
#[derive(Clone, Copy, Default)]
struct Cost {
    cpu_ns: u64,
    requests: u64,
}

/// A thread that is a worker.
struct Worker {
    orders: UnboundedSender<Order>,
    costs: Receiver<Cost>,
}

/// Where the workers' configuration is.
struct Site {
    folder: TempDir,
    listeners: Vec<TcpListener>,
    /// One for each worker.
    tokens: Mutex<Vec<String>>,
}

fn main() {
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let rounds = words
        .iter()
        .find_map(|word| word.strip_prefix("rounds="))
        .map_or(40, |number| number.parse().expect("a number"));
    let words: Vec<&String> = words.iter().filter(|word| !word.starts_with("rounds=")).collect();
    println!(
        "\nCPU µs per request on 1 to {MAX_THREADS} workers, with clients and service; the best quarter of {rounds} rounds"
    );
    println!("{:28}{:>9}{:>9}{:>9}{:>9}{:>22}", "", "1", "2", "3", "4", "ratios to 1");
    if words.is_empty() || words.iter().any(|word| "counting alone".contains(word.as_str())) {
        measure_counting(rounds);
    }
    for row in ROWS.iter().filter(|row| words.is_empty() || words.iter().any(|word| row.name.contains(word.as_str()))) {
        measure(row, rounds);
    }
}

/// Measures what requests count in metrics, and nothing else: threads that count the same all the time meet as often as they can.
fn measure_counting(rounds: usize) {
    const TIMES: u32 = 1_000_000;
    let site = Site::new(&ROWS[0]);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    let process = site.process();
    let mut times = [const { Vec::new() }; MAX_THREADS];
    for index in (0..rounds).flat_map(|_| 0..MAX_THREADS) {
        let threads = index + 1;
        let barrier = Barrier::new(threads);
        let count = || {
            barrier.wait();
            let before = cpu_ns();
            process.count(TIMES);
            cpu_ns() - before
        };
        let spent: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().expect("a count")).sum()
        });
        times[index].push(spent as f64 / f64::from(TIMES) / threads as f64);
    }
    print_line("counting alone, in ns", &times.map(quartile));
}

/// Measures both kinds of workers in turns: a slow minute of the machine is the same for all.
fn measure(row: &Row, rounds: usize) {
    let site = Site::new(row);
    // What `InProcess` runs in the background.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    let process = || Arc::new(site.process());
    let one = process();
    let kinds: [Vec<Worker>; 2] = [
        (0..MAX_THREADS).map(|_| site.worker(row, one.clone())).collect(),
        (0..MAX_THREADS).map(|_| site.worker(row, process())).collect(),
    ];
    let mut times = [const { [const { Vec::new() }; MAX_THREADS] }; 2];
    for round in 0..rounds {
        for step in 0..MAX_THREADS {
            let threads = if round % 2 == 0 { step } else { MAX_THREADS - 1 - step };
            for kind in [round % 2, 1 - round % 2] {
                times[kind][threads].push(slice(&kinds[kind][..=threads]));
            }
        }
    }
    let [shared, apart] = times.map(|times| times.map(quartile));
    print_line(row.name, &shared);
    print_line("  … that share nothing", &apart);
    let added: Vec<String> =
        shared.iter().zip(&apart).map(|(shared, apart)| format!("{:+9.2}", shared - apart)).collect();
    println!("{:28}{}", "  the price of sharing", added.concat());
}

fn print_line(name: &str, times: &[f64; MAX_THREADS]) {
    let shown = |numbers: &[f64], digits: usize| numbers.iter().map(|it| format!("{it:9.digits$}")).collect::<String>();
    let ratios: Vec<f64> = times[1..].iter().map(|time| time / times[0]).collect();
    println!("{name:28}{}{}", shown(times, 2), shown(&ratios, 3));
}

/// Lets these workers be busy at the same time; returns the CPU time of a request in microseconds.
fn slice(workers: &[Worker]) -> f64 {
    let barrier = Arc::new(Barrier::new(workers.len()));
    for worker in workers {
        worker.orders.send(barrier.clone()).expect("a running worker");
    }
    let costs = workers.iter().map(|worker| worker.costs.recv().expect("a running worker"));
    let all = costs.fold(Cost::default(), |all, one| Cost {
        cpu_ns: all.cpu_ns + one.cpu_ns,
        requests: all.requests + one.requests,
    });
    all.cpu_ns as f64 / 1e3 / all.requests as f64
}

/// The lower quartile: whatever else the machine does only adds.
fn quartile(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 4).copied().unwrap_or(f64::NAN)
}

impl Site {
    fn new(row: &Row) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("a written file");
        write("cert.pem", pair.cert.pem());
        write("key.pem", pair.signing_key.serialize_pem());
        let listeners: Vec<_> = (0..row.endpoints).map(|_| listener()).collect();
        let endpoints: Vec<_> = listeners.iter().map(|it| format!("\"http://127.0.0.1:{}\"", port(it))).collect();
        write(
            "callgate.yaml",
            format!(
                "listen: {{ https: \"127.0.0.1:0\", admin: \"127.0.0.1:0\" }}\n\
                 tls: {{ certificates: [{{ cert: cert.pem, key: key.pem }}] }}\n\
                 store: memory\ntokens: {{ file: tokens.yaml }}\n\
                 plans: {{ roomy: {{ limits: {{ minute: 1000000/1m, hour: 1000000/1h }} }} }}\ndefault_plan: roomy\n\
                 routes: [{{ path: \"/public/{{*rest}}\", auth: none, upstream: up }}, \
                 {{ path: \"/api/{{*rest}}\", permission: \"calls:read\", upstream: up }}]\n\
                 upstreams: {{ up: {{ endpoints: [{}] }} }}\nlog: {{ access: {} }}\n",
                endpoints.join(", "),
                row.access_log
            ),
        );
        let tokens = if row.has_token { 2 * MAX_THREADS } else { 0 };
        let token = |_| program::create_token(&folder.path().join("callgate.yaml"), "roomy");
        let tokens = Mutex::new((0..tokens).map(token).collect());
        Self { folder, listeners, tokens }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the workers of one process share.
    fn process(&self) -> InProcess {
        let file = self.path("callgate.yaml");
        let config = callgate::config::load(&file).unwrap_or_else(|problems| panic!("{problems}")).config;
        let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null").expect("/dev/null");
        InProcess::new(config, nowhere).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts a worker; returns when all of its connections are open, so that no other has taken one of them.
    fn worker(&self, row: &Row, process: Arc<InProcess>) -> Worker {
        let (orders, mut ordered) = unbounded_channel::<Order>();
        let (cost, costs) = channel();
        let (ready, is_ready) = channel();
        let socket = listener();
        let load = Load {
            port: port(&socket),
            path: row.path,
            token: self.tokens.lock().unwrap_or_else(PoisonError::into_inner).pop(),
            tls: Arc::new(client_config(&self.path("cert.pem"))),
        };
        let service = self.listeners.iter().map(|it| it.try_clone().expect("a socket")).collect();
        std::thread::spawn(move || {
            let guest = async {
                let mut guest = Guest::open(load, service).await;
                ready.send(()).expect("a running benchmark");
                while let Some(barrier) = ordered.recv().await {
                    barrier.wait();
                    let before = cpu_ns();
                    let requests = guest.send_for(SLICE).await;
                    if cost.send(Cost { cpu_ns: cpu_ns() - before, requests }).is_err() {
                        break;
                    }
                }
            };
            process.work(socket, guest).unwrap_or_else(|error| panic!("{error}"));
        });
        is_ready.recv().expect("a running worker");
        Worker { orders, costs }
    }
}

fn client_config(certificate: &Path) -> ClientConfig {
    let mut config = tls::client_config(certificate);
    config.alpn_protocols = vec!["http/1.1".into()];
    config
}

fn listener() -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.set_nonblocking(true).expect("a socket that doesn't block");
    listener
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("its address").port()
}

/// CPU time of this thread.
fn cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
