//! The text of a configuration file without the secrets in it, for people who may look at a running instance.

use super::{Config, RedisServers, Store};

const REDACTED: &str = "[redacted]";
/// A password that is shorter is also part of ordinary words; where it is written, its key is the only sign.
const MIN_SECRET: usize = 8;
/// Keys whose values are secrets, or as good as.
const SECRET_KEYS: [&str; 2] = ["password", "sha256"];

/// Replaces passwords and hashes, wherever they are written. References such as `${NAME}` stay.
pub(super) fn redacted(text: &str, config: &Config) -> String {
    let mut text: String = text.split_inclusive('\n').map(redacted_line).collect();
    let mut secrets: Vec<&str> = Vec::new();
    if let Store::Redis(store) = &config.store {
        let sentinel = match &store.servers {
            RedisServers::Sentinel(sentinel) => sentinel.login.as_ref(),
            RedisServers::Single(_) | RedisServers::Cluster(_) => None,
        };
        secrets.extend(store.login.iter().chain(sentinel).map(|login| login.password.expose()));
    }
    for secret in secrets.into_iter().filter(|secret| secret.len() >= MIN_SECRET) {
        text = text.replace(secret, REDACTED);
    }
    text
}

/// By its keys, and by the form of URLs with a login.
fn redacted_line(line: &str) -> String {
    let mut line = line.to_owned();
    for key in SECRET_KEYS {
        let mut from = 0;
        while let Some(at) = line[from..].find(key).map(|at| from + at) {
            from = at + key.len();
            let rest = &line[from..];
            // The key may be quoted itself.
            let value = rest.trim_start_matches(['"', '\'']).trim_start().strip_prefix(':').map(str::trim_start);
            let Some(value) = value.filter(|value| !value.is_empty() && !value.starts_with('$')) else { continue };
            let start = line.len() - value.len();
            let end = start + value_len(value);
            line.replace_range(start..end, REDACTED);
            from = start + REDACTED.len();
        }
    }
    let mut from = 0;
    while let Some(at) = line[from..].find("://").map(|at| from + at + 3) {
        from = at;
        let authority = line[at..].find(['/', '"', '\'', ' ', ',', '\n', '}']).map_or(line.len(), |end| at + end);
        // A password may hold what ends other parts, but no `@`.
        let Some(end) =
            line[at..].find('@').map(|end| at + end).filter(|end| *end < authority || line[at..*end].contains(':'))
        else {
            continue;
        };
        if let Some(colon) = line[at..end].find(':').map(|colon| at + colon + 1)
            && !line[colon..end].starts_with('$')
            && !line[colon..end].contains(' ')
        {
            line.replace_range(colon..end, REDACTED);
        }
    }
    line
}

/// Bytes of a scalar: to its closing quote, or to what ends it in a flow.
fn value_len(value: &str) -> usize {
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].find(quote).map_or(value.trim_end().len(), |end| end + 2),
        _ => value.find([',', '}', '\n', '\r']).map_or(value.len(), |end| value[..end].trim_end().len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_left_and_nothing_else_is_gone() {
        for (line, shown) in [
            ("password: hunter2\n", "password: [redacted]\n"),
            (
                "  - { name: ops, role: write, sha256: \"ab cd\" } # x\n",
                "  - { name: ops, role: write, sha256: [redacted] } # x\n",
            ),
            ("redis: { user: a, password: 'it', tls: true }", "redis: { user: a, password: [redacted], tls: true }"),
            ("{\"password\": \"a\", \"sha256\": \"b\"}", "{\"password\": [redacted], \"sha256\": [redacted]}"),
            ("password: ${REDIS_PASSWORD}\n", "password: ${REDIS_PASSWORD}\n"),
            ("url: \"redis://gate:p%40ss@10.0.0.1:6379/0\"\n", "url: \"redis://gate:[redacted]@10.0.0.1:6379/0\"\n"),
            ("url: \"redis://:secret@host\"", "url: \"redis://:[redacted]@host\""),
            ("url: redis://:${PASS}@host", "url: redis://:${PASS}@host"),
            (
                "endpoints: [\"http://10.0.0.11:3000\", \"http://a:1\"] # mail@x",
                "endpoints: [\"http://10.0.0.11:3000\", \"http://a:1\"] # mail@x",
            ),
            ("# the password is in a file\n", "# the password is in a file\n"),
        ] {
            assert_eq!(redacted_line(line), shown);
        }
    }

    #[test]
    fn the_text_of_a_configuration_is_kept_without_its_password() {
        let text = "store: { redis: { url: \"redis://gate:hunter2x@127.0.0.1:6379\" } }\n# hunter2x\n\
                    tls: { certificates: [{ cert: a, key: a }] }\nroutes: [{ path: /, upstream: a }]\n\
                    upstreams: { a: { endpoints: [\"http://a\"] } }\n";
        let config = super::super::parse("a.yaml".as_ref(), text, &|_| None).unwrap().config;
        assert_eq!(&*config.text, text.replace("hunter2x", "[redacted]"));
    }
}
