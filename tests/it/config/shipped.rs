//! The shipped configuration files load, and show the true defaults and every key.

use super::*;

#[test]
fn the_shipped_files_load() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tls")).unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for (file, text) in [
        ("tls/fullchain.pem", &*made.cert.pem()),
        ("tls/privkey.pem", &made.signing_key.serialize_pem()),
        ("tokens.yaml", "tokens: []\n"),
    ] {
        fs::write(folder.path().join(file), text).unwrap();
        fs::set_permissions(folder.path().join(file), Permissions::from_mode(0o600)).unwrap();
    }
    for (name, text, defines) in [
        ("callgate.yaml", SHIPPED, "4 routes, 3 upstreams, 2 plans, store memory"),
        ("minimal.yaml", MINIMAL, "1 route, 1 upstream, 1 plan, store memory"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let (good, out, err) = checked(&path);
        assert!(good && err.is_empty(), "{err}");
        assert_eq!(out, format!("{}: good: {defines}\n", path.display()));
        let config = config::load(&path).unwrap().config;
        assert_eq!(config.tls.certificates[0].cert, folder.path().join("tls/fullchain.pem"));
        assert_eq!(config.tokens.file, Some(folder.path().join("tokens.yaml")));
    }
}

#[test]
fn the_minimal_file_means_the_defaults() {
    let config = good(MINIMAL);
    assert_eq!(config.listen.https.to_string(), "0.0.0.0:8443");
    assert_eq!(config.listen.http, None);
    assert_eq!(config.listen.admin.to_string(), "127.0.0.1:9901");
    assert!(matches!(config.store, Store::Memory));
    assert!(config.limits.x_ratelimit && !config.limits.ietf);
    assert_eq!(&*config.default_plan.name, "standard");
    let limits: Vec<_> = config.default_plan.limits.iter().map(|l| (&*l.name, l.count, l.window_ms.get())).collect();
    assert_eq!(limits, [("minute", 60, 60_000), ("hour", 1_000, 3_600_000)]);
    let route = &config.routes[0];
    assert_eq!((&*route.name, &*route.path), ("/api/v1/{*rest}", "/api/v1/{*rest}"));
    assert_eq!(route.access, RouteAccess::Token(Vec::new()));
    assert_eq!(route.max_body, 1 << 30);
    assert_eq!(config.upstreams[route.upstream.choose(None)].endpoints[0].to_string(), "http://127.0.0.1:3000");
    assert_eq!(config.log.format, LogFormat::Auto);
}

/// Lines of the shipped file with a key, a value and no `Example:` claim to be the default: so nothing may change when such a
/// line is removed.
#[test]
fn the_shipped_file_shows_the_true_defaults() {
    let whole = debug_text(&good(SHIPPED));
    let lines: Vec<&str> = SHIPPED.lines().collect();
    let mut claims = 0;
    for (index, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_claim =
            code.split_once(": ").is_some_and(|(key, _)| !key.contains(['#', '-', ' '])) && !line.contains("# Example");
        // Limits of the second plan have no default; they are under an example.
        if !is_claim || line.contains("6000/1m") || line.contains("100000/1h") {
            continue;
        }
        claims += 1;
        let without: Vec<&str> = lines.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, line)| *line).collect();
        assert_eq!(debug_text(&good(&without.join("\n"))), whole, "line {} is no default: {line}", index + 1);
    }
    assert!(claims >= 35, "only {claims} lines were found");
}

/// The shipped file with every line that starts with `#` and a key switched on, and those in the way of Redis switched off.
pub(super) fn switched_on() -> String {
    let on =
        SHIPPED.lines().filter(|line| *line != "store: memory" && !line.contains("file: tokens.yaml")).map(|line| {
            let code = line.trim_start();
            let key = code.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
            key.map_or_else(|| line.to_owned(), |rest| format!("{}{rest}", &line[..line.len() - code.len()]))
        });
    on.collect::<Vec<_>>().join("\n").replace("http://10.0.0.11:3000", "https://10.0.0.11:3000")
}

#[test]
fn the_shipped_file_loads_with_everything_switched_on() {
    let config = good(&switched_on());
    assert_eq!(config.listen.http.unwrap().port(), 8080);
    let Store::Redis(redis) = &config.store else { panic!("not Redis") };
    assert!(matches!(&redis.servers, RedisServers::Single(node) if node.to_string() == "127.0.0.1:6379"));
    assert_eq!((&*redis.namespace, redis.on_failure), ("callgate", OnFailure::Local));
    assert_eq!((redis.deadline, redis.connect_timeout), (Duration::from_millis(50), Duration::from_secs(1)));
    assert_eq!(config.routes[0].first_byte_timeout, Some(Duration::from_secs(30)));
    assert_eq!(config.upstreams[0].tls.ca.as_deref(), Some(Path::new("tls/internal-ca.pem")));

    // The values there for Redis are defaults, too.
    let bare = "store: { redis: { url: \"redis://127.0.0.1:6379\" } }\n";
    let bare = good(&MINIMAL.replace("tokens: { file: tokens.yaml }", bare));
    assert_eq!(format!("{:?}", config.store), format!("{:?}", bare.store));
}

/// Every key that a configuration may have, with `[]` for an index and `*` for a name of the operator's choice. A key is one
/// that the compiler's sources name, and that the section does not call unknown.
pub(super) fn known_keys() -> BTreeSet<String> {
    let sources = fs::read_dir("src/config/compile").unwrap();
    let sources: String = sources.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let is_key =
        |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b"_0123456789".contains(&b));
    let words: BTreeSet<&str> = sources.split('"').filter(is_key).collect();
    let mut found = BTreeSet::new();
    let mut sections = vec![("X".to_owned(), String::new())];
    while let Some((text, path)) = sections.pop() {
        let unknown = |keys: &str| messages(&text.replace('X', &format!("{{ {keys} }}")));
        if !unknown("NONE: ").contains("NONE: unknown key") {
            continue;
        }
        let keys: Vec<String> = words.iter().map(|word| format!("{word}: ")).collect();
        let said = unknown(&keys.join(", "));
        let refused = said.lines().filter_map(|line| line.split_once(": unknown key")?.0.rsplit(['.', ' ']).next());
        let refused: BTreeSet<&str> = refused.collect();
        for word in words.difference(&refused) {
            let key = format!("{path}{word}");
            for (form, below) in [("X", "."), ("[X]", "[]."), ("{ a: X }", ".*.")] {
                sections.push((text.replace('X', &format!("{{ {word}: {form} }}")), format!("{key}{below}")));
            }
            found.insert(key);
        }
    }
    found
}

#[test]
fn the_shipped_file_has_every_key() {
    let keys = known_keys();
    for key in &keys {
        let last = key.rsplit('.').next().unwrap();
        let found = SHIPPED.match_indices(&format!("{last}:")).any(|(at, _)| SHIPPED[..at].ends_with(['\n', ' ', '#']));
        assert!(found, "{key} is not in config/callgate.yaml");
    }
    for key in
        ["routes[].call.max_duration", "store.redis.on_failure", "upstreams.*.health.path", "admin.tokens[].role"]
    {
        assert!(keys.contains(key), "{key} was not found");
    }
    assert!(keys.len() > 150, "{} keys", keys.len());
}
