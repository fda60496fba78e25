//! The arguments of `callgate token …`.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Args, Command, Subcommand};

use crate::cli::config_file::ConfigFile;
use crate::tokens::{Action, Date, State, TokenHash};

/// Manages tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print its secret, once; or register an existing token by its SHA-256
    Create(TokenArgs<CreateArgs>),
    /// Register many tokens of another system by their hashes, from an export such as Laravel Sanctum's table
    Import(TokenArgs<ImportArgs>),
    /// List all tokens, or those that match the options
    List(TokenArgs<ListArgs>),
    /// Show one token: its permissions, limits and usage
    Show(TokenArgs<ShowArgs>),
    /// Change a token. What you don't name stays as it is; permissions and limits replace all old ones
    Update(TokenArgs<UpdateArgs>),
    /// Give a token a new secret and print it, once. Its id and its log stay; the old secret keeps working for a while
    Rotate(TokenArgs<RotateArgs>),
    /// Revoke a token, or all tokens of an account, for good. Every instance refuses the next request
    Revoke(TokenArgs<RevokeArgs>),
    /// Enable a disabled token again
    Enable(TokenArgs<SelectedToken>),
    /// Disable a token until it is enabled again
    Disable(TokenArgs<SelectedToken>),
    /// Show the audit trail: who changed which token, the newest entry first
    Audit(TokenArgs<AuditArgs>),
}

/// The arguments of a command, and those that every command takes.
#[derive(Debug, Args)]
pub struct TokenArgs<A: Args> {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    pub(super) args: A,
}

#[derive(Debug, Args)]
pub(super) struct CommonArgs {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl TokenCommand {
    pub(super) fn common(&self) -> &CommonArgs {
        match self {
            Self::Create(TokenArgs { common, .. })
            | Self::Import(TokenArgs { common, .. })
            | Self::List(TokenArgs { common, .. })
            | Self::Show(TokenArgs { common, .. })
            | Self::Update(TokenArgs { common, .. })
            | Self::Rotate(TokenArgs { common, .. })
            | Self::Revoke(TokenArgs { common, .. })
            | Self::Enable(TokenArgs { common, .. })
            | Self::Disable(TokenArgs { common, .. })
            | Self::Audit(TokenArgs { common, .. }) => common,
        }
    }
}

impl TokenCommand {
    /// What of this can't be undone, and whether it is confirmed. Ids are not repeated: a token's text may stand in their place.
    pub(super) fn irreversible(&self) -> Option<(&'static str, bool)> {
        match self {
            Self::Revoke(TokenArgs { args, .. }) if args.account.is_some() => {
                Some(("Revoking all tokens of an account", args.yes || args.dry_run))
            }
            Self::Revoke(TokenArgs { args, .. }) => Some(("Revoking a token", args.yes)),
            Self::Rotate(TokenArgs { args, .. }) if args.grace.is_zero() => {
                Some(("Ending the old secrets of a token at once", args.yes))
            }
            _ => None,
        }
    }
}

/// One token, and the version that it must have.
#[derive(Debug, Args)]
pub struct SelectedToken {
    /// The token's id, as `token list` shows it
    pub(super) id: String,
    /// Fail unless the token still has this version, as `token show` prints it
    #[arg(long, value_name = "VERSION")]
    pub(super) if_version: Option<u64>,
}

/// What `token create` and `token update` set.
#[derive(Debug, Args)]
pub(super) struct TokenSettings {
    /// A permission, for example calls:read, calls:* or *; may be repeated
    #[arg(long = "permission", value_name = "PERMISSION")]
    pub(super) permissions: Vec<String>,
    /// A plan of the configuration; a new token gets the default plan without this
    #[arg(long)]
    pub(super) plan: Option<String>,
    /// A limit that replaces or extends those of the plan, for example minute=120/1m; may be repeated
    #[arg(long = "limit", value_name = "NAME=COUNT/WINDOW", value_parser = parse_limit)]
    pub(super) limits: Vec<(String, String)>,
    /// Calls (WebSockets, event streams, gRPC) that the token may have open at one time, instead of the plan's number
    #[arg(long, value_name = "N")]
    pub(super) concurrent_calls: Option<u32>,
    /// Requests that the token may have in flight at one time on each instance, instead of the plan's number
    #[arg(long, value_name = "N")]
    pub(super) in_flight: Option<u32>,
    /// When the token expires: after a time such as 90d, or at a date such as 2027-01-31 or 2027-01-31T12:00:00Z (UTC); a new token
    /// never expires without this
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) expires: Option<TimeArg>,
}

