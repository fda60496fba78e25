//! `callgate token import` against both stores: what is right is registered, of the rest it is said why not, and done again it does
//! what is left.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use callgate::cli::token::CommandOutput;
use callgate::store::{Redis, StoreHealth};
use callgate::tokens::{Action, TokenHash, TrailFilter};
use serde_json::Value;

use super::commands::{error, run};
use super::*;
use crate::support::client::http2;
use crate::support::gateway::{PROGRAM, Site};
use crate::support::proxy::{Passing, Proxy};
use crate::support::redis::RedisServer;
use crate::support::topology::RedisCluster;
use crate::support::upstream::Upstream;

/// As MySQL's tools write Sanctum's table.
fn sanctum(secrets: &[&str]) -> String {
    let head = "id,tokenable_type,tokenable_id,name,token,abilities,last_used_at,expires_at,created_at,updated_at\n";
    let line = |(id, secret): (usize, &&str)| {
        let hash = TokenHash::of(secret).to_hex();
        format!(
            "{id},App\\Models\\User,{},\"phone \"\"{id}\"\"\",{hash},\"[\"\"calls:read\"\"]\",NULL,NULL,2026-01-31 12:00:00,2026-01-31 12:00:00\n",
            id + 40
        )
    };
    head.to_owned() + &secrets.iter().enumerate().map(line).collect::<String>()
}

fn many(count: usize) -> String {
    let line = |i: usize| format!("{},token-{i},acme\n", TokenHash::of(&format!("secret {i}")).to_hex());
    "sha256,name,account\n".to_owned() + &(0..count).map(line).collect::<String>()
}

