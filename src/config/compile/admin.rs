//! `admin`: who may use the admin listener.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{AdminAccess, AdminToken, Field, Role};
use crate::hash::TokenHash;

const REMEDY: &str = "`callgate admin-token create --name NAME` makes one and prints its line for this file";

/// `address` is that of the admin listener.
pub(super) fn admin(field: &Field<'_>, address: SocketAddr) -> AdminAccess {
    let s = field.section();
    let list = s.field_of("tokens");
    let items = list.items();
    let mut tokens: Vec<AdminToken> = Vec::new();
    for item in &items {
        let Some(token) = token(item) else { continue };
        if tokens.iter().any(|other| other.name == token.name) {
            item.error(format!(
                "another admin token is called \"{}\" (the audit trail needs unique names)",
                token.name
            ));
        } else if tokens.iter().any(|other| other.sha256 == token.sha256) {
            item.error("another admin token has this SHA-256 (each needs a secret of its own)");
        }
        tokens.push(token);
    }
    let is_private = address.ip().is_loopback();
    let default = (is_private && tokens.is_empty()).then_some(Role::Write);
    let roles = [("none", None), ("read", Some(Role::Read)), ("write", Some(Role::Write))];
    let anonymous = s.or("anonymous", default, |f| f.choice(&roles));
    if !is_private && items.is_empty() {
        let port = address.port();
        let remedy = format!("{REMEDY}; or set listen.admin to \"127.0.0.1:{port}\"");
        list.error(format!("must have at least one token, because others can reach {address} ({remedy})"));
    }
    if !is_private && anonymous.is_some() {
        s.field_of("anonymous").error(format!("must be none, because others can reach {address} (remove it)"));
    } else if !is_private && !items.is_empty() {
        let port = address.port();
        list.warn(format!(
            "they cross the network unencrypted, as new secrets of tokens do, because others can reach {address} (set \
             listen.admin to \"127.0.0.1:{port}\" behind a proxy with TLS, or let only operators reach that network)"
        ));
    }
    if is_private && anonymous.is_none() && items.is_empty() {
        s.field_of("anonymous").warn(format!("nobody can use the admin listener: admin.tokens is empty ({REMEDY})"));
    }
    AdminAccess {
        anonymous,
        tokens,
        public_metrics: s.or("public_metrics", false, Field::flag),
        max_failures: s.or("max_failures", 10, |f| f.number(1..=1_000)),
    }
}

fn token(field: &Field<'_>) -> Option<AdminToken> {
    let s = field.section();
    let name = s.require("name", "the audit trail shows it").and_then(|f| f.name(64, "A-Z a-z 0-9 _ . -"));
    let role = s.require("role", "read or write").and_then(|f| f.choice(&Role::NAMES));
    let sha256 = s.require("sha256", REMEDY).and_then(|f| sha256(&f));
    Some(AdminToken { name: Arc::from(name?), role: role?, sha256: sha256? })
}

/// The text is not repeated: it may be the token itself.
fn sha256(field: &Field<'_>) -> Option<TokenHash> {
    let hash = TokenHash::from_hex(&field.secret()?);
    let wrong =
        || format!("must be the 64 hexadecimal digits of the token's SHA-256, never the token itself ({REMEDY})");
    field.accept(hash.ok_or_else(wrong))
}
