//! Editing the token file: what changes, what stays, and what happens when it can't be done.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::atomic_replace::LockedFile;
use super::*;
use crate::tokens::audit::{Action, ActionContext, Actor, Entry};
use crate::tokens::date::Date;
use crate::tokens::draft::Change;
use crate::tokens::error::{FileError, RegistryError, Result};
use crate::tokens::limit_text::parse_limit;
use crate::tokens::operation::Operation;
use crate::tokens::outcome::Edited;
use crate::tokens::plans::tests::plans;
use crate::tokens::record::Record;
use crate::tokens::record::tests::record_of;
use crate::tokens::token::TokenHash;

const A: &str = "token-number-a";
const B: &str = "17|token-number-b";

fn entry(id: &str, token: &str, more: &str) -> String {
    let hash = TokenHash::of(token).to_hex();
    format!("  - {{ id: {id}, hash: {hash}, name: {id}, account: acme{more} }}\n")
}

/// An editor of a file with this text, and the file's path.
fn editor(text: Option<&str>) -> (tempfile::TempDir, TokenFile, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.yaml");
    if let Some(text) = text {
        fs::write(&path, text).unwrap();
    }
    let file = TokenFile::new(&path, Arc::new(plans()));
    (folder, file, path)
}

fn record(id: &str, token: &str) -> Record {
    let mut record = record_of(token);
    record.id = id.into();
    record
}

fn by() -> ActionContext {
    at(now())
}

fn at(now: SystemTime) -> ActionContext {
    ActionContext { actor: Actor::person("tester", "here"), now }
}

fn revoke(file: &TokenFile, id: &str, now: SystemTime) -> Result<Edited> {
    file.operate(id, &Operation::Revoke, None, &at(now))
}

fn now() -> SystemTime {
    Date::parse("2026-11-24T10:00:00Z").unwrap().time()
}

#[test]
fn a_file_grows_by_one_entry_and_nothing_else_changes() {
    let (_folder, file, path) = editor(None);
    file.create(record("a", A), &by()).unwrap();
    let first = fs::read_to_string(&path).unwrap();
    assert!(first.starts_with("# Tokens of Callgate"));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let mut b = record("b", B);
    b.name = "Quote \" and # and: {x}".into();
    b.plan = Some("enterprise".into());
    b.limits = vec![parse_limit("minute", "7/1m").unwrap(), parse_limit("day", "9/1d").unwrap()];
    b.expires_at = Date::parse("2027-01-31");
    b.enabled = false;
    let edited = file.create(b.clone(), &by()).unwrap();
    assert!(edited.changed && !edited.rewritten);
    assert!(fs::read_to_string(&path).unwrap().starts_with(&first));
    assert_eq!(file.list().unwrap(), [record("a", A), b]);
}

#[test]
fn comments_and_layout_survive_edits() {
    for text in [
        "# ours\ntokens: # all\n- id: a # first\n  hash: HASH\n  name: A\n  account: acme\n# after a",
        "tokens:\n    # for A\n    -   name: A\n        id: a\n        account: acme # who\n        hash: HASH\n",
        "tokens:\r\n  - id: \"a\"\r\n    hash: HASH\r\n    name: A\r\n    account: acme\r\n",
    ] {
        let (_folder, file, path) = editor(Some(&text.replace("HASH", &TokenHash::of(A).to_hex())));
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let before = lines(&fs::read_to_string(&path).unwrap());
        let revoked = revoke(&file, "a", now()).unwrap();
        assert!(revoked.changed && !revoked.rewritten, "{text}");
        assert!(!file.create(record("b", B), &by()).unwrap().rewritten, "{text}");
        let after = lines(&fs::read_to_string(&path).unwrap());
        assert!(before.iter().all(|line| after.contains(line)), "{text}\n{after:?}");
        let records = file.list().unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].revoked_at, Some(Date::new(now())));
    }
}

/// Changes much of a token: texts, lists, and keys that come and go.
fn change_much(file: &TokenFile, id: &str) -> Edited {
    let change = Change {
        name: Some("New # name".into()),
        permissions: Some(vec!["calls:write".into()]),
        plan: Some(None),
        limits: Some(vec![("day".into(), "9/1d".into())]),
        expires_at: Some(Date::parse("2027-01-31").map(Date::time)),
        ..Change::default()
    };
    file.operate(id, &Operation::Update(change, Arc::new(plans())), None, &by()).unwrap()
}