/// An export in a file of its own.
fn export(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

async fn import(config: &Config, text: &str, words: &[&str]) -> CommandOutput {
    let file = export(text);
    let path = file.path().to_str().unwrap();
    let mut said = run(config, &[&["import", path], words].concat()).await;
    said.remarks = said.remarks.replace(path, "FILE");
    said
}

async fn imports(config: &Config, registry: &Registry) {
    let text = sanctum(&["first", "second", "third"]);
    let tried = import(config, &text, &["--dry-run"]).await;
    let summary = "Tokens to be imported: 3. Registered before: 0. Left out because they have expired: 0. Wrong: 0.\n";
    assert_eq!((tried.out.as_str(), tried.remarks.as_str()), (summary, ""));
    assert!(all(registry).await.unwrap().is_empty());

    let said = import(config, &text, &["--json"]).await;
    said.result.unwrap();
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((answer["imported"].as_array().unwrap().len(), &answer["complete"]), (3, &true.into()), "{answer}");
    let records = all(registry).await.unwrap();
    let second = records.iter().find(|record| record.account == "user-41").unwrap();
    assert_eq!((&*second.name, &second.permissions[..]), ("phone \"1\"", &["calls:read".to_owned()][..]));
    assert_eq!(second.created_at.unwrap().to_string(), "2026-01-31T12:00:00Z");
    assert_eq!(answer["imported"][1]["id"], *second.id);

    // Everything that can be wrong, between two good ones.
    let hash = |secret: &str| TokenHash::of(secret).to_hex();
    let lines = [
        "sha256,name,account,permissions,plan,expires_at,color".to_owned(),
        format!("{},good,acme,calls:read,enterprise,,red", hash("a")),
        format!("kal_live_{},leaked,acme,,,,", "m4rked".repeat(8)),
        format!("{},{},acme,,,,", hash("b"), "x".repeat(10_000)),
        format!("{},\"a\u{7}b\",acme,,,,", hash("c")),
        format!("{},name,acme,calls read!,nowhere,yesterday,", hash("d")),
        format!("{},name,acme", hash("e")),
        format!("{},again,acme,,,,", hash("a")),
        format!("{},over,acme,,,2020-01-01 00:00:00,", hash("f")),
        format!("{},first,acme,,,,", hash("first")),
        format!("{},good too,,,,,", hash("g")),
    ];
    let said = import(config, &lines.join("\n"), &["--account", "default"]).await;
    assert_eq!(error(&said), "6 of 10 rows were not imported");
    assert_eq!(
        said.out,
        "Tokens imported: 2. Registered before: 1. Left out because they have expired: 1. Wrong: 6.\n"
    );
    for reported in [
        "note: the column \"color\" is ignored",
        "FILE:3: sha256 must be 64 hexadecimal digits: the SHA-256 of the token, not the token itself",
        "FILE:4: name must be 1 to 255 characters, without control characters and surrounding spaces",
        "FILE:5: name must be 1 to 255 characters, without control characters and surrounding spaces",
        "FILE:6: expires_at must be a date in UTC such as 2027-01-31T12:00:00Z or 2027-01-31 12:00:00, or have an offset such as +02",
        "FILE:7: has 3 columns, not 7 as the first line",
        "FILE:8: is the token of line 2 once more",
        "FILE:9: left out: the token has expired",
    ] {
        assert!(said.remarks.lines().any(|line| line == reported), "{reported}\n{}", said.remarks);
    }
    assert!(!said.remarks.contains("m4rked"), "{}", said.remarks);
    let records = all(registry).await.unwrap();
    let found = |name: &str| records.iter().find(|record| record.name == name).unwrap();
    assert_eq!((records.len(), &*found("good too").account), (5, "default"));
    assert_eq!(found("good").plan.as_deref(), Some("enterprise"));

    let again = import(config, &lines[..2].join("\n"), &[]).await;
    again.result.as_ref().unwrap();
    assert!(again.out.starts_with("Tokens imported: 0. Registered before: 1."), "{}", again.out);
    let unknown =
        import(config, &format!("sha256,account,permissions,plan\n{},a,b c!,nowhere\n", hash("h")), &[]).await;
    for reported in ["no plan is called \"nowhere\"", "\"c!\" is not a permission such as calls:read"] {
        assert!(unknown.remarks.contains(reported), "{}", unknown.remarks);
    }

    let mistyped = import(config, &format!("sha256,account,permissions\n{},a,cals:read\n", hash("first")), &[]).await;
    assert_eq!(mistyped.remarks, "warning: no route asks for \"cals:read\" (did you mean \"calls:read\"?)\n");

    // One entry for all that came together.
    let filter = TrailFilter { action: Some(Action::Import), ..TrailFilter::default() };
    let trail = registry.trail(&filter, None, 100, SystemTime::now()).await.unwrap().entries;
    let counts: Vec<usize> = trail.iter().map(|entry| entry.tokens.len()).collect();
    assert_eq!(counts, [2, 3]);
    assert_eq!((&trail[0].account, trail[1].account.is_none()), (&None, true));
}

#[tokio::test]
async fn tokens_are_imported_into_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.yaml");
    let config = config_with("memory", &format!("{{ file: \"{}\" }}", path.display()));
    std::fs::write(&path, "# mine\ntokens: []\n").unwrap();
    imports(&config, &Registry::with_file(&config, &path)).await;
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("# mine\n"));
    let said = import(&config, &many(3_000), &[]).await;
    assert!(said.out.starts_with("Tokens imported: 3000."), "{}", said.out);
    assert_eq!(open_file(&config, &path).count(), 3_005);
}

async fn registry_at(url: &str) -> (Config, Registry) {
    let config = config_with(&format!("{{ redis: {url} }}"), "{}");
    let config::Store::Redis(store) = &config.store else { unreachable!() };
    let health = Arc::new(StoreHealth::new(prometheus::IntGauge::new("store_up", "test").unwrap()));
    let registry = Registry::with_redis(&config, Redis::open(store, health).await.unwrap());
    (config, registry)
}

