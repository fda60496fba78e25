//! `callgate limits …`: where a token stands, and a log cleared by hand.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::admin::{CONFIRMATION, LimitService};
use crate::config::{self, OnFailure, Store};
use crate::limits::{DenyCache, LimitReport, Limiter, MemoryLimiter, RedisLimiter};
use crate::store::Redis;
use crate::tokens::Registry;

/// A running instance must answer within this time: a person waits.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of an instance's answer.
const LONGEST_ANSWER: u64 = 1 << 20;
/// The environment variable that may hold an admin token: an argument would be seen by every user of the machine.
const ADMIN_TOKEN: &str = "CALLGATE_ADMIN_TOKEN";

/// What to do with the limits of a token.
#[derive(Debug, Subcommand)]
pub(super) enum LimitsCommand {
    /// Show where a token stands in each window; counts nothing
    Peek(LimitsArgs),
    /// Clear a token's log, as if it had never been used; what instances remember of a refusal ends within a second
    Reset(LimitsArgs),
}

/// Arguments of both.
#[derive(Debug, Args)]
pub(super) struct LimitsArgs {
    /// The configuration: of its Redis is asked
    #[arg(long, value_name = "FILE", required_unless_present = "admin")]
    config: Option<PathBuf>,
    /// Ask a running instance instead, at the address of its admin listener; the memory store can be asked in no other way. If it
    /// asks for an admin token, put that into the environment variable CALLGATE_ADMIN_TOKEN
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    admin: Option<SocketAddr>,
    /// The token's id, as `token list` shows it
    #[arg(value_name = "TOKEN-ID")]
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Carries out a command.
///
/// # Errors
/// What went wrong and what to do about it, for `exit 1`.
pub(super) async fn run(command: LimitsCommand) -> anyhow::Result<()> {
    let text = match command {
        LimitsCommand::Peek(args) => {
            let report = match args.admin {
                Some(admin) => {
                    serde_json::from_value(ask(admin, "GET", &args.id)?).context("not an instance's answer")?
                }
                None => desk(&args).await?.peek(&args.id).await?,
            };
            if args.json { serde_json::to_string(&report)? + "\n" } else { table(&report)? }
        }
        LimitsCommand::Reset(args) => {
            match args.admin {
                Some(admin) => drop(ask(admin, "DELETE", &args.id)?),
                None => desk(&args).await?.reset(&args.id).await?,
            }
            if args.json {
                format!("{}\n", serde_json::json!({ "id": args.id, "reset": true }))
            } else {
                let id = &args.id;
                format!(
                    "The log of token {id} is cleared. An instance that does not hear of it may repeat a refusal for up to a second.\n"
                )
            }
        }
    };
    std::io::stdout().write_all(text.as_bytes()).context("writing to stdout")
}

/// The store that the configuration names, if it can be asked from outside of the instances.
async fn desk(args: &LimitsArgs) -> anyhow::Result<LimitService> {
    let path = args.config.as_ref().context("--config FILE or --admin ADDRESS is needed")?;
    let config = Arc::new(config::load(path)?.config);
    match &config.store {
        Store::Memory => {
            let admin = config.listen.admin;
            bail!(
                "with `store: memory` the log is inside the running instance: ask it with `--admin {admin}` in place \
                 of --config"
            );
        }
        Store::Redis(store) => {
            let redis = Redis::open_for_command(store).await?;
            let (local, denials) = (Arc::new(MemoryLimiter::new(1)), Arc::new(DenyCache::new(1)));
            let limiter = RedisLimiter::new(redis.clone(), OnFailure::Deny, local, denials);
            Ok(LimitService::new(config.clone(), Arc::new(Registry::with_redis(redis)), Limiter::Redis(limiter)))
        }
    }
}

/// Asks a running instance.
fn ask(admin: SocketAddr, method: &str, id: &str) -> anyhow::Result<Value> {
    // What no id can hold must not become a part of the request.
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        // Nor is it repeated: it may be a token.
        bail!("no token has such an id: one is 1 to 64 letters, digits, \".\", \"_\" and \"-\"");
    }
    let mut stream =
        TcpStream::connect_timeout(&admin, DEADLINE).with_context(|| format!("no admin listener at {admin}"))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let credential = credential()?;
    write!(
        stream,
        "{method} /api/limits/{id} HTTP/1.1\r\nhost: {admin}\r\n{CONFIRMATION}: 1\r\n{credential}connection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    let read = stream.take(LONGEST_ANSWER).read_to_string(&mut answer);
    read.with_context(|| format!("no answer from {admin}"))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let said: Value =
        serde_json::from_str(body).with_context(|| format!("{admin} is no admin listener of Callgate"))?;
    if answer.split(' ').nth(1) != Some("200") {
        bail!("{admin}: {}", said["message"].as_str().unwrap_or(body));
    }
    Ok(said)
}

/// The `Authorization` line with the admin token of the environment, if there is one.
fn credential() -> anyhow::Result<String> {
    match std::env::var(ADMIN_TOKEN) {
        Ok(token) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(format!("authorization: Bearer {token}\r\n"))
        }
        // It is not repeated: it may be a token with something stuck to it.
        Ok(token) if !token.is_empty() => bail!("{ADMIN_TOKEN} holds something that no admin token can be"),
        Ok(_) | Err(_) => Ok(String::new()),
    }
}

/// What people read.
fn table(report: &LimitReport) -> anyhow::Result<String> {
    let trial = if report.shadow { " (a trial: nothing is denied)" } else { "" };
    let mut text = format!("Token {}, plan {}{trial}\n", report.id, report.plan);
    if report.windows.is_empty() {
        text.push_str("no limits\n");
    }
    if let (Some(open), Some(most)) = (report.open_calls, report.concurrent_calls) {
        writeln!(text, "{open} of {most} calls open")?;
    }
    let rows = report.windows.iter().map(|window| {
        let name = window.route.as_ref().map_or(window.name.clone(), |route| format!("{} ({route})", window.name));
        let at = UNIX_EPOCH + Duration::from_secs(window.next_slot_at);
        let next = match window.next_slot_in_seconds {
            0 => "now".to_owned(),
            wait => format!("in {wait} s, at {}", humantime::format_rfc3339_seconds(at)),
        };
        [name, format!("{} of {}", window.used, window.limit), next]
    });
    let head = ["WINDOW", "USED", "NEXT FREE SLOT"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).filter(|_| !report.windows.is_empty()).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (name, used) = (width(0), width(1));
    for row in &rows {
        writeln!(text, "{:name$}  {:used$}  {}", row[0], row[1], row[2])?;
    }
    Ok(text)
}
