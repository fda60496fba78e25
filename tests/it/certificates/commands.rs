//! Bad certificates and keys made by openssl: `callgate check` names each and prints a command, and that command mends it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use callgate::cli::check::report;

use crate::support::gateway::Site;

/// What the commands may need to be typed: the password of all that is encrypted here.
const PASSWORD: &str = " -passin pass:x";

/// A certificate authority with an intermediate, a server's certificate, and the same in other forms.
const FILES: &str = r"
req() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes $* 2>/dev/null; }
sign() { openssl x509 -req -CAcreateserial $* 2>/dev/null; }
printf 'basicConstraints=critical,CA:TRUE\n' > ca.ext
printf 'subjectAltName=DNS:localhost\n' > own.ext
req -x509 -subj /CN=Root -keyout root.key -out root.pem
req -subj /CN=Middle -keyout middle.key -out middle.csr
sign -in middle.csr -CA root.pem -CAkey root.key -extfile ca.ext -out middle.pem
req -subj /CN=localhost -keyout k.pem -out own.csr
sign -in own.csr -CA middle.pem -CAkey middle.key -extfile own.ext -days 60 -out own.pem
cat own.pem middle.pem > c.pem
openssl pkcs8 -topk8 -in k.pem -out encrypted.pem -passout pass:x
openssl pkcs8 -topk8 -in k.pem -outform DER -out encrypted.der -passout pass:x
openssl ec -in k.pem -aes256 -out traditional.pem -passout pass:x 2>/dev/null
openssl pkey -in k.pem -outform DER -out k.der
openssl x509 -in own.pem -outform DER -out c.der
openssl x509 -in own.pem -trustout -out trusted.pem
openssl pkcs12 -export -in own.pem -certfile middle.pem -inkey k.pem -out bundle.p12 -passout pass:x
openssl crl2pkcs7 -nocrl -certfile own.pem -certfile middle.pem -out c.p7b
openssl crl2pkcs7 -nocrl -certfile own.pem -certfile middle.pem -outform DER -out c.p7
cat middle.pem own.pem > reversed.pem
cat own.pem root.pem middle.pem > mixed.pem
openssl req -x509 -newkey rsa:1024 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost -days 60 \
    -keyout rsa1024.key -out rsa1024.pem 2>/dev/null
openssl ecparam -name secp256k1 -genkey -noout -out k1.key
openssl req -x509 -key k1.key -subj /CN=localhost -addext subjectAltName=DNS:localhost -days 60 -out k1.pem
printf 'keyUsage=digitalSignature\n' > nameless.ext
sign -in own.csr -CA middle.pem -CAkey middle.key -extfile nameless.ext -days 60 -out nameless.pem
sign -in own.csr -CA middle.pem -CAkey middle.key -extfile own.ext -days -1 -out expired.pem
chmod 600 *
";

