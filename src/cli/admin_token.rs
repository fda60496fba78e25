//! `callgate admin-token create`: makes a token for the admin listener, and the line that adds it to the configuration.

use std::io::Write;

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use crate::config::is_name;
use crate::tokens::NewToken;

/// Admin tokens start with this, so that a leaked one is recognized.
const PREFIX: &str = "callgate_admin";

#[derive(Debug, Subcommand)]
pub(super) enum AdminTokenCommand {
    /// Make an admin token. Prints the token once, to standard output, and the line for the configuration to standard error
    Create(AdminTokenArgs),
}

#[derive(Debug, Args)]
pub(super) struct AdminTokenArgs {
    /// Name in the audit trail, for example of the person or service that uses the token
    #[arg(long, value_parser = parse_name)]
    name: String,
    /// `read`: view and scrape metrics; `write`: change tokens, limits and the log level, and reload, too
    #[arg(long, default_value = "read", value_parser = PossibleValuesParser::new(["read", "write"]))]
    role: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the token to stdout and the rest to stderr.
///
/// # Errors
/// When there is no randomness, or nowhere to write to.
pub(super) fn run(command: AdminTokenCommand) -> anyhow::Result<()> {
    let AdminTokenCommand::Create(AdminTokenArgs { name, role, json }) = command;
    let token = NewToken::generate(PREFIX).context("the operating system gives no randomness for a token")?;
    let (secret, sha256) = (token.secret.expose(), token.hash.to_hex());
    let mut out = std::io::stdout();
    if json {
        let made = serde_json::json!({ "name": name, "role": role, "token": secret, "sha256": sha256 });
        return writeln!(out, "{made}").context("writing to stdout");
    }
    writeln!(out, "{secret}").context("writing to stdout")?;
    let line = format!("- {{ name: {name:?}, role: {role}, sha256: \"{sha256}\" }}");
    // The token is printed already, so a failure here must not make the command fail.
    let _ = writeln!(
        std::io::stderr(),
        "Save it now: it is not shown again. To activate it, add this line to admin.tokens; a running instance notices:\n\n    {line}\n"
    );
    Ok(())
}

fn parse_name(text: &str) -> Result<String, String> {
    let set = "A-Z a-z 0-9 _ . -";
    if is_name(text, 64, set) { Ok(text.to_owned()) } else { Err(format!("must be 1 to 64 characters out of {set}")) }
}
