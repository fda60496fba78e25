//! Tokens in a file that a running instance follows.

use callgate::cli::check::report;
use callgate::telemetry::Metrics;
use callgate::tokens::{Draft, NewToken, Registry};

use super::*;
use crate::support::gateway::write_pair;

#[tokio::test]
async fn a_running_instance_reloads_the_token_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.yaml");
    let config = config_with("memory", &format!("{{ file: \"{}\" }}", path.display()));
    let store = open_file(&config, &path);
    let watch = tokio::spawn(store.clone().watch(Arc::default(), Metrics::new().unwrap().token_file()));
    let authenticator = on_file(&config, store);
    let registry = Registry::with_file(&config, &path);

    let token = NewToken::generate("kal_live").unwrap();
    let (text, now) = (token.secret.expose().to_owned(), SystemTime::now());
    let draft = Draft {
        name: "n".into(),
        account: "acme".into(),
        expires_at: Some(now + Duration::from_secs(60)),
        ..Draft::default()
    };
    assert_eq!(refusal(ask(&authenticator, &text).await), Some(Refusal::Invalid(Reason::Unknown)));
    registry
        .create(draft.into_record(&Plans::new(&config), token.id.clone(), token.hash, now).unwrap(), &by())
        .await
        .unwrap();
    until("the token works", async || ask(&authenticator, &text).await.is_ok()).await;
    let late = authenticator.authenticate(&bearer(&text), CLIENT, now + Duration::from_secs(60)).await;
    assert_eq!(refusal(late), Some(Refusal::Invalid(Reason::Expired)));

    std::fs::remove_file(&path).unwrap();
    let record = Draft { name: "n".into(), account: "acme".into(), ..Draft::default() };
    registry
        .create(record.into_record(&Plans::new(&config), token.id.clone(), token.hash, now).unwrap(), &by())
        .await
        .unwrap();
    registry.operate(&token.id, Operation::Revoke, None, &by()).await.unwrap();
    until("the token is revoked", async || {
        refusal(ask(&authenticator, &text).await) == Some(Refusal::Invalid(Reason::Revoked))
    })
    .await;
    watch.abort();
}

#[tokio::test]
async fn all_tokens_of_a_file_are_listed_at_once_or_by_pages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.yaml");
    let config = config_with("memory", &format!("{{ file: \"{}\" }}", path.display()));
    let entry = |number: u32| {
        let hash = callgate::tokens::TokenHash::of(&number.to_string()).to_hex();
        format!("  - {{ id: t{number}, hash: \"{hash}\", name: n, account: a{} }}\n", number % 2)
    };
    std::fs::write(&path, format!("tokens:\n{}", (0..1_000).map(entry).collect::<String>())).unwrap();
    let registry = Registry::with_file(&config, &path);
    let whole = registry.list(&Filter::default(), None, usize::MAX, SystemTime::now()).await.unwrap();
    assert_eq!((whole.tokens.len(), whole.next), (1_000, None));
    let odd = Filter { account: Some("a1".into()), ..Filter::default() };
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = registry.list(&odd, after.as_deref(), 100, SystemTime::now()).await.unwrap();
        seen.extend(page.tokens.into_iter().map(|token| token.record.id));
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert_eq!(seen, (0..500).map(|number| format!("t{}", 2 * number + 1)).collect::<Vec<_>>());
}

#[test]
fn check_validates_the_token_file_too() {
    let folder = tempfile::tempdir().unwrap();
    let [config, tokens, certificate] = ["callgate.yaml", "tokens.yaml", "c.pem"].map(|name| folder.path().join(name));
    write_pair(&certificate);
    let text = "tls: { certificates: [{ cert: c.pem, key: c.pem }] }\ntokens: { file: tokens.yaml }\n\
        plans: { standard: { limits: {} }, gold: { limits: {} } }\n\
        routes: [{ path: /a, permission: \"calls:read\", upstream: up }]\nupstreams: { up: { endpoints: [\"http://127.0.0.1:9\"] } }\n";
    std::fs::write(&config, text).unwrap();
    let hash = "0".repeat(64);
    let entry = format!("tokens:\n  - id: a\n    hash: \"{hash}\"\n    name: Dialler\n    account: acme\n");
    let place = |place: &str| format!("{}:{place}", tokens.display());
    for (text, good, reported) in [
        (format!("{entry}    plan: gold\n    permissions: [\"calls:*\", \"*\"]\n"), true, String::new()),
        (
            entry.clone(),
            true,
            place(" warning: no token has the plan \"gold\" (remove it, or `callgate token update ID --plan gold`)\n"),
        ),
        (
            format!("{entry}    plan: gold\n    permissions: [\"calls:read\", \"cals:read\"]\n"),
            true,
            place(
                "7:5: warning: tokens[0].permissions: no route asks for \"cals:read\" (did you mean \"calls:read\"?)\n",
            ),
        ),
        (
            entry[..entry.find("    account").unwrap()].to_owned(),
            false,
            place("2:5: tokens[0].account: is missing (the account that the token belongs to)\n1 error\n"),
        ),
    ] {
        std::fs::write(&tokens, &text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(report(&config, false, &mut out, &mut err).unwrap(), good);
        let err = String::from_utf8(err).unwrap();
        assert!(err.ends_with(&reported) && err.is_empty() == reported.is_empty(), "{err}\n{reported}");
    }
}
