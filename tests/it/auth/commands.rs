//! `callgate token …` against both stores.

use callgate::cli::token::{CommandOutput, TokenCommand, run_with};
use callgate::tokens::TokenHash;
use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::support::redis::RedisServer;

#[derive(Parser)]
struct CommandLine {
    #[command(subcommand)]
    command: TokenCommand,
}

/// The error message of a command that failed.
pub(super) fn error(output: &CommandOutput) -> String {
    format!("{:#}", output.result.as_ref().unwrap_err())
}

fn parse(words: &[&str]) -> Result<TokenCommand, clap::Error> {
    let words = ["token"].iter().chain(words).copied().chain(["--config", "unused"]);
    CommandLine::try_parse_from(words).map(|line| line.command)
}

pub(super) async fn run(config: &Config, words: &[&str]) -> CommandOutput {
    let command = parse(words).unwrap_or_else(|error| panic!("{error}"));
    run_with(config, command, SystemTime::now()).await
}

/// The whole life of tokens, the same in both stores.
async fn life_of_a_token(config: &Config) {
    let made =
        run(config, &["create", "--name", "Café", "--account", "acme", "--permission", "calls:read", "--json"]).await;
    made.result.as_ref().unwrap();
    let keys: Vec<&str> =
        made.out.split('"').skip(1).step_by(2).filter(|word| made.out.contains(&format!("\"{word}\":"))).collect();
    assert_eq!(keys, ["id", "token", "name", "account", "permissions", "plan", "created_at", "expires_at"]);
    let made: Value = serde_json::from_str(&made.out).unwrap();
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    assert_eq!(&token["kal_live_".len()..][..12], id);
    assert_eq!((&made["plan"], &made["expires_at"]), (&Value::from("standard"), &Value::Null));

    let plain =
        run(config, &["create", "--name", "b", "--account", "other", "--expires", "90d", "--limit", "minute=7/1m"])
            .await;
    plain.result.as_ref().unwrap();
    let secret = plain.out.trim();
    assert!(secret.starts_with("kal_live_") && secret.len() == 54);
    assert!(plain.remarks.contains("not shown again") && !plain.remarks.contains(secret));

    let hash = TokenHash::of("secret-of-sanctum").to_hex();
    let foreign = run(config, &["create", "--name", "f", "--account", "acme", "--sha256", &hash, "--json"]).await;
    foreign.result.as_ref().unwrap();
    let foreign: Value = serde_json::from_str(&foreign.out).unwrap();
    assert!(foreign.get("token").is_none());
    let again = run(config, &["create", "--name", "f", "--account", "acme", "--sha256", &hash]).await;
    assert_eq!(
        error(&again),
        format!("the token is registered already, with the id {}", foreign["id"].as_str().unwrap())
    );

    let revoked = run(config, &["revoke", id]).await;
    assert_eq!(revoked.out, format!("Token {id} (Café) is revoked.\n"));
    let again = run(config, &["revoke", id, "--json"]).await;
    assert!(again.result.is_ok() && again.out.contains("\"changed\":false"), "{}", again.out);
    let mistyped = format!("{}-", &id[..11]);
    assert!(error(&run(config, &["revoke", &mistyped]).await).ends_with(&format!("(did you mean \"{id}\"?)")));

    let table = run(config, &["list"]).await.out;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].starts_with("ID            NAME  ACCOUNT  PERMISSIONS  PLAN      STATE    CREATED"), "{table}");
    let line = lines.iter().find(|line| line.starts_with(id)).unwrap();
    assert!(line.contains("Café  acme     calls:read   standard  revoked  2"), "{table}");
    let list: Value = serde_json::from_str(&run(config, &["list", "--account", "other", "--json"]).await.out).unwrap();
    let tokens = &list["tokens"];
    assert_eq!((tokens.as_array().unwrap().len(), &list["next"]), (1, &Value::Null));
    assert_eq!((&tokens[0]["state"], &tokens[0]["revoked_at"]), (&Value::from("active"), &Value::Null));
    for secret in [token, secret, &hash] {
        assert!(!table.contains(secret) && !list.to_string().contains(secret));
    }
}

