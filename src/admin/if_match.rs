//! `If-Match`: the version that a token must have for a change (RFC 9110 §13.1.1).

use http::{HeaderMap, header};

use super::error::ApiError;
use super::fields::digits;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum IfMatch {
    Absent,
    Any,
    OneOf(Vec<u64>),
}

impl IfMatch {
    /// Weak tags and others that no token has match nothing.
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut lines = headers.get_all(header::IF_MATCH).iter().peekable();
        if lines.peek().is_none() {
            return Ok(Self::Absent);
        }
        let mut versions = Vec::new();
        let mut tags = 0;
        for line in lines {
            let mut rest = line.to_str().map_err(|_| broken())?.trim();
            if rest == "*" && tags == 0 && headers.get_all(header::IF_MATCH).iter().count() == 1 {
                return Ok(Self::Any);
            }
            while !rest.is_empty() {
                let (tag, is_weak, behind) = first_tag(rest).ok_or_else(broken)?;
                versions.extend(digits(tag).filter(|_| !is_weak && !tag.is_empty()));
                tags += 1;
                rest = behind;
            }
        }
        if tags == 0 { Err(broken()) } else { Ok(Self::OneOf(versions)) }
    }
}

fn broken() -> ApiError {
    ApiError::Malformed(
        "If-Match must be * or a list of ETags such as \"1795480065000000\", with their quotes.".to_owned(),
    )
}

/// The first `"tag"` of a list, whether it is weak, and what follows its comma.
fn first_tag(list: &str) -> Option<(&str, bool, &str)> {
    let (is_weak, quoted) = list.strip_prefix("W/").map_or((false, list), |quoted| (true, quoted));
    let (tag, behind) = quoted.strip_prefix('"')?.split_once('"')?;
    let behind = behind.trim_start();
    let behind = if behind.is_empty() { behind } else { behind.strip_prefix(',')?.trim_start() };
    tag.bytes().all(|byte| byte.is_ascii_graphic()).then_some((tag, is_weak, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Option<IfMatch> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::IF_MATCH, line.parse().unwrap());
        }
        IfMatch::parse(&headers).ok()
    }

    #[test]
    fn conditions_are_read_strictly() {
        assert_eq!(read(&[]), Some(IfMatch::Absent));
        assert_eq!(read(&["*"]), Some(IfMatch::Any));
        assert_eq!(read(&["\"17\""]), Some(IfMatch::OneOf(vec![17])));
        assert_eq!(read(&["\"17\" , \"18\",\"19\"", "\"20\""]), Some(IfMatch::OneOf(vec![17, 18, 19, 20])));
        assert_eq!(read(&["W/\"17\", \"x,y\", \"\", \"+1\", \"99999999999999999999\""]), Some(IfMatch::OneOf(vec![])));
        for broken in
            ["", ",", "17", "\"17", "W/17", "'17'", "w/\"17\"", "\"", "\"1\"\"2\"", "\"1 7\"", "*, \"17\"", "\"17\", *"]
        {
            assert_eq!(read(&[broken]), None, "{broken}");
        }
    }
}
