//! The arguments of `callgate token …`.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Args, Command, Subcommand};

use crate::tokens::{Action, Date, State, TokenHash};

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print its secret, once; or register an existing token by its SHA-256
    Create(CreateArgs),
    /// Register many tokens that were made elsewhere, by their hashes, from an export such as that of Laravel Sanctum's table
    Import(ImportArgs),
    /// List tokens: all, or those that fit
    List(ListArgs),
    /// Show one token: what it may do, its limits, how it is used
    Show(ShowArgs),
    /// Change what a token is called or may do; what is not named stays as it is
    Update(UpdateArgs),
    /// Give a token a new secret and print it, once; id and log stay, and the old secret works on for a while
    Rotate(RotateArgs),
    /// Revoke a token, or all of an account, for good: the next request is refused, on every instance
    Revoke(RevokeArgs),
    /// Switch a token on again
    Enable(SwitchArgs),
    /// Switch a token off, until it is enabled again
    Disable(SwitchArgs),
    /// Show who did what to which token, the newest first
    Audit(AuditArgs),
}

/// What every command takes.
#[derive(Debug, Args)]
pub(super) struct Basics {
    /// The configuration, which says where the tokens are
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Which token, and in which state.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The token's id, as `token list` shows it
    pub(super) id: String,
    /// Only if its record still has this version, as `token show` tells it
    #[arg(long, value_name = "VERSION")]
    pub(super) if_version: Option<u64>,
}

/// Arguments of `token create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    pub(super) basics: Basics,
    /// A name for people, for example what uses the token
    #[arg(long)]
    pub(super) name: String,
    /// Whose the token is; upstreams see it
    #[arg(long)]
    pub(super) account: String,
    /// What the token may do, for example calls:read, calls:* or *; may be repeated
    #[arg(long = "permission", value_name = "PERMISSION")]
    pub(super) permissions: Vec<String>,
    /// The plan [default: the configuration's default plan]
    #[arg(long)]
    pub(super) plan: Option<String>,
    /// A limit in place of one of the plan's, or beside them, for example minute=120/1m; may be repeated
    #[arg(long = "limit", value_name = "NAME=COUNT/WINDOW", value_parser = parse_limit)]
    pub(super) limits: Vec<(String, String)>,
    /// Calls (WebSockets) that the token may have open at one time [default: the plan's number]
    #[arg(long, value_name = "N")]
    pub(super) concurrent_calls: Option<u32>,
    /// When the token ends: after a time such as 90d, or at a date such as 2027-01-31 or 2027-01-31T12:00:00Z (UTC) [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_end)]
    pub(super) expires: Option<End>,
    /// Register an existing token by the SHA-256 of its text (of Laravel Sanctum's `id|secret`: of the secret) instead of making one
    #[arg(long, value_name = "HEX", value_parser = HashParser)]
    pub(super) sha256: Option<TokenHash>,
    /// With --sha256, for a token that Callgate made elsewhere: its id, the 12 characters after its prefix
    #[arg(long, requires = "sha256")]
    pub(super) id: Option<String>,
}

/// Arguments of `token import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    #[command(flatten)]
    pub(super) basics: Basics,
    /// The export: CSV (with commas, semicolons or tabs) whose first line names the columns, a JSON list of objects, or one JSON object a
    /// line. The columns: sha256 (or hash, or token: the SHA-256 of the token in hexadecimal), name, account (or tokenable_type and
    /// tokenable_id), permissions (or abilities), plan, limits, concurrent_calls, enabled, expires_at, created_at, and callgate_id
    /// for tokens that another Callgate made. Others are ignored [default: standard input]
    #[arg(value_name = "EXPORT")]
    pub(super) export: Option<PathBuf>,
    /// Whose the tokens are of which the export doesn't say
    #[arg(long)]
    pub(super) account: Option<String>,
    /// What those may do of which the export doesn't say; may be repeated
    #[arg(long = "permission", value_name = "PERMISSION")]
    pub(super) permissions: Vec<String>,
    /// The plan of those of which the export doesn't say [default: the configuration's default plan]
    #[arg(long)]
    pub(super) plan: Option<String>,
    /// Change nothing: say what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Arguments of `token list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub(super) basics: Basics,
    /// Only the tokens of this account
    #[arg(long)]
    pub(super) account: Option<String>,
    /// Only those with this in their names, in capitals or not
    #[arg(long, value_name = "PART")]
    pub(super) name: Option<String>,
    /// Only those on this plan
    #[arg(long)]
    pub(super) plan: Option<String>,
    /// Only those in this state
    #[arg(long, value_parser = states())]
    pub(super) state: Option<State>,
    /// Only those that may do this
    #[arg(long)]
    pub(super) permission: Option<String>,
    /// So many at most; then what to ask for next is told, too [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
    /// Go on where a list with --limit ended: what it told
    #[arg(long, value_name = "PLACE")]
    pub(super) after: Option<String>,
}

