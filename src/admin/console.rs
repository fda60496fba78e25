//! The console: a page for browsers that uses the API as anybody does. `console/` has its source, and `console/build` makes what is embedded
//! here. It holds no data, so everybody may load it.

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::response::{AdminResponse, response, set_header};

/// The page runs its own scripts, asks its own origin, and is shown in no other page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the console, compressed by gzip.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

static ASSETS: [Asset; 4] = [
    Asset {
        path: "/",
        content_type: "text/html; charset=utf-8",
        bytes: include_bytes!("../../console/dist/index.html.gz"),
    },
    Asset {
        path: "/assets/console.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../../console/dist/assets/console.js.gz"),
    },
    Asset {
        path: "/assets/console.css",
        content_type: "text/css; charset=utf-8",
        bytes: include_bytes!("../../console/dist/assets/console.css.gz"),
    },
    Asset {
        path: "/assets/icon.svg",
        content_type: "image/svg+xml",
        bytes: include_bytes!("../../console/dist/assets/icon.svg.gz"),
    },
];

/// The file of the console that a request asks for, if it asks for one.
pub(super) fn answer(method: &Method, path: &str, headers: &HeaderMap) -> Option<AdminResponse> {
    let asset = ASSETS.iter().find(|asset| asset.path == path)?;
    if !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter().any(|codings| lists(codings, "gzip"));
    if !accepted {
        let why = "The console is sent with gzip alone: Accept-Encoding must list it.\n";
        return Some(response(StatusCode::NOT_ACCEPTABLE, "text/plain; charset=utf-8", why));
    }
    let hash = digest::digest(&digest::SHA256, asset.bytes);
    let etag = format!("\"{}\"", HEXLOWER.encode(&hash.as_ref()[..8]));
    let is_known = headers.get_all(header::IF_NONE_MATCH).iter().any(|tags| lists(tags, &etag));
    let (status, body) = match is_known {
        true => (StatusCode::NOT_MODIFIED, &b""[..]),
        false => (StatusCode::OK, asset.bytes),
    };
    let mut answer = response(status, asset.content_type, body);
    set_header(&mut answer, header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    set_header(&mut answer, header::VARY, HeaderValue::from_static("accept-encoding"));
    set_header(&mut answer, header::ETAG, etag);
    // The next version of Callgate has other files of the same names.
    set_header(&mut answer, header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    set_header(&mut answer, header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    set_header(&mut answer, header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let opener = HeaderName::from_static("cross-origin-opener-policy");
    set_header(&mut answer, opener, HeaderValue::from_static("same-origin"));
    Some(answer)
}

/// Whether a list has this item. `gzip;q=0` refuses it.
fn lists(list: &HeaderValue, wanted: &str) -> bool {
    list.to_str().is_ok_and(|list| {
        list.split(',').any(|item| {
            let (name, weight) = item.split_once(';').unwrap_or((item, ""));
            name.trim().trim_start_matches("W/").eq_ignore_ascii_case(wanted)
                && !matches!(weight.replace(' ', "").as_str(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str, lines: &[(HeaderName, &str)]) -> Option<AdminResponse> {
        let lines = lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        answer(&Method::GET, path, &lines.collect())
    }

    #[test]
    fn the_page_and_its_files_are_answered_and_nothing_else() {
        let gzip = [(header::ACCEPT_ENCODING, "br, gzip, deflate")];
        for asset in &ASSETS {
            let answer = asked(asset.path, &gzip).unwrap();
            assert_eq!(
                (answer.status(), &answer.headers()["content-encoding"]),
                (StatusCode::OK, "gzip".try_into().as_ref().unwrap())
            );
            assert!(answer.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
            let etag = answer.headers()["etag"].to_str().unwrap().to_owned();
            let again = asked(asset.path, &[gzip[0].clone(), (header::IF_NONE_MATCH, &etag)]).unwrap();
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        }
        for nothing in ["", "/index.html", "/assets/", "/assets/console.js.gz", "/metrics"] {
            assert!(asked(nothing, &gzip).is_none(), "{nothing}");
        }
        assert!(answer(&Method::POST, "/", &HeaderMap::new()).is_none());
        assert_eq!(asked("/", &[]).unwrap().status(), StatusCode::NOT_ACCEPTABLE);
        assert_eq!(asked("/", &[(header::ACCEPT_ENCODING, "gzip;q=0")]).unwrap().status(), StatusCode::NOT_ACCEPTABLE);
    }

    #[test]
    fn all_of_it_is_small() {
        assert!(ASSETS.iter().map(|asset| asset.bytes.len()).sum::<usize>() < 150 << 10);
    }
}
