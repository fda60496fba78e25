//! The configuration compiler: from the tree of a file to a [`Config`], or to everything that is wrong with it.

mod admin;
mod answers;
mod balancing;
mod destinations;
mod health;
mod limits;
mod listen;
mod matching;
mod mirror;
mod paths;
mod plans;
mod process;
mod redis;
mod routes;
mod store;
mod upstream_tls;
mod upstreams;

use std::collections::BTreeSet;
use std::path::Path;

use super::files::NeededFile;
use super::model::Config;
use super::problem::{Problem, Severity};
use super::reader::Reader;
use super::yaml::{self, Node};

/// The keys at the top of the file, in the order in which they are best read.
const KEYS: [&str; 14] = [
    "listen",
    "admin",
    "tls",
    "store",
    "tokens",
    "limits",
    "plans",
    "default_plan",
    "routes",
    "upstreams",
    "trusted_proxies",
    "log",
    "drain",
    "runtime",
];

/// What became of a file: a configuration, to be used only if no problem is an error, and the files that it needs.
pub(super) struct Outcome {
    pub(super) config: Option<Config>,
    pub(super) problems: Vec<Problem>,
    pub(super) files: Vec<NeededFile>,
    /// Every key that the file could have had, with `[]` for an index and `*` for a name.
    pub(super) keys: BTreeSet<String>,
}

/// Compiles the text of the file at `path`.
pub(super) fn compile(path: &Path, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Outcome {
    let reader = Reader::new(path, env);
    let config = match yaml::parse(text) {
        Ok(root) => assemble(&reader, path, &root),
        Err(fault) => {
            reader.report(Severity::Error, fault.at, String::new(), fault.message);
            None
        }
    };
    let (problems, files, keys) = reader.into_findings();
    Outcome { config, problems, files, keys }
}

/// Reads every section, so that all of them can complain, before any of them is missed.
fn assemble<'a>(reader: &'a Reader<'a>, path: &Path, root: &'a Node) -> Option<Config> {
    let root = reader.root(root);
    if !root.is_map() && !root.is_null() {
        root.error(format!("must be a map of keys and values, not {}", root.kind()));
        return None;
    }
    let file = root.section(&KEYS);
    let listen = listen::listen(&file.field_of("listen"));
    let admin = admin::admin(&file.field_of("admin"), listen.admin);
    let tls = listen::tls(&file.field_of("tls"));
    let store = store::store(&file);
    let tokens = store::tokens(&file.field_of("tokens"), store.as_ref());
    let limits = plans::limits(&file.field_of("limits"));
    let plans = plans::plans(&file);
    let upstreams = upstreams::upstreams(&file);
    let routes = routes::routes(&file, plans.as_ref().map(|(plans, _)| plans), &upstreams);
    let trusted_proxies = process::trusted_proxies(&file.field_of("trusted_proxies"));
    let log = process::log(&file.field_of("log"));
    let drain = process::drain(&file.field_of("drain"));
    let runtime = process::runtime(&file.field_of("runtime"));
    let (plans, default_plan) = plans?;
    Some(Config {
        source: path.to_owned(),
        runtime,
        listen,
        admin,
        tls,
        store: store?,
        tokens,
        limits,
        plans,
        default_plan,
        routes,
        upstreams: upstreams.compiled,
        trusted_proxies,
        log,
        drain,
    })
}
