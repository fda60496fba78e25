//! `callgate token …`: the whole life of tokens, in the store that the configuration names.

mod args;
mod commands;
mod import;
mod session;
mod view;

use std::io::{self, Write};
use std::time::SystemTime;

use anyhow::Context;

use crate::cli::confirm::confirm;
use crate::config::{self, Config};
use session::Session;

pub use args::TokenCommand;

/// What a command did: its result, and what it prints to stdout and stderr.
#[derive(Debug)]
pub struct CommandOutput {
    /// What went wrong and what to do about it, for `exit 1`.
    pub result: anyhow::Result<()>,
    /// The result for people or programs.
    pub out: String,
    /// Warnings and notes.
    pub remarks: String,
}

/// Runs a command and prints its output.
pub(super) async fn run(command: TokenCommand) -> anyhow::Result<()> {
    if let Some((deed, yes)) = command.irreversible() {
        confirm(deed, yes)?;
    }
    // `callgate check` reports warnings about the configuration.
    let config = config::load(&command.common().config.path()?)?.config;
    let CommandOutput { result, out, remarks } = run_with(&config, command, SystemTime::now()).await;
    // A new token must be printed even if a remark can't be.
    io::stdout().write_all(out.as_bytes()).context("writing to stdout")?;
    let _ = io::stderr().write_all(remarks.as_bytes());
    result
}

/// Runs a command with a configuration that is loaded already.
pub async fn run_with(config: &Config, command: TokenCommand, now: SystemTime) -> CommandOutput {
    let mut session = match Session::open(config, command.common().json, now).await {
        Ok(session) => session,
        Err(error) => return CommandOutput { result: Err(error), out: String::new(), remarks: String::new() },
    };
    let result = match command {
        TokenCommand::Create(args) => session.create(args.args).await,
        TokenCommand::Import(args) => session.import(args.args).await,
        TokenCommand::List(args) => session.list(args.args).await,
        TokenCommand::Show(args) => session.show(args.args).await,
        TokenCommand::Update(args) => session.update(args.args).await,
        TokenCommand::Rotate(args) => session.rotate(args.args).await,
        TokenCommand::Revoke(args) => session.revoke(args.args).await,
        TokenCommand::Enable(args) => session.switch(args.args, true).await,
        TokenCommand::Disable(args) => session.switch(args.args, false).await,
        TokenCommand::Audit(args) => session.audit(args.args).await,
    };
    CommandOutput { result, out: session.out, remarks: session.remarks }
}
