//! TLS towards clients: versions, and certificates by server name.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};
use tokio_rustls::TlsAcceptor;

use crate::certificates::{Facts, Validity};
use crate::config;
use crate::tls::{self, TlsError};

use super::tickets;

/// The certificates of the HTTPS listener, found by server name: exact, then wildcard, then the first of all.
pub(crate) struct Certificates {
    keys: Vec<Arc<CertifiedKey>>,
    by_name: HashMap<String, usize>,
    addresses: Vec<IpAddr>,
    expiries: Vec<(PathBuf, i64)>,
    /// The names and addresses of each, in the order of `expiries`.
    names: Vec<Vec<String>>,
    /// In the order of `expiries`.
    validities: Vec<Validity>,
}

impl Certificates {
    /// Reads every configured pair.
    ///
    /// # Errors
    /// The first [`TlsError`] found.
    pub(crate) fn load(files: &[config::CertificateFiles]) -> Result<Self, TlsError> {
        let mut loaded = Self {
            keys: Vec::new(),
            by_name: HashMap::new(),
            addresses: Vec::new(),
            expiries: Vec::new(),
            names: Vec::new(),
            validities: Vec::new(),
        };
        for (index, pair) in files.iter().enumerate() {
            let chain = tls::certificates(&pair.cert)?;
            let key = tls::private_key(&pair.key)?;
            let facts = Facts::read(&chain[0]).map_err(|reason| TlsError::pem(&pair.cert, reason))?;
            let addresses = facts.addresses.iter().map(ToString::to_string);
            loaded.names.push(facts.names.iter().cloned().chain(addresses).collect());
            loaded.addresses.extend(facts.addresses);
            loaded.expiries.push((pair.cert.clone(), facts.validity.not_after));
            loaded.validities.push(facts.validity);
            let certified = CertifiedKey::from_der(chain, key, &tls::provider()).map_err(|source| TlsError::Pair {
                cert: pair.cert.clone(),
                key: pair.key.clone(),
                source,
            })?;
            loaded.keys.push(Arc::new(certified));
            for name in facts.names {
                // On a tie the certificate that stands first in the file wins.
                loaded.by_name.entry(name).or_insert(index);
            }
        }
        Ok(loaded)
    }

    /// Which certificate serves a host name; the first one serves what none names.
    fn index_for(&self, host: &str) -> usize {
        self.named(host).unwrap_or(0)
    }

    /// Whether a certificate is for this host, a name or an address.
    #[must_use]
    pub(crate) fn are_for(&self, host: &str) -> bool {
        let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        self.named(host).is_some() || address.parse().is_ok_and(|address| self.addresses.contains(&address))
    }

    fn named(&self, host: &str) -> Option<usize> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let wildcard = || host.split_once('.').and_then(|(_, parent)| self.by_name.get(&format!("*.{parent}")));
        self.by_name.get(&host).or_else(wildcard).copied()
    }

    /// The files of certificates that are others in `before`.
    #[must_use]
    pub(crate) fn changed(&self, before: &Self) -> Vec<PathBuf> {
        let chain_in = |of: &Self, file: &Path| {
            let index = of.expiries.iter().position(|(known, _)| known == file)?;
            Some(of.keys[index].cert.clone())
        };
        let files = self.expiries.iter().map(|(file, _)| file);
        let changed =
            files.filter(|file| chain_in(before, file).is_some_and(|chain| Some(chain) != chain_in(self, file)));
        changed.cloned().collect()
    }

    /// Each certificate's file and the Unix second at which it expires.
    #[must_use]
    pub(crate) fn expiries(&self) -> &[(PathBuf, i64)] {
        &self.expiries
    }

    /// Each certificate's file, its names, and the Unix second at which it expires.
    pub(crate) fn with_names(&self) -> impl Iterator<Item = (&Path, &[String], i64)> {
        self.expiries.iter().zip(&self.names).map(|((file, expiry), names)| (&**file, &names[..], *expiry))
    }

    /// Each certificate's file, and when it is valid.
    pub(crate) fn validities(&self) -> impl Iterator<Item = (&Path, Validity)> {
        self.expiries.iter().map(|(file, _)| &**file).zip(self.validities.iter().copied())
    }
}

