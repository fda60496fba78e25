//! `callgate token …`: make, list and revoke tokens, in whichever store the configuration names.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use crate::auth::{Actor, Date, Draft, Edited, Filter, Origin, Record, Registry, TokenHash};
use crate::config::{self, Access, Config, RedisStore, Store};
use crate::store::{Redis, StoreHealth};

/// How long Redis may take: a person waits here, not a request.
const DEADLINE: Duration = Duration::from_secs(5);
/// Tokens that are asked for at one time.
const PAGE: usize = 256;

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print its secret, once; or register an existing token by its SHA-256
    Create(CreateArgs),
    /// List all tokens
    List(ListArgs),
    /// Revoke a token, for good: its next request is refused, on every instance
    Revoke(RevokeArgs),
}

/// Arguments of `token create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// A name for people, for example what uses the token
    #[arg(long)]
    pub name: String,
    /// Whose the token is; upstreams see it
    #[arg(long)]
    pub account: String,
    /// What the token may do, for example calls:read, calls:* or *; may be repeated
    #[arg(long = "permission", value_name = "PERMISSION")]
    pub permissions: Vec<String>,
    /// The plan [default: the configuration's default plan]
    #[arg(long)]
    pub plan: Option<String>,
    /// A limit in place of one of the plan's, or beside them, for example minute=120/1m; may be repeated
    #[arg(long = "limit", value_name = "NAME=COUNT/WINDOW", value_parser = parse_limit)]
    pub limits: Vec<(String, String)>,
    /// Calls (WebSockets) that the token may have open at one time [default: the plan's number]
    #[arg(long, value_name = "N")]
    pub concurrent_calls: Option<u32>,
    /// When the token ends: after a time such as 90d, or at a date such as 2027-01-31 or 2027-01-31T12:00:00Z (UTC) [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_end)]
    pub expires: Option<End>,
    /// Register an existing token by the SHA-256 of its text (of Laravel Sanctum's `id|secret`: of the secret) instead of making one
    #[arg(long, value_name = "HEX", value_parser = parse_hash)]
    pub sha256: Option<TokenHash>,
    /// With --sha256, for a token that Callgate made elsewhere: its id, the 12 characters after its prefix
    #[arg(long, requires = "sha256")]
    pub id: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `token list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Only the tokens of this account
    #[arg(long)]
    pub account: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `token revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The token's id, as `token list` shows it
    pub id: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// When a token is to end.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// So long from now.
    After(Duration),
    /// At this moment.
    At(Date),
}

/// Carries out a command, with results on stdout and remarks on stderr.
///
/// # Errors
/// What went wrong and what to do about it, for `exit 1`.
pub async fn run(command: TokenCommand) -> anyhow::Result<()> {
    let path = match &command {
        TokenCommand::Create(args) => &args.config,
        TokenCommand::List(args) => &args.config,
        TokenCommand::Revoke(args) => &args.config,
    };
    let config = load(path)?;
    let mut out = Vec::new();
    let mut remarks = Vec::new();
    let result = run_with(&config, command, SystemTime::now(), &mut out, &mut remarks).await;
    // A token that was made must be seen even if a remark can't be.
    io::stdout().write_all(&out).context("writing to stdout")?;
    let _ = io::stderr().write_all(&remarks);
    result
}

/// As [`run`], with a configuration that is loaded already, to any two writers.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: &Config,
    command: TokenCommand,
    now: SystemTime,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create(args) => create(config, args, now, out, remarks).await,
        TokenCommand::List(args) => list(config, args, now, out).await,
        TokenCommand::Revoke(args) => revoke(config, args, now, out, remarks).await,
    }
}

