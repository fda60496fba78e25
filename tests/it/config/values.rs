//! Values of settings: variables, files, Redis servers, anchors.

use super::*;

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
  calls: { endpoints: ["http://10.0.0.11:3000", "http://10.0.0.12:3000"], health: { path: /healthz } }
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
