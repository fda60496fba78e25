//! `callgate admin-token create`: a token for the admin listener, and the line of the configuration that makes it good.

use std::io::Write;

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use crate::tokens::NewToken;

/// What admin tokens start with: a leaked one tells what it is.
const PREFIX: &str = "callgate_admin";

/// What to do with admin tokens.
#[derive(Debug, Subcommand)]
pub(super) enum AdminTokenCommand {
    /// Make one: its text goes to standard output, once, and the line for the configuration beside it
    Create(CreateArgs),
}

/// Arguments of `admin-token create`.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The name in the audit trail, for example whose it is
    #[arg(long, value_parser = parse_name)]
    name: String,
    /// `read` looks and scrapes, `write` changes tokens and limits
    #[arg(long, default_value = "read", value_parser = PossibleValuesParser::new(["read", "write"]))]
    role: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Carries out a command, with the secret on stdout and the rest on stderr.
///
/// # Errors
/// When there is no randomness, or nowhere to write to.
pub(super) fn run(command: AdminTokenCommand) -> anyhow::Result<()> {
    let AdminTokenCommand::Create(CreateArgs { name, role, json }) = command;
    let token = NewToken::generate(PREFIX).context("no randomness for a token")?;
    let (secret, sha256) = (token.secret.expose(), token.hash.to_hex());
    let mut out = std::io::stdout();
    if json {
        let told = serde_json::json!({ "name": name, "role": role, "token": secret, "sha256": sha256 });
        return writeln!(out, "{told}").context("writing to stdout");
    }
    writeln!(out, "{secret}").context("writing to stdout")?;
    let line = format!("- {{ name: {name:?}, role: {role}, sha256: \"{sha256}\" }}");
    let remark = format!(
        "Keep it now: it is not shown again. To make it good, put this line under admin.tokens and restart:\n\n    {line}\n"
    );
    // The token has been seen; a remark that can't be written is no reason to make another one.
    let _ = writeln!(std::io::stderr(), "{remark}");
    Ok(())
}

fn parse_name(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let good = (1..=64).contains(&text.len()) && text.bytes().all(is_plain);
    if good { Ok(text.to_owned()) } else { Err("must be 1 to 64 characters out of A-Z a-z 0-9 _ . -".to_owned()) }
}