async fn create(
    config: &Config,
    args: CreateArgs,
    now: SystemTime,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> anyhow::Result<()> {
    let expires_at = match args.expires {
        None => None,
        Some(End::At(date)) => Some(date.time()),
        Some(End::After(duration)) => Some(now.checked_add(duration).context("--expires lies too far in the future")?),
    };
    let (name, account, permissions) = (args.name, args.account, args.permissions);
    let (plan, limits, concurrent_calls) = (args.plan, args.limits, args.concurrent_calls);
    let draft = Draft { name, account, permissions, plan, limits, concurrent_calls, expires_at };
    let origin = args.sha256.map_or(Origin::New, |hash| Origin::Registered { id: args.id, hash });
    let permissions = draft.permissions.clone();
    let issued = open(config).await?.issue(config, draft, origin, None, &actor(), now).await?;
    for permission in permissions.iter().filter(|held| !is_asked(config, held)) {
        let near = config::nearest(permission, asked(config)).map(|near| format!(" (did you mean \"{near}\"?)"));
        writeln!(remarks, "warning: no route asks for \"{permission}\"{}", near.unwrap_or_default())?;
    }
    let (edited, secret) = (issued.edited, issued.secret);
    remark_on_rewrite(&edited, remarks)?;
    let record = &edited.record;
    if args.json {
        let token = secret.as_ref().map(|secret| secret.expose());
        writeln!(out, "{}", serde_json::to_string(&Described { token, ..describe(config, record) })?)?;
    } else if let Some(secret) = &secret {
        writeln!(out, "{}", secret.expose())?;
        writeln!(
            remarks,
            "Token {} was made for account {}. Keep it now: it is not shown again.",
            record.id, record.account
        )?;
    } else {
        writeln!(out, "Token {} is registered for account {}.", record.id, record.account)?;
    }
    Ok(())
}

async fn list(config: &Config, args: ListArgs, now: SystemTime, out: &mut dyn Write) -> anyhow::Result<()> {
    let registry = open(config).await?;
    let filter = Filter { account: args.account, ..Filter::default() };
    let (mut records, mut after) = (Vec::new(), None);
    loop {
        let listing = registry.list(config, &filter, after.as_deref(), PAGE, now).await?;
        records.extend(listing.tokens.into_iter().map(|token| token.record));
        after = listing.next;
        if after.is_none() {
            break;
        }
    }
    if args.json {
        let standing = |record: &Record| Standing { state: record.state(now).as_str(), revoked_at: record.revoked_at };
        let described: Vec<_> = records
            .iter()
            .map(|record| Described { standing: Some(standing(record)), ..describe(config, record) })
            .collect();
        writeln!(out, "{}", serde_json::to_string(&described)?)?;
        return Ok(());
    }
    let date = |date: Option<Date>| date.map_or_else(|| "-".to_owned(), |date| date.to_string());
    let mut rows =
        vec![["ID", "NAME", "ACCOUNT", "PERMISSIONS", "PLAN", "STATE", "CREATED", "EXPIRES"].map(str::to_owned)];
    rows.extend(records.iter().map(|record| {
        [
            record.id.clone(),
            record.name.clone(),
            record.account.clone(),
            if record.permissions.is_empty() { "-".to_owned() } else { record.permissions.join(",") },
            plan_of(config, record).to_owned(),
            record.state(now).as_str().to_owned(),
            date(record.created_at),
            date(record.expires_at),
        ]
    }));
    Ok(write_table(&rows, out)?)
}

async fn revoke(
    config: &Config,
    args: RevokeArgs,
    now: SystemTime,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> anyhow::Result<()> {
    let edited = open(config).await?.revoke(&args.id, None, &actor(), now).await?;
    remark_on_rewrite(&edited, remarks)?;
    let Edited { record, changed, .. } = edited;
    if args.json {
        writeln!(out, "{}", json!({ "id": record.id, "revoked_at": record.revoked_at, "changed": changed }))?;
    } else if changed {
        writeln!(out, "Token {} ({}) is revoked.", record.id, record.name)?;
    } else {
        let since = record.revoked_at.map(|date| format!(" since {date}")).unwrap_or_default();
        writeln!(out, "Token {} ({}) was revoked already{since}.", record.id, record.name)?;
    }
    Ok(())
}

fn load(path: &Path) -> anyhow::Result<Config> {
    // Warnings about the configuration are `callgate check`'s.
    Ok(config::load(path)?.config)
}

async fn open(config: &Config) -> anyhow::Result<Registry> {
    match &config.store {
        Store::Memory => {
            let path =
                config.tokens.file.as_ref().context("tokens.file is not set: name the file that keeps the tokens")?;
            Ok(Registry::with_file(config, path))
        }
        Store::Redis(store) => Ok(Registry::with_redis(connect(store).await?)),
    }
}

/// Who gives the commands: the account that this process runs under, and behind sudo the person, and the machine.
pub(super) fn actor() -> Actor {
    let env = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let uid = || format!("uid {}", rustix::process::getuid().as_raw());
    let user = env("SUDO_USER").or_else(|| env("USER")).or_else(|| env("LOGNAME")).unwrap_or_else(uid);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Actor::person(&user, host.trim())
}

/// A connection for a person's commands: patient, and with the reason when there is none.
pub(super) async fn connect(store: &RedisStore) -> anyhow::Result<Redis> {
    let store = RedisStore { deadline: DEADLINE, connect_timeout: DEADLINE, ..store.clone() };
    let gauge = prometheus::IntGauge::new("store_up", "unused").context("a gauge with a good name")?;
    let health = Arc::new(StoreHealth::new(gauge));
    let redis = Redis::open(&store, health.clone()).await?;
    match health.trouble() {
        Some(trouble) if !redis.is_up() => bail!("{trouble}"),
        _ => Ok(redis),
    }
}

/// A token as `--json` prints it, keys in this order.
#[derive(Serialize)]
struct Described<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    name: &'a str,
    account: &'a str,
    permissions: &'a [String],
    plan: &'a str,
    created_at: Option<Date>,
    expires_at: Option<Date>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    standing: Option<Standing>,
}

/// What only a listing tells.
#[derive(Serialize)]
struct Standing {
    state: &'static str,
    revoked_at: Option<Date>,
}

fn describe<'a>(config: &'a Config, record: &'a Record) -> Described<'a> {
    Described {
        id: &record.id,
        token: None,
        name: &record.name,
        account: &record.account,
        permissions: &record.permissions,
        plan: plan_of(config, record),
        created_at: record.created_at,
        expires_at: record.expires_at,
        standing: None,
    }
}

fn plan_of<'a>(config: &'a Config, record: &'a Record) -> &'a str {
    record.plan.as_deref().unwrap_or(&config.default_plan.name)
}

/// The permissions that any route asks for.
fn asked(config: &Config) -> impl Iterator<Item = &str> {
    config.routes.iter().flat_map(|route| match &route.access {
        Access::Token(permissions) => permissions.iter().map(|permission| &**permission).collect::<Vec<_>>(),
        Access::Public => Vec::new(),
    })
}

fn is_asked(config: &Config, held: &str) -> bool {
    held == "*" || asked(config).any(|asked| crate::auth::covers(held, asked))
}

fn remark_on_rewrite(edited: &Edited, remarks: &mut dyn Write) -> io::Result<()> {
    if edited.rewritten {
        writeln!(
            remarks,
            "note: the token file had an unusual layout and was written anew; only the comment at its head was kept"
        )?;
    }
    Ok(())
}

/// Columns as wide as their widest cell, two spaces apart.
fn write_table(rows: &[[String; 8]], out: &mut dyn Write) -> io::Result<()> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..8).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn parse_limit(text: &str) -> Result<(String, String), String> {
    let (name, limit) = text.split_once('=').ok_or("must be NAME=COUNT/WINDOW, for example minute=120/1m")?;
    Ok((name.to_owned(), limit.to_owned()))
}

fn parse_end(text: &str) -> Result<End, String> {
    if let Some(date) = Date::parse(text) {
        return Ok(End::At(date));
    }
    // A plain 0 has no unit, but is clear enough to be answered as what it is: in the past.
    let duration = if text == "0" { Ok(Duration::ZERO) } else { humantime::parse_duration(text) };
    duration.map(End::After).map_err(|_| {
        "must be a time such as 90d, or a date in UTC such as 2027-01-31 or 2027-01-31T12:00:00Z".to_owned()
    })
}

fn parse_hash(text: &str) -> Result<TokenHash, String> {
    // The text is not repeated: it could be a token.
    TokenHash::from_hex(text)
        .ok_or_else(|| "must be 64 hexadecimal digits (SHA-256 of the token), not the token itself".to_owned())
}
