//! The configuration compiler against files: shipped ones, bad ones, mutated ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use callgate::cli::check::report;
use callgate::config::{
    self, Config, HostHeader, LogFormat, OnFailure, Problems, RedisLogin, RedisNode, RedisServers, RouteAccess,
    Severity, Store,
};
use proptest::prelude::{ProptestConfig, any, prop};
use proptest::{prop_assert, proptest};

/// Set to rewrite the expected texts; look at the difference before you keep it.
const REWRITE: &str = "REWRITE_EXPECTED";

const SHIPPED: &str = include_str!("../../config/callgate.yaml");
const MINIMAL: &str = include_str!("../../config/minimal.yaml");

fn parse(text: &str) -> Result<config::Loaded, Problems> {
    config::parse(Path::new("callgate.yaml"), text, &|_| None)
}

fn good(text: &str) -> Config {
    match parse(text) {
        Ok(loaded) => {
            assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
            loaded.config
        }
        Err(problems) => panic!("{problems}\nin\n{text}"),
    }
}

/// The problems of a text, one per line: errors, or warnings.
fn messages(text: &str) -> String {
    match parse(text) {
        Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        Err(problems) => problems.to_string(),
    }
}

/// All of a configuration, to compare two.
fn debug_text(config: &Config) -> String {
    format!("{config:#?}")
}

