//! A server under load: where it runs, what CPU time it has used, how many instructions.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// The program under test, unless the environment names another build of it in `CALLGATE_PROGRAM`.
const CALLGATE: &str = env!("CARGO_BIN_EXE_callgate");
/// How long a server may take to listen; under callgrind everything takes fifty times as long.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Which processor serves, and which does everything else.
#[derive(Clone, Copy)]
pub(crate) enum Cores {
    /// The server has the first one for itself; load, upstream and Redis share the second.
    Pinned,
    /// As the scheduler likes: there is one processor only, or no `taskset`.
    Free,
}

impl Cores {
    /// Pins this process, and with it all its children, to the second processor, if that can be done.
    pub(crate) fn choose() -> Self {
        let several = std::thread::available_parallelism().is_ok_and(|count| count.get() >= 2);
        let pid = std::process::id().to_string();
        let pin = || Command::new("taskset").args(["-cp", "1", &pid]).stdout(Stdio::null()).status();
        if several && pin().is_ok_and(|status| status.success()) { Self::Pinned } else { Self::Free }
    }

    /// A command that runs where servers run.
    pub(crate) fn server(self, program: &str) -> Command {
        match self {
            Self::Pinned => {
                let mut command = Command::new("taskset");
                command.args(["-c", "0", program]);
                command
            }
            Self::Free => Command::new(program),
        }
    }
}

/// A running server; dropped, it ends.
pub(crate) struct Program {
    child: Child,
    /// Where it serves HTTPS on 127.0.0.1.
    pub(crate) port: u16,
}

impl Program {
    /// Starts a server that is to listen on `port` and writes to `log`, and waits until it is ready.
    pub(crate) fn start(mut command: Command, port: u16, log: &Path, is_ready: impl Fn() -> bool) -> Self {
        let file = File::create(log).expect("a new file");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a file")).stderr(file);
        let child = command.spawn().expect("the server's program");
        let mut program = Self { child, port };
        let deadline = Instant::now() + START_DEADLINE;
        while !is_ready() {
            let ended = program.child.try_wait().expect("its state");
            assert!(ended.is_none(), "the server ended: {}", std::fs::read_to_string(log).unwrap_or_default());
            assert!(Instant::now() < deadline, "the server does not get ready");
            std::thread::sleep(Duration::from_millis(10));
        }
        program
    }

    /// CPU time of the process and its children so far, in microseconds.
    pub(crate) fn cpu(&self) -> f64 {
        self.processes().into_iter().map(cpu_ns).sum::<u64>() as f64 / 1e3
    }

    /// Resident memory of the process and its children, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.processes().into_iter().map(resident).sum()
    }

    /// The process and its children.
    fn processes(&self) -> Vec<u32> {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(pid).chain(children).collect()
    }

    /// Lets callgrind, under which it runs, count from zero.
    pub(crate) fn zero_instructions(&self) {
        self.tell_callgrind("--zero");
    }

    /// What callgrind has counted; what ending takes is not in it.
    pub(crate) fn instructions(self, profile: &Path) -> u64 {
        // Callgrind numbers what it writes on demand. The file of another run may still be there.
        let dump = profile.with_extension("out.1");
        let _ = std::fs::remove_file(&dump);
        self.tell_callgrind("--dump");
        let deadline = Instant::now() + START_DEADLINE;
        let is_whole = || std::fs::read_to_string(&dump).is_ok_and(|text| text.contains("totals: "));
        while !is_whole() {
            assert!(Instant::now() < deadline, "callgrind writes nothing");
            std::thread::sleep(Duration::from_millis(10));
        }
        let text = std::fs::read_to_string(dump).expect("callgrind's file");
        let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("its total");
        total.trim().parse().expect("a number")
    }

    fn tell_callgrind(&self, order: &str) {
        let mut command = Command::new("callgrind_control");
        let done =
            command.arg(order).arg(self.child.id().to_string()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(done.expect("callgrind_control, which comes with valgrind").success());
    }
}

impl Drop for Program {
    /// Ends it as its operator would, and waits for it.
    fn drop(&mut self) {
        // It may have ended already; then there is nobody to tell.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// User and system time of one process: the first field of each of its threads' `schedstat`.
fn cpu_ns(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    let used = threads.map(|thread| {
        let stat = std::fs::read_to_string(thread.expect("a thread").path().join("schedstat")).unwrap_or_default();
        stat.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0)
    });
    used.sum()
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kib.expect("its memory").trim().parse::<u64>().expect("a number") * 1024
}

/// Lets this process and its children have as many open files as the hard limit says; returns how many.
pub(crate) fn raise_file_limit() -> usize {
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum }).expect("the hard limit");
    limits.maximum.map_or(usize::MAX, |files| files as usize)
}

/// A port of 127.0.0.1 that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// The program under test.
pub(crate) fn callgate() -> String {
    std::env::var("CALLGATE_PROGRAM").unwrap_or_else(|_| CALLGATE.to_owned())
}

/// Makes a token with `callgate token create`.
pub(crate) fn create_token(config: &Path, plan: &str) -> String {
    let output = Command::new(callgate())
        .args(["token", "create", "--name", "bench", "--account", "acme", "--permission", "calls:read", "--json"])
        .args(["--plan", plan, "--config"])
        .arg(config)
        .output()
        .expect("the program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    made["token"].as_str().expect("a token").to_owned()
}
