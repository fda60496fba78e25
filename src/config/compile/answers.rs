//! `request_headers`, `response_headers` and `cors` of a route.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::address::parse_endpoint;
use super::matching::header_name;
use crate::config::units::{DAY, SECOND};
use crate::config::{Cors, CorsOrigin, Field, HeaderEdits, Section, quoted};

/// Headers that a route may set or remove, in each direction.
const MAX_EDITS: usize = 64;
/// Headers that frame a message, or concern one connection only.
const FRAMING: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];
/// Headers that a page may send by default.
const CORS_HEADERS: &str = "authorization, content-type, x-request-id";

/// The messages whose headers are edited.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum EditedMessage {
    Request,
    Response,
}

impl EditedMessage {
    /// Why a route must not edit this header.
    fn refuses(self, name: &str) -> Option<&'static str> {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        if FRAMING.contains(&name) {
            return Some("it belongs to the connection");
        }
        match self {
            Self::Request if name == "host" => Some("the upstream's `host` sets it"),
            Self::Request if begins(&["x-callgate-", "x-forwarded-"]) => Some("Callgate vouches for it"),
            Self::Request if ["forwarded", "x-request-id"].contains(&name) => Some("Callgate vouches for it"),
            Self::Response if begins(&["x-ratelimit-", "ratelimit"]) || name == "x-request-id" => {
                Some("Callgate sets it")
            }
            Self::Response if begins(&["access-control-"]) => Some("`cors` sets it"),
            Self::Request | Self::Response => None,
        }
    }
}

pub(super) fn edits(field: &Field<'_>, message: EditedMessage) -> HeaderEdits {
    let s = field.section();
    let set = s.field_of("set").names();
    let set = set.iter().filter_map(|(name, field)| editable(field, name, message).zip(value(field, message)));
    let remove = s.field_of("remove").one_or_many();
    let remove = remove.iter().filter_map(|item| editable(item, &item.text()?, message));
    let edits = HeaderEdits { set: set.collect(), remove: remove.collect(), matched: Vec::new() };
    if edits.set.len() + edits.remove.len() > MAX_EDITS {
        field.error(format!("must not change more than {MAX_EDITS} headers"));
    }
    edits
}

fn editable(field: &Field<'_>, name: &str, message: EditedMessage) -> Option<HeaderName> {
    let parsed = header_name(field, name)?;
    let refusal = message.refuses(parsed.as_str());
    let wrong = refusal.map(|why| format!("{} can't be changed here: {why} (remove it)", quoted(name)));
    field.accept(wrong.map_or(Ok(parsed), Err))
}

/// A credential for the upstream may be in a file.
fn value(field: &Field<'_>, message: EditedMessage) -> Option<HeaderValue> {
    let is_secret = message == EditedMessage::Request;
    let text = if is_secret { field.secret() } else { field.text() }?;
    let value = HeaderValue::from_str(&text).map_err(|_| "must be a text that a header can have (no line breaks)");
    let mut value = field.accept(value)?;
    value.set_sensitive(is_secret);
    Some(value)
}

pub(super) fn cors(s: &Section<'_>) -> Option<Cors> {
    let field = s.get("cors")?;
    let s = field.section();
    let remedy = "for example [\"https://app.example.com\"]";
    let list = s.require("origins", remedy);
    let items = list.map(|list| list.one_or_more("name at least one, or remove `cors`"));
    let origins: Option<Vec<CorsOrigin>> = items.map(|items| items.iter().filter_map(origin).collect());
    let names = |f: &Field<'_>| {
        let items = f.one_or_many();
        Some(items.iter().filter_map(|item| header_name(item, &item.text()?)).collect::<Vec<_>>())
    };
    let headers = s.optional("headers", names).and_then(|names| {
        let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
        HeaderValue::try_from(names.join(", ")).ok()
    });
    let expose = s.or("expose", Vec::new(), names);
    let credentials = s.or("credentials", false, Field::flag);
    let max_age = s.or("max_age", Duration::from_secs(600), |f| f.duration(SECOND..=DAY));
    let origins = origins?;
    if credentials && origins.contains(&CorsOrigin::Any) {
        s.field_of("credentials").error("can't be used with every origin (name them)");
    }
    let headers = headers.unwrap_or_else(|| HeaderValue::from_static(CORS_HEADERS));
    Some(Cors { origins, headers, expose, credentials, max_age })
}

fn origin(field: &Field<'_>) -> Option<CorsOrigin> {
    let text = field.text()?;
    if text == "*" {
        return Some(CorsOrigin::Any);
    }
    let lower = text.to_ascii_lowercase();
    // An origin is spelled like an endpoint, but without the default port of its scheme.
    let plain = lower.replacen("://*.", "://", 1);
    let has_default_port = plain.starts_with("http://") && plain.ends_with(":80")
        || plain.starts_with("https://") && plain.ends_with(":443");
    let origin = match lower.split_once("://*.") {
        Some((scheme, rest)) => CorsOrigin::Below(format!("{scheme}://").into(), format!(".{rest}").into()),
        None => CorsOrigin::Exact(lower.into()),
    };
    let is_origin = parse_endpoint(&plain).is_ok() && !has_default_port;
    let what = "an origin as browsers send it (for example https://app.example.com, or https://*.example.com)";
    field.must_be(what, is_origin.then_some(origin))
}