/// Everything that can be done to a token once it is made, the same in both stores.
async fn actions(config: &Config) {
    let made = run(config, &["create", "--name", "Dialler", "--account", "actions", "--json"]).await.out;
    let made: Value = serde_json::from_str(&made).unwrap();
    let (id, secret) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let json = async |words: &[&str]| -> Value {
        let output = run(config, &[words, &["--json"]].concat()).await;
        output.result.unwrap();
        serde_json::from_str(&output.out).unwrap()
    };
    let shown = json(&["show", id]).await;
    assert_eq!((&shown["state"], &shown["effective"]["limits"]["minute"]), (&"active".into(), &"60/1m".into()));
    let version = shown["version"].as_u64().unwrap().to_string();

    let words = ["update", id, "--name", "New", "--permission", "cals:read", "--plan", "enterprise"];
    let output = run(config, &[&words[..], &["--limit", "minute=7/1m", "--if-version", &version]].concat()).await;
    assert_eq!(output.out, format!("Token {id} (New) is changed.\n"));
    assert_eq!(output.remarks, "warning: no route asks for \"cals:read\" (did you mean \"calls:read\"?)\n");
    let late = run(config, &["update", id, "--name", "Late", "--if-version", &version]).await;
    assert!(error(&late).contains("was changed meanwhile"), "{}", error(&late));
    let sheet = run(config, &["show", id]).await.out;
    for line in
        ["name         New", "plan         enterprise", "limits       minute 7/1m (its own)", "last used    never"]
    {
        assert!(sheet.lines().any(|other| other == line), "{line}\n{sheet}");
    }
    let back = json(&["update", id, "--default-plan", "--no-limits", "--no-permissions", "--expires", "30d"]).await;
    assert_eq!((&back["plan"], &back["limits"], &back["changed"]), (&"standard".into(), &json!({}), &true.into()));
    assert_eq!(json(&["update", id, "--never-expires"]).await["expires_at"], Value::Null);

    let rotated = run(config, &["rotate", id, "--grace", "1h"]).await;
    let new = rotated.out.trim();
    assert!(new.starts_with(&format!("kal_live_{id}")) && new != secret, "{new}");
    assert!(rotated.remarks.contains("not shown again") && !rotated.remarks.contains(new));
    assert!(run(config, &["show", id]).await.out.contains("old secret   until "));
    assert!(json(&["rotate", id, "--grace", "0"]).await["old_secret_until"].is_null());

    assert_eq!(run(config, &["disable", id]).await.out, format!("Token {id} (New) is disabled.\n"));
    assert_eq!(run(config, &["disable", id]).await.out, format!("Token {id} (New) was disabled already.\n"));
    assert_eq!(json(&["list", "--state", "disabled"]).await["tokens"][0]["id"], id);
    assert_eq!(json(&["enable", id]).await["enabled"], true);
    assert_eq!(json(&["revoke", "--account", "actions"]).await["revoked"], json!([id]));
    let nobody = run(config, &["revoke", "--account", "actions"]).await;
    assert_eq!(nobody.out, "The account \"actions\" has no token that is not revoked.\n");
    assert!(error(&run(config, &["enable", id]).await).ends_with("is revoked, for good: make a new one"));

    let audit = json(&["audit", "--account", "actions", "--since", "1h"]).await;
    let done: Vec<&str> = audit["entries"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(
        done,
        ["revoke", "enable", "disable", "rotate", "rotate", "update", "update", "update", "create"],
        "{audit}"
    );
    let table = run(config, &["audit", "--token", id, "--limit", "1"]).await;
    assert!(table.out.starts_with("WHEN (UTC)") && table.out.contains("revoked_at: null → \"2"), "{}", table.out);
    assert!(table.remarks.starts_with("For more, add: --before "), "{}", table.remarks);
    let page = json(&["list", "--limit", "1"]).await;
    let rest = json(&["list", "--after", page["next"].as_str().unwrap()]).await;
    assert!(!rest["tokens"].as_array().unwrap().contains(&page["tokens"][0]));
    for secret in [secret, new] {
        assert!(!audit.to_string().contains(secret) && !page.to_string().contains(secret));
    }
}

#[tokio::test]
async fn token_commands_work_on_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.yaml");
    let config = config_with("memory", &format!("{{ file: \"{}\" }}", path.display()));
    life_of_a_token(&config).await;
    let store = open_file(&config, &path);
    assert_eq!(store.count(), 3);
    let authenticator = on_file(&config, store);
    assert!(ask(&authenticator, "4|secret-of-sanctum").await.is_ok());
    actions(&config).await;
}

#[tokio::test]
async fn token_commands_work_on_redis() {
    let server = RedisServer::start();
    let config = config_with(&format!("{{ redis: {{ url: \"{}\" }} }}", server.url()), "{}");
    life_of_a_token(&config).await;
    actions(&config).await;
}

#[tokio::test]
async fn an_absent_redis_is_named_without_its_password() {
    let mut server = RedisServer::start();
    server.kill();
    let url = format!("redis://:hunter2@127.0.0.1:{}", server.port());
    let config = config_with(&format!("{{ redis: {{ url: \"{url}\" }} }}"), "{}");
    let error = error(&run(&config, &["list"]).await);
    assert!(error.starts_with(&format!("Redis at 127.0.0.1:{} can't be reached", server.port())), "{error}");
    assert!(!error.contains("hunter2"));
}

