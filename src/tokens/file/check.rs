//! A token file looked at before anybody serves it.

use std::io;
use std::path::Path;

use super::parse;
use super::token_file::{is_empty, load};
use crate::config::{Config, Position, Problem, Severity};
use crate::tokens::error::FileError;
use crate::tokens::permission::strange_permissions;
use crate::tokens::plans::Plans;

/// Everything that is wrong with a token file; if nothing is, a warning for each permission that no route asks for. A file that isn't
/// there is no problem: it may come later.
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
    if placed.is_empty() && is_empty(&text) {
        let message = FileError::EMPTY.to_owned();
        return vec![problem(Position::WHOLE_FILE, String::new(), message, Severity::Warning)];
    }
    let warnings = placed.iter().enumerate().flat_map(|(index, token)| {
        let key = token.keys.iter().find(|(key, _)| *key == "permissions");
        let at = key.map_or(token.position, |(_, position)| *position);
        let remarks = strange_permissions(config, &token.record.permissions);
        remarks.into_iter().map(move |remark| (at, format!("tokens[{index}].permissions"), remark))
    });
    warnings.map(|(at, key_path, remark)| problem(at, key_path, remark, Severity::Warning)).collect()
}
