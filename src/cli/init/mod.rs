//! `callgate init`: a commented configuration, a certificate for trial and a first token, from a few questions or flags.

mod files;
mod questions;

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, anyhow};

use crate::config::{self, Config, Severity, Store};
use crate::store::Redis;
use crate::tokens::{ActionContext, Actor, Draft, Origin, Registry};

use files::{CONFIGURATION, InitFiles};
use questions::{Answers, ask};

pub(super) use questions::InitArgs;

pub(super) async fn run(args: InitArgs) -> anyhow::Result<()> {
    let (folder, force) = (args.folder.clone(), args.force);
    let answers = ask(args)?;
    let files = InitFiles::new(&answers)?;
    try_out(&files)?;
    for file in files.write(&folder, force)? {
        eprintln!("replaced {}", file.display());
    }
    let path = folder.join(CONFIGURATION);
    let loaded = config::load(&path).map_err(|problems| anyhow!("what was written is invalid\n{problems}"))?;
    let secret = first_token(&loaded.config, &answers.account).await;
    print_next(&path, &answers, &loaded.config, secret)
}

/// Reads the files as `serve` would, in a folder that nobody uses: nothing is replaced by what is wrong.
fn try_out(files: &InitFiles) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("callgate-init-{:x}", fastrand::u64(..)));
    let loaded = files.write(&folder, false).map(|_| config::load(&folder.join(CONFIGURATION)));
    let _ = fs::remove_dir_all(&folder);
    let Err(problems) = loaded? else { return Ok(()) };
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    let lines: Vec<_> = errors.map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
    Err(anyhow!("nothing was written, because the configuration would be invalid\n{}", lines.join("\n")))
}

/// Makes a token that may do everything.
async fn first_token(config: &Config, account: &str) -> anyhow::Result<String> {
    let draft = Draft {
        name: "first".to_owned(),
        account: account.to_owned(),
        permissions: vec!["*".to_owned()],
        ..Draft::default()
    };
    let registry = match (&config.store, &config.tokens.file) {
        (Store::Redis(store), _) => Registry::with_redis(config, Redis::open_for_command(store).await?),
        (Store::Memory, file) => Registry::with_file(config, file.as_ref().context("tokens.file is missing")?),
    };
    let by = ActionContext { actor: Actor::of_this_process(), now: SystemTime::now() };
    let issued = registry.issue(draft, Origin::New, None, &by).await?;
    Ok(issued.secret.map_or_else(String::new, |secret| secret.expose().to_owned()))
}

/// What to do next. The secret alone goes to standard output.
fn print_next(path: &Path, answers: &Answers, config: &Config, secret: anyhow::Result<String>) -> anyhow::Result<()> {
    let (shown, cert) = (path.display(), path.with_file_name("cert.pem"));
    let (host, port) = (&answers.domains[0], config.listen.https.port());
    eprintln!("wrote {shown}, with a certificate for trial (cert.pem, key.pem)");
    let remedy = || {
        let account = &answers.account;
        format!(
            "there is no token yet; make one when Redis answers: `callgate token create --config {shown} --name first \
             --account {account} --permission '*'`"
        )
    };
    let secret = secret.with_context(remedy)?;
    eprintln!("The first token is below. Save it: it is not shown again. Next:\n");
    let is_found = path == Path::new("./callgate.yaml");
    eprintln!("  callgate serve{}", if is_found { String::new() } else { format!(" --config {shown}") });
    eprintln!(
        "  curl --cacert {} -H \"Authorization: Bearer $TOKEN\" https://{host}:{port}{}/\n",
        cert.display(),
        answers.path
    );
    println!("{secret}");
    Ok(())
}