/// Arguments of `token create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// A name for people, for example of the service that uses the token
    #[arg(long)]
    pub(super) name: String,
    /// The account that owns the token; upstreams see it
    #[arg(long)]
    pub(super) account: String,
    #[command(flatten)]
    pub(super) settings: TokenSettings,
    /// Register an existing token by the SHA-256 of its text (of Laravel Sanctum's `id|secret`: of the secret) instead of making one
    #[arg(long, value_name = "HEX", value_parser = HashParser)]
    pub(super) sha256: Option<TokenHash>,
    /// With --sha256, for a token that another Callgate made: its id, the 12 characters after its prefix
    #[arg(long, requires = "sha256")]
    pub(super) id: Option<String>,
}

/// Arguments of `token import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The export: CSV (with commas, semicolons or tabs) whose first line names the columns, a JSON list of objects, or one JSON object per
    /// line. The columns: sha256 (or hash, or token: the SHA-256 of the token in hexadecimal), name, account (or tokenable_type and
    /// tokenable_id), permissions (or abilities), plan, limits, concurrent_calls, in_flight, enabled, expires_at, created_at,
    /// and callgate_id for tokens that another Callgate made. Others are ignored [default: standard input]
    #[arg(value_name = "EXPORT")]
    pub(super) export: Option<PathBuf>,
    /// Account for rows that name none
    #[arg(long)]
    pub(super) account: Option<String>,
    /// Permission for rows that name none; may be repeated
    #[arg(long = "permission", value_name = "PERMISSION")]
    pub(super) permissions: Vec<String>,
    /// Plan for rows that name none [default: the configuration's default plan]
    #[arg(long)]
    pub(super) plan: Option<String>,
    /// Change nothing: only report what an import would do
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Arguments of `token list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only tokens of this account
    #[arg(long)]
    pub(super) account: Option<String>,
    /// Only tokens with this text in their name, in any case
    #[arg(long, value_name = "PART")]
    pub(super) name: Option<String>,
    /// Only tokens on this plan
    #[arg(long)]
    pub(super) plan: Option<String>,
    /// Only tokens in this state
    #[arg(long, value_parser = one_of(State::ALL, State::as_str))]
    pub(super) state: Option<State>,
    /// Only tokens that have this permission
    #[arg(long)]
    pub(super) permission: Option<String>,
    /// Show at most N tokens and print the cursor of the next page [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
    /// Start after this cursor, which `token list --limit` printed
    #[arg(long, value_name = "CURSOR")]
    pub(super) after: Option<String>,
}

/// Arguments of `token show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The token's id, as `token list` shows it
    pub(super) id: String,
}

/// Arguments of `token update`.
#[derive(Debug, Args)]
#[command(
    override_usage = "callgate token update [OPTIONS] <ID> <CHANGES>",
    group(clap::ArgGroup::new("changes").multiple(true).required(true).args([
        "name", "permissions", "no_permissions", "plan", "default_plan", "limits", "no_limits", "concurrent_calls",
        "no_concurrent_calls", "in_flight", "no_in_flight", "expires", "never_expires",
    ]))
)]
pub struct UpdateArgs {
    #[command(flatten)]
    pub(super) token: SelectedToken,
    /// A name for people
    #[arg(long)]
    pub(super) name: Option<String>,
    #[command(flatten)]
    pub(super) settings: TokenSettings,
    /// Remove all permissions
    #[arg(long, conflicts_with = "permissions")]
    pub(super) no_permissions: bool,
    /// Go back to the configuration's default plan
    #[arg(long, conflicts_with = "plan")]
    pub(super) default_plan: bool,
    /// Remove the token's own limits; those of the plan apply
    #[arg(long, conflicts_with = "limits")]
    pub(super) no_limits: bool,
    /// Go back to the plan's number of calls
    #[arg(long, conflicts_with = "concurrent_calls")]
    pub(super) no_concurrent_calls: bool,
    /// Go back to the plan's number of requests in flight
    #[arg(long, conflicts_with = "in_flight")]
    pub(super) no_in_flight: bool,
    /// Let the token never expire
    #[arg(long, conflicts_with = "expires")]
    pub(super) never_expires: bool,
}