/// What `callgate check` says about a file.
fn checked(path: &Path) -> (bool, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let good = report(path, false, &mut out, &mut err).unwrap();
    (good, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn compare(expected: &Path, actual: &str) -> Result<(), String> {
    if std::env::var_os(REWRITE).is_some() {
        fs::write(expected, actual).unwrap();
    }
    let wanted = fs::read_to_string(expected).unwrap_or_default();
    if wanted == actual { Ok(()) } else { Err(format!("{}\nwanted:\n{wanted}\ngot:\n{actual}", expected.display())) }
}

#[test]
fn every_bad_file_is_reported_exactly() {
    // Relative, so that the texts are the same everywhere; cargo runs tests in the package's folder.
    let mut files: Vec<PathBuf> =
        fs::read_dir("tests/config/bad").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let bad: Vec<&PathBuf> = files.iter().filter(|path| path.extension().is_some_and(|ext| ext == "yaml")).collect();
    assert!(bad.len() >= 45, "only {} bad files", bad.len());
    let mut wrong = Vec::new();
    for path in &bad {
        let (problems, severity) = match config::load(path) {
            Ok(loaded) => (loaded.warnings, Severity::Warning),
            Err(problems) => (problems.iter().cloned().collect(), Severity::Error),
        };
        assert!(!problems.is_empty(), "nothing is wrong with {}", path.display());
        assert!(problems.iter().all(|problem| problem.severity == severity), "{}", path.display());
        let text: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
        assert!(!text.contains("hunter2"), "a password is repeated: {text}");
        wrong.extend(compare(&path.with_extension("txt"), &text).err());
    }
    for text in files.iter().filter(|path| path.extension().is_some_and(|ext| ext == "txt")) {
        assert!(text.with_extension("yaml").exists(), "{} belongs to no file", text.display());
    }
    assert!(wrong.is_empty(), "{}\n(set {REWRITE} to rewrite them)", wrong.join("\n"));
}

#[test]
fn many_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let path = Path::new("tests/config/many.yaml");
    let problems = config::load(path).unwrap_err();
    let places: Vec<_> = problems.iter().map(|problem| (problem.line, problem.column)).collect();
    assert!(places.is_sorted(), "{places:?}");
    compare(&path.with_extension("txt"), &format!("{problems}\n")).unwrap_or_else(|text| panic!("{text}"));
}

#[test]
fn the_shipped_files_load() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tls")).unwrap();
    for file in ["tls/fullchain.pem", "tls/privkey.pem", "tokens.yaml"] {
        fs::write(folder.path().join(file), "").unwrap();
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
    assert_eq!(config.log.format, LogFormat::Json);
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

/// Every line that starts with `#` and a key can be switched on, and those in the way of Redis switched off.
#[test]
fn the_shipped_file_loads_with_everything_switched_on() {
    let on =
        SHIPPED.lines().filter(|line| *line != "store: memory" && !line.contains("file: tokens.yaml")).map(|line| {
            let code = line.trim_start();
            let key = code.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
            key.map_or_else(|| line.to_owned(), |rest| format!("{}{rest}", &line[..line.len() - code.len()]))
        });
    let text = on.collect::<Vec<_>>().join("\n").replace("http://10.0.0.11:3000", "https://10.0.0.11:3000");
    let config = good(&text);
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

#[test]
fn the_shipped_file_has_every_key() {
    for key in config::known_keys() {
        let last = key.rsplit('.').next().unwrap();
        if last != "*" {
            let found = SHIPPED.lines().any(|line| {
                let line = line.trim_start().trim_start_matches(['#', '-']).trim_start();
                line.strip_prefix(last).is_some_and(|rest| rest.starts_with(':'))
            });
            assert!(found, "{key} is not in config/callgate.yaml");
        }
    }
    assert!(config::known_keys().contains("routes[].call.max_duration"));
    assert!(config::known_keys().contains("store.redis.on_failure"));
    assert!(config::known_keys().len() > 70);
}

#[test]
fn the_outline_of_the_contract_compiles() {
    let config = good(
        r#"
listen:   { https: "0.0.0.0:8443", admin: "127.0.0.1:9901" }        # http: absent unless asked for
tls:      { certificates: [{ cert: tls/fullchain.pem, key: tls/privkey.pem }] }
store:    { redis: { url: "redis://127.0.0.1:6379", deadline: 50ms, on_failure: deny } }
tokens:   { prefix: kal_live }
plans:
  standard:   { limits: { minute: 60/1m, hour: 1000/1h } }
  enterprise: { limits: { minute: 6000/1m, hour: 100000/1h } }
default_plan: standard
routes:
  - { path: /api/v1/calls, methods: [GET], permission: "calls:read", upstream: calls }
  - { path: /api/v1/calls, methods: [POST], permission: ["calls:write", "calls:*"], upstream: calls }
  - { path: "/api/v1/calls/{id}/stream", permission: "calls:stream", upstream: media, call: { max_duration: 4h } }
  - { path: "/api/v1/{*rest}", upstream: api, auth: none }
upstreams:
  calls: { endpoints: ["http://10.0.0.11:3000", "http://10.0.0.12:3000"] }
  media: { endpoints: ["https://[2001:db8::1]"], host: endpoint }
  api: { endpoints: ["http://127.0.0.1"] }
"#,
    );
    let names: Vec<&str> = config.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["GET /api/v1/calls", "POST /api/v1/calls", "/api/v1/calls/{id}/stream", "/api/v1/{*rest}"]);
    assert_eq!(config.routes[1].access, RouteAccess::Token(vec!["calls:write".into(), "calls:*".into()]));
    assert_eq!(config.routes[2].call.max_duration, Some(Duration::from_secs(4 * 3600)));
    assert_eq!(config.routes[3].access, RouteAccess::Public);
    assert_eq!(config.routes.iter().map(|route| route.upstream.choose(None)).collect::<Vec<_>>(), [0, 0, 1, 2]);
    assert_eq!(config.upstreams[1].host, HostHeader::Endpoint);
    assert_eq!(config.upstreams[1].endpoints[0].to_string(), "https://[2001:db8::1]:443");
}

#[test]
fn variables_and_files_fill_in_values() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("redis-url"), "redis://:hunter2@127.0.0.1:6380/3\n").unwrap();
    let text = MINIMAL.replace(
        "tokens: { file: tokens.yaml }",
        "listen: { https: \"${ADDRESS}:${PORT:-9443}\", max_connections: \"${MAX}\", idle_timeout: \"${IDLE}\" }\n\
         store: { redis: { url: \"${URL}\" } }\n\
         log:\n  access: ${ACCESS}\n  level: ${LEVEL:-warn}",
    );
    let env = |name: &str| match name {
        "ADDRESS" => Some("127.0.0.1".to_owned()),
        "MAX" => Some("77".to_owned()),
        "IDLE" => Some("5s".to_owned()),
        "ACCESS" => Some("false".to_owned()),
        "URL" => Some("file:redis-url".to_owned()),
        _ => None,
    };
    let config = config::parse(&folder.path().join("callgate.yaml"), &text, &env).unwrap().config;
    assert_eq!(config.listen.https.to_string(), "127.0.0.1:9443");
    assert_eq!((config.listen.max_connections, config.listen.idle_timeout), (77, Duration::from_secs(5)));
    assert!(!config.log.access);
    assert_eq!(&*config.log.level, "warn");
    let Store::Redis(redis) = &config.store else { panic!("not Redis") };
    assert!(matches!(&redis.servers, RedisServers::Single(node) if node.to_string() == "127.0.0.1:6380"));
    let login = redis.login.as_ref().unwrap();
    assert_eq!((&login.user, login.password.expose(), redis.database), (&None, "hunter2", 3));
    assert!(!debug_text(&config).contains("hunter2"));
}

