//! A gateway that logs all it can, and ears at everything that comes out of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use super::evidence::Evidence;
use crate::support::gateway::{Gateway, PROGRAM, Site, Token};
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;
use crate::support::{eventually, eventually_blocking};

pub(super) struct Scene {
    pub(super) site: Arc<Site>,
    pub(super) evidence: Evidence,
    pub(super) upstream: Upstream,
}

impl Scene {
    pub(super) async fn on_a_file() -> Self {
        Self::with("store: memory\ntokens: { file: tokens.yaml, failures: { limit: 10000/1m } }").await
    }

    pub(super) async fn on_redis(redis: &RedisServer) -> Self {
        let url = redis.url();
        let store = format!("store: {{ redis: {{ url: \"{url}\", deadline: 500ms, on_failure: local }} }}");
        Self::with(&format!("{store}\ntokens: {{ failures: {{ limit: 10000/1m }} }}")).await
    }

    async fn with(store: &str) -> Self {
        let upstream = Upstream::start().await;
        let up = upstream.address;
        let site = Site::new(&format!(
            "{store}\nlog: {{ level: \"trace,hyper=trace,h2=trace,rustls=trace,redis=trace\" }}\n\
             routes:\n  - {{ path: \"/guarded/{{*rest}}\", permission: \"calls:read\", upstream: up }}\n  \
             - {{ path: /down, upstream: down }}\n  - {{ path: \"/{{*rest}}\", methods: [GET, POST], upstream: up }}\n\
             upstreams: {{ up: {{ endpoints: [\"http://{up}\"] }}, down: {{ endpoints: [\"http://127.0.0.1:9\"] }} }}"
        ));
        Self { site, evidence: Evidence::default(), upstream }
    }

    pub(super) fn serve(&self) -> Gateway {
        self.site.serve()
    }

    /// Runs a command on the configuration and hears what it says.
    pub(super) fn run(&mut self, words: &[&str]) -> Output {
        let output = self.site.run(words);
        self.record_output(&words[..2.min(words.len())].join(" "), &output);
        output
    }

    /// The same with a command that has to fail.
    pub(super) fn run_badly(&mut self, words: &[&str]) {
        let output = self.run(words);
        assert!(!output.status.success(), "{words:?} went well");
    }

    /// Runs the program with just these arguments, and with an admin token in its environment.
    pub(super) fn run_alone(&mut self, words: &[&str], admin_token: &str) -> Output {
        let output = Command::new(PROGRAM).args(words).env("CALLGATE_ADMIN_TOKEN", admin_token).output().unwrap();
        self.record_output(&words[..2].join(" "), &output);
        output
    }

    fn record_output(&mut self, place: &str, output: &Output) {
        self.evidence.record(&format!("{place}: stdout"), &String::from_utf8_lossy(&output.stdout));
        self.evidence.record(&format!("{place}: stderr"), &String::from_utf8_lossy(&output.stderr));
    }

    /// Runs a command that shows a secret, once, on its standard output; hides that, and hears the rest.
    pub(super) fn run_for_secret(&mut self, name: &str, words: &[&str]) -> Token {
        let output = self.site.run(&[words, &["--json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let out = String::from_utf8(output.stdout).unwrap();
        let token = self.take_secret(name, &out);
        self.evidence.record("what shows a secret: stderr", &String::from_utf8_lossy(&output.stderr));
        token
    }

    /// Takes the secret out of the one JSON object that may tell it, and hears the rest.
    pub(super) fn take_secret(&mut self, name: &str, json: &str) -> Token {
        let reported: serde_json::Value = serde_json::from_str(json).unwrap();
        let text = |key: &str| reported[key].as_str().unwrap_or_else(|| panic!("no {key}")).to_owned();
        let token = Token { id: text("id"), secret: text("token") };
        assert_eq!(json.matches(&token.secret).count(), 1, "it is shown once");
        self.evidence.hide(name, &token.secret);
        self.evidence.record("what shows a secret, besides", &json.replacen(&token.secret, "", 1));
        token
    }

    /// Puts another token file in place, in one step.
    pub(super) fn replace_token_file(&self, text: &str) {
        std::fs::write(self.site.path("next"), text).unwrap();
        std::fs::rename(self.site.path("next"), self.site.path("tokens.yaml")).unwrap();
    }

    /// Does something, and waits until the gateway has said this once more.
    pub(super) async fn gateway_says(&self, gateway: &Gateway, what: &str, act: impl FnOnce()) {
        let before = gateway.output().matches(what).count();
        act();
        eventually(what, async || (gateway.output().matches(what).count() > before).then_some(())).await;
    }

    /// Everything that a gateway has said and says.
    pub(super) async fn record_gateway(&mut self, gateway: &Gateway) {
        for path in ["/metrics", "/readyz", "/livez", "/"] {
            let (_, page) = gateway.admin(path).await;
            self.evidence.record(path, &page);
        }
        let output = gateway.output();
        for level in ["TRACE", "DEBUG", "INFO"] {
            assert!(output.contains(level), "nothing was logged at {level}");
        }
        self.evidence.record("the gateway's log", &output);
    }

    /// The files that Callgate wrote into the folder.
    pub(super) fn record_folder(&mut self) {
        for entry in std::fs::read_dir(self.site.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            match &*name {
                "tokens.yaml" => self.evidence.record_store(&name, &text),
                other if other.ends_with(".pem") => {}
                _ => self.evidence.record(&name, &text),
            }
        }
    }

    /// Every key and value of a Redis.
    pub(super) fn record_redis(&mut self, redis: &RedisServer) {
        let keys: Vec<String> = redis.say(&["KEYS", "*"]);
        assert!(keys.len() > 10, "{keys:?}");
        for key in keys {
            let kind: String = redis.say(&["TYPE", &key]);
            let value: redis::Value = match &*kind {
                "hash" => redis.say(&["HGETALL", &key]),
                "zset" => redis.say(&["ZRANGE", &key, "0", "-1", "WITHSCORES"]),
                "string" => redis.say(&["GET", &key]),
                other => panic!("{key} is a {other}"),
            };
            let text = texts(&value).join("\n");
            if key.ends_with(":token") {
                self.evidence.record_store(&key, &text);
            } else {
                self.evidence.record(&key, &text);
            }
        }
    }
}

/// All texts in an answer of Redis.
fn texts(value: &redis::Value) -> Vec<String> {
    match value {
        redis::Value::BulkString(bytes) => vec![String::from_utf8_lossy(bytes).into_owned()],
        redis::Value::Array(values) => values.iter().flat_map(texts).collect(),
        other => vec![format!("{other:?}")],
    }
}

/// The version of a record that the test has spoilt.
pub(super) const SPOILT: &str = "9000000000000000";

/// All that is said to a Redis.
pub(super) struct Traffic {
    received: Arc<Mutex<Vec<u8>>>,
}

impl Traffic {
    pub(super) fn of(redis: &RedisServer) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let received = Arc::<Mutex<Vec<u8>>>::default();
        let ear = received.clone();
        // It ends with Redis.
        std::thread::spawn(move || {
            let mut bytes = [0; 64 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                ear.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        let traffic = Self { received };
        eventually_blocking("Redis to tell what it is told", || traffic.text().contains("+OK").then_some(()));
        traffic
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.received.lock().unwrap()).into_owned()
    }

    pub(super) fn reported(&self) -> String {
        let text = self.text();
        assert!(text.contains("evalsha") || text.contains("EVALSHA"), "nothing was heard");
        // A line that the test itself damaged is no leak.
        text.lines().filter(|line| !line.contains(SPOILT)).collect::<Vec<_>>().join("\n")
    }
}
