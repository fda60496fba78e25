//! Tokens in a file that a running instance follows.

use callgate::auth::{Draft, FileStore, NewToken, Registry};

use super::*;

#[tokio::test]
async fn a_running_instance_follows_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.yaml");
    let config = config_with("memory", &format!("{{ file: \"{}\" }}", path.display()));
    let store = Arc::new(FileStore::open(&config, &path).unwrap());
    let watch = tokio::spawn(store.clone().watch(Arc::default()));
    let authenticator = Authenticator::with_file(&config, store, failures(&config));
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
    registry.create(draft.into_record(&config, token.id.clone(), token.hash, now).unwrap(), &by(), now).await.unwrap();
    until("the token works", async || ask(&authenticator, &text).await.is_ok()).await;
    let late = authenticator.authenticate(&bearer(&text), CLIENT, now + Duration::from_secs(60)).await;
    assert_eq!(refusal(late), Some(Refusal::Invalid(Reason::Expired)));

    std::fs::remove_file(&path).unwrap();
    let record = Draft { name: "n".into(), account: "acme".into(), ..Draft::default() };
    registry.create(record.into_record(&config, token.id.clone(), token.hash, now).unwrap(), &by(), now).await.unwrap();
    registry.revoke(&token.id, None, &by(), now).await.unwrap();
    until("the token is revoked", async || {
        ask(&authenticator, &text).await.err() == Some(Refusal::Invalid(Reason::Revoked))
    })
    .await;
    watch.abort();
}