#[test]
fn every_way_to_name_redis_and_its_login_works() {
    let redis = |text: &str| {
        let bare = format!("store: {{ redis: {{ {text} }} }}\n");
        let config = good(&MINIMAL.replace("tokens: { file: tokens.yaml }", &bare));
        assert!(!debug_text(&config).contains("hunter2"));
        let Store::Redis(redis) = config.store else { panic!("not Redis") };
        *redis
    };
    let shown = |nodes: &[RedisNode]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let login = |login: &Option<RedisLogin>| {
        login.as_ref().map(|l| (l.user.as_deref().map(str::to_owned), l.password.expose().to_owned()))
    };

    let cluster =
        redis("cluster: [\"rediss://a:hunter2@n1:7000\", \"rediss://a:hunter2@[::1]\"], ca: ca.pem, cert: c, key: k");
    assert!(matches!(&cluster.servers, RedisServers::Cluster(nodes) if shown(nodes) == "n1:7000 [::1]:6379"));
    assert_eq!(login(&cluster.login), Some((Some("a".into()), "hunter2".into())));
    let tls = cluster.tls.unwrap();
    assert_eq!((tls.ca.as_deref(), tls.client.unwrap().key), (Some(Path::new("ca.pem")), PathBuf::from("k")));

    let text = "sentinel: { service: mymaster, nodes: [\"redis://:hunter22@s1\", \"redis://:hunter22@s2:26380\"] }, \
                username: gate, password: hunter2, database: 4";
    let elected = redis(text);
    let RedisServers::Sentinel(sentinel) = &elected.servers else { panic!("no sentinel") };
    assert_eq!((&*sentinel.service, shown(&sentinel.nodes)), ("mymaster", "s1:26379 s2:26380".to_owned()));
    assert_eq!(login(&sentinel.login), Some((None, "hunter22".into())));
    assert_eq!(login(&elected.login), Some((Some("gate".into()), "hunter2".into())));
    assert_eq!((elected.database, elected.tls.is_some()), (4, false));
}

#[test]
fn the_value_of_a_variable_is_never_printed() {
    for text in [
        "listen: { https: \"${SECRET}\", max_connections: \"${SECRET}\", idle_timeout: \"${SECRET}\", max_head_bytes: \"${SECRET}\" }",
        "store: \"${SECRET}\"",
        "store: { redis: { url: \"${SECRET}\", namespace: \"${SECRET}\", on_failure: \"${SECRET}\" } }",
        "tokens: { prefix: \"${SECRET}\", realm: \"${SECRET}\" }",
        "plans: { a: { limits: { minute: \"${SECRET}\", hour: \"1/${SECRET}\", day: \"${SECRET}/1d\" } } }",
        "default_plan: \"${SECRET}\"",
        "routes: [{ path: \"${SECRET}\", methods: \"${SECRET}\", permission: \"${SECRET}\", upstream: \"${SECRET}\", auth: \"${SECRET}\" }]",
        "routes: [{ path: \"/${SECRET}\", name: \"${SECRET}\", allow_path_forms: \"${SECRET}\", max_body: \"${SECRET}\" }]",
        "upstreams: { a: { endpoints: [\"${SECRET}\", \"http://${SECRET}\", \"http://a:${SECRET}\"], host: \"${SECRET}\" } }",
        "trusted_proxies: \"${SECRET}\"",
        "log: { level: \"${SECRET}\", format: \"${SECRET}\", access: \"${SECRET}\" }",
    ] {
        for secret in ["hunter2 \"\u{e9}", "HUNTER2", "http://hunter2/", "hunter2?"] {
            let problems = config::parse(Path::new("a.yaml"), text, &|_| Some(secret.to_owned())).unwrap_err();
            let said = problems.to_string().to_lowercase();
            assert!(!said.contains("hunter2"), "{text} with {secret}:\n{said}");
        }
    }
}

#[test]
fn anchors_and_merge_keys_work() {
    let config = good(
        "tls: { certificates: [{ cert: a, key: b }] }\ntokens: { file: t }\n\
         routes: [{ path: /a, upstream: a }, { path: /b, upstream: b }]\n\
         upstreams:\n  a: &slow { endpoints: &here [\"http://a\"], connect_timeout: 9s, max_idle: 5 }\n  \
         b:\n    <<: *slow\n    max_idle: 6\n    endpoints: *here\n",
    );
    let [a, b] = [&config.upstreams[0], &config.upstreams[1]];
    assert_eq!((a.connect_timeout, b.connect_timeout), (Duration::from_secs(9), Duration::from_secs(9)));
    assert_eq!((a.max_idle, b.max_idle), (5, 6));
    assert_eq!(a.endpoints, b.endpoints);
}

#[test]
fn a_file_that_cannot_be_read_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callgate.yaml");
    let messages = || config::load(&path).unwrap_err().to_string();
    assert_eq!(messages(), format!("{}: does not exist", path.display()));
    fs::write(&path, b"# \xc3\xa9\ntls: \xff\n").unwrap();
    assert_eq!(messages(), format!("{}:2:6: is not UTF-8 text from here on", path.display()));
    fs::write(&path, vec![b'#'; 9 << 20]).unwrap();
    assert_eq!(messages(), format!("{}: is larger than 8388608 bytes", path.display()));
}

