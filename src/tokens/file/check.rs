//! A token file looked at before anybody serves it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::parse;
use super::token_file::{is_empty, load};
use crate::config::{Config, Position, Problem, Severity};
use crate::tokens::error::FileError;
use crate::tokens::permission::strange_permissions;
use crate::tokens::plans::Plans;

/// Everything that is wrong with a token file; if nothing is, warnings: permissions that no route asks for, and plans that no token
/// has. A file that isn't there is no problem: it may come later.
pub(crate) fn check_tokens(config: &Config, path: &Path) -> Vec<Problem> {
    let problem = |Position { line, column }, key_path: String, message: String, severity| {
        let file = path.into();
        Problem { file, line, column, path: key_path, message, severity }
    };
    let text = match load(path) {
        Ok((text, _)) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return vec![problem(Position::WHOLE_FILE, String::new(), error.to_string(), Severity::Error)],
    };
    let placed = match parse::parse(path, &text, &Plans::new(config)) {
        Ok(placed) => placed,
        Err(problems) => return problems,
    };
    let whole_file = |message: String| problem(Position::WHOLE_FILE, String::new(), message, Severity::Warning);
    if placed.is_empty() && is_empty(&text) {
        let message = FileError::EMPTY.to_owned();
        return vec![whole_file(message)];
    }
    let used: BTreeSet<&str> = placed.iter().filter_map(|token| token.record.plan.as_deref()).collect();
    // A list that somebody has just begun has no use for any plan.
    let unused = config
        .plans
        .keys()
        .filter(|name| !placed.is_empty() && **name != config.default_plan.name && !used.contains(&***name));
    let unused = unused.map(|name| {
        whole_file(format!("no token has the plan \"{name}\" (remove it, or `callgate token update ID --plan {name}`)"))
    });
    let warnings = placed.iter().enumerate().flat_map(|(index, token)| {
        let key = token.keys.iter().find(|(key, _)| *key == "permissions");
        let at = key.map_or(token.position, |(_, position)| *position);
        let remarks = strange_permissions(config, &token.record.permissions);
        remarks.into_iter().map(move |remark| (at, format!("tokens[{index}].permissions"), remark))
    });
    let warnings = warnings.map(|(at, key_path, remark)| problem(at, key_path, remark, Severity::Warning));
    unused.chain(warnings).collect()
}
