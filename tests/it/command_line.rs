//! The command line itself: help, the manual page, what is asked before it is done.

use std::process::{Command, Output};

use crate::support::gateway::{PROGRAM, Site};

fn site() -> std::sync::Arc<Site> {
    Site::new(
        "tokens: { file: tokens.yaml }\nroutes: [{ path: /a, upstream: a }]\nupstreams: { a: { endpoints: [\"http://127.0.0.1:9\"] } }",
    )
}

fn run(site: &Site, arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).current_dir(site.folder.path()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_manual_page_has_every_command_with_its_options() {
    let page = Command::new(PROGRAM).arg("man").output().unwrap();
    let page = text(&page.stdout);
    assert!(page.starts_with(".ie") || page.contains(".TH callgate 1"), "{page}");
    for part in [".SH CALLGATE SERVE", ".SH CALLGATE TOKEN CREATE", "takeover", ".SH ENVIRONMENT", ".SH EXIT STATUS"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains(".SH OPTIONS"));
}

#[test]
fn help_is_wrapped_and_ends_with_examples() {
    for command in [&["--help"][..], &["token", "create", "--help"], &["serve", "--help"]] {
        let help = Command::new(PROGRAM).args(command).env("COLUMNS", "80").output().unwrap();
        let help = text(&help.stdout).to_owned();
        let (before, examples) = help.split_once("Examples:\n").expect("examples");
        assert!(examples.starts_with("  callgate "), "{examples}");
        let longest = before.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(100), "{longest:?} in\n{before}");
    }
}

#[test]
fn a_revocation_of_an_account_can_be_looked_at_first() {
    let site = site();
    let token = site.token(&["calls:read"]);
    let account = {
        let shown = run(&site, &["token", "show", &token.id, "--json"]);
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        shown["account"].as_str().unwrap().to_owned()
    };
    let looked = run(&site, &["token", "revoke", "--account", &account, "--dry-run"]);
    assert!(
        looked.status.success()
            && text(&looked.stdout).contains(&format!("Token {} (test) would be revoked", token.id))
    );
    let state = |id: &str| text(&run(&site, &["token", "show", id]).stdout).to_owned();
    assert!(!state(&token.id).contains("revoked"), "{}", state(&token.id));
    let unasked = run(&site, &["token", "revoke", "--account", &account]);
    assert_eq!(unasked.status.code(), Some(2), "there is nobody to ask");
    assert!(run(&site, &["token", "revoke", "--account", &account, "--yes"]).status.success());
    assert!(state(&token.id).contains("revoked"));
    assert_eq!(run(&site, &["token", "revoke", &token.id, "--dry-run"]).status.code(), Some(2));
}

#[test]
fn a_token_without_a_permission_is_warned_of() {
    let site = site();
    let create = |more: &[&str]| {
        let made = run(&site, &[&["token", "create", "--name", "a", "--account", "b"], more].concat());
        assert!(made.status.success());
        text(&made.stderr).contains("warning: the token has no permission")
    };
    assert!(create(&[]) && !create(&["--permission", "*"]));
}
