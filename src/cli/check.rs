//! `callgate check FILE`: reports everything that is wrong with a configuration, or what it defines.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::config::{self, Config, Problem, Severity, Store};
use crate::tokens::check_tokens;

/// Checks the file at `path`. For people: problems go to stderr, one line each, and one line on what the file defines to
/// stdout. As `json`: one object on stdout. The exit code is 0 unless there is an error; warnings are none.
#[must_use]
pub fn check(path: &Path, json: bool) -> ExitCode {
    match report(path, json, &mut io::stdout().lock(), &mut io::stderr().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        // A closed pipe is a failure as well.
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

/// As [`check`], to any two writers; true unless there is an error in the file.
///
/// # Errors
/// Those of the writers.
pub fn report(path: &Path, json: bool, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<bool> {
    let loaded = config::load(path);
    let tokens = loaded.as_ref().map_or_else(|_| Vec::new(), |loaded| tokens(&loaded.config));
    let mut problems: Vec<&Problem> = match &loaded {
        Ok(loaded) => loaded.warnings.iter().collect(),
        Err(problems) => problems.iter().collect(),
    };
    problems.extend(&tokens);
    let good = tokens.iter().all(|problem| problem.severity == Severity::Warning);
    let config = loaded.as_ref().ok().filter(|_| good).map(|loaded| &loaded.config);
    if json {
        writeln!(out, "{}", as_json(path, config, &problems))?;
    } else {
        problems.iter().try_for_each(|problem| writeln!(err, "{problem}"))?;
        match config {
            Some(config) => writeln!(out, "{}: good: {}", path.display(), summary(config))?,
            None => writeln!(err, "{}", failure(&problems))?,
        }
    }
    err.flush()?;
    out.flush()?;
    Ok(config.is_some())
}

/// Problems of the token file: `serve` does not start with a bad one.
fn tokens(config: &Config) -> Vec<Problem> {
    match (&config.store, &config.tokens.file) {
        (Store::Memory, Some(file)) => check_tokens(config, file),
        (Store::Memory, None) | (Store::Redis(_), _) => Vec::new(),
    }
}

fn summary(config: &Config) -> String {
    let counts = [(config.routes.len(), "route"), (config.upstreams.len(), "upstream"), (config.plans.len(), "plan")];
    let counts = counts.map(|(count, noun)| counted(count, noun)).join(", ");
    format!("{counts}, store {}", store(config))
}

fn failure(problems: &[&Problem]) -> String {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = problems.len() - errors;
    if warnings == 0 {
        counted(errors, "error")
    } else {
        format!("{}, {}", counted(errors, "error"), counted(warnings, "warning"))
    }
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

fn as_json(path: &Path, config: Option<&Config>, problems: &[&Problem]) -> Value {
    let of = |severity| {
        let chosen = problems.iter().filter(|problem| problem.severity == severity);
        chosen
            .map(|p| {
                let file = p.file.display().to_string();
                json!({ "file": file, "line": p.line, "column": p.column, "path": p.path, "message": p.message })
            })
            .collect::<Vec<_>>()
    };
    let mut object = json!({
        "file": path.display().to_string(),
        "ok": config.is_some(),
        "errors": of(Severity::Error),
        "warnings": of(Severity::Warning),
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
