//! One command at work: the store of the configuration, and what the command prints.

use std::fmt::Display;
use std::time::SystemTime;

use anyhow::Context;

use crate::color::label;
use crate::config::{Config, Store};
use crate::store::Redis;
use crate::tokens::{ActionContext, Actor, Registry, strange_permissions};

/// What a command prints, in JSON or for people.
pub(super) struct Session<'a> {
    pub(super) config: &'a Config,
    pub(super) registry: Registry,
    pub(super) by: ActionContext,
    json: bool,
    pub(super) out: String,
    pub(super) remarks: String,
}

impl<'a> Session<'a> {
    pub(super) async fn open(config: &'a Config, json: bool, now: SystemTime) -> anyhow::Result<Self> {
        let registry = match &config.store {
            Store::Memory => {
                let path = config.tokens.file.as_ref();
                let path = path.context("tokens.file is not set: name the file that keeps the tokens")?;
                Registry::with_file(config, path)
            }
            Store::Redis(store) => Registry::with_redis(config, Redis::open_for_command(store).await?),
        };
        let by = ActionContext { actor: Actor::of_this_process(), now };
        Ok(Self { config, registry, by, json, out: String::new(), remarks: String::new() })
    }

    pub(super) fn default_plan(&self) -> &'a str {
        &self.config.default_plan.name
    }

    /// Prints the result for programs or for people.
    pub(super) fn print(&mut self, json: impl Display, text: impl Display) {
        self.out += &if self.json { format!("{json}\n") } else { format!("{text}\n") };
    }

    /// Adds a line on stderr.
    pub(super) fn remark(&mut self, text: impl Display) {
        self.remarks += &format!("{text}\n");
    }

    /// Adds a warning on stderr.
    pub(super) fn warn(&mut self, text: impl Display) {
        self.remark(format_args!("{} {text}", label("warning")));
    }

    /// Adds a line on stderr that programs don't need.
    pub(super) fn remark_for_people(&mut self, text: impl Display) {
        if !self.json {
            self.remark(text);
        }
    }

    pub(super) fn warn_of_permissions(&mut self, permissions: &[String]) {
        for warning in strange_permissions(self.config, permissions) {
            self.warn(warning);
        }
    }

    /// Says if a failover of Redis would lose what was written.
    pub(super) async fn remark_on_replicas(&mut self, ids: impl IntoIterator<Item = &str>) {
        if self.registry.have_replicated(ids).await == Some(false) {
            self.warn(
                "no replica of Redis has this change yet, so a failover now would undo it: run the command again",
            );
        }
    }

    pub(super) fn remark_on_rewrite(&mut self, rewritten: bool) {
        if rewritten {
            self.remark(
                "note: the token file had an unusual layout and was rewritten; only the comment at its top was kept",
            );
        }
    }
}
