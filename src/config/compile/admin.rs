//! `admin`: who may use the admin listener.

use std::sync::Arc;

use super::tls::certificate_files;
use crate::certificates::Purpose;
use crate::config::{AdminAccess, AdminAddress, AdminClient, AdminTls, AdminToken, Expected, Field, Role};
use crate::hash::TokenHash;

const REMEDY: &str = "`callgate admin-token create --name NAME` makes one and prints its line for this file";

/// `address` is that of the admin listener.
pub(super) fn admin(field: &Field<'_>, address: &AdminAddress) -> AdminAccess {
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
    let tls = s.optional("tls", |f| tls(f, address));
    let is_local = address.is_local();
    let has_callers = !items.is_empty() || tls.as_ref().is_some_and(|tls| !tls.clients.is_empty());
    let default = match address {
        _ if !is_local || has_callers => None,
        // Others may share the network namespace.
        AdminAddress::Tcp(_) => Some(Role::Read),
        AdminAddress::Unix(_) => Some(Role::Write),
    };
    let roles = [("none", None), ("read", Some(Role::Read)), ("write", Some(Role::Write))];
    let anonymous = s.or("anonymous", default, |f| f.choice(&roles));
    if let (AdminAddress::Tcp(socket), false) = (address, is_local) {
        let port = socket.port();
        if !has_callers {
            let remedy = format!("{REMEDY}; or set listen.admin to \"127.0.0.1:{port}\"");
            list.error(format!("must have at least one token, because others can reach {address} ({remedy})"));
        }
        if anonymous.is_some() {
            s.field_of("anonymous").error(format!("must be none, because others can reach {address} (remove it)"));
        } else if has_callers && tls.is_none() {
            list.warn(format!(
                "they cross the network unencrypted, as new secrets of tokens do, because others can reach {address} \
                 (set admin.tls, or listen.admin to \"127.0.0.1:{port}\")"
            ));
        }
    }
    if is_local && anonymous.is_none() && !has_callers {
        s.field_of("anonymous").warn(format!("nobody can use the admin listener: admin.tokens is empty ({REMEDY})"));
    }
    AdminAccess {
        anonymous,
        tokens,
        public_metrics: s.or("public_metrics", false, Field::flag),
        max_failures: s.or("max_failures", 10, |f| f.number(1..=1_000)),
        tls,
    }
}

fn tls(field: &Field<'_>, address: &AdminAddress) -> Option<AdminTls> {
    let s = field.section();
    let certificate = certificate_files(&s, Purpose::Admin);
    let client_ca = s.optional("client_ca", |f| f.file(Expected::Trusted));
    let list = s.field_of("clients");
    let items = list.items();
    let mut clients: Vec<AdminClient> = Vec::new();
    for item in &items {
        let Some(client) = client(item) else { continue };
        if clients.iter().any(|other| other.name == client.name) {
            item.error(format!("another client is called \"{}\" (remove one)", client.name));
        }
        clients.push(client);
    }
    match (&client_ca, items.is_empty()) {
        (None, false) => list.error("need client_ca: the certificates that sign those of clients (add it)"),
        (Some(_), true) => {
            list.error("must name at least one client: a certificate alone gives no role (or remove client_ca)")
        }
        (None, true) | (Some(_), false) => {}
    }
    if let AdminAddress::Unix(_) = address {
        field.error("a Unix socket has no TLS: its mode says who may use it (remove this)");
    }
    Some(AdminTls { certificate: certificate?, client_ca, clients })
}

fn client(field: &Field<'_>) -> Option<AdminClient> {
    let s = field.section();
    let name = s.require("name", "a DNS name of the client's certificate, or its common name");
    let name = name.and_then(|f| f.name(255, "A-Z a-z 0-9 _ . -"));
    let role = s.require("role", "read or write").and_then(|f| f.choice(&Role::NAMES));
    Some(AdminClient { name: Arc::from(name?.to_ascii_lowercase()), role: role? })
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
