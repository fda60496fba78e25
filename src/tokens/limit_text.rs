//! Limits as people write them in records: a name, and a text such as `120/1m`.

use crate::config::{self, Limit};

/// Limits that a record may override or add, and limits that a token may have altogether when it is made.
pub(super) const MAX_OVERRIDES: usize = 8;

/// Reads a limit such as `120/1m`.
pub(super) fn parse_limit(name: &str, text: &str) -> Result<Limit, String> {
    let is_name =
        (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if !is_name {
        return Err("a limit's name must be 1 to 32 letters, digits, \"_\" and \"-\"".into());
    }
    let (count, window_ms) = config::parse_limit(text)?;
    Ok(Limit { name: name.into(), count, window_ms })
}

/// Writes a limit such as `120/1m`.
pub(crate) fn limit_text(limit: &Limit) -> String {
    let window = humantime::format_duration(limit.window()).to_string().replace(' ', "");
    format!("{}/{window}", limit.count)
}