fn shell(site: &Site, script: &str) {
    let output = Command::new("sh").args(["-ec", script]).current_dir(site.folder.path()).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The output of `callgate check` for this pair: whether it is good, and the lines about it.
fn check(site: &Site, cert: &Path, key: &Path) -> (bool, Vec<String>) {
    let (cert, key) = (cert.display(), key.display());
    let text = format!(
        "tls: {{ certificates: [{{ cert: {cert}, key: {key} }}] }}\ntokens: {{ file: t.yaml }}\n\
         routes: [{{ path: /a, upstream: a }}]\nupstreams: {{ a: {{ endpoints: [\"http://127.0.0.1:3000\"] }} }}\n"
    );
    std::fs::write(site.path("check.yaml"), text).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let good = report(&site.path("check.yaml"), false, &mut out, &mut err).unwrap();
    let lines = String::from_utf8(err).unwrap();
    (good, lines.lines().filter(|line| line.contains("tls.certificates[0].")).map(str::to_owned).collect())
}

/// The last command in a message.
fn command(message: &str) -> &str {
    message.rsplit('`').nth(1).unwrap_or_else(|| panic!("no command in {message}"))
}

/// The file that a command writes.
fn written(command: &str) -> &str {
    command.rsplit(' ').next().unwrap()
}

fn site() -> Arc<Site> {
    let site = Site::new("");
    shell(&site, FILES);
    std::fs::write(site.path("t.yaml"), "tokens: []\n").unwrap();
    site
}

#[test]
fn the_command_in_a_message_converts_the_file() {
    let site = site();
    let (cert, key) = (site.path("c.pem"), site.path("k.pem"));
    assert_eq!(check(&site, &cert, &key), (true, vec![]));
    for (file, is_key, wanted) in [
        ("encrypted.pem", true, "is encrypted, but Callgate can't ask for its password"),
        ("encrypted.der", true, "is DER, not PEM, and encrypted"),
        ("traditional.pem", true, "is encrypted, but Callgate can't ask for its password"),
        ("k.der", true, "is DER, not PEM"),
        ("bundle.p12", true, "is PKCS#12, not PEM"),
        ("bundle.p12", false, "is PKCS#12, not PEM"),
        ("c.der", false, "is DER, not PEM"),
        ("trusted.pem", false, "holds a certificate in a form of openssl's own"),
        ("c.p7b", false, "is PKCS#7 ("),
        ("c.p7", false, "is PKCS#7 in DER, not PEM"),
        ("reversed.pem", false, "is in the wrong order: certificate 2 (CN=localhost) must be the first"),
        ("mixed.pem", false, "holds certificate 2 (CN=Root), which did not sign the one before it"),
    ] {
        let with = |file: &Path| if is_key { check(&site, &cert, file) } else { check(&site, file, &key) };
        let (good, said) = with(&site.path(file));
        // Only the order of issuers can be borne.
        assert_eq!((good, said.len()), (file == "mixed.pem", 1), "{file}: {said:?}");
        let place = if is_key { "tls.certificates[0].key: " } else { "tls.certificates[0].cert: " };
        assert!(said[0].contains(&format!("{place}{} {wanted}", site.path(file).display())), "{}", said[0]);
        assert!(said[0].contains("check.yaml:1:"), "{}", said[0]);
        let command = command(&said[0]);
        let asks = command.starts_with("openssl pkcs12") || is_key && file != "k.der";
        shell(&site, &format!("{command}{}", if asks { PASSWORD } else { "" }));
        assert_eq!(with(Path::new(written(command))), (true, vec![]), "{file} after {command}");
    }
}

#[test]
fn the_request_in_a_message_leads_to_a_good_certificate() {
    let site = site();
    for (cert, key, is_error, wanted) in [
        ("rsa1024.pem", "rsa1024.key", true, "rsa1024.key holds an RSA key of 1024 bits, but TLS needs 2048 to 8192"),
        ("k1.pem", "k1.key", true, "k1.key holds a private key of a kind that TLS clients don't know"),
        ("nameless.pem", "k.pem", false, "nameless.pem holds a certificate that names no host"),
        ("expired.pem", "k.pem", false, "expired.pem expired on "),
    ] {
        let key = site.path(key);
        let (good, said) = check(&site, &site.path(cert), &key);
        assert_eq!((good, said.len()), (!is_error, 1), "{cert}: {said:?}");
        assert!(said[0].contains(wanted) && said[0].contains(" warning: ") != is_error, "{}", said[0]);
        let command = command(&said[0]);
        shell(&site, command);
        let new_key = key.with_extension("new.pem");
        let key = if command.contains(" -newkey ") { &new_key } else { &key };
        let sign =
            "openssl x509 -req -CA middle.pem -CAkey middle.key -CAcreateserial -copy_extensions copyall -days 60";
        shell(&site, &format!("{sign} -in {} -out signed.pem", written(command)));
        assert_eq!(check(&site, &site.path("signed.pem"), key), (true, vec![]), "{cert} after {command}");
        shell(&site, "openssl x509 -in signed.pem -noout -ext subjectAltName | grep -q DNS:");
    }
}

#[test]
fn swapped_and_foreign_files_are_reported_once() {
    let site = site();
    for (cert, key, wanted) in [
        ("k.pem", "c.pem", "k.pem holds the private key, not the certificates (swap `cert` and `key`)"),
        ("c.pem", "middle.key", "middle.key is not the key of the first certificate in "),
        ("middle.pem", "k.pem", "middle.pem holds the certificate of an authority (CN=Middle), not the one of the key"),
        ("own.csr", "k.pem", "own.csr holds a request for a certificate, not a certificate"),
    ] {
        let (good, said) = check(&site, &site.path(cert), &site.path(key));
        assert!(!good && said.len() == 1 && said[0].contains(wanted), "{cert} {key}: {said:?}");
    }
}
