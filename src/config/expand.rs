//! `${VAR}` and `${VAR:-default}` inside texts.

use std::borrow::Cow;

/// Replaces every `${VAR}` by the variable and every `${VAR:-default}` by the variable or, if that is unset or empty, by the
/// default; `$$` stands for one `$`, and a `$` before anything else for itself.
///
/// # Errors
/// What is wrong, to be put after the name of the setting; it repeats names of variables, never their values.
pub(super) fn expand<'t>(text: &'t str, env: &dyn Fn(&str) -> Option<String>) -> Result<Cow<'t, str>, String> {
    if !text.contains('$') {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(reference) = after.strip_prefix('{') {
            let Some((reference, behind)) = reference.split_once('}') else {
                return Err("`${` has no `}` after it (write $${ for the two characters themselves)".to_owned());
            };
            out.push_str(&resolve(reference, env)?);
            rest = behind;
        } else {
            out.push('$');
            rest = after.strip_prefix('$').unwrap_or(after);
        }
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

fn resolve(reference: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (name, default) = reference.split_once(":-").map_or((reference, None), |(name, default)| (name, Some(default)));
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !is_name {
        return Err("`${…}` must have the name of an environment variable (write ${VAR} or ${VAR:-default})".to_owned());
    }
    let value = env(name).filter(|value| default.is_none() || !value.is_empty());
    let value = value.or_else(|| default.map(str::to_owned));
    value.ok_or_else(|| format!("the environment variable {name} is not set (set it, or write ${{{name}:-default}})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<String, String> {
        let env = |name: &str| match name {
            "HOST" => Some("redis.internal".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("${HOST}".to_owned()),
            _ => None,
        };
        expand(text, &env).map(Cow::into_owned)
    }

    #[test]
    fn replaces_variables() {
        for (text, expected) in [
            ("plain", "plain"),
            ("redis://${HOST}:6379", "redis://redis.internal:6379"),
            ("${HOST}${HOST}", "redis.internalredis.internal"),
            ("${NONE:-default}", "default"),
            ("${NONE:-}", ""),
            ("${EMPTY:-default}", "default"),
            ("${EMPTY}", ""),
            ("${NONE:-a:-b}", "a:-b"),
            // The text of a variable is not expanded again.
            ("${TRICKY}", "${HOST}"),
            ("$${HOST}", "${HOST}"),
            ("pa$word$", "pa$word$"),
            ("$$$$", "$$"),
        ] {
            assert_eq!(with(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn names_what_is_missing() {
        assert_eq!(
            with("a${NONE}b").unwrap_err(),
            "the environment variable NONE is not set (set it, or write ${NONE:-default})"
        );
        for text in ["${", "${HOST", "${}", "${1A}", "${A B}", "${A-B}", "${:-x}"] {
            assert!(with(text).is_err(), "{text}");
        }
    }
}
