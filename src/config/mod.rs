//! Configuration: one YAML file, compiled into a validated form, or into all that is wrong with it.

mod admin;
mod changes;
mod compile;
mod expand;
mod files;
mod key_path;
mod log;
mod model;
mod nearest;
mod plan;
mod problem;
mod reader;
mod redact;
mod redis;
mod route;
mod scalars;
mod schema;
mod secret;
mod section;
mod simple_yaml;
mod split;
mod telemetry;
mod tls;
mod units;
mod upstream;
mod yaml;

use std::io::Read;
use std::path::{Path, PathBuf};

use self::redis::{MAX_DATABASE, RedisUrl};
pub(crate) use changes::{changes, restart_needed};
use compile::compile;
pub(crate) use compile::log_level;
use files::Expected;
use nearest::nearest;
use problem::quoted;
use section::Section;

pub use self::redis::{
    LoginSource, OnFailure, RedisLogin, RedisNode, RedisSentinel, RedisServers, RedisStore, RedisTls,
};
pub use admin::{AdminAccess, AdminAddress, AdminClient, AdminTls, AdminToken, Role, UnixSocket};
pub use log::{LogFile, LogFormat, LogSettings, LogShare};
pub use model::{
    Config, DrainSettings, FailureLimits, LimitSettings, ListenSettings, REQUEST_ID, Runtime, Store, TokenSettings,
};
pub(crate) use nearest::{did_you_mean, hint};
pub use plan::{CONCURRENT_CALLS, IN_FLIGHT, Limit, Plan, PlansByName, RouteLimits};
use plan::{MAX_COUNT, WINDOW_MS};
pub(crate) use problem::parted_json;
pub use problem::{Problem, Problems, Severity};
pub(crate) use reader::{Field, FileKind, YamlReader};
pub use route::{
    CallLimits, Cors, CorsOrigin, FULL_SHARE, HeaderEdits, HeaderMatch, HostPattern, Mirror, PathForms, Piece, Rewrite,
    Route, RouteAccess, UploadBounds,
};
pub(crate) use scalars::is_name;
pub use schema::{reference, schema};
pub use secret::Secret;
pub(crate) use simple_yaml::{OtherLayout, SimpleEntry, SimpleList, SimpleValue};
pub use split::{Split, SplitBy};
pub use telemetry::{OtlpProtocol, OtlpSettings};
pub use tls::{CertificateFiles, TlsSettings};
pub(crate) use units::parse_limit;
pub use upstream::{
    Balance, Balancing, Ejection, Endpoint, EndpointAddress, EndpointShare, HashKey, HeaderCase, Health, HealthProbe,
    HostHeader, Protocol, Retry, RetryOn, Upstream, UpstreamTlsSettings,
};
pub(crate) use yaml::Position;

/// Bytes of a configuration file: far more than anybody writes, and quickly read.
const MAX_BYTES: usize = 8 << 20;

/// A configuration that can be used, and its warnings.
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
    load_with_files(path).0
}

/// The same, and all files that it depends on but the token file, whether it is good or not.
pub(crate) fn load_with_files(path: &Path) -> (Result<Loaded, Problems>, Vec<PathBuf>) {
    let env = |name: &str| std::env::var(name).ok();
    let reader = YamlReader::new(path, FileKind::Configuration(&env));
    let config = match read(path) {
        Ok(text) => compile(&reader, path, &text),
        Err((position, message)) => {
            reader.report(Severity::Error, position, String::new(), message);
            None
        }
    };
    reader.check_files();
    let mut files = reader.named_files();
    files.push(path.to_owned());
    (finish(reader, config), files)
}

/// Compiles `text` as the content of the file `path` (which is only named in problems, and whose folder paths are relative
/// to), with `env` in place of the environment. Reads no file but those of `file:` references, and checks none.
///
/// # Errors
/// Everything that is wrong with it, warnings included.
pub fn parse(path: &Path, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    let reader = YamlReader::new(path, FileKind::Configuration(env));
    let config = compile(&reader, path, text);
    finish(reader, config)
}

fn finish(reader: YamlReader<'_>, config: Option<Config>) -> Result<Loaded, Problems> {
    let problems = reader.into_problems();
    let has_errors = problems.iter().any(|problem| problem.severity == Severity::Error);
    match config.filter(|_| !has_errors) {
        Some(config) => Ok(Loaded { config: Config { warnings: problems.clone(), ..config }, warnings: problems }),
        None => Err(Problems(problems)),
    }
}

/// The text of a file, or what is wrong with it, and where.
fn read(path: &Path) -> Result<String, (Position, String)> {
    let whole_file = |message| (Position::WHOLE_FILE, message);
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)).map_err(
        |error| match error.kind() {
            std::io::ErrorKind::NotFound => whole_file("does not exist".to_owned()),
            _ => whole_file(files::reason(path, &error)),
        },
    )?;
    if bytes.len() > MAX_BYTES {
        return Err(whole_file(format!("is larger than {MAX_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let position = Position { line: before.matches('\n').count() + 1, column };
        (position, "is not UTF-8 text from here on".to_owned())
    })
}
