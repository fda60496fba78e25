//! The flags of `callgate init`, and the few questions for what they don't say.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder to write into; made if it does not exist
    #[arg(value_name = "FOLDER", default_value = ".")]
    pub(super) folder: PathBuf,
    /// Where your service listens, for example http://127.0.0.1:3000
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// The path below which it is reached
    #[arg(long, value_name = "PATH", default_value = "/api/v1")]
    path: String,
    /// A host name that clients use, for the certificate; may be given again
    #[arg(long = "domain", value_name = "NAME")]
    domains: Vec<String>,
    /// Address for HTTPS
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    listen: String,
    /// The Redis that instances share, for example redis://127.0.0.1:6379. Without it, limits and tokens are this instance's alone
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// The account that the first token belongs to
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Ask nothing: take the defaults for what is not given
    #[arg(short, long)]
    yes: bool,
    /// Replace files that are there already
    #[arg(long)]
    pub(super) force: bool,
}

/// What the files are made of.
pub(super) struct Answers {
    pub(super) upstream: String,
    pub(super) path: String,
    /// At least one.
    pub(super) domains: Vec<String>,
    pub(super) listen: String,
    pub(super) redis: Option<String>,
    pub(super) account: String,
}

const UPSTREAM: &str = "http://127.0.0.1:3000";
const DOMAIN: &str = "localhost";
const ACCOUNT: &str = "acme";

/// Takes the flags, and asks for the rest at a terminal, unless `--yes` is given.
pub(super) fn ask(args: InitArgs) -> io::Result<Answers> {
    let asks = !args.yes && io::stdin().is_terminal() && io::stderr().is_terminal();
    let answer = |given: Option<String>, question: &str, default: &str| match given {
        Some(given) => Ok(given),
        None if asks => question_with(question, default),
        None => Ok(default.to_owned()),
    };
    let upstream = answer(args.upstream, "Where does your service listen?", UPSTREAM)?;
    let domain = answer(args.domains.first().cloned(), "Which host name do clients use?", DOMAIN)?;
    let redis = answer(args.redis, "The URL of the Redis that instances share (none: one instance alone)?", "none")?;
    let account = answer(args.account, "The account of the first token?", ACCOUNT)?;
    Ok(Answers {
        upstream,
        path: format!("/{}", args.path.trim_matches('/')),
        domains: std::iter::once(domain).chain(args.domains.into_iter().skip(1)).collect(),
        listen: args.listen,
        redis: Some(redis).filter(|url| url != "none"),
        account,
    })
}

fn question_with(question: &str, default: &str) -> io::Result<String> {
    write!(io::stderr(), "{question} [{default}] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    let answer = answer.trim();
    Ok(if answer.is_empty() { default } else { answer }.to_owned())
}
