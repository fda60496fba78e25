//! Bad certificates and keys, and what is said of each.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::*;

const DAY: u64 = 86_400;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.0.path().join(name);
        std::fs::write(&file, content).unwrap();
        file
    }

    /// What is said of a chain and a key, each without the folder's name.
    fn said(&self, cert: &Path, key: &Path, purpose: Purpose) -> (Vec<Finding>, Option<String>) {
        let folder = format!("{}/", self.0.path().display());
        let plain = |text: String| text.replace(&folder, "");
        let found = check_chain(cert, key, purpose, now()).into_iter().map(|finding| match finding {
            Finding::Unusable(text) => Finding::Unusable(plain(text)),
            Finding::Doubtful(text) => Finding::Doubtful(plain(text)),
        });
        (found.collect(), check_key(key, cert).map(plain))
    }

    fn of_server(&self, cert: &Path, key: &Path) -> (Vec<Finding>, Option<String>) {
        self.said(cert, key, Purpose::Server)
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * DAY)
}

fn named(name: &str, names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn pair(params: &CertificateParams) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn unusable(text: &str) -> Vec<Finding> {
    vec![Finding::Unusable(text.to_owned())]
}

fn doubtful(text: &str) -> Vec<Finding> {
    vec![Finding::Doubtful(text.to_owned())]
}

#[test]
fn a_good_pair_is_good() {
    let folder = Folder::new();
    let (cert, key) = pair(&named("a.test", &["a.test", "127.0.0.1"]));
    let both = folder.write("both.pem", format!("{key}{cert}"));
    let (cert, key) = (folder.write("cert.pem", cert), folder.write("key.pem", key));
    assert_eq!(folder.of_server(&cert, &key), (vec![], None));
    assert_eq!(folder.of_server(&both, &both), (vec![], None));
}

#[test]
fn a_key_of_another_certificate_is_reported_with_a_comparison() {
    let folder = Folder::new();
    let (cert, _) = pair(&named("a.test", &["a.test"]));
    let (_, other) = pair(&named("a.test", &["a.test"]));
    let (cert, key) = (folder.write("cert.pem", cert), folder.write("a key.pem", other));
    let (chain, said) = folder.of_server(&cert, &key);
    assert_eq!(chain, []);
    let said = said.unwrap();
    assert!(said.starts_with("is not the key of the first certificate in cert.pem (`openssl pkey -in '"), "{said}");
    assert!(said.contains("a key.pem' -pubout` must print the same as `openssl x509 -in cert.pem"), "{said}");
}

#[test]
fn swapped_files_are_reported_once() {
    let folder = Folder::new();
    let (cert, key) = pair(&named("a.test", &["a.test"]));
    let (cert, key) = (folder.write("cert.pem", cert), folder.write("key.pem", key));
    let wanted = unusable("holds the private key, not the certificates (swap `cert` and `key`)");
    assert_eq!(folder.of_server(&key, &cert), (wanted, None));
    // Each alone.
    let said = folder.of_server(&key, &key);
    assert_eq!(said, (unusable("holds a private key, not a certificate (is this the file of `key`?)"), None));
    let said = folder.of_server(&cert, &cert);
    assert_eq!(said, (vec![], Some("holds a certificate, not a private key (is this the file of `cert`?)".to_owned())));
}

#[test]
fn what_is_no_pem_is_named() {
    let folder = Folder::new();
    let (cert, key) = pair(&named("a.test", &["a.test"]));
    let der = certificates(&folder.write("c", &cert)).unwrap();
    let secret = private_key(&folder.write("k", &key)).unwrap();
    let good_key = folder.write("key.pem", &key);
    let marked = [b"\xef\xbb\xbf", cert.as_bytes()].concat();
    let utf16: Vec<u8> = format!("\u{feff}{cert}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (content, wanted) in [
        (&b""[..], "is empty (it must hold the certificates in PEM form, the server's own first)"),
        (b" \n\n", "is empty (it must hold the certificates in PEM form, the server's own first)"),
        (b"nonsense", "holds no certificate in PEM form (it must have a line -----BEGIN CERTIFICATE-----)"),
        (&der[0], "is DER, not PEM (convert it: `openssl x509 -inform DER -in x.crt -out x.new.pem`)"),
        (secret.secret_der(), "holds a private key in DER, not a certificate (is this the file of `key`?)"),
        (&marked, "begins with a byte order mark (remove it: `tail -c +4 x.crt > x.new.pem`)"),
        (&utf16, "is UTF-16 text (convert it: `iconv -f UTF-16 -t ASCII x.crt > x.new.pem`)"),
        (&cert.as_bytes()[..200], "is cut off: its last -----BEGIN has no -----END (copy it once more)"),
    ] {
        let (chain, _) = folder.of_server(&folder.write("x.crt", content), &good_key);
        // Commands name the whole path.
        assert_eq!(chain, unusable(wanted));
    }
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let encrypted_of_old = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
                            -----END EC PRIVATE KEY-----\n";
    let decrypt =
        "is encrypted, but Callgate can't ask for its password (decrypt it: `openssl pkey -in x.key -out x.new.pem`)";
    let good_cert = folder.write("cert.pem", &cert);
    for (content, wanted) in [
        (&b""[..], "is empty (it must hold the private key in PEM form)"),
        (secret.secret_der(), "is DER, not PEM (convert it: `openssl pkey -inform DER -in x.key -out x.new.pem`)"),
        (&der[0], "holds certificates in DER, not a private key (is this the file of `cert`?)"),
        (encrypted.as_bytes(), decrypt),
        (encrypted_of_old.as_bytes(), decrypt),
        (b"nonsense", "holds no private key in PEM form (it must have a line -----BEGIN PRIVATE KEY-----)"),
    ] {
        let (chain, said) = folder.of_server(&good_cert, &folder.write("x.key", content));
        assert_eq!((chain, said.as_deref()), (vec![], Some(wanted)));
    }
}

/// A root, an intermediate and a server's certificate, as PEM, and the server's key.
fn chain() -> ([String; 3], String) {
    let authority = |name: &str| {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let (root_key, middle_key, key) =
        (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root = authority("Root").self_signed(&root_key).unwrap().pem();
    let root_issuer = Issuer::new(authority("Root"), root_key);
    let middle = authority("Middle").signed_by(&middle_key, &root_issuer).unwrap().pem();
    let middle_issuer = Issuer::new(authority("Middle"), middle_key);
    let own = named("a.test", &["a.test"]).signed_by(&key, &middle_issuer).unwrap().pem();
    ([root, middle, own], key.serialize_pem())
}

#[test]
fn the_order_of_a_chain_is_judged() {
    let folder = Folder::new();
    let ([root, middle, own], key) = chain();
    let key = folder.write("key.pem", key);
    let said = |parts: &[&String], key: &Path| {
        let text: String = parts.iter().map(|part| part.as_str()).collect();
        folder.of_server(&folder.write("c.pem", text), key)
    };
    for good in [&[&own][..], &[&own, &middle], &[&own, &middle, &root]] {
        assert_eq!(said(good, &key), (vec![], None));
    }
    let first = unusable(
        "is in the wrong order: certificate 3 (CN=a.test) must be the first (sort it: \
         `awk '/-BEGIN CERT/ {n++} {c[n] = c[n] $0 RS} END {printf \"%s\", c[3] c[2] c[1]}' c.pem > c.new.pem`)",
    );
    assert_eq!(said(&[&root, &middle, &own], &key), (first.clone(), None));
    // Also when the key says nothing.
    let (chain, _) = said(&[&root, &middle, &own], &folder.write("empty.pem", ""));
    assert_eq!(chain, first);
    let later = doubtful(
        "holds certificate 2 (CN=Root), which did not sign the one before it: some clients can't verify the chain (sort it: \
         `awk '/-BEGIN CERT/ {n++} {c[n] = c[n] $0 RS} END {printf \"%s\", c[1] c[3] c[2]}' c.pem > c.new.pem`)",
    );
    assert_eq!(said(&[&own, &root, &middle], &key), (later, None));
    let (chain, _) = said(&[&own, &root], &key);
    let [Finding::Doubtful(text)] = &chain[..] else { panic!("{chain:?}") };
    assert!(
        text.contains("CN=Root") && text.contains("(add the issuer, or leave out what does not belong: "),
        "{text}"
    );
    let authority = unusable(
        "holds the certificate of an authority (CN=Middle), not the one of the key (of certbot's files it is fullchain.pem)",
    );
    assert_eq!(said(&[&middle], &key), (authority, None));
}

#[test]
fn the_time_of_a_certificate_is_judged() {
    let folder = Folder::new();
    let said = |from: u64, to: u64| {
        let mut params = named("a.test", &["a.test", "10.0.0.1"]);
        let time =
            |hours: u64| (SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * DAY - 100 * DAY + hours * 3600)).into();
        (params.not_before, params.not_after) = (time(from), time(to));
        let (cert, key) = pair(&params);
        let (chain, said) = folder.of_server(&folder.write("c.pem", cert), &folder.write("k.pem", key));
        assert_eq!(said, None);
        let [Finding::Doubtful(text)] = &chain[..] else { return format!("{chain:?}") };
        text.clone()
    };
    let now = 100 * 24;
    assert_eq!(said(0, now + 14 * 24), "[]");
    let request = "(renew it, for example by this request: `openssl req -new -key k.pem -subj /CN=a.test -addext \
                   subjectAltName=DNS:a.test,IP:10.0.0.1 -out c.new.csr`)";
    assert_eq!(said(0, now + 14 * 24 - 1), format!("expires on 2024-10-17T23:00:00Z, in 13 days {request}"));
    assert_eq!(said(0, now - 49), format!("expired on 2024-10-01T23:00:00Z, 2 days ago: clients refuse it {request}"));
    let early = said(now + 30, now + 900);
    assert!(
        early.starts_with("becomes valid on 2024-10-05T06:00:00Z, in 1 day: until then clients refuse it ("),
        "{early}"
    );
}

#[test]
fn a_certificate_without_names_is_only_for_clients() {
    let folder = Folder::new();
    let (cert, key) = pair(&named("gate.test", &[]));
    let (cert, key) = (folder.write("c.pem", cert), folder.write("k.pem", key));
    assert_eq!(folder.said(&cert, &key, Purpose::Client), (vec![], None));
    let wanted = doubtful(
        "holds a certificate that names no host, which most clients refuse (ask for one with names by this request: `openssl req \
         -new -key k.pem -subj /CN=gate.test -addext subjectAltName=DNS:gate.test -out c.new.csr`)",
    );
    assert_eq!(folder.of_server(&cert, &key), (wanted, None));
}

#[test]
fn two_certificates_for_one_name_are_reported() {
    let folder = Folder::new();
    let write = |file: &str, names: &[&str]| folder.write(file, pair(&named("x", names)).0);
    let files = [
        write("a.pem", &["a.test", "b.test"]),
        write("c.pem", &["c.test", "*.b.test"]),
        folder.write("bad.pem", ""),
        write("b.pem", &["B.test", "a.test", "d.test"]),
        write("d.pem", &["D.test"]),
    ];
    let found = shared_names(&files);
    let first = files[0].display();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].0 == 3
            && found[0]
                .1
                .starts_with(&format!("is for b.test and 1 more of its names, as is {first}, which comes first"))
    );
    assert!(found[1].0 == 4 && found[1].1.starts_with(&format!("is for d.test, as is {}, ", files[3].display())));
}

