//! `request_headers`, `response_headers` and `cors` of a route.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::upstreams::endpoint;
use crate::config::answers::{Cors, HeaderEdits, Origin};
use crate::config::place::shown;
use crate::config::reader::{Field, Section};

/// Headers that a route may put on or take off, each way.
const MAX_EDITS: usize = 64;
/// What frames a message, or concerns one connection only.
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
/// What a page may send, where nothing else is said.
const SENDS: &str = "authorization, content-type, x-request-id";
const DAY: Duration = Duration::from_secs(86_400);

/// Which way a message goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Upstream,
    Client,
}

impl Way {
    /// Why this header is none of a route's business.
    fn refuses(self, name: &str) -> Option<&'static str> {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        if FRAMING.contains(&name) {
            return Some("it belongs to the connection");
        }
        match self {
            Self::Upstream if name == "host" => Some("the upstream's `host` sets it"),
            Self::Upstream
                if begins(&["x-callgate-", "x-forwarded-"]) || ["forwarded", "x-request-id"].contains(&name) =>
            {
                Some("Callgate vouches for it")
            }
            Self::Client if begins(&["x-ratelimit-", "ratelimit"]) || name == "x-request-id" => {
                Some("Callgate sets it")
            }
            Self::Client if begins(&["access-control-"]) => Some("`cors` sets it"),
            Self::Upstream | Self::Client => None,
        }
    }
}

pub(super) fn edits(field: &Field<'_>, way: Way) -> HeaderEdits {
    let s = field.section(&["set", "remove"]);
    let mut edits = HeaderEdits::default();
    for (name, value) in s.field_of("set").names() {
        if let (Some(name), Some(value)) = (editable(&value, name, way), value_of(&value, way)) {
            edits.set.push((name, value));
        }
    }
    if let Some(list) = s.get("remove") {
        for item in list.one_or_many() {
            edits.remove.extend(item.text().and_then(|name| editable(&item, &name, way)));
        }
    }
    if edits.set.len() + edits.remove.len() > MAX_EDITS {
        field.error(format!("must not change more than {MAX_EDITS} headers"));
    }
    edits
}

fn editable(field: &Field<'_>, name: &str, way: Way) -> Option<HeaderName> {
    let parsed = header_name(field, name)?;
    if let Some(why) = way.refuses(parsed.as_str()) {
        field.error(format!("{} can't be changed here: {why} (remove it)", shown(name)));
        return None;
    }
    Some(parsed)
}

fn header_name(field: &Field<'_>, name: &str) -> Option<HeaderName> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
    if parsed.is_none() {
        field.error(format!("{} is not the name of a header", shown(name)));
    }
    parsed
}

/// A credential for the upstream may lie in a file.
fn value_of(field: &Field<'_>, way: Way) -> Option<HeaderValue> {
    let text = if way == Way::Upstream { field.secret() } else { field.text() }?;
    let Ok(mut value) = HeaderValue::from_str(&text) else {
        field.error("must be a text that a header can have (no line breaks)");
        return None;
    };
    value.set_sensitive(way == Way::Upstream);
    Some(value)
}

pub(super) fn cors(s: &Section<'_>) -> Option<Cors> {
    let field = s.get("cors")?;
    let s = field.section(&["origins", "headers", "expose", "credentials", "max_age"]);
    let list = s.require("origins", "for example [\"https://app.example.com\"]")?;
    let origins: Vec<Origin> = list.one_or_many().iter().filter_map(origin).collect();
    if origins.is_empty() && list.is_list() && list.items().is_empty() {
        list.error("is empty (name at least one, or remove `cors`)");
    }
    let credentials = s.or("credentials", false, Field::flag);
    if credentials && origins.contains(&Origin::Any) {
        s.field_of("credentials").error("can't be allowed to every origin (name them)");
    }
    let names = |key| {
        let field = s.get(key)?;
        let items = field.one_or_many();
        Some(items.iter().filter_map(|item| header_name(item, &item.text()?)).collect::<Vec<_>>())
    };
    let sends = names("headers").map(|names| {
        let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
        names.join(", ")
    });
    Some(Cors {
        origins,
        // Names of headers are what a header can hold.
        headers: sends
            .and_then(|sends| HeaderValue::try_from(sends).ok())
            .unwrap_or_else(|| HeaderValue::from_static(SENDS)),
        expose: names("expose").unwrap_or_default(),
        credentials,
        max_age: s.or("max_age", Duration::from_secs(600), |f| f.duration(Duration::from_secs(1)..=DAY)),
    })
}

fn origin(field: &Field<'_>) -> Option<Origin> {
    let text = field.text()?;
    if text == "*" {
        return Some(Origin::Any);
    }
    let lower = text.to_ascii_lowercase();
    // It is spelled as the address of an endpoint is, but for the port that every scheme has by itself.
    let plain = lower.replacen("://*.", "://", 1);
    let has_own_port = plain.starts_with("http://") && plain.ends_with(":80")
        || plain.starts_with("https://") && plain.ends_with(":443");
    if endpoint(&plain).is_err() || has_own_port {
        let form =
            "must be an origin as browsers send it (for example https://app.example.com, or https://*.example.com)";
        field.error(format!("{form}, not {}", field.shown()));
        return None;
    }
    Some(match lower.split_once("://*.") {
        Some((scheme, rest)) => Origin::Below(format!("{scheme}://").into(), format!(".{rest}").into()),
        None => Origin::Exact(lower.into()),
    })
}
