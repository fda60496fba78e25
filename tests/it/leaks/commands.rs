//! All that can be done to tokens at a command line, well and badly.

use callgate::tokens::TokenHash;

use super::scene::Scene;
use crate::support::gateway::{Gateway, Token};

/// Tokens in every state.
pub(super) struct Tokens {
    pub(super) good: Token,
    /// It holds no permission.
    pub(super) lacking: Token,
    /// One request is its limit.
    pub(super) limited: Token,
    pub(super) revoked: Token,
    pub(super) disabled: Token,
    pub(super) expired: Token,
    /// Its secret was replaced, and lives for a while.
    pub(super) old: Token,
    /// Its secret was replaced, and has ended.
    pub(super) ended: Token,
    /// One to spoil.
    pub(super) spare: Token,
    /// One that was made elsewhere.
    pub(super) foreign: String,
    pub(super) foreign_hash: String,
}

impl Tokens {
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        let Self { good, lacking, limited, revoked, disabled, expired, old, ended, spare, .. } = self;
        let own = [good, lacking, limited, revoked, disabled, expired, old, ended, spare];
        own.into_iter().map(|token| &*token.secret).chain([&*self.foreign])
    }
}

/// Makes tokens of all kinds, and does to them all that can be done.
pub(super) fn whole_lives(scene: &mut Scene) -> Tokens {
    let mut make = |name: &str, more: &[&str]| {
        let account = if name == "another" { "other" } else { "acme" };
        let words = ["token", "create", "--name", name, "--account", account];
        scene.run_for_secret(name, &[&words[..], more].concat())
    };
    let read = ["--permission", "calls:read"];
    let good = make("good", &read);
    let lacking = make("lacking", &["--permission", "cals:read"]);
    let limited = make("limited", &[&read[..], &["--limit", "minute=1/1m"]].concat());
    let [revoked, disabled, old, ended, spare] =
        ["revoked", "disabled", "old", "ended", "spare"].map(|name| make(name, &read));
    let expired = make("expired", &[&read[..], &["--expires", "1s"]].concat());
    make("another", &[]);

    let foreign = "17|FoReIgNsEcReToFsAnCtUm0123456789abcdefgh".to_owned();
    scene.evidence.hide("foreign", &foreign);
    let foreign_hash = TokenHash::of(foreign.split_once('|').unwrap().1).to_hex();
    for format in [&["--json"][..], &[]] {
        let words = ["token", "create", "--name", "f", "--account", "acme", "--sha256", &foreign_hash];
        scene.run(&[&words[..], &read, format].concat());
    }
    scene.run_for_secret("new of old", &["token", "rotate", &old.id, "--grace", "1h"]);
    scene.run_for_secret("new of ended", &["token", "rotate", &ended.id, "--grace", "0", "--yes"]);
    // For people, a secret is all that stands on standard output.
    let output = scene.site.run(&["token", "rotate", &spare.id]);
    let new = String::from_utf8(output.stdout).unwrap();
    scene.evidence.hide("new of spare", new.trim());
    scene.evidence.record("token rotate: stderr", &String::from_utf8_lossy(&output.stderr));
    let spare = Token { secret: new.trim().to_owned(), ..spare };

    for format in [&["--json"][..], &[]] {
        for words in [
            &["token", "revoke", "--yes", &revoked.id][..],
            &["token", "revoke", "--yes", "--account", "other"],
            &["token", "disable", &disabled.id],
            &["token", "enable", &good.id],
            &["token", "update", &good.id, "--name", "renamed", "--permission", "calls:read", "--plan", "standard"],
            &["token", "show", &old.id],
            &["token", "list"],
            &["token", "list", "--limit", "3"],
            &["token", "audit"],
            &["token", "audit", "--token", &old.id],
        ] {
            assert!(scene.run(&[words, format].concat()).status.success(), "{words:?}");
        }
    }
    Tokens { good, lacking, limited, revoked, disabled, expired, old, ended, spare, foreign, foreign_hash }
}

