//! The path that an upstream sees, made of the one that was judged.

use std::sync::Arc;

use crate::config::{Piece, Rewrite, Route};

use super::route_match::RouteError;

/// Rewrites the paths of one route.
pub(super) enum Rewriter {
    StripPrefix(Arc<str>),
    Template { pattern: matchit::Router<()>, pieces: Arc<[Piece]> },
}

impl Rewriter {
    /// `None` for a route that leaves paths as they are.
    pub(super) fn new(route: &Route) -> Result<Option<Self>, RouteError> {
        Ok(match &route.rewrite {
            None => None,
            Some(Rewrite::StripPrefix(prefix)) => Some(Self::StripPrefix(prefix.clone())),
            Some(Rewrite::Template(pieces)) => {
                let mut pattern = matchit::Router::new();
                pattern.insert(&*route.path, ()).map_err(|error| RouteError::new(route, &error))?;
                Some(Self::Template { pattern, pieces: pieces.clone() })
            }
        })
    }

    /// A path of this route in its new form. It keeps a slash at its end that the route does not have.
    pub(super) fn rewrite(&self, path: &str) -> Option<String> {
        match self {
            Self::StripPrefix(prefix) => {
                let rest = path.strip_prefix(&**prefix)?;
                Some(if rest.is_empty() { "/".to_owned() } else { rest.to_owned() })
            }
            Self::Template { pattern, pieces } => {
                let slashed: String;
                let (found, end) = match (pattern.at(path).ok(), path.strip_suffix('/')) {
                    (Some(found), _) => (Some(found), ""),
                    (None, Some(bare)) => pattern.at(bare).map_or((None, ""), |found| (Some(found), "/")),
                    (None, None) => {
                        slashed = [path, "/"].concat();
                        (pattern.at(&slashed).ok(), "")
                    }
                };
                // A {*rest} may stand for nothing, which its pattern alone does not match: then nothing is found.
                let parameter = |name| found.as_ref().and_then(|found| found.params.get(name)).unwrap_or_default();
                let mut new = String::with_capacity(path.len() + 16);
                for piece in pieces.iter() {
                    new.push_str(match piece {
                        Piece::Text(text) => text,
                        Piece::Parameter(name) => parameter(&**name),
                    });
                }
                if !new.ends_with('/') {
                    new.push_str(end);
                }
                Some(new)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(pattern: &str, rewrite: Rewrite, path: &str) -> String {
        let route = Route { path: pattern.into(), rewrite: Some(rewrite), ..Route::default() };
        Rewriter::new(&route).unwrap().unwrap().rewrite(path).unwrap()
    }

    #[test]
    fn a_prefix_is_taken_off() {
        let strip = || Rewrite::StripPrefix("/api/v1".into());
        for (path, expected) in
            [("/api/v1/calls/7", "/calls/7"), ("/api/v1/", "/"), ("/api/v1", "/"), ("/api/v1/a/", "/a/")]
        {
            assert_eq!(rewritten("/api/v1/{*rest}", strip(), path), expected);
        }
    }

    #[test]
    fn a_template_is_filled_in() {
        let text = |text: &str| Piece::Text(text.into());
        let parameter = |name: &str| Piece::Parameter(name.into());
        let template = || Rewrite::Template([text("/v2/"), parameter("id"), text("/events")].into());
        for (path, expected) in [
            ("/calls/7/stream", "/v2/7/events"),
            ("/calls/a%20b%2F/stream", "/v2/a%20b%2F/events"),
            ("/calls/7/stream/", "/v2/7/events/"),
        ] {
            assert_eq!(rewritten("/calls/{id}/stream", template(), path), expected);
        }
        let rest = || Rewrite::Template([text("/new/"), parameter("rest")].into());
        for (path, expected) in
            [("/old/a/b", "/new/a/b"), ("/old/", "/new/"), ("/old", "/new/"), ("/old/a/", "/new/a/")]
        {
            assert_eq!(rewritten("/old/{*rest}", rest(), path), expected);
        }
        // A pattern with a slash at its end is also given paths without one.
        for path in ["/calls/7/", "/calls/7"] {
            assert_eq!(rewritten("/calls/{id}/", template(), path), "/v2/7/events");
        }
    }
}
