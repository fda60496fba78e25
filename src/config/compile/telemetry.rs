//! `telemetry`: traces.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};

use super::destinations::parts_per_million;
use crate::config::units::{MINUTE, SECOND};
use crate::config::{Expected, FULL_SHARE, Field, OtlpProtocol, OtlpSettings, Secret};

/// A collector on the same machine answers sooner; one that takes longer than this is as good as none.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);

pub(super) fn telemetry(field: &Field<'_>) -> Option<OtlpSettings> {
    field.section().get("otlp").and_then(|field| otlp(&field))
}

fn otlp(field: &Field<'_>) -> Option<OtlpSettings> {
    let s = field.section();
    let protocols = [("grpc", OtlpProtocol::Grpc), ("http", OtlpProtocol::Http)];
    let protocol = s.or("protocol", OtlpProtocol::Grpc, |f| f.choice(&protocols));
    let remedy = "the URL of a collector, for example \"http://127.0.0.1:4317\"";
    let endpoint = s.require("endpoint", remedy).and_then(|f| endpoint(&f, protocol));
    let headers = s.field_of("headers");
    let headers = headers.names().into_iter().filter_map(|(name, value)| header(name, &value)).collect();
    let settings = OtlpSettings {
        endpoint: Arc::from(""),
        protocol,
        sample: s.optional("sample", |f| f.percent::<f64>("10% or 0.5%")).map_or(FULL_SHARE, parts_per_million),
        service_name: Arc::from(s.or("service_name", "callgate".to_owned(), |f| f.name(64, "A-Z a-z 0-9 _ . -"))),
        headers,
        ca: s.optional("ca", |f| f.file(Expected::Trusted)),
        timeout: s.or("timeout", 10 * SECOND, |f| f.duration(MIN_TIMEOUT..=MINUTE)),
    };
    Some(OtlpSettings { endpoint: endpoint?, ..settings })
}

fn endpoint(field: &Field<'_>, protocol: OtlpProtocol) -> Option<Arc<str>> {
    let text = field.text()?;
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        let has_login = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some()
            && uri.query().is_none()
            && !has_login
    });
    // The text is not repeated: it may hold a password.
    let wrong = || "must be a URL of a collector with http:// or https://, without a login (for example \"http://127.0.0.1:4317\")";
    let uri = field.accept(uri.ok_or_else(wrong))?;
    let has_path = uri.path() != "/";
    if protocol == OtlpProtocol::Grpc && has_path {
        return field.accept(Err("must have no path with `protocol: grpc` (remove it)"));
    }
    let path = if protocol == OtlpProtocol::Http && !has_path { "/v1/traces" } else { "" };
    Some(Arc::from(format!("{}{path}", text.trim_end_matches('/'))))
}

fn header(name: &str, value: &Field<'_>) -> Option<(Arc<str>, Secret)> {
    let text = value.secret()?;
    let is_plain = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let is_name = HeaderName::from_lowercase(name.as_bytes()).is_ok();
    value.accept(is_name.then_some(()).ok_or("must have a name in lower case, for example `authorization`"))?;
    value.accept(is_plain.then_some(()).ok_or("must be a text of printable ASCII characters"))?;
    Some((Arc::from(name), Secret::new(text)))
}
