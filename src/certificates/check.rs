//! What is wrong with a certificate and its private key, before a client finds out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;

use super::chain::{Own, first_is_another, is_only_authorities, rest};
use super::content::{certificates, holds_only_a_key, private_key};
use super::facts::Facts;
use super::key::usable;
use super::remedy::{argument, request};
use super::validity::ValidityFault;

/// What a check found, as the end of a sentence about the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The file can't be used.
    Unusable(String),
    /// It can be used, but some or all clients will refuse it, now or soon.
    Doubtful(String),
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Clients check its names.
    Server,
    /// The same on the admin listener, where it may have the names of another listener's.
    Admin,
    /// A server checks who signed it.
    Client,
}

/// What is wrong with the chain in `cert`, whose private key is in `key`. What is wrong with the key itself is not in it.
pub(crate) fn check_chain(cert: &Path, key: &Path, purpose: Purpose, now: SystemTime) -> Vec<Finding> {
    match read_chain(cert, key) {
        Ok(chain) => doubts(&chain, cert, key, purpose, now).into_iter().map(Finding::Doubtful).collect(),
        Err(reason) => vec![Finding::Unusable(reason)],
    }
}

/// What is wrong with the private key in `key`, whose chain is in `cert`. What is wrong with the chain itself is not in it.
pub(crate) fn check_key(key: &Path, cert: &Path) -> Option<String> {
    let chain = certificates(cert).ok().and_then(|chain| facts(&chain).ok());
    let own = chain.as_ref().map(|chain| &chain[0]);
    let der = match private_key(key) {
        Ok(der) => der,
        // That the two are swapped is said once, of the certificate.
        Err(_) if are_swapped(cert, key) => return None,
        Err(reason) => return Some(reason),
    };
    let signing = match usable(&der) {
        Ok(signing) => signing,
        Err(reason) => {
            return Some(format!(
                "{reason} (make a new key and a request for its certificate: {})",
                request(own, key, None)
            ));
        }
    };
    let (Some(chain), Some(public_key)) = (chain, signing.public_key()) else { return None };
    let is_ours = matches!(Own::find(&chain, Some(&public_key)), Own::At(_)) || is_only_authorities(&chain);
    (!is_ours).then(|| {
        let (key, shown) = (argument(key), argument(cert));
        format!(
            "is not the key of the first certificate in {} (`openssl pkey -in {key} -pubout` must print the same as \
             `openssl x509 -in {shown} -noout -pubkey`)",
            cert.display()
        )
    })
}

/// What is wrong with a file of trusted certificates.
pub(crate) fn check_trusted(file: &Path) -> Option<String> {
    certificates(file).and_then(|found| all_usable(&found)).err()
}

/// Pairs of files whose certificates are for the same name, of which only the first serves it: the index of the later file, and
/// what is wrong with it.
pub(crate) fn shared_names(files: &[PathBuf]) -> Vec<(usize, String)> {
    let mut owners: HashMap<String, usize> = HashMap::new();
    let mut found = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let Some(Facts { names, .. }) = certificates(file).ok().and_then(|chain| Facts::read(&chain[0]).ok()) else {
            continue;
        };
        let mut shared: Vec<(usize, String)> = Vec::new();
        for name in names {
            let owner = *owners.entry(name.clone()).or_insert(index);
            if owner != index && !shared.contains(&(owner, name.clone())) {
                shared.push((owner, name));
            }
        }
        let Some((owner, name)) = shared.first() else { continue };
        let more = match shared.len() {
            1 => String::new(),
            count => format!(" and {} more of its names", count - 1),
        };
        let other = files[*owner].display();
        found.push((
            index,
            format!(
                "is for {name}{more}, as is {other}, which comes first and serves that name (keep one; \
                 `openssl x509 -in {} -noout -ext subjectAltName` prints the names)",
                argument(file)
            ),
        ));
    }
    found
}

/// The chain, if rustls can use it.
fn read_chain(cert: &Path, key: &Path) -> Result<Vec<Facts>, String> {
    let found = certificates(cert).map_err(|reason| {
        if are_swapped(cert, key) {
            "holds the private key, not the certificates (swap `cert` and `key`)".to_owned()
        } else {
            reason
        }
    })?;
    let chain = facts(&found)?;
    let signing = private_key(key).ok().and_then(|key| usable(&key).ok());
    let public_key = signing.and_then(|signing| signing.public_key().map(|key| key.to_vec()));
    match Own::find(&chain, public_key.as_deref()) {
        Own::At(0) => {}
        Own::At(own) => return Err(first_is_another(&chain, cert, own)),
        Own::Absent if is_only_authorities(&chain) => {
            let subject = &chain[0].subject;
            return Err(format!(
                "holds the certificate of an authority ({subject}), not the one of the key (of certbot's files it is fullchain.pem)"
            ));
        }
        Own::Absent => {}
    }
    if chain[0].is_version_1 {
        let command = request(Some(&chain[0]), cert, Some(key));
        return Err(format!(
            "holds a certificate of version 1, which can't name hosts (ask for one with names by this request: {command})"
        ));
    }
    ParsedCertificate::try_from(&found[0]).map_err(|error| unusable(&error))?;
    all_usable(&found)?;
    Ok(chain)
}

/// Why clients may refuse a chain that rustls can use.
fn doubts(chain: &[Facts], cert: &Path, key: &Path, purpose: Purpose, now: SystemTime) -> Vec<String> {
    let own = &chain[0];
    let mut doubts = Vec::new();
    let command = || request(Some(own), cert, Some(key));
    match own.validity.fault(now) {
        Some(fault @ ValidityFault::NotYetValid { .. }) => {
            doubts.push(format!(
                "{fault} (is the clock of this machine right? `date`, `openssl x509 -in {} -noout -dates`)",
                argument(cert)
            ));
        }
        Some(fault) => doubts.push(format!("{fault} (renew it, for example by this request: {})", command())),
        None => {}
    }
    for (index, facts) in chain.iter().enumerate().skip(1) {
        let fault = facts.validity.fault(now).filter(|fault| !matches!(fault, ValidityFault::EndsSoon { .. }));
        if let Some(fault) = fault {
            let (number, subject) = (index + 1, &facts.subject);
            doubts.push(format!(
                "certificate {number} of it ({subject}) {fault} (take the chain from your authority anew)"
            ));
        }
    }
    if purpose != Purpose::Client && !own.names_hosts() {
        doubts.push(format!(
            "holds a certificate that names no host, which most clients refuse (ask for one with names by this request: {})",
            command()
        ));
    }
    doubts.extend(rest(chain, cert));
    doubts
}

fn are_swapped(cert: &Path, key: &Path) -> bool {
    holds_only_a_key(cert) && certificates(key).is_ok()
}

fn facts(chain: &[CertificateDer<'_>]) -> Result<Vec<Facts>, String> {
    chain.iter().map(Facts::read).collect()
}

fn all_usable(found: &[CertificateDer<'static>]) -> Result<(), String> {
    found.iter().try_for_each(|one| RootCertStore::empty().add(one.clone()).map_err(|error| unusable(&error)))
}

fn unusable(error: &rustls::Error) -> String {
    format!("holds a certificate that can't be used: {error}")
}
