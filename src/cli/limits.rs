//! `callgate limits …`: shows how far a token's limits are used up, and clears its log.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::admin_client::{AdminClient, AdminListenerArgs};
use super::config_file::ConfigFile;
use super::confirm::confirm;
use super::table::table;
use crate::admin::LimitService;
use crate::config::{self, OnFailure, Store};
use crate::limits::{DenyCache, LimitReport, Limiter, MemoryLimiter, RedisLimiter};
use crate::store::Redis;
use crate::tokens::{ActionContext, Actor, Registry};

/// A running instance must answer within this time: a person waits.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub(super) enum LimitsCommand {
    /// Show how far each limit of a token is used up; this counts as no request
    Peek(LimitsArgs),
    /// Clear a token's log, as if it had never been used. Instances may repeat a refusal for up to a second
    Reset(ResetArgs),
}

#[derive(Debug, Args)]
pub(super) struct LimitsArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    listener: AdminListenerArgs,
    /// The token's id, as `token list` shows it
    #[arg(value_name = "TOKEN-ID")]
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ResetArgs {
    #[command(flatten)]
    limits: LimitsArgs,
    /// Don't ask: what was counted can't be restored
    #[arg(long)]
    yes: bool,
}

/// # Errors
/// What went wrong and what to do about it, for `exit 1`.
pub(super) async fn run(command: LimitsCommand) -> anyhow::Result<()> {
    let text = match command {
        LimitsCommand::Peek(args) => {
            let report = match Place::of(&args).await? {
                Place::Instance(admin) => serde_json::from_value(ask(&admin, "GET", &args.id)?)
                    .with_context(|| format!("{admin} gave no answer of Callgate"))?,
                Place::Redis(limits) => limits.peek(&args.id).await?,
            };
            if args.json { serde_json::to_string(&report)? + "\n" } else { sheet(&report) }
        }
        LimitsCommand::Reset(ResetArgs { limits: args, yes }) => {
            confirm("Clearing a log", yes)?;
            match Place::of(&args).await? {
                Place::Instance(admin) => drop(ask(&admin, "DELETE", &args.id)?),
                Place::Redis(limits) => {
                    let by = ActionContext { actor: Actor::of_this_process(), now: SystemTime::now() };
                    limits.reset(&args.id, &by).await?;
                }
            }
            if args.json {
                format!("{}\n", json!({ "id": args.id, "reset": true }))
            } else {
                format!("The log of token {} is cleared. Instances may repeat a refusal for up to a second.\n", args.id)
            }
        }
    };
    std::io::stdout().write_all(text.as_bytes()).context("writing to stdout")
}

/// Where the logs of tokens are.
enum Place {
    /// In a running instance: the one that is named, or with the memory store that of the configuration.
    Instance(AdminClient),
    Redis(Box<LimitService>),
}

impl Place {
    async fn of(args: &LimitsArgs) -> anyhow::Result<Self> {
        if let Some(admin) = args.listener.client()? {
            return Ok(Self::Instance(admin));
        }
        let config = Arc::new(config::load(&args.config.path()?)?.config);
        match &config.store {
            Store::Memory => Ok(Self::Instance(AdminClient::of(&config, &args.listener)?)),
            Store::Redis(store) => {
                let redis = Redis::open_for_command(store).await?;
                let (local, denials) = (Arc::new(MemoryLimiter::new(1)), Arc::new(DenyCache::new(1)));
                let limiter = RedisLimiter::new(redis.clone(), OnFailure::Deny, local, denials, Arc::default());
                let registry = Arc::new(Registry::with_redis(&config, redis));
                let limits = LimitService::new(config, registry, Arc::new(Limiter::Redis(limiter)));
                Ok(Self::Redis(Box::new(limits)))
            }
        }
    }
}

/// Sends a request about a token's limits to a running instance.
fn ask(admin: &AdminClient, method: &str, id: &str) -> anyhow::Result<Value> {
    // Characters that no id has must not get into the request.
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        // The text is not repeated: it may be a token.
        bail!("no token has such an id: ids are 1 to 64 letters, digits, \".\", \"_\" and \"-\"");
    }
    let (is_ok, answer) = admin.ask(method, &format!("/api/limits/{id}"), TIMEOUT)?;
    if !is_ok {
        bail!("{admin}: {}", answer["message"].as_str().unwrap_or("it gave no reason"));
    }
    Ok(answer)
}

/// What people read.
fn sheet(report: &LimitReport) -> String {
    let shadow = if report.shadow { " (shadow mode: nothing is denied)" } else { "" };
    let mut text = format!("Token {}, plan {}{shadow}\n", report.id, report.plan);
    if let (Some(open), Some(max)) = (report.open_calls, report.concurrent_calls) {
        text += &format!("{open} of {max} calls open\n");
    }
    if report.windows.is_empty() {
        return text + "no limits\n";
    }
    let mut rows = vec![["WINDOW", "USED", "NEXT FREE SLOT"].map(str::to_owned)];
    rows.extend(report.windows.iter().map(|window| {
        let name = window.route.as_ref().map_or(window.name.clone(), |route| format!("{} ({route})", window.name));
        let at = UNIX_EPOCH + Duration::from_secs(window.next_slot_at);
        let next = match window.next_slot_in_seconds {
            0 => "now".to_owned(),
            wait => format!("in {wait} s, at {}", humantime::format_rfc3339_seconds(at)),
        };
        [name, format!("{} of {}", window.used, window.limit), next]
    }));
    text + &table(&rows)
}
