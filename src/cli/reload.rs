//! `callgate reload`: lets a running instance read its configuration again, and tells what came of it.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use super::admin_client::AdminArgs;
use crate::color::label;

/// A running instance must answer within this time: it may have long files to read.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

/// # Errors
/// All that is wrong with the configuration, for `exit 1`.
pub(super) fn run(args: &ReloadArgs) -> anyhow::Result<()> {
    let (is_ok, answer) = args.admin.client()?.ask("POST", "/api/reload", TIMEOUT)?;
    if !is_ok {
        let message = answer["message"].as_str().context("the answer has no message")?;
        warn_of(&answer);
        let errors: String = answer["errors"].as_array().into_iter().flatten().map(|it| line(it) + "\n").collect();
        bail!("{message}\n{}", errors.trim_end());
    }
    warn_of(&answer);
    let changes: Vec<&str> = answer["changes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match &changes[..] {
        [] => println!("Nothing has changed."),
        changes => println!("In force: {}.", changes.join(", ")),
    }
    Ok(())
}

fn warn_of(answer: &Value) {
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        eprintln!("{} {}", label("warning"), line(warning));
    }
}

/// A problem as `callgate check` shows it.
fn line(problem: &Value) -> String {
    let text = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
    let place = match problem["line"].as_u64() {
        None | Some(0) => String::new(),
        Some(line) => format!(":{line}:{}", problem["column"]),
    };
    let path = Some(text("path")).filter(|path| !path.is_empty()).map(|path| path + ": ").unwrap_or_default();
    format!("{}{place}: {path}{}", text("file"), text("message"))
}