/// Arguments of `token show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    pub(super) basics: Basics,
    /// The token's id, as `token list` shows it
    pub(super) id: String,
}

/// Arguments of `token update`.
#[derive(Debug, Args)]
#[command(
    override_usage = "callgate token update [OPTIONS] --config <FILE> <ID> <CHANGES>",
    group(clap::ArgGroup::new("what").multiple(true).required(true))
)]
pub struct UpdateArgs {
    #[command(flatten)]
    pub(super) basics: Basics,
    #[command(flatten)]
    pub(super) target: Target,
    /// A name for people
    #[arg(long, group = "what")]
    pub(super) name: Option<String>,
    /// What the token may do, in place of all that it may do now; may be repeated
    #[arg(long = "permission", value_name = "PERMISSION", group = "what")]
    pub(super) permissions: Vec<String>,
    /// Take all permissions away
    #[arg(long, conflicts_with = "permissions", group = "what")]
    pub(super) no_permissions: bool,
    /// The plan
    #[arg(long, group = "what")]
    pub(super) plan: Option<String>,
    /// Go back to the configuration's default plan
    #[arg(long, conflicts_with = "plan", group = "what")]
    pub(super) default_plan: bool,
    /// A limit in place of one of the plan's, or beside them, for example minute=120/1m; those of now go; may be repeated
    #[arg(long = "limit", value_name = "NAME=COUNT/WINDOW", value_parser = parse_limit, group = "what")]
    pub(super) limits: Vec<(String, String)>,
    /// Take all own limits away: those of the plan hold
    #[arg(long, conflicts_with = "limits", group = "what")]
    pub(super) no_limits: bool,
    /// Calls (WebSockets) that the token may have open at one time
    #[arg(long, value_name = "N", group = "what")]
    pub(super) concurrent_calls: Option<u32>,
    /// Go back to the plan's number of calls
    #[arg(long, conflicts_with = "concurrent_calls", group = "what")]
    pub(super) no_concurrent_calls: bool,
    /// When the token ends: after a time such as 90d, or at a date such as 2027-01-31 or 2027-01-31T12:00:00Z (UTC)
    #[arg(long, value_name = "TIME", value_parser = parse_end, group = "what")]
    pub(super) expires: Option<End>,
    /// Let it never end
    #[arg(long, conflicts_with = "expires", group = "what")]
    pub(super) never_expires: bool,
}

/// Arguments of `token rotate`.
#[derive(Debug, Args)]
pub struct RotateArgs {
    #[command(flatten)]
    pub(super) basics: Basics,
    #[command(flatten)]
    pub(super) target: Target,
    /// The present secret works for so much longer, up to 90d; those that are old already keep their own ends. With 0 all end at once, as
    /// they should when one has leaked
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
    pub(super) grace: Duration,
}

/// Arguments of `token revoke`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("whose").required(true).args(["id", "account"])))]
pub struct RevokeArgs {
    #[command(flatten)]
    pub(super) basics: Basics,
    /// The token's id, as `token list` shows it
    pub(super) id: Option<String>,
    /// All tokens of this account
    #[arg(long)]
    pub(super) account: Option<String>,
    /// Only if its record still has this version, as `token show` tells it
    #[arg(long, value_name = "VERSION", conflicts_with = "account")]
    pub(super) if_version: Option<u64>,
}

