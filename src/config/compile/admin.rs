//! `admin`: who may use the admin listener.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::admin::{AdminAccess, AdminToken, Role};
use crate::config::reader::Field;
use crate::hash::TokenHash;

const REMEDY: &str = "`callgate admin-token create --name NAME` makes one and prints the line to put there";

/// `address` is where the admin listener will be.
pub(super) fn admin(field: &Field<'_>, address: SocketAddr) -> AdminAccess {
    let s = field.section(&["anonymous", "tokens", "public_metrics", "max_failures"]);
    let list = s.field_of("tokens");
    let mut tokens: Vec<AdminToken> = Vec::new();
    for item in list.items() {
        let Some(token) = token(&item) else { continue };
        if tokens.iter().any(|other| other.name == token.name) {
            item.error(format!("another admin token is called \"{}\" (the audit trail names them)", token.name));
        } else if tokens.iter().any(|other| other.sha256 == token.sha256) {
            item.error("this SHA-256 belongs to another admin token already (each needs a secret of its own)");
        }
        tokens.push(token);
    }
    let is_private = address.ip().is_loopback();
    if !is_private && list.items().is_empty() {
        list.error(format!(
            "must hold at least one token, because others can reach {address} ({REMEDY}; or set listen.admin to \
             \"127.0.0.1:{}\")",
            address.port()
        ));
    }
    // Who lists tokens wants them to be asked for.
    let default = (is_private && tokens.is_empty()).then_some(Role::Write);
    let roles = [("none", None), ("read", Some(Role::Read)), ("write", Some(Role::Write))];
    let anonymous = s.or("anonymous", default, |f| f.choice(&roles));
    if anonymous.is_some() && !is_private {
        s.field_of("anonymous").error(format!("must be none, because others can reach {address} (remove it)"));
    }
    if anonymous.is_none() && is_private && list.items().is_empty() {
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
    let s = field.section(&["name", "role", "sha256"]);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let name =
        s.require("name", "the audit trail names who did what").and_then(|f| f.name(64, "A-Z a-z 0-9 _ . -", is_plain));
    let role = s.require("role", "read or write").and_then(|f| f.choice(&Role::NAMES));
    let sha256 = s.require("sha256", REMEDY).and_then(|f| sha256(&f));
    Some(AdminToken { name: Arc::from(name?), role: role?, sha256: sha256? })
}

/// What stands there is not repeated: it may well be the token itself.
fn sha256(field: &Field<'_>) -> Option<TokenHash> {
    let hash = TokenHash::from_hex(&field.secret()?);
    if hash.is_none() {
        field.error(format!(
            "must be the 64 hexadecimal digits of the token's SHA-256, never the token itself ({REMEDY})"
        ));
    }
    hash
}
