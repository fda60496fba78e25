//! Tests of the token file as requests meet it: reading and reloading.

use std::fs;

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

use super::*;
use crate::auth::refusal::{Reason, Refusal};
use crate::tokens::test_plans as plans;

const A: &str = "token-number-a";
const B: &str = "17|token-number-b";

fn entry(id: &str, token: &str, more: &str) -> String {
    let hash = TokenHash::of(token).to_hex();
    format!("  - {{ id: {id}, hash: {hash}, name: {id}, account: acme{more} }}\n")
}

fn find(store: &FileStore, token: &str) -> Result<Arc<Principal>, Refusal> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    Ok(store.find(&Credential::from_headers(&headers, "kal_live")?)?)
}

/// A store on a file with this text, and a way to change it.
fn store(text: &str) -> (tempfile::TempDir, Result<FileStore, FileError>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.yaml");
    fs::write(&path, text).unwrap();
    let store = FileStore::open(&path, Arc::new(plans()));
    (folder, store)
}

fn change(store: &FileStore, text: &str) {
    let next = store.path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(&next, &store.path).unwrap();
    store.refresh();
}

#[test]
fn tokens_are_found_by_their_hash() {
    let text = format!("tokens:\n{}{}", entry("a", A, ", plan: enterprise"), entry("b", "token-number-b", ""));
    let (_folder, store) = store(&text);
    let store = store.unwrap();
    assert_eq!(store.count(), 2);
    let a = find(&store, A).unwrap();
    assert_eq!((&*a.id, &*a.plan.name), ("a", "enterprise"));
    // A Sanctum token: by the part behind the bar, whatever stands before it, and by that part alone.
    for token in [B, "18|token-number-b", "token-number-b"] {
        assert_eq!(&*find(&store, token).unwrap().id, "b");
    }
    assert_eq!(find(&store, "token-number-c").unwrap_err(), Refusal::Invalid(Reason::Unknown));
}

#[test]
fn a_hash_of_the_whole_text_counts_too() {
    let (_folder, store) = store(&format!("tokens:\n{}", entry("b", B, "")));
    let store = store.unwrap();
    assert!(find(&store, B).is_ok() && find(&store, "token-number-b").is_err());
}

#[test]
fn states_are_judged() {
    let text = format!("tokens:\n{}{}", entry("a", A, ", enabled: false"), entry("b", B, ", revoked_at: 2026-01-01"));
    let (_folder, store) = store(&text);
    let store = store.unwrap();
    assert_eq!(find(&store, A).unwrap_err(), Refusal::Invalid(Reason::Disabled));
    assert_eq!(find(&store, B).unwrap_err(), Refusal::Invalid(Reason::Revoked));
}

#[test]
fn a_good_change_replaces_all_and_a_bad_one_nothing() {
    let (_folder, store) = store(&format!("tokens:\n{}{}", entry("a", A, ""), entry("b", B, "")));
    let store = store.unwrap();
    let (a, b) = (find(&store, A).unwrap(), find(&store, B).unwrap());
    change(&store, &format!("tokens:\n{}{}", entry("a", A, ", plan: enterprise"), entry("b", B, "")));
    let changed = find(&store, A).unwrap();
    assert!(changed.version > a.version && changed.version > b.version, "a version is never used twice");
    assert_eq!(&*changed.plan.name, "enterprise");
    assert!(Arc::ptr_eq(&find(&store, B).unwrap(), &b), "what did not change stays what it was");

    for bad in ["tokens: [", "tokens: 3", &format!("tokens:\n{}", entry("a", A, ", plan: gold"))] {
        change(&store, bad);
        assert!(Arc::ptr_eq(&find(&store, A).unwrap(), &changed));
    }
    fs::remove_file(&store.path).unwrap();
    store.refresh();
    assert!(find(&store, A).is_ok(), "a file that is gone revokes nobody");

    change(&store, &format!("tokens:\n{}", entry("b", B, "")));
    assert!(find(&store, A).is_err() && find(&store, B).is_ok());
    for empty in ["", "\n", "# [none]\n", "tokens:\n", "{}"] {
        change(&store, empty);
        assert!(find(&store, B).is_ok(), "a file that was emptied revokes nobody: {empty:?}");
    }
    change(&store, "tokens: [] # none\n");
    assert_eq!(store.count(), 0);
}

#[test]
fn a_bad_file_is_read_once() {
    let (_folder, store) = store("tokens: []\n");
    let store = store.unwrap();
    change(&store, "tokens: 3");
    let seen = *store.seen.lock().unwrap();
    assert!(seen == Stamp::read(&store.path), "the next poll finds nothing new");
}

