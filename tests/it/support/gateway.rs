//! The program itself, started as an operator starts it.

use std::fs::{File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use super::eventually_blocking;

/// The path of the program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_callgate");

/// A folder with a certificate for `localhost` and `127.0.0.1`, a configuration and a token file.
pub struct Site {
    pub folder: TempDir,
}

/// A running gateway; dropped, it is killed.
pub struct Gateway {
    pub https: SocketAddr,
    pub http: Option<SocketAddr>,
    pub admin: SocketAddr,
    pub health: Option<SocketAddr>,
    pub site: Arc<Site>,
    child: Child,
    log: PathBuf,
    errors: PathBuf,
}

/// A token made by `callgate token create`.
#[derive(Debug, Clone)]
pub struct Token {
    pub id: String,
    pub secret: String,
}

/// Writes a certificate for `localhost` and its key into one file.
pub fn write_pair(file: &Path) {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(file, pair.cert.pem() + &pair.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
}

impl Site {
    /// Writes a configuration. `listen`, `tls` and `log` are there already; `rest` is everything else.
    pub fn new(rest: &str) -> Arc<Self> {
        Self::with_listen("", rest)
    }

    /// As [`Site::new`], with more keys of `listen`.
    pub fn with_listen(listen: &str, rest: &str) -> Arc<Self> {
        let folder = TempDir::new().unwrap();
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let pair = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(folder.path().join("cert.pem"), pair.cert.pem()).unwrap();
        let site = Self { folder };
        site.write_secret("key.pem", &pair.signing_key.serialize_pem());
        let tls = "tls: { certificates: [{ cert: cert.pem, key: key.pem }] }\nruntime: { workers: 2 }\n";
        let address = if listen.contains("admin:") { "" } else { ", admin: \"127.0.0.1:0\"" };
        let listen = format!("listen: {{ https: \"127.0.0.1:0\"{address}, max_connections: 2000{listen} }}\n");
        let is_given = rest.lines().any(|line| line.starts_with("admin:"));
        let admin = if is_given { "" } else { "admin: { anonymous: write }\n" };
        std::fs::write(site.config(), format!("{listen}{tls}{admin}{rest}\n")).unwrap();
        Arc::new(site)
    }

    /// The memory store, one upstream called `up`, and these routes.
    pub fn in_memory(upstream: SocketAddr, routes: &str) -> Arc<Self> {
        Self::new(&format!(
            "store: memory\ntokens: {{ file: tokens.yaml }}\nroutes:\n{routes}\nupstreams: {{ up: {{ endpoints: [\"http://{upstream}\"] }} }}"
        ))
    }

    /// Writes a file that only its owner may read.
    pub fn write_secret(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
        std::fs::set_permissions(self.path(name), Permissions::from_mode(0o600)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("callgate.yaml")
    }

    /// Replaces a part of the configuration, which must be there.
    pub fn replace(&self, old: &str, new: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(old), "not in the configuration: {old}");
        std::fs::write(self.config(), text.replace(old, new)).unwrap();
    }

    /// Redis, and one upstream called `up` behind every path. `store` is more keys of `store.redis`, `rest` more of the file.
    pub fn on_redis(url: &str, store: &str, upstream: SocketAddr, rest: &str) -> Arc<Self> {
        Self::new(&format!(
            "store: {{ redis: {{ url: \"{url}\"{store} }} }}\nroutes: [{{ path: \"/{{*rest}}\", upstream: up }}]\n\
             upstreams: {{ up: {{ endpoints: [\"http://{upstream}\"] }} }}\n{rest}"
        ))
    }

    /// Runs `callgate` with these arguments; `--config FILE` is added.
    pub fn run(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(PROGRAM).args(arguments).arg("--config").arg(self.config()).output().unwrap()
    }

    /// Makes a token.
    pub fn token(&self, permissions: &[&str]) -> Token {
        self.token_with(permissions, &[])
    }

    /// Makes a token with more arguments to `token create`.
    pub fn token_with(&self, permissions: &[&str], more: &[&str]) -> Token {
        let mut arguments = vec!["token", "create", "--name", "test", "--account", "acme", "--json"];
        for permission in permissions {
            arguments.extend(["--permission", permission]);
        }
        arguments.extend(more);
        let output = self.run(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        Token { id: made["id"].as_str().unwrap().into(), secret: made["token"].as_str().unwrap().into() }
    }

    /// Starts a gateway and waits until it serves.
    pub fn serve(self: &Arc<Self>) -> Gateway {
        self.serve_with(&[])
    }

    /// The same with more environment variables.
    pub fn serve_with(self: &Arc<Self>, environment: &[(&str, &str)]) -> Gateway {
        self.try_serve(PROGRAM, environment, &[]).unwrap_or_else(|failure| panic!("the gateway ended {failure}"))
    }

    /// Starts one that takes over from the one that runs, if one does; an error is what it said at its end.
    ///
    /// # Errors
    /// When it ends before it serves.
    pub fn take_over(self: &Arc<Self>) -> Result<Gateway, String> {
        let socket = self.path("takeover.sock");
        self.try_serve(PROGRAM, &[], &["--takeover".as_ref(), socket.as_os_str()])
    }

    /// Starts a program that becomes a gateway, with these arguments behind those of `serve`.
    ///
    /// # Errors
    /// When it ends before it serves: what it said.
    pub fn try_serve(
        self: &Arc<Self>,
        program: &str,
        environment: &[(&str, &str)],
        more: &[&std::ffi::OsStr],
    ) -> Result<Gateway, String> {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (log, errors) = (self.path(&format!("log-{number}.jsonl")), self.path(&format!("stderr-{number}")));
        let mut command = Command::new(program);
        if program == PROGRAM {
            command.args(["serve", "--config"]).arg(self.config());
        }
        command.args(more).stdin(Stdio::null());
        command.envs(environment.iter().copied());
        command.stdout(File::create(&log).unwrap()).stderr(File::create(&errors).unwrap());
        // Its own group: a Ctrl-C at the terminal of the tests is not for it.
        let mut child = command.process_group(0).spawn().unwrap();
        let serving = eventually_blocking("the gateway to serve", || {
            if let Some(status) = child.try_wait().unwrap() {
                return Some(Err(format!("({status}): {}{}", read(&errors), read(&log))));
            }
            lines(&log).into_iter().find(|line| line["message"] == "serving").map(Ok)
        })?;
        let address = |key: &str| serving[key].as_str().and_then(|text| text.parse().ok());
        Ok(Gateway {
            https: address("https").unwrap(),
            http: address("http"),
            // Not of a Unix socket.
            admin: address("admin").unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
            health: address("health"),
            site: self.clone(),
            child,
            log,
            errors,
        })
    }
}

impl Gateway {
    /// Everything it has logged so far.
    pub fn log(&self) -> Vec<Value> {
        lines(&self.log)
    }

    /// Everything it has written so far, as text.
    pub fn output(&self) -> String {
        read(&self.log) + &read(&self.errors)
    }

    /// The access lines whose path is `path`, once there are `count` of them.
    pub async fn access(&self, path: &str, count: usize) -> Vec<Value> {
        super::eventually(&format!("{count} access lines of {path}"), async || {
            let found: Vec<Value> =
                self.log().into_iter().filter(|line| line["message"] == "request" && line["path"] == path).collect();
            (found.len() >= count).then_some(found)
        })
        .await
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> ExitStatus {
        super::eventually("the gateway to end", async || self.child.try_wait().unwrap()).await
    }

    /// `https://localhost:PORT` and a path.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.https.port())
    }

    /// A page of the admin listener: status and body.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("http://{}{path}", self.admin)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// The value of one metric, labels and all as the page spells them; `None` when it isn't there.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let (_, page) = self.admin("/metrics").await;
        page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most resident memory that it has had so far, in bytes.
    pub fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")).unwrap();
        kib.trim().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            // Thousands of access lines would bury what happened.
            let output = self.output();
            let is_access = |line: &&str| line.contains(r#""message":"request""#);
            let leave_out = output.lines().filter(is_access).count() > 100;
            let lines = output.lines().filter(|line| !(leave_out && is_access(line)));
            eprintln!("--- log of the gateway\n{}", lines.collect::<Vec<_>>().join("\n"));
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The whole lines of a log.
fn lines(path: &Path) -> Vec<Value> {
    let text = read(path);
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
}
