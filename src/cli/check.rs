//! `callgate check FILE`: reports everything that is wrong with a configuration, or what it defines; if asked to, also what
//! is wrong with its Redis.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::color::{Color, has_colors};
use crate::config::{self, Config, Loaded, Problem, Problems, Severity, Store};
use crate::store::Redis;
use crate::tokens::check_tokens;

/// How to check.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct CheckOptions {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Ask Redis, too, whether it can be used and keeps what it is given
    #[arg(long)]
    online: bool,
    /// Take warnings for errors: exit code 1
    #[arg(long)]
    strict: bool,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// There are warnings.
    Doubtful,
    Bad,
}

/// Checks the file at `path`. For people: problems go to stderr, one line each, and one line on what the file defines to
/// stdout. As `json`: one object on stdout. The exit code is 0 unless there is an error or, if `strict`, a warning.
pub(super) async fn check(path: &Path, CheckOptions { json, online, strict }: CheckOptions) -> ExitCode {
    let loaded = config::load(path);
    let found = match &loaded {
        Ok(loaded) if online => online_problems(path, &loaded.config).await,
        Ok(_) | Err(_) => Vec::new(),
    };
    match report_with(
        path,
        json,
        has_colors(&io::stderr()),
        loaded,
        found,
        &mut io::stdout().lock(),
        &mut io::stderr().lock(),
    ) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Doubtful) if !strict => ExitCode::SUCCESS,
        // A closed pipe is a failure as well.
        Ok(Verdict::Doubtful | Verdict::Bad) | Err(_) => ExitCode::FAILURE,
    }
}

/// What is wrong with the Redis of a configuration that is good otherwise.
async fn online_problems(path: &Path, config: &Config) -> Vec<Problem> {
    let Store::Redis(store) = &config.store else { return Vec::new() };
    let problem = |severity, message| Problem {
        file: path.into(),
        line: 0,
        column: 0,
        path: "store.redis".to_owned(),
        message,
        severity,
    };
    match Redis::open_for_command(store).await {
        Ok(redis) => {
            let warnings = redis.retention().await.warnings();
            warnings.into_iter().map(|warning| problem(Severity::Warning, warning)).collect()
        }
        Err(error) => vec![problem(Severity::Error, error.to_string())],
    }
}

/// As `callgate check` without Redis, to any two writers; true unless there is an error.
///
/// # Errors
/// Those of the writers.
pub fn report(path: &Path, json: bool, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<bool> {
    Ok(report_with(path, json, false, config::load(path), Vec::new(), out, err)? != Verdict::Bad)
}

fn report_with(
    path: &Path,
    json: bool,
    has_colors: bool,
    loaded: Result<Loaded, Problems>,
    found: Vec<Problem>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Verdict> {
    let (config, mut problems) = match loaded {
        Ok(loaded) => (Some(loaded.config), loaded.warnings),
        Err(problems) => (None, problems.iter().cloned().collect()),
    };
    // `serve` does not start with a bad token file.
    if let Some(config) = &config
        && let Some(tokens) = &config.tokens.file
    {
        problems.extend(check_tokens(config, tokens));
    }
    problems.extend(found);
    let (errors, warnings): (Vec<_>, Vec<_>) = problems.iter().partition(|problem| problem.severity == Severity::Error);
    let config = config.filter(|_| errors.is_empty());
    if json {
        writeln!(out, "{}", as_json(path, config.as_ref(), &errors, &warnings))?;
    } else {
        problems.iter().try_for_each(|problem| writeln!(err, "{}", shown(problem, has_colors)))?;
        match &config {
            Some(config) => writeln!(out, "{}: good: {}", path.display(), summary(config))?,
            None if warnings.is_empty() => writeln!(err, "{}", counted(errors.len(), "error"))?,
            None => writeln!(err, "{}, {}", counted(errors.len(), "error"), counted(warnings.len(), "warning"))?,
        }
    }
    err.flush()?;
    out.flush()?;
    Ok(match (config, warnings.is_empty()) {
        (None, _) => Verdict::Bad,
        (Some(_), false) => Verdict::Doubtful,
        (Some(_), true) => Verdict::Good,
    })
}

/// A line for people.
fn shown(problem: &Problem, has_colors: bool) -> String {
    let severity = match problem.severity {
        Severity::Error => Color::BoldRed.paint(has_colors, if has_colors { " error:" } else { "" }),
        Severity::Warning => Color::BoldYellow.paint(has_colors, " warning:"),
    };
    format!("{}{severity} {}", Color::Bold.paint(has_colors, problem.place()), problem.text())
}

fn summary(config: &Config) -> String {
    let counts = [(config.routes.len(), "route"), (config.upstreams.len(), "upstream"), (config.plans.len(), "plan")];
    let counts = counts.map(|(count, noun)| counted(count, noun)).join(", ");
    format!("{counts}, store {}", store(config))
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

fn store(config: &Config) -> &'static str {
    match config.store {
        Store::Memory => "memory",
        Store::Redis(_) => "redis",
    }
}

fn as_json(path: &Path, config: Option<&Config>, errors: &[&Problem], warnings: &[&Problem]) -> Value {
    let mut object = json!({
        "file": path.display().to_string(),
        "ok": config.is_some(),
        "errors": errors.iter().map(|problem| problem.to_json()).collect::<Vec<_>>(),
        "warnings": warnings.iter().map(|problem| problem.to_json()).collect::<Vec<_>>(),
    });
    if let Some(config) = config {
        object["defines"] = json!({
            "routes": config.routes.len(),
            "upstreams": config.upstreams.len(),
            "plans": config.plans.len(),
            "store": store(config),
        });
    }
    object
}