/// Arguments of `token enable` and `token disable`.
#[derive(Debug, Args)]
pub struct SwitchArgs {
    #[command(flatten)]
    pub(super) basics: Basics,
    #[command(flatten)]
    pub(super) target: Target,
}

/// Arguments of `token audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(flatten)]
    pub(super) basics: Basics,
    /// Only what was done to this token
    #[arg(long, value_name = "ID")]
    pub(super) token: Option<String>,
    /// Only what was done to tokens of this account
    #[arg(long)]
    pub(super) account: Option<String>,
    /// Only what was done by somebody with this in their name
    #[arg(long, value_name = "PART")]
    pub(super) by: Option<String>,
    /// Only deeds of this kind
    #[arg(long, value_parser = actions())]
    pub(super) action: Option<Action>,
    /// Only from this date on, or since so long ago
    #[arg(long, value_name = "TIME", value_parser = parse_end)]
    pub(super) since: Option<End>,
    /// So many at most
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: u32,
    /// Go on where a list ended: what it told
    #[arg(long, value_name = "PLACE")]
    pub(super) before: Option<u64>,
}

/// A moment, told by itself or by its distance from now.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// So long from now.
    After(Duration),
    /// At this moment.
    At(Date),
}

impl End {
    /// The moment that lies ahead.
    pub(super) fn from(self, now: SystemTime) -> anyhow::Result<SystemTime> {
        match self {
            Self::At(date) => Ok(date.time()),
            Self::After(duration) => now.checked_add(duration).context("--expires lies too far in the future"),
        }
    }

    /// The moment that lies behind.
    pub(super) fn before(self, now: SystemTime) -> SystemTime {
        match self {
            Self::At(date) => date.time(),
            Self::After(duration) => now.checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }
}

/// The words for states.
fn states() -> impl TypedValueParser<Value = State> {
    let words = PossibleValuesParser::new(State::ALL.map(State::as_str));
    words.map(|word| word_of(State::ALL, State::as_str, &word))
}

/// The words for deeds.
fn actions() -> impl TypedValueParser<Value = Action> {
    let words = PossibleValuesParser::new(Action::ALL.map(Action::as_str));
    words.map(|word| word_of(Action::ALL, Action::as_str, &word))
}

fn word_of<T: Copy, const N: usize>(all: [T; N], as_str: fn(T) -> &'static str, word: &str) -> T {
    all.into_iter().find(|value| as_str(*value) == word).expect("only words of the list are let through")
}

fn parse_limit(text: &str) -> Result<(String, String), String> {
    let (name, limit) = text.split_once('=').ok_or("must be NAME=COUNT/WINDOW, for example minute=120/1m")?;
    Ok((name.to_owned(), limit.to_owned()))
}

fn parse_end(text: &str) -> Result<End, String> {
    if let Some(date) = Date::parse(text) {
        return Ok(End::At(date));
    }
    parse_duration(text).map(End::After).map_err(|_| {
        "must be a time such as 90d, or a date in UTC such as 2027-01-31 or 2027-01-31T12:00:00Z".to_owned()
    })
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    // A plain 0 has no unit, but is clear enough.
    let duration = if text == "0" { Ok(Duration::ZERO) } else { humantime::parse_duration(text) };
    duration.map_err(|_| "must be a time such as 24h or 7d, or 0".to_owned())
}

/// Reads a hash. What is none is not repeated, as clap would: it could be the token itself.
#[derive(Clone)]
struct HashParser;

impl TypedValueParser for HashParser {
    type Value = TokenHash;

    fn parse_ref(&self, cmd: &Command, _: Option<&Arg>, value: &OsStr) -> Result<TokenHash, clap::Error> {
        let hash = value.to_str().and_then(TokenHash::from_hex);
        hash.ok_or_else(|| {
            let message = "--sha256 must be 64 hexadecimal digits (SHA-256 of the token), not the token itself\n";
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(cmd)
        })
    }
}