/// Secrets where they don't belong.
pub(super) fn mistakes(scene: &mut Scene, gateway: &Gateway, tokens: &Tokens) {
    imports(scene, tokens);
    let admin = gateway.admin.to_string();
    for secret in [&tokens.good.secret, &tokens.foreign] {
        for action in [&["show"][..], &["revoke"], &["revoke", "--yes"], &["rotate"], &["enable"], &["disable"]] {
            scene.run_badly(&[&["token"][..], action, &[secret.as_str()]].concat());
            scene.run_badly(&[&["token"][..], action, &[secret.as_str(), "--json"]].concat());
        }
        scene.run_badly(&["token", "update", secret, "--name", "n"]);
        scene.run_badly(&["token", "create", "--name", "n", "--account", "a", "--sha256", secret]);
        scene.run_badly(&["token", "list", "--after", secret]);
        scene.run(&["token", "audit", "--token", secret]);
        scene.run_badly(&["limits", "peek", secret]);
        scene.run_badly(&["limits", "reset", "--yes", secret]);
        for action in [&["peek"][..], &["reset"], &["reset", "--yes"]] {
            let words = [&["limits"][..], action, &["--admin", admin.as_str(), secret.as_str()]].concat();
            assert!(!scene.run_alone(&words, "").status.success());
        }
        scene.run_alone(&["limits", "peek", "--admin", &admin, &tokens.good.id], secret);
    }
    // A token's text in place of its id, or of a hash, is no reason to keep it.
    let hash = TokenHash::of("another-foreign-token").to_hex();
    let words = ["token", "create", "--name", "n", "--account", "a", "--sha256", &hash, "--id", &tokens.good.secret];
    scene.run_badly(&words);
    let config = std::fs::read_to_string(scene.site.config()).unwrap();
    let line = format!("\nadmin: {{ tokens: [{{ name: ops, role: read, sha256: \"{}\" }}] }}\n", tokens.good.secret);
    let path = scene.site.path("mistaken.yaml");
    std::fs::write(&path, config + &line).unwrap();
    for format in [&["--json"][..], &[]] {
        let output = scene.run_alone(&[&["check", path.to_str().unwrap()], format].concat(), "");
        assert!(!output.status.success());
    }
    std::fs::remove_file(path).unwrap();
}

/// Exports in which a token's text stands where its hash should, or anywhere else, beside a good line.
fn imports(scene: &mut Scene, tokens: &Tokens) {
    let hash = TokenHash::of("a-token-of-sanctum").to_hex();
    let path = scene.site.path("export");
    for secret in [&tokens.good.secret, &tokens.foreign] {
        for text in [
            format!("id,name,token,abilities,expires_at\n1,a,{secret},\"[]\",\n2,b,{hash},\"[]\",\n"),
            format!("id,name,token,abilities,expires_at\n1,a,{hash},{secret},{secret}\n{secret}\n"),
            format!("{{\"token\": \"{secret}\"}}\n{{\"token\": \"{hash}\", \"limits\": \"{secret}\"}}\n{{{secret}\n"),
        ] {
            std::fs::write(&path, text).unwrap();
            for more in [&["--dry-run"][..], &["--json"], &[]] {
                scene.run_badly(&[&["token", "import", "--account", "acme", path.to_str().unwrap()], more].concat());
            }
        }
    }
    std::fs::remove_file(path).unwrap();
}

/// With a store that is no good, everything fails, and says why without saying too much.
pub(super) fn all_fail(scene: &mut Scene, tokens: &Tokens) {
    let id = &tokens.good.id;
    for words in [
        &["token", "create", "--name", "n", "--account", "a"][..],
        &["token", "create", "--name", "n", "--account", "a", "--sha256", &tokens.foreign_hash],
        &["token", "list"],
        &["token", "show", id],
        &["token", "update", id, "--name", "n"],
        &["token", "rotate", id],
        &["token", "enable", id],
        &["token", "revoke", "--yes", id],
        &["token", "revoke", "--yes", "--account", "acme"],
        &["limits", "peek", id],
    ] {
        scene.run_badly(words);
    }
}