#[test]
fn check_reports_to_people_and_programs() {
    let path = Path::new("tests/config/bad/route-upstream-unknown.yaml");
    let (good, out, err) = checked(path);
    assert!(!good && out.is_empty());
    let line = "tests/config/bad/route-upstream-unknown.yaml:5:27: routes[0].upstream: no upstream is called \"cals\" (did you mean \"calls\"?)";
    assert_eq!(err, format!("{line}\n1 error\n"));

    let json = |path: &str| -> (bool, serde_json::Value) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let good = report(Path::new(path), true, &mut out, &mut err).unwrap();
        assert!(err.is_empty());
        (good, serde_json::from_slice(&out).unwrap())
    };
    let (good, object) = json("tests/config/bad/route-upstream-unknown.yaml");
    assert!(!good);
    assert_eq!(object["ok"], false);
    assert_eq!(object["errors"][0]["path"], "routes[0].upstream");
    assert_eq!((&object["errors"][0]["line"], &object["errors"][0]["column"]), (&5.into(), &27.into()));
    assert_eq!(object["warnings"], serde_json::json!([]));

    let (good, object) = json("tests/config/bad/upstream-unused.yaml");
    assert!(good);
    assert_eq!(object["warnings"][0]["path"], "upstreams.b");
    assert_eq!(object["defines"], serde_json::json!({ "routes": 1, "upstreams": 2, "plans": 1, "store": "memory" }));
}

#[test]
fn parsing_of_hostile_files_is_bounded() {
    let billion_laughs: String =
        (1..30).map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", "))).collect();
    let merges: String =
        (1..30).map(|i| format!("a{i}: &a{i} {{ <<: [*a{p}, *a{p}], k{i}: 1 }}\n", p = i - 1)).collect();
    let keys: String = (0..20_000).map(|i| format!("k{i}: 1\n")).collect();
    let routes: String = (0..20_000).map(|i| format!("  - {{ path: \"/r{i}/{{id}}\", upstream: a }}\n")).collect();
    let names: String = (0..20_000).map(|i| format!("  u{i}: {{ endpoints: [\"http://a\"] }}\n")).collect();
    for (what, text) in [
        ("billion laughs", format!("a0: &a0 [x, x]\n{billion_laughs}")),
        ("merges", format!("a0: &a0 {{ x: 1 }}\n{merges}")),
        ("keys", keys),
        ("lists", "[".repeat(100_000)),
        ("maps", "{a: ".repeat(100_000)),
        ("blocks", (0..2_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect()),
        ("dashes", "- ".repeat(100_000)),
        ("routes", format!("routes:\n{routes}upstreams:\n  a: {{ endpoints: [\"http://a\"] }}\n")),
        ("dangling names", format!("routes:\n{}upstreams:\n{names}", routes.replace("upstream: a", "upstream: b"))),
        ("parameters", format!("routes: [{{ path: \"/{}\" }}]", "{a}/".repeat(50_000))),
        ("dollars", format!("log: {{ level: \"{}\" }}", "${".repeat(500_000))),
        ("level", format!("log: {{ level: \"{}\" }}", "a=info,".repeat(50_000))),
    ] {
        let start = Instant::now();
        assert!(parse(&text).is_err(), "{what}");
        println!("{what}: {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(60), "{what} took {:?}", start.elapsed());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_text_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        messages(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn yaml_like_text_never_panics(parts in prop::collection::vec(0usize..24, 0..60)) {
        let parts: String = parts.into_iter().map(|part| [
            "routes", "upstreams", "store", "redis", ": ", ":\n", "\n", "  ", "- ", "{ ", " }", "[", "]", ", ", "&a ", "*a", "<<", "\"",
            "'", "${A}", "|\n", "#", "\u{feff}", "? ",
        ][part]).collect();
        messages(&parts);
    }

    #[test]
    fn mutated_files_never_panic(edits in prop::collection::vec((0usize..20_000, any::<char>(), 0usize..4), 1..8)) {
        let mut text: Vec<char> = SHIPPED.chars().collect();
        for (at, c, kind) in edits {
            let at = at % text.len();
            match kind {
                0 => text[at] = c,
                1 => text.insert(at, c),
                2 if text.len() > 1 => { text.remove(at); }
                _ => text.truncate(at.max(1)),
            }
        }
        let text: String = text.into_iter().collect();
        for line in messages(&text).lines() {
            prop_assert!(line.starts_with("callgate.yaml:"), "{line}");
        }
    }
}
