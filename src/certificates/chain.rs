//! The order of the certificates in a file: the server's own first, then each one's issuer (RFC 5246 §7.4.2).

use std::path::Path;

use super::facts::Facts;
use super::remedy::reorder;

/// Where the server's own certificate is in a file.
pub(super) enum Own {
    At(usize),
    /// None belongs to the key.
    Absent,
}

impl Own {
    /// With the key's public half. Without it, it is the first that can't sign others.
    pub(super) fn find(chain: &[Facts], public_key: Option<&[u8]>) -> Self {
        match public_key {
            Some(public_key) => {
                // An authority behind the first certificate is there as an issuer, whatever key was named.
                let is_own = |(index, facts): (usize, &Facts)| {
                    facts.public_key == public_key && (index == 0 || !facts.is_authority)
                };
                chain.iter().enumerate().position(is_own).map_or(Self::Absent, Self::At)
            }
            None => Self::At(chain.iter().position(|facts| !facts.is_authority).unwrap_or(0)),
        }
    }
}

/// Whether a file holds nothing but certificates of authorities, so that it can't be that of a server.
pub(super) fn is_only_authorities(chain: &[Facts]) -> bool {
    chain.iter().all(|facts| facts.is_authority && !facts.names_hosts())
}

/// What is wrong when another certificate should be the first.
pub(super) fn first_is_another(chain: &[Facts], file: &Path, own: usize) -> String {
    let (number, subject, command) = (own + 1, &chain[own].subject, reorder(file, &ordered(chain, own)));
    format!("is in the wrong order: certificate {number} ({subject}) must be the first (sort it: {command})")
}

/// What is wrong with the certificates behind the first.
pub(super) fn rest(chain: &[Facts], file: &Path) -> Option<String> {
    let order = ordered(chain, 0);
    let wrong = (0..chain.len()).find(|index| order.get(*index) != Some(index))?;
    let (number, subject, command) = (wrong + 1, &chain[wrong].subject, reorder(file, &order));
    let remedy =
        if order.len() == chain.len() { "sort it" } else { "add the issuer, or leave out what does not belong" };
    Some(format!(
        "holds certificate {number} ({subject}), which did not sign the one before it: some clients can't verify the chain \
         ({remedy}: {command})"
    ))
}

/// The way from one certificate to the last issuer that is in the file. What is not on the way is left out.
fn ordered(chain: &[Facts], own: usize) -> Vec<usize> {
    let mut order = vec![own];
    let mut last = own;
    while let Some(next) =
        (0..chain.len()).find(|index| !order.contains(index) && chain[*index].subject_der == chain[last].issuer_der)
    {
        order.push(next);
        last = next;
    }
    order
}