#[tokio::test]
async fn tokens_are_imported_into_redis() {
    let server = RedisServer::start();
    let (config, registry) = registry_at(&format!("{{ url: \"{}\", deadline: 5s }}", server.url())).await;
    imports(&config, &registry).await;
    let began = Instant::now();
    let said = import(&config, &many(5_000), &[]).await;
    println!("5,000 tokens in {:?}", began.elapsed());
    assert!(said.out.starts_with("Tokens imported: 5000."), "{}", said.out);
    // The trail has an entry for some hundreds of them, not for each.
    let trail: u64 = server.say(&["ZCARD", "callgate:audit"]);
    assert!((20..30).contains(&trail), "{trail}");
    assert_eq!(server.say::<u64>(&["ZCARD", "callgate:tokens"]), 5_005);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_imported_into_a_cluster() {
    let cluster = tokio::task::block_in_place(RedisCluster::start);
    let (config, registry) = registry_at(&format!("{{ cluster: {}, deadline: 5s }}", cluster.urls())).await;
    let said = import(&config, &many(600), &[]).await;
    assert!(said.out.starts_with("Tokens imported: 600."), "{} {}", said.out, said.remarks);
    assert_eq!(all(&registry).await.unwrap().len(), 600);
}

#[tokio::test]
async fn an_interrupted_import_is_reported_and_completed_by_the_next() {
    let server = RedisServer::start();
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], server.port()))).await;
    let (config, registry) = registry_at(&format!("{{ url: \"redis://{}\" }}", proxy.address)).await;
    // Questions pass and answers don't, from somewhere in the third chunk on.
    proxy.when_asked("token-600", Passing::Questions);
    let broken = import(&config, &many(1_000), &["--json"]).await;
    let message = error(&broken);
    assert!(
        message.starts_with("the rest was not imported: run the same import again when this is repaired: "),
        "{message}"
    );
    let answer: Value = serde_json::from_str(&broken.out).unwrap();
    assert_eq!((answer["imported"].as_array().unwrap().len(), &answer["complete"]), (512, &false.into()));
    proxy.let_pass(Passing::Both);
    let rest = import(&config, &many(1_000), &["--json"]).await;
    rest.result.unwrap();
    let answer: Value = serde_json::from_str(&rest.out).unwrap();
    let count = |key: &str| answer[key].as_array().unwrap().len();
    assert_eq!((count("imported") + count("present"), count("errors")), (1_000, 0));
    let listed = all(&registry).await.unwrap();
    assert_eq!(listed.len(), 1_000);
    // Nothing that works is without a trace.
    let filter = TrailFilter { action: Some(Action::Import), ..TrailFilter::default() };
    let trail = registry.trail(&filter, None, 1_000, SystemTime::now()).await.unwrap().entries;
    let traced: std::collections::BTreeSet<&String> = trail.iter().flat_map(|entry| &entry.tokens).collect();
    assert!(listed.iter().all(|record| traced.contains(&record.id)));
}

#[tokio::test]
async fn tokens_imported_from_a_dashboard_work_unchanged() {
    let upstream = Upstream::start().await;
    let redis = RedisServer::start();
    let site = Site::on_redis(&redis.url(), ", deadline: 5s", upstream.address, "");
    let gateway = site.serve();
    let mut child = Command::new(PROGRAM)
        .args(["token", "import", "--config"])
        .arg(site.config())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(sanctum(&["lYJAfK4qxTrW", "other"]).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"Tokens imported: 2."));
    let client = http2(&gateway);
    for (token, status) in [("17|lYJAfK4qxTrW", 200), ("17|lYJAfK4qxTrV", 401)] {
        let response = client.get(gateway.url("/echo")).bearer_auth(token).send().await.unwrap();
        assert_eq!(response.status(), status, "{token}");
    }
    let nothing = site.run(&["token", "import", "/nowhere.csv"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("reading /nowhere.csv: No such file"));
    for (text, reported) in [
        ("", "it is empty: a first line with the names of columns is needed, or JSON objects"),
        ("name,account\na,b\n", "none of its columns is called sha256, hash or token"),
        ("[{", "it is no JSON list: Eof error at line 1, column 2"),
    ] {
        let file = export(text);
        let output = site.run(&["token", "import", file.path().to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(reported), "{said}");
    }
}