/// TLS on a listener.
#[derive(Clone)]
pub(crate) struct Tls {
    /// Makes handshakes.
    pub acceptor: TlsAcceptor,
    /// Which certificate belongs to which name.
    pub certificates: Arc<Certificates>,
}

/// The certificate that a client was shown, among those of the configuration of that time.
#[derive(Debug)]
pub(crate) struct ShownCertificate {
    certificates: Arc<Certificates>,
    index: usize,
}

impl ShownCertificate {
    /// `server_name`: the one that the client asked for.
    pub(super) fn new(certificates: &Arc<Certificates>, server_name: Option<&str>) -> Self {
        let index = server_name.map_or(0, |name| certificates.index_for(name));
        Self { certificates: certificates.clone(), index }
    }

    /// Whether a client that was shown it may ask for this host on the same connection (RFC 9113 §9.1.2). The host is asked for only
    /// if it matters.
    pub(crate) fn serves<'a>(&self, host: impl FnOnce() -> &'a str) -> bool {
        self.certificates.keys.len() == 1 || self.certificates.index_for(host()) == self.index
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("names", &self.by_name).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let index = hello.server_name().map_or(0, |name| self.index_for(name));
        self.keys.get(index).cloned()
    }
}

/// What seals session tickets. It outlives a configuration, so that sessions are resumed after a reload.
pub(crate) type Tickets = Arc<dyn ProducesTickets>;

/// Tickets with random keys, which change every few hours.
///
/// # Errors
/// [`TlsError::Settings`] when there is no randomness.
pub(crate) fn random_tickets() -> Result<Tickets, TlsError> {
    aws_lc_rs::Ticketer::new().map_err(TlsError::Settings)
}

/// The settings of the HTTPS listener: TLS 1.2 and 1.3 (RFC 9325 §3.1.1), ALPN for every version of HTTP that is served (what names
/// none of them is refused, RFC 7301 §3.2), tickets, no early data.
///
/// # Errors
/// [`TlsError::Settings`] when rustls refuses them.
pub(crate) fn server_config(
    settings: &config::TlsSettings,
    certificates: Arc<Certificates>,
    tickets: Tickets,
) -> Result<ServerConfig, TlsError> {
    let mut config = versions(settings.only_tls13)?.with_no_client_auth().with_cert_resolver(certificates);
    config.alpn_protocols = [&b"h2"[..], b"http/1.1", b"http/1.0"].map(<[u8]>::to_vec).into();
    config.ticketer = tickets::shared(settings)?.unwrap_or(tickets);
    Ok(config)
}

fn versions(only_tls13: bool) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, TlsError> {
    ServerConfig::builder_with_provider(Arc::new(tls::provider()))
        .with_protocol_versions(tls::versions(only_tls13))
        .map_err(TlsError::Settings)
}

impl Tls {
    /// TLS of the admin listener: HTTP/1.1 alone; clients may show a certificate if there is one to verify it by.
    ///
    /// # Errors
    /// [`TlsError`] when a file does not hold what it should.
    pub(crate) fn of_admin(settings: &config::AdminTls) -> Result<Self, TlsError> {
        let certificates = Arc::new(Certificates::load(std::slice::from_ref(&settings.certificate))?);
        let config = match &settings.client_ca {
            None => versions(false)?.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(tls::roots(path, &tls::certificates(path)?)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(tls::provider()));
                let verifier = verifier.allow_unauthenticated().build().map_err(|error| TlsError::pem(path, error))?;
                versions(false)?.with_client_cert_verifier(verifier)
            }
        };
        let mut config = config.with_cert_resolver(certificates.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificates })
    }
}
