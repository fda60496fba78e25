//! The configuration compiler: from the tree of a file to a [`Config`], or to everything that is wrong with it.

mod address;
mod admin;
mod answers;
mod balancing;
mod destinations;
mod listen;
mod log;
mod matching;
mod paths;
mod plans;
mod process;
mod redis;
mod routes;
mod sockets;
mod store;
mod telemetry;
mod tls;
mod upstreams;

use std::path::Path;
use std::sync::Arc;

pub(crate) use log::log_level;

use super::model::{Config, ListenSettings};
use super::reader::{Field, YamlReader};
use super::redact::redacted;
use super::{HeaderCase, Upstream};

/// Compiles the text of the file at `path`. The configuration may be used only if the reader has no error.
pub(super) fn compile(reader: &YamlReader<'_>, path: &Path, text: &str) -> Option<Config> {
    let node = reader.parse(text)?;
    let root = reader.root(&node);
    if !root.is_map() && !root.is_null() {
        return root.refuse("a map of keys and values", "");
    }
    let mut config = assemble(&root, path)?;
    config.text = redacted(text).into();
    Some(config)
}

/// Reads every section, so that all of them can complain, before any of them is missed.
fn assemble(root: &Field<'_>, path: &Path) -> Option<Config> {
    let file = root.section();
    let listen = listen::listen(&file.field_of("listen"));
    let admin = admin::admin(&file.field_of("admin"), &listen.admin);
    let tls = listen::tls(&file.field_of("tls"));
    let store = store::store(&file);
    let tokens = store::tokens(&file.field_of("tokens"), store.as_ref());
    let limits = plans::limits(&file.field_of("limits"));
    let plans = plans::plans(&file);
    let default_plan = plans::default_plan(&file, &plans);
    let upstreams = upstreams::upstreams(&file);
    let log = log::log(&file.field_of("log"));
    let routes = routes::routes(&file, default_plan.as_ref().map(|_| &plans), &upstreams, log.success);
    listen::warn_of_circles(&file, &listen, &upstreams.compiled);
    let preserves = |upstream: &Arc<Upstream>| upstream.header_case == HeaderCase::Preserve;
    let trusted_proxies = process::networks(&file.field_of("trusted_proxies").one_or_many());
    listen::warn_of_nameless_clients(&file, &listen.https_from, &trusted_proxies);
    let listen = ListenSettings { remembers_header_case: upstreams.compiled.iter().any(preserves), ..listen };
    Some(Config {
        source: path.to_owned(),
        listen,
        admin,
        tls,
        tokens,
        limits,
        routes,
        trusted_proxies,
        otlp: telemetry::telemetry(&file.field_of("telemetry")),
        log,
        drain: process::drain(&file.field_of("drain")),
        runtime: process::runtime(&file.field_of("runtime")),
        store: store?,
        plans,
        default_plan: default_plan?,
        upstreams: upstreams.compiled,
        text: Arc::default(),
        warnings: Vec::new(),
    })
}
