//! A real redis-server on a free port, for one test.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long a server may take to answer its first PING.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A running redis-server without persistence. Dropping it kills it and removes its folder.
pub(crate) struct RedisServer {
    child: Child,
    port: u16,
    args: Vec<String>,
    folder: TempDir,
}

impl RedisServer {
    /// Starts one and waits until it answers.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more arguments, for example `["--requirepass", "secret"]`.
    pub(crate) fn start_with(args: &[&str]) -> Self {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        for _ in 0..10 {
            let port = free_port();
            if let Some(child) = spawn(port, &args, &folder) {
                return Self { child, port, args, folder };
            }
        }
        panic!("redis-server did not start on any of ten free ports: is it installed?");
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `redis://127.0.0.1:<port>`.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Says one command, for example `["SCRIPT", "FLUSH"]`, on a connection of its own.
    pub(crate) fn say<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection =
            redis::Client::open(self.url()).unwrap().get_connection().expect("Redis takes connections");
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query(&mut connection).expect("Redis takes the command")
    }

    /// How often a command, for example `evalsha`, was carried out.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let stats: String = self.say(&["INFO", "commandstats"]);
        let start = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&start));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    }

    /// Ends it at once (SIGKILL).
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("its end");
    }

    /// Stops it as it is (SIGSTOP): its connections stay open and nothing answers.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it and starts an empty one on the same port.
    pub(crate) fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// The same with more arguments, for this start alone.
    pub(crate) fn restart_with(&mut self, more: &[&str]) {
        self.kill();
        let args: Vec<String> = self.args.iter().cloned().chain(more.iter().map(ToString::to_string)).collect();
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            if let Some(child) = spawn(self.port, &args, &self.folder) {
                self.child = child;
                return;
            }
        }
        panic!("redis-server did not start again on port {}", self.port);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a signal to a child");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of 127.0.0.1 that was free a moment ago. The kernel gives it to nobody who asks for any port, so that a server that is down for
/// a while finds it free again.
pub(crate) fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(10_000..32_768)).take(1_000).find(is_free).expect("a free port")
}

/// `None` if it ended before it answered, for example because another process took the port.
fn spawn(port: u16, args: &[String], folder: &TempDir) -> Option<Child> {
    let log = folder.path().join("redis.log");
    let mut child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
        .arg(folder.path())
        .args(args)
        .stdin(Stdio::null())
        .stdout(File::create(&log).expect("a file of our own"))
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    // Another process may have taken the port and answer there; the log is this server's.
    let is_ready = || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("Ready to accept connections"));
    let deadline = Instant::now() + START_DEADLINE;
    while Instant::now() < deadline {
        if child.try_wait().expect("its state").is_some() {
            return None;
        }
        if is_ready() && answers(port) {
            return Some(child);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// Whether it says anything to PING: `+PONG`, or that it wants a password first.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
    let mut answer = [0; 5];
    stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && (&answer == b"+PONG" || &answer == b"-NOAU")
}
