//! The console: a page at `/` and its assets. It holds no data and so needs no token; what it shows, it asks the API for.

// Written by console/build beside the files themselves.
#[path = "../../console/dist/files.rs"]
mod files;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::error::ApiError;
use super::response::{AdminResponse, response};

/// The page loads nothing from elsewhere, runs no script but its own, and no other page may show it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// One file of the console. Every browser takes gzip, so that no other form is kept.
pub(super) struct ConsoleFile {
    path: &'static str,
    content_type: &'static str,
    /// With its quotes.
    etag: &'static str,
    gzipped: &'static [u8],
}

/// The file that has this path.
pub(super) fn find(path: &str) -> Option<&'static ConsoleFile> {
    files::FILES.iter().find(|file| file.path == path)
}

/// Answers `GET` and `HEAD`.
pub(super) fn serve(file: &ConsoleFile, method: &Method, headers: &HeaderMap) -> Result<AdminResponse, ApiError> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(ApiError::Method("GET, HEAD".to_owned()));
    }
    let is_known = headers.get_all(header::IF_NONE_MATCH).iter().any(|known| names(known, file.etag));
    let mut answer = match is_known {
        true => response(StatusCode::NOT_MODIFIED, file.content_type, Bytes::new()),
        false => response(StatusCode::OK, file.content_type, Bytes::from_static(file.gzipped)),
    };
    let set = answer.headers_mut();
    if !is_known {
        set.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    // The names of assets change with their content.
    let caching = if file.path == "/" { "no-cache" } else { "public, max-age=31536000, immutable" };
    set.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    set.insert(header::ETAG, HeaderValue::from_static(file.etag));
    set.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    set.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    set.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    Ok(answer)
}

/// Whether an `If-None-Match` names this entity tag.
fn names(known: &HeaderValue, etag: &str) -> bool {
    let known = known.to_str().unwrap_or("");
    known.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str, method: Method, known: Option<&str>) -> AdminResponse {
        let known = known.map(|known| (header::IF_NONE_MATCH, HeaderValue::from_str(known).unwrap()));
        let file = find(path).unwrap();
        let id = HeaderValue::from_static("1");
        serve(file, &method, &known.into_iter().collect()).unwrap_or_else(|error| error.into_response(&id))
    }

    fn header<'r>(response: &'r AdminResponse, name: &str) -> &'r str {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn the_page_is_asked_for_anew_and_assets_are_kept() {
        let page = asked("/", Method::GET, None);
        assert_eq!((page.status(), header(&page, "cache-control")), (StatusCode::OK, "no-cache"));
        assert_eq!(header(&page, "content-type"), "text/html; charset=utf-8");
        assert!(header(&page, "content-security-policy").starts_with("default-src 'none'; script-src 'self';"));
        assert_eq!(header(&page, "x-content-type-options"), "nosniff");
        assert_eq!(header(&page, "referrer-policy"), "no-referrer");

        let assets = files::FILES.iter().filter(|file| file.path != "/").inspect(|file| {
            let asset = asked(file.path, Method::HEAD, None);
            assert!(file.path.starts_with("/assets/") && header(&asset, "cache-control").ends_with("immutable"));
            assert_eq!(header(&asset, "content-encoding"), "gzip");
        });
        assert_eq!(assets.count(), 2);
    }

    #[test]
    fn a_known_page_is_not_sent_again() {
        let etag = header(&asked("/", Method::GET, None), "etag").to_owned();
        for known in [&etag, &format!("\"a\", W/{etag}"), "*"] {
            let answer = asked("/", Method::GET, Some(known));
            assert_eq!(answer.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert_eq!((header(&answer, "etag"), header(&answer, "content-encoding")), (&*etag, ""));
        }
        assert_eq!(asked("/", Method::GET, Some("\"a\"")).status(), StatusCode::OK);
    }

    #[test]
    fn the_page_only_answers() {
        let refused = asked("/", Method::POST, None);
        assert_eq!((refused.status(), header(&refused, "allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
        assert!(find("/index.html").is_none() && find("/assets/").is_none() && find("").is_none());
    }

    #[test]
    fn the_console_is_small() {
        assert!(files::FILES.iter().map(|file| file.gzipped.len()).sum::<usize>() < 100_000);
    }
}