/// `openssl x509 -req` makes such certificates where nobody asks for extensions.
const VERSION_1: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBHjCBxQIUec2AVxJDTNm+XgmRtomO4XCmj+wwCgYIKoZIzj0EAwIwETEPMA0G\n\
A1UEAwwGYS50ZXN0MCAXDTI2MTEzMDE5MTkyMloYDzIxMjUwNjI0MTkxOTIyWjAR\n\
MQ8wDQYDVQQDDAZhLnRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARdOce8\n\
UU/7pbBT8h5WHO3BOtFAo0hlMdPEaADAN+kikbIvSFWj1rgcWsHN0ulcnT1Lm1+5\n\
fTYTVu5/TpuBLBbdMAoGCCqGSM49BAMCA0gAMEUCIF3v+du0QoDrV5SxlBGjUl45\n\
cAaiSdyhzzGFY8E/FZyEAiEAzQzORaV/Wx9IVEIyrWN5HAPeH6lbml8+imzugI1T\n\
Xw4=\n\
-----END CERTIFICATE-----\n";
const ITS_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgm5Yk7KQLcQJ/XwUG\n\
HPNz58LuixRyOycN6aYz6pFhCsuhRANCAARdOce8UU/7pbBT8h5WHO3BOtFAo0hl\n\
MdPEaADAN+kikbIvSFWj1rgcWsHN0ulcnT1Lm1+5fTYTVu5/TpuBLBbd\n\
-----END PRIVATE KEY-----\n";

#[test]
fn a_certificate_of_version_1_is_reported() {
    let folder = Folder::new();
    let (cert, key) = (folder.write("c.pem", VERSION_1), folder.write("k.pem", ITS_KEY));
    let wanted = unusable(
        "holds a certificate of version 1, which can't name hosts (ask for one with names by this request: `openssl req -new -key \
         k.pem -subj /CN=a.test -addext subjectAltName=DNS:a.test -out c.new.csr`)",
    );
    assert_eq!(folder.of_server(&cert, &key), (wanted, None));
}