/// Arguments of `token rotate`.
#[derive(Debug, Args)]
pub struct RotateArgs {
    #[command(flatten)]
    pub(super) token: SelectedToken,
    /// How long the current secret keeps working (up to 90d). Older secrets keep their own deadlines. With 0, all old secrets end at
    /// once: use this when one has leaked
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
    pub(super) grace: Duration,
    /// Don't ask before old secrets end at once (--grace 0)
    #[arg(long)]
    pub(super) yes: bool,
}

/// Arguments of `token revoke`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("tokens").required(true).args(["id", "account"])))]
pub struct RevokeArgs {
    /// The token's id, as `token list` shows it
    pub(super) id: Option<String>,
    /// Revoke all tokens of this account
    #[arg(long)]
    pub(super) account: Option<String>,
    /// Fail unless the token still has this version, as `token show` prints it
    #[arg(long, value_name = "VERSION", conflicts_with = "account")]
    pub(super) if_version: Option<u64>,
    /// With --account: change nothing, and list the tokens that would be revoked
    #[arg(long, requires = "account")]
    pub(super) dry_run: bool,
    /// Don't ask: a revocation can't be undone
    #[arg(long)]
    pub(super) yes: bool,
}

/// Arguments of `token audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only actions on this token
    #[arg(long, value_name = "ID")]
    pub(super) token: Option<String>,
    /// Only actions on tokens of this account
    #[arg(long)]
    pub(super) account: Option<String>,
    /// Only actions of people or admin tokens with this text in their name
    #[arg(long, value_name = "PART")]
    pub(super) by: Option<String>,
    /// Only actions of this kind
    #[arg(long, value_parser = one_of(Action::ALL, Action::as_str))]
    pub(super) action: Option<Action>,
    /// Only actions since this date, or within this time, for example 7d
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) since: Option<TimeArg>,
    /// Show at most N entries and print the cursor of the next page
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: u32,
    /// Start before this cursor, which an earlier list printed
    #[arg(long, value_name = "CURSOR")]
    pub(super) before: Option<u64>,
}

/// A moment, by its date or by its distance from now.
#[derive(Debug, Clone, Copy)]
pub(super) enum TimeArg {
    Date(Date),
    Distance(Duration),
}

impl TimeArg {
    pub(super) fn after(self, now: SystemTime) -> anyhow::Result<SystemTime> {
        match self {
            Self::Date(date) => Ok(date.time()),
            Self::Distance(duration) => now.checked_add(duration).context("--expires lies too far in the future"),
        }
    }

    pub(super) fn before(self, now: SystemTime) -> SystemTime {
        match self {
            Self::Date(date) => date.time(),
            Self::Distance(duration) => now.checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }
}

/// Reads one of these values by its name.
fn one_of<T, const N: usize>(all: [T; N], name: fn(T) -> &'static str) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    PossibleValuesParser::new(all.map(name)).map(move |word| {
        all.into_iter().find(|value| name(*value) == word).expect("the parser accepts only names of the list")
    })
}

fn parse_limit(text: &str) -> Result<(String, String), String> {
    let (name, limit) = text.split_once('=').ok_or("must be NAME=COUNT/WINDOW, for example minute=120/1m")?;
    Ok((name.to_owned(), limit.to_owned()))
}

fn parse_time(text: &str) -> Result<TimeArg, String> {
    if let Some(date) = Date::parse(text) {
        return Ok(TimeArg::Date(date));
    }
    parse_duration(text).map(TimeArg::Distance).map_err(|_| {
        "must be a time such as 90d, or a date in UTC such as 2027-01-31 or 2027-01-31T12:00:00Z".to_owned()
    })
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    // A plain 0 has no unit, but is clear enough.
    let duration = if text == "0" { Ok(Duration::ZERO) } else { humantime::parse_duration(text) };
    duration.map_err(|_| "must be a time such as 24h or 7d, or 0".to_owned())
}

/// Reads a hash. A wrong value is not repeated, as clap would: it could be the token itself.
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
