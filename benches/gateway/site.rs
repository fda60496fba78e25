//! A folder with everything that the servers need: a certificate, configurations, tokens; and beside it Redis.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::program::{Cores, Program, callgate, create_token, free_port};
use crate::server::RedisServer;

/// Tokens that share the load.
const TOKENS: usize = 64;
/// Well-formed but for its checksum: it is refused without a look-up.
const MALFORMED: &str = "kal_live_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL";
const PUBLIC_ROUTE: &str = r#"{ path: "/public/{*rest}", auth: none, upstream: up }"#;
const API_ROUTE: &str = r#"{ path: "/api/{*rest}", permission: "calls:read", upstream: up }"#;
const SHARED_ROUTE: &str = r#"{ path: "/shared/{*rest}", permission: "calls:read", upstream: up }"#;
const CALL_ROUTE: &str = r#"{ path: "/call", permission: "calls:read", upstream: calls }"#;
const PLANS: &str =
    "{ roomy: { limits: { minute: 1000000/1m, hour: 1000000/1h } }, closed: { limits: { hour: 0/1h } } }";

/// Where tokens and limits live.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Memory,
    Redis,
}

/// What a load's requests carry.
#[derive(Clone, Copy)]
pub(crate) enum Tokens {
    None,
    /// Good ones whose limits nothing reaches.
    Roomy,
    /// Good ones whose plan admits nothing.
    UsedUp,
    /// One that is no token.
    Malformed,
}

/// Everything that the servers need.
pub(crate) struct Site {
    folder: TempDir,
    pub(crate) cores: Cores,
    /// The port of the service.
    pub(crate) upstream: u16,
    /// The port of the service that takes calls.
    pub(crate) calls: u16,
    pub(crate) redis: RedisServer,
    /// Of [`Store::Memory`] and of [`Store::Redis`].
    roomy: [Vec<String>; 2],
    used_up: [Vec<String>; 2],
}

impl Site {
    /// Starts Redis, and makes the tokens.
    pub(crate) fn new(cores: Cores, upstream: u16, calls: u16) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(folder.path().join("cert.pem"), pair.cert.pem()).expect("a written file");
        std::fs::write(folder.path().join("key.pem"), pair.signing_key.serialize_pem()).expect("a written file");
        let mut site = Self {
            folder,
            cores,
            upstream,
            calls,
            redis: RedisServer::start(),
            roomy: Default::default(),
            used_up: Default::default(),
        };
        for store in [Store::Memory, Store::Redis] {
            let config = site.configure(store, false, 0);
            site.roomy[store as usize] = (0..TOKENS).map(|_| create_token(&config, "roomy")).collect();
            site.used_up[store as usize] = (0..TOKENS).map(|_| create_token(&config, "closed")).collect();
        }
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.path("cert.pem")
    }

    pub(crate) fn tokens(&self, store: Store, tokens: Tokens) -> Vec<String> {
        match tokens {
            Tokens::None => Vec::new(),
            Tokens::Roomy => self.roomy[store as usize].clone(),
            Tokens::UsedUp => self.used_up[store as usize].clone(),
            Tokens::Malformed => vec![MALFORMED.to_owned()],
        }
    }

    /// Starts Callgate with one worker; under callgrind, if that is to write a profile.
    pub(crate) fn callgate(&self, store: Store, access_log: bool, profile: Option<&Path>) -> Program {
        let port = free_port();
        let config = self.configure(store, access_log, port);
        let mut command = match profile {
            None => self.cores.server(&callgate()),
            Some(profile) => {
                let mut command = self.cores.server("valgrind");
                command.args(["--quiet", "--tool=callgrind", "--dump-instr=no"]);
                command.arg(format!("--callgrind-out-file={}", profile.display())).arg(callgate());
                command
            }
        };
        command.args(["serve", "--config"]).arg(config);
        let log = self.path("callgate.log");
        // That its port answers is not enough: it looks first who listens there.
        let serves = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains(r#""message":"serving""#));
        Program::start(command, port, &log, serves)
    }

    /// Writes a configuration of Callgate.
    fn configure(&self, store: Store, access_log: bool, port: u16) -> PathBuf {
        let (name, store) = match store {
            Store::Memory => {
                ("memory.yaml", "store: memory\ntokens: { file: tokens.yaml, failures: { limit: none } }".to_owned())
            }
            // Callgrind slows everything down, the waiting too: the deadline must not change what is measured.
            Store::Redis => (
                "redis.yaml",
                format!(
                    "store: {{ redis: {{ url: \"{}\", deadline: 5s }} }}\ntokens: {{ failures: {{ limit: none }} }}",
                    self.redis.url()
                ),
            ),
        };
        let config = format!(
            "listen: {{ https: \"127.0.0.1:{port}\", admin: \"127.0.0.1:0\" }}\n\
             tls: {{ certificates: [{{ cert: cert.pem, key: key.pem }}] }}\n{store}\nplans: {PLANS}\ndefault_plan: roomy\n\
             routes: [{PUBLIC_ROUTE}, {API_ROUTE}, {SHARED_ROUTE}, {CALL_ROUTE}]\n\
             upstreams: {{ up: {{ endpoints: [\"http://127.0.0.1:{}\"] }}, calls: {{ endpoints: [\"http://127.0.0.1:{}\"] }} }}\n\
             log: {{ access: {access_log} }}\nruntime: {{ workers: 1 }}\n",
            self.upstream, self.calls
        );
        let path = self.path(name);
        std::fs::write(&path, config).expect("a written file");
        path
    }
}