#[test]
fn a_change_touches_the_lines_of_its_keys() {
    let text = "\
# ours
tokens:
  # the first
  - id: a   # first
    name: \"A # 1\" # called so
    account: acme
    permissions: # may
      - calls:read # this
      # and that
      - calls:stream

    hash: HASH-A
    plan: enterprise
    revoked_at: null
  # the second
  - id: b
    hash: HASH-B
    name: B
    account: acme
    permissions: [
      calls:read ]
# the end
";
    let text = text.replace("HASH-A", &TokenHash::of(A).to_hex()).replace("HASH-B", &TokenHash::of(B).to_hex());
    let (_folder, file, path) = editor(Some(&text));
    assert!(!change_much(&file, "a").rewritten && !change_much(&file, "b").rewritten);
    let rotate = Operation::Rotate(TokenHash::of("another-token"), Duration::from_secs(60));
    assert!(!file.operate("b", &rotate, None, &by()).unwrap().rewritten);
    assert!(!revoke(&file, "a", now()).unwrap().rewritten);
    let expected = "\
# ours
tokens:
  # the first
  - id: a   # first
    limits: { \"day\": 9/1day }
    expires_at: 2027-01-31T00:00:00Z
    name: \"New # name\" # called so
    account: acme
    permissions: [\"calls:write\"] # may
      # and that

    hash: HASH-A
    revoked_at: 2026-11-24T10:00:00Z
  # the second
  - id: b
    old_hashes: { \"HASH-B\": 2026-11-24T10:01:00Z }
    limits: { \"day\": 9/1day }
    expires_at: 2027-01-31T00:00:00Z
    hash: \"HASH-C\"
    name: \"New # name\"
    account: acme
    permissions: [\"calls:write\"]
# the end
";
    let hashes = [("HASH-A", A), ("HASH-B", B), ("HASH-C", "another-token")];
    let expected = hashes
        .iter()
        .fold(expected.to_owned(), |text, (name, token)| text.replace(name, &TokenHash::of(token).to_hex()));
    assert_eq!(fs::read_to_string(path).unwrap(), expected);
}

#[test]
fn tokens_on_one_line_are_written_anew_and_their_neighbours_are_not() {
    let text = format!("# ours\ntokens:\n{}  # b\n{}\n# the end\n", entry("a", A, ""), entry("b", B, ""));
    let (_folder, file, path) = editor(Some(&text));
    assert!(!change_much(&file, "a").rewritten);
    let after = fs::read_to_string(path).unwrap();
    assert!(after.starts_with("# ours\ntokens:\n  - id: \"a\"\n    hash: "), "{after}");
    assert!(after.ends_with(&format!("  # b\n{}\n# the end\n", entry("b", B, ""))), "{after}");
}

#[test]
fn an_unusual_layout_is_written_anew_with_the_same_records() {
    let flow =
        format!("# ours\ntokens: [{{ id: a, hash: {}, name: A, account: acme }}] # gone\n", TokenHash::of(A).to_hex());
    let (_folder, file, path) = editor(Some(&flow));
    let mut expected = file.list().unwrap();
    let edited = revoke(&file, "a", now()).unwrap();
    assert!(edited.rewritten);
    expected[0].revoked_at = Some(Date::new(now()));
    assert_eq!(file.list().unwrap(), expected);
    assert!(fs::read_to_string(path).unwrap().starts_with("# ours\n"));
}

#[test]
fn a_change_that_fails_leaves_no_entry_in_the_trail() {
    let (folder, file, path) = editor(None);
    file.create(record("a", A), &by()).unwrap();
    let trail = fs::read_to_string(folder.path().join("tokens.yaml.audit")).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    // A name so long that the temporary file beside it can't be made.
    let long = folder.path().join("x".repeat(240));
    fs::rename(&path, &long).unwrap();
    fs::write(folder.path().join(format!("{}.audit", "x".repeat(240))), &trail).unwrap();
    let file = TokenFile::new(&long, Arc::new(plans()));
    assert!(matches!(revoke(&file, "a", now()), Err(RegistryError::File(FileError::Io { .. }))));
    assert_eq!(fs::read_to_string(long).unwrap(), text);
    assert_eq!(file.trail(None, 10).unwrap().len(), 1);
}

#[test]
fn after_a_crash_the_trail_holds_what_was_done_and_nothing_else() {
    let (folder, file, path) = editor(None);
    file.create(record("a", A), &by()).unwrap();
    let pending = folder.path().join("tokens.yaml.audit.pending");
    assert!(!pending.exists());
    let before = fs::read_to_string(&path).unwrap();
    let mut revoked = record("a", A);
    revoked.revoked_at = Some(Date::new(now()));
    let entry = Entry::of(Action::Revoke, &by(), Some(&record("a", A)), &revoked);
    let actions = |file: &TokenFile| -> Vec<Action> {
        file.trail(None, 10).unwrap().iter().map(|(_, entry)| entry.action).collect()
    };
    for (is_made, expected) in [(false, &[Action::Create][..]), (true, &[Action::Revoke, Action::Create])] {
        // The process was killed before it exchanged the file, or directly after that.
        let after = format!("{before}# revoked\n");
        trail::prepare(&LockedFile::wait_for(&path).unwrap(), std::slice::from_ref(&entry), &after, now()).unwrap();
        if is_made {
            fs::write(&path, &after).unwrap();
        }
        assert_eq!(actions(&file), expected);
        trail::settle(&LockedFile::wait_for(&path).unwrap()).unwrap();
        assert_eq!(actions(&file), expected);
        assert!(!pending.exists());
    }
}

#[test]
fn a_change_keeps_the_entry_of_the_change_before_it() {
    let (_folder, file, path) = editor(None);
    file.create(record("a", A), &by()).unwrap();
    let text = format!("{}# revoked\n", fs::read_to_string(&path).unwrap());
    let entry = Entry::of(Action::Revoke, &by(), None, &record("a", A));
    // The process was killed directly after it exchanged the file.
    trail::prepare(&LockedFile::wait_for(&path).unwrap(), std::slice::from_ref(&entry), &text, now()).unwrap();
    fs::write(&path, &text).unwrap();
    file.create(record("b", B), &by()).unwrap();
    let actions: Vec<_> = file.trail(None, 10).unwrap().iter().map(|(_, entry)| entry.action).collect();
    assert_eq!(actions, [Action::Create, Action::Revoke, Action::Create]);
}

#[test]
fn a_half_written_line_of_the_trail_harms_no_other() {
    let (folder, file, _path) = editor(None);
    file.create(record("a", A), &by()).unwrap();
    let trail = folder.path().join("tokens.yaml.audit");
    let text = fs::read_to_string(&trail).unwrap();
    fs::write(&trail, format!("{text}{}", &text[..text.len() / 2])).unwrap();
    revoke(&file, "a", now()).unwrap();
    let actions: Vec<_> = file.trail(None, 10).unwrap().iter().map(|(_, entry)| entry.action).collect();
    assert_eq!(actions, [Action::Revoke, Action::Create]);
    assert_eq!(fs::metadata(trail).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn existing_entries_are_not_changed() {
    let (_folder, file, path) = editor(None);
    file.create(record("a", A), &by()).unwrap();
    assert!(revoke(&file, "a", now()).unwrap().changed);
    let text = fs::read_to_string(&path).unwrap();
    let again = revoke(&file, "a", now() + Duration::from_secs(60)).unwrap();
    assert!(!again.changed && again.record.revoked_at == Some(Date::new(now())));
    assert!(
        matches!(file.create(record("b", A), &by()).unwrap_err(), RegistryError::Exists(id) if id == "a"),
        "the same hash"
    );
    assert!(
        matches!(file.create(record("a", B), &by()).unwrap_err(), RegistryError::Exists(id) if id == "a"),
        "the same id"
    );
    assert!(matches!(revoke(&file, "x", now()).unwrap_err(), RegistryError::Unknown { known, .. } if known == ["a"]));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_bad_file_is_not_touched() {
    let (folder, file, path) = editor(Some("tokens: 3\n"));
    assert!(matches!(file.create(record("a", A), &by()), Err(RegistryError::File(FileError::Invalid(_)))));
    assert_eq!(fs::read_to_string(path).unwrap(), "tokens: 3\n");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_link_stays_a_link_and_others_lose_access() {
    let (folder, file, path) = editor(None);
    file.create(record("a", A), &by()).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let link = folder.path().join("link.yaml");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    TokenFile::new(&link, Arc::new(plans())).create(record("b", B), &by()).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(file.list().unwrap().len(), 2);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn leftovers_of_a_killed_writer_are_removed() {
    let (folder, file, _) = editor(Some("tokens: []\n"));
    let left = folder.path().join(".tokens.yaml.4711.0badcafe.tmp");
    let others =
        [".tokens.yaml.swp", "tokens.yaml.tmp", ".other.4711.0badcafe.tmp"].map(|name| folder.path().join(name));
    for path in others.iter().chain([&left]) {
        std::fs::write(path, "half of a fi").unwrap();
    }
    file.create(record("a", "token-a"), &by()).unwrap();
    assert!(!left.exists() && others.iter().all(|path| path.exists()));
}

#[test]
fn writers_take_turns() {
    let (_folder, file, _path) = editor(None);
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let file = &file;
            scope.spawn(move || {
                for n in 0..5 {
                    let id = format!("w{writer}-{n}");
                    file.create(record(&id, &id), &by()).unwrap();
                }
            });
        }
    });
    assert_eq!(file.list().unwrap().len(), 40);
}

#[test]
fn numbers_are_read_as_text_unchanged() {
    let hash = "1234567890".repeat(7)[..64].to_owned();
    let text = format!("tokens:\n  - {{ id: 017, hash: {hash}, name: 1e3, account: 0x1F, permissions: [5] }}\n");
    let placed = parse::parse(Path::new("t"), &text, &plans()).unwrap_or_default();
    let record = &placed[0].record;
    let texts = (record.id.as_str(), record.name.as_str(), record.account.as_str(), record.permissions[0].as_str());
    assert_eq!(texts, ("017", "1e3", "0x1F", "5"));
    assert_eq!(record.hashes[0].sha256.to_hex(), hash);
}
