//! Commands that mend a file, ready to be pasted into a shell.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::facts::Facts;

/// The longest common name (RFC 5280, appendix A.1: `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;

/// A file as an argument of a command.
pub(super) fn argument(file: &Path) -> String {
    word(&file.display().to_string())
}

/// The name of the file that a command makes from another one: `key.der` becomes `key.new.pem`.
pub(super) fn result_file(file: &Path, extension: &str) -> PathBuf {
    file.with_extension(format!("new.{extension}"))
}

/// `openssl` with `arguments`, which reads this file and writes another.
pub(super) fn openssl(arguments: &str, file: &Path) -> String {
    format!("`openssl {arguments} -in {} -out {}`", argument(file), argument(&result_file(file, "pem")))
}

/// A command that prints what should be in the file.
pub(super) fn convert(command: &str, file: &Path) -> String {
    format!("`{command} {} > {}`", argument(file), argument(&result_file(file, "pem")))
}

/// The command that makes a request for a certificate like this one (or for the host gate.example.com): for the private key in
/// `key`, or with a new one.
pub(super) fn request(like: Option<&Facts>, file: &Path, key: Option<&Path>) -> String {
    let mut names: Vec<String> = Vec::new();
    if let Some(facts) = like {
        names.extend(facts.names.iter().map(|name| format!("DNS:{name}")));
        names.extend(facts.addresses.iter().map(|address| format!("IP:{address}")));
        if names.is_empty() {
            // Names of people, companies and authorities are no hosts.
            let is_host = |name: &&String| name.contains('.') && !name.contains([' ', ',', '/', '@']);
            let host = facts.common_name.iter().find(is_host);
            names.extend(host.map(|name| format!("DNS:{name}")));
        }
    }
    if names.is_empty() {
        names.push("DNS:gate.example.com".to_owned());
    }
    let first = names[0].split_once(':').map_or("", |(_, name)| name);
    let subject = if first.len() <= MAX_COMMON_NAME { format!("/CN={first}") } else { "/".to_owned() };
    let mut command = "`openssl req -new".to_owned();
    // Writing to a text can't fail.
    let _ = match key {
        Some(key) => write!(command, " -key {}", argument(key)),
        None => {
            let key = argument(&result_file(file, "pem"));
            write!(command, " -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key}")
        }
    };
    let alternatives = word(&format!("subjectAltName={}", names.join(",")));
    let _ = write!(command, " -subj {} -addext {alternatives}", word(&subject));
    let _ = write!(command, " -out {}`", argument(&result_file(file, "csr")));
    command
}

/// The command that writes the certificates of a file in this order.
pub(super) fn reorder(file: &Path, order: &[usize]) -> String {
    let places: String = order.iter().map(|index| format!(" c[{}]", index + 1)).collect();
    convert(&format!("awk '/-BEGIN CERT/ {{n++}} {{c[n] = c[n] $0 RS}} END {{printf \"%s\",{places}}}'"), file)
}

/// A word of a shell's command line, in quotes if it needs them.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
