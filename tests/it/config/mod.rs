//! The configuration compiler against files: shipped ones, bad ones, mutated ones.

mod found;
mod hostile;
mod reports;
mod schema;
mod shipped;
mod values;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use callgate::cli::check::report;
use callgate::config::{
    self, Config, HostHeader, LogFormat, OnFailure, Problems, RedisLogin, RedisNode, RedisServers, RouteAccess,
    Severity, Store,
};
use proptest::prelude::{ProptestConfig, any, prop};
use proptest::{prop_assert, proptest};

/// Set to rewrite the expected texts; look at the difference before you keep it.
const REWRITE: &str = "REWRITE_EXPECTED";

const SHIPPED: &str = include_str!("../../../config/callgate.yaml");
const MINIMAL: &str = include_str!("../../../config/minimal.yaml");

fn parse(text: &str) -> Result<config::Loaded, Problems> {
    config::parse(Path::new("callgate.yaml"), text, &|_| None)
}

fn good(text: &str) -> Config {
    match parse(text) {
        Ok(loaded) => {
            assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
            loaded.config
        }
        Err(problems) => panic!("{problems}\nin\n{text}"),
    }
}

/// The problems of a text, one per line: errors, or warnings.
fn messages(text: &str) -> String {
    match parse(text) {
        Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        Err(problems) => problems.to_string(),
    }
}

/// The folder of bad configurations. Git doesn't keep that only the owner may read a file.
fn bad_files() -> &'static Path {
    let folder = Path::new("tests/config/bad");
    fs::set_permissions(folder.join("here.pem"), Permissions::from_mode(0o600)).unwrap();
    folder
}

/// All that a configuration means, to compare two: not how it is written, nor where.
fn debug_text(config: &Config) -> String {
    let config = Config { text: "".into(), warnings: Vec::new(), ..config.clone() };
    format!("{config:#?}")
}

/// The output of `callgate check` for a file.
fn checked(path: &Path) -> (bool, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let good = report(path, false, &mut out, &mut err).unwrap();
    (good, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}