#[test]
fn an_absent_file_is_empty_until_it_appears() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(&folder.path().join("tokens.yaml"), Arc::new(plans())).unwrap();
    assert!(find(&store, A).is_err());
    change(&store, &format!("tokens:\n{}", entry("a", A, "")));
    assert!(find(&store, A).is_ok());
}

#[test]
fn a_file_that_may_not_be_read_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    // A folder in its place: root may read everything else.
    let error = FileStore::open(folder.path(), Arc::new(plans())).err().unwrap();
    assert!(error.to_string().starts_with(&folder.path().display().to_string()), "{error}");
}

#[test]
fn all_errors_are_reported_at_once_with_their_position() {
    let hash = "0".repeat(64);
    let text = format!(
        "# head\ntokens:\n  - id: a\n    hash: 12ab\n    name: A\n    account: acme\n    plan: entreprise\n  - id: b c\n    \
         hash: {hash}\n    name: \"\"\n    account: Café\n    permisions: []\n    created_at: yesterday\n    enabled: 1\n  \
         - hash: {hash}\n    name: C\n    account: c\n    permissions: [calls:read, \"a b\"]\n    limits: {{ x: 5/1m, y: no }}\n  - 7\n"
    );
    let (folder, store) = store(&text);
    let Err(FileError::Invalid(problems)) = store else { panic!("it is no good") };
    let file = folder.path().join("tokens.yaml").display().to_string();
    let told: Vec<String> = problems.iter().map(|p| p.to_string().replace(&file, "tokens.yaml")).collect();
    let expected = [
        "tokens.yaml:4:11: tokens[0].hash: must be 64 hexadecimal digits (SHA-256 of the token)",
        "tokens.yaml:7:11: tokens[0].plan: no plan is called \"entreprise\" (did you mean \"enterprise\"?)",
        "tokens.yaml:8:9: tokens[1].id: must be 1 to 64 letters, digits, \".\", \"_\" and \"-\"",
        "tokens.yaml:10:11: tokens[1].name: must be 1 to 255 characters, without control characters and surrounding spaces",
        "tokens.yaml:11:14: tokens[1].account: must be 1 to 128 printable ASCII characters, without surrounding spaces",
        "tokens.yaml:12:5: tokens[1].permisions: unknown key (did you mean \"permissions\"?)",
        "tokens.yaml:13:17: tokens[1].created_at: must be a date in UTC, for example 2027-01-31 or 2027-01-31T12:00:00Z",
        "tokens.yaml:14:14: tokens[1].enabled: must be true or false, not a number",
        "tokens.yaml:15:5: tokens[2].id: is missing (the name that logs and `callgate token` show)",
        "tokens.yaml:18:31: tokens[2].permissions[1]: must be a permission such as calls:read or calls:*",
        "tokens.yaml:19:13: tokens[2].limits: \"x\" has the window of \"minute\" (1m); override \"minute\" instead",
        "tokens.yaml:19:27: tokens[2].limits.y: must be a limit (a count, a slash and a window, for example 60/1m)",
        "tokens.yaml:20:5: tokens[3]: must be a map of keys and values, not a number",
    ];
    assert_eq!(told, expected);
}

#[test]
fn duplicate_ids_and_hashes_are_refused() {
    let text = format!("tokens:\n{}{}{}", entry("a", A, ""), entry("a", B, ""), entry("c", A, ""));
    let (_folder, store) = store(&text);
    let message = store.err().unwrap().to_string();
    let lines: Vec<&str> = message.lines().map(|line| line.split("tokens.yaml:").nth(1).unwrap()).collect();
    assert_eq!(
        lines,
        [
            "3:11: tokens[1].id: the token at line 2 has this id, too",
            "4:20: tokens[2].hash: the token at line 2 has this hash, too"
        ]
    );
}

#[test]
fn a_token_in_place_of_its_hash_is_not_printed() {
    let secret = "kal_live_this_is_the_secret";
    for text in [
        format!("tokens:\n  - {{ id: a, hash: {secret}, name: a, account: a }}"),
        format!("tokens:\n  - id: a\n    hash: \"{secret}\n"),
        format!("tokens:\n  - id: a\n   hash: {secret}: {secret}\n"),
        format!("tokens: {secret}"),
    ] {
        let (_folder, store) = store(&text);
        let message = store.err().unwrap().to_string();
        assert!(!message.contains("this_is_the_secret"), "{message}");
    }
}

#[test]
fn ten_thousand_tokens_are_read() {
    let mut text = "tokens:\n".to_owned();
    (0..10_000).for_each(|n| text.push_str(&entry(&format!("t{n}"), &format!("token-{n}"), "")));
    let (_folder, store) = store(&text);
    assert_eq!(store.unwrap().count(), 10_000);
}
