//! `callgate calls …`: shows the open calls of a running instance or of all, and closes one.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

use super::admin_client::{AdminArgs, AdminClient};
use super::confirm::confirm;
use super::quantities;
use super::table::{short, table};
use crate::color::label;
use crate::live_calls::CallReport;

/// A running instance must answer within this time: a person waits.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Calls on a page of the API, and shown unless the command says how many.
const PAGE: usize = 200;
/// Characters of a name in a table.
const MAX_NAME: usize = 32;

#[derive(Debug, Subcommand)]
pub(super) enum CallsCommand {
    /// List open calls: WebSockets, streams of events, gRPC. The oldest come first
    List(ListArgs),
    /// Close an open call, on whichever instance it is
    End(EndArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// The calls of all instances that share the Redis, not only of the one that is asked
    #[arg(long)]
    all: bool,
    /// Only the calls of this token
    #[arg(long, value_name = "TOKEN-ID")]
    token: Option<String>,
    /// Only the calls of this account's tokens
    #[arg(long)]
    account: Option<String>,
    /// Only the calls on this route
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Only the calls to this upstream
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Show at most this many
    #[arg(long, default_value_t = PAGE, value_name = "NUMBER")]
    limit: usize,
    /// Print JSON, one line for each call
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct EndArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// The call's id, as `calls list` shows it
    #[arg(value_name = "CALL-ID")]
    id: String,
    /// What both sides are told: up to 100 characters of printable ASCII
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Don't ask: a call that was closed is gone
    #[arg(long)]
    yes: bool,
}

/// # Errors
/// What went wrong, for `exit 1`.
pub(super) fn run(command: CallsCommand) -> anyhow::Result<()> {
    match command {
        CallsCommand::List(args) => list(&args),
        CallsCommand::End(args) => end(&args),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let admin = args.admin.client()?;
    let mut filter = format!("all={}", args.all);
    let filters =
        [("token", &args.token), ("account", &args.account), ("route", &args.route), ("upstream", &args.upstream)];
    for (name, value) in filters {
        if let Some(value) = value {
            filter += &format!("&{name}={}", encode(value));
        }
    }
    let (mut calls, mut next) = (Vec::<CallReport>::new(), String::new());
    let (has_more, silent) = loop {
        let limit = (args.limit - calls.len()).clamp(1, PAGE);
        let page = ask(&admin, "GET", &format!("/api/calls?{filter}&limit={limit}{next}"))?;
        calls.extend(Vec::<CallReport>::deserialize(&page["calls"]).context("the answer is not a list of calls")?);
        let silent = page["silent_instances"].clone();
        let Some(cursor) = page["next"].as_str() else { break (false, silent) };
        if calls.len() >= args.limit {
            break (true, silent);
        }
        next = format!("&after={}", encode(cursor));
    };
    let text = match args.json {
        true => {
            calls.iter().map(|call| serde_json::to_string(call).map(|line| line + "\n")).collect::<Result<_, _>>()?
        }
        false if calls.is_empty() => "no open calls\n".to_owned(),
        false => sheet(&calls),
    };
    std::io::stdout().write_all(text.as_bytes()).context("writing to stdout")?;
    if has_more {
        eprintln!("There are more: show them with --limit.");
    }
    let silent: Vec<&str> = silent.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !silent.is_empty() {
        eprintln!(
            "{} these instances did not answer, so their calls are missing: {}",
            label("warning"),
            silent.join(", ")
        );
    }
    Ok(())
}

fn end(args: &EndArgs) -> anyhow::Result<()> {
    confirm("Closing a call", args.yes)?;
    let reason = args.reason.as_ref().map(|reason| format!("?reason={}", encode(reason))).unwrap_or_default();
    ask(&args.admin.client()?, "DELETE", &format!("/api/calls/{}{reason}", encode(&args.id)))?;
    println!("The call {} is closed.", args.id);
    Ok(())
}

/// Makes a request whose answer must be 200.
fn ask(admin: &AdminClient, method: &str, path: &str) -> anyhow::Result<Value> {
    let (is_ok, answer) = admin.ask(method, path, TIMEOUT)?;
    if !is_ok {
        bail!("{admin}: {}", answer["message"].as_str().unwrap_or("it gave no reason"));
    }
    Ok(answer)
}

/// Hyphens of ids need no escape, and look better in logs without.
fn encode(text: &str) -> String {
    const ESCAPED: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// What people read.
fn sheet(calls: &[CallReport]) -> String {
    let heads = ["CALL", "KIND", "OPEN FOR", "TOKEN", "ACCOUNT", "CLIENT", "ROUTE", "ENDPOINT", "IN", "OUT"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(calls.iter().map(|call| {
        let text = |value: &Option<String>| value.as_deref().map_or("-".to_owned(), |value| short(value, MAX_NAME));
        let passed = |bytes: u64, messages: Option<u64>| match messages {
            Some(messages) => format!("{} ({messages})", quantities::bytes(bytes)),
            None => quantities::bytes(bytes),
        };
        [
            call.id.clone(),
            call.kind.clone(),
            quantities::duration(call.seconds),
            text(&call.token),
            text(&call.account),
            call.client.clone(),
            short(&call.route, MAX_NAME),
            text(&call.endpoint),
            passed(call.bytes_in, call.messages_in),
            passed(call.bytes_out, call.messages_out),
        ]
    }));
    table(&rows)
}
