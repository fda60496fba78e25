//! Configuration: one YAML file, compiled into a validated form, or into all that is wrong with it.

mod admin;
mod answers;
mod balancing;
mod compile;
mod expand;
mod files;
mod matching;
mod mirror;
mod model;
mod nearest;
mod place;
mod plan;
mod problem;
mod reader;
mod redis;
mod scalars;
mod secret;
mod split;
mod units;
mod upstream;
mod yaml;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use compile::{Outcome, compile};
use reader::why;

pub use self::admin::{AdminAccess, AdminToken, Role};
pub use self::redis::{OnFailure, RedisLogin, RedisNode, RedisSentinel, RedisServers, RedisStore, RedisTls};
pub use answers::{Cors, HeaderEdits, Origin};
pub use balancing::{Ask, Balance, Balancing, Ejection, HashKey, Health, Part, Retry, RetryOn};
pub use matching::{HeaderMatch, HostPattern, Piece, Rewrite};
pub use mirror::{Mirror, WHOLE};
pub use model::{
    Access, CallLimits, CertificateFiles, Config, Drain, FailureLimits, Limits, Listen, Log, LogFormat, PathForms,
    REQUEST_ID, Route, Runtime, Store, Tls, Tokens,
};
pub(crate) use nearest::did_you_mean;
pub use nearest::nearest;
pub use plan::{CONCURRENT_CALLS, Limit, MAX_COUNT, Plan, RouteLimits, WINDOW_MS};
pub use problem::{Problem, Problems, Severity};
pub use secret::Secret;
pub use split::{Split, SplitBy};
pub use units::{parse_duration, parse_limit, parse_size};
pub use upstream::{Endpoint, EndpointAddress, HostHeader, Protocol, Upstream, UpstreamTls};

/// Bytes of a configuration file: far more than anybody writes, and read in a moment.
const MAX_BYTES: usize = 8 << 20;

/// A configuration that can be used, and what should be looked at all the same.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Reads and compiles a file with this process's environment, and checks that the files it names can be read.
///
/// # Errors
/// Everything that is wrong with it, warnings included.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let text = read(path)?;
    let mut outcome = compile(path, &text, &|name| std::env::var(name).ok());
    outcome.problems.extend(outcome.files.iter().filter_map(|needed| files::check(path, needed)));
    settle(outcome)
}

/// Compiles `text` as the content of the file `path` (which is only named in problems, and whose folder paths are relative
/// to), with `env` in place of the environment. Reads no file but those of `file:` references, and checks none.
///
/// # Errors
/// Everything that is wrong with it, warnings included.
pub fn parse(path: &Path, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    settle(compile(path, text, env))
}

/// Every key that a configuration may have, with `[]` for an index and `*` for a name of the operator's choice:
/// `routes[].upstream`, `plans.*.limits`.
#[must_use]
pub fn known_keys() -> BTreeSet<String> {
    // Keys are learnt where they are read: so the smallest text that makes the compiler look everywhere.
    let everywhere = "{ listen: { proxy_protocol: {} }, tls: { certificates: [{}] }, admin: { tokens: [{}] }, store: { redis: { sentinel: {} } }, plans: { a: {} }, upstreams: { a: {} }, routes: [{}] }";
    let mut keys = compile(Path::new(""), everywhere, &|_| None).keys;
    keys.extend(["plans.*", "plans.*.limits.*", "routes[].limits.*", "upstreams.*"].map(str::to_owned));
    keys
}

fn settle(outcome: Outcome) -> Result<Loaded, Problems> {
    let Outcome { config, problems: mut warnings, .. } = outcome;
    let failed = warnings.iter().any(|problem| problem.severity == Severity::Error);
    match config.filter(|_| !failed) {
        Some(config) => {
            problem::sort(&mut warnings);
            Ok(Loaded { config, warnings })
        }
        None => Err(Problems::new(warnings)),
    }
}

fn read(path: &Path) -> Result<String, Problems> {
    let fail = |line, column, message: String| {
        let (file, path, severity) = (path.into(), String::new(), Severity::Error);
        Err(Problems::new(vec![Problem { file, line, column, path, message, severity }]))
    };
    let mut bytes = Vec::new();
    let end = MAX_BYTES as u64 + 1;
    match std::fs::File::open(path).and_then(|file| file.take(end).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return fail(0, 0, "does not exist".to_owned()),
        Err(error) => return fail(0, 0, why(&error)),
    }
    if bytes.len() > MAX_BYTES {
        return fail(0, 0, format!("is larger than {MAX_BYTES} bytes"));
    }
    String::from_utf8(bytes).or_else(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let before = String::from_utf8_lossy(good);
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        fail(before.matches('\n').count() + 1, column, "is not UTF-8 text from here on".to_owned())
    })
}