#[tokio::test]
async fn a_wrong_redis_password_is_reported_as_such() {
    let server = RedisServer::start_with(&["--requirepass", "right"]);
    let url = format!("redis://:hunter2@127.0.0.1:{}", server.port());
    let config = config_with(&format!("{{ redis: {{ url: \"{url}\" }} }}"), "{}");
    let error = error(&run(&config, &["list"]).await);
    assert!(error.to_lowercase().contains("auth") || error.contains("password"), "{error}");
    assert!(!error.contains("hunter2"));
}

#[tokio::test]
async fn all_errors_of_the_input_are_reported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.yaml");
    let config = config_with("memory", &format!("{{ file: \"{}\" }}", path.display()));
    let long = "x".repeat(256);
    let words = [
        "create",
        "--name",
        &long,
        "--account",
        "a\nb",
        "--permission",
        "a b",
        "--plan",
        "entreprise",
        "--expires",
        "0",
    ];
    let output = run(&config, &[&words[..], &["--limit", "minute=x"]].concat()).await;
    let problems = error(&output);
    let expected = [
        "name must be 1 to 255 characters, without control characters and surrounding spaces",
        "account must be 1 to 128 printable ASCII characters, without surrounding spaces",
        "\"a b\" is not a permission such as calls:read or calls:*",
        "limit minute=x: must be a limit (a count, a slash and a window, for example 60/1m)",
        "no plan is called \"entreprise\" (did you mean \"enterprise\"?)",
        "the end must lie in the future",
    ];
    assert_eq!(problems.lines().collect::<Vec<_>>(), expected);
    let output = run(&config, &["create", "--name", "n", "--account", "a", "--plan", "partner"]).await;
    assert_eq!(error(&output), "no plan is called \"partner\" (known here: enterprise, standard)");
    let own = "kal_live_0123456789AB0123456789ABCDEFGHIJKLMNOPQ1eHJcq";
    let hash = TokenHash::of("foreign").to_hex();
    let output = run(&config, &["create", "--name", "n", "--account", "a", "--sha256", &hash, "--id", own]).await;
    assert_eq!(error(&output), "id must be a token's id alone, not its text");
    for (id, reported) in [
        (own, "that is the text of a token, not its id, which is \"0123456789AB\": keep the text secret".to_owned()),
        ("17|secret", "no token has such an id: one is 1 to 64 letters, digits, \".\", \"_\" and \"-\"".to_owned()),
        (
            &"x".repeat(10_000),
            "no token has such an id: one is 1 to 64 letters, digits, \".\", \"_\" and \"-\"".to_owned(),
        ),
        (&"x".repeat(60), format!("no token has the id \"{}…\"", "x".repeat(24))),
    ] {
        for words in [&["show", id][..], &["revoke", id], &["rotate", id], &["disable", id]] {
            assert_eq!(error(&run(&config, words).await), reported);
        }
    }
    for end in ["0s", "2020-01-01", "2020-01-01T00:00:00Z"] {
        let output = run(&config, &["create", "--name", "n", "--account", "a", "--expires", end]).await;
        assert_eq!(error(&output), "the end must lie in the future");
    }
    assert!(!path.exists(), "nothing is made");
    let output = run(&config, &["create", "--name", "n", "--account", "a", "--permission", "cals:read"]).await;
    assert_eq!(
        output.remarks.lines().next().unwrap(),
        "warning: no route asks for \"cals:read\" (did you mean \"calls:read\"?)"
    );
    let output = run(&config, &["create", "--name", "n", "--account", "a", "--permission", "calls:*"]).await;
    assert!(!output.remarks.contains("warning"));
}

#[test]
fn wrong_usage_is_refused_before_anything_is_done() {
    for words in [
        &["create", "--name", "n"][..],
        &["create", "--name", "n", "--account", "a", "--expires", "soon"],
        &["create", "--name", "n", "--account", "a", "--limit", "minute"],
        &["create", "--name", "n", "--account", "a", "--sha256", "kal_live_x"],
        &["create", "--name", "n", "--account", "a", "--id", "x"],
        &["revoke"],
        &["revoke", "x", "--account", "a"],
        &["update", "x"],
        &["update", "x", "--plan", "p", "--default-plan"],
        &["rotate", "x", "--grace", "soon"],
        &["list", "--state", "gone"],
        &["list", "--limit", "0"],
    ] {
        assert_eq!(parse(words).unwrap_err().exit_code(), 2, "{words:?}");
    }
}

#[tokio::test]
async fn a_bad_token_file_is_named_and_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.yaml");
    std::fs::write(&path, "tokens:\n  - { id: a }\n").unwrap();
    let config = config_with("memory", &format!("{{ file: \"{}\" }}", path.display()));
    let error = error(&run(&config, &["create", "--name", "n", "--account", "a"]).await);
    assert!(error.starts_with(&format!("{}:2:5: tokens[0].hash: is missing", path.display())), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "tokens:\n  - { id: a }\n");
}
