//! House rules that no lint knows: imports point downward and never in circles, and files look the way the house wants them.

mod imports;
mod quick;
mod source;

use imports::{Crate, Use, circles};
use source::{code_only, is_test_file, rust_files, without_tests};

/// The top-level modules and their levels. A module uses only modules of lower levels, so siblings don't know each other;
/// the small foundations of level 0 may.
const LEVELS: [(&str, u8); 35] = [
    ("accounts", 0),
    ("color", 0),
    ("config", 0),
    ("bearer", 0),
    ("body", 0),
    ("certificates", 0),
    ("deadline", 0),
    ("gcra", 0),
    ("hash", 0),
    ("http2", 0),
    ("occupancy", 0),
    ("per_worker", 0),
    ("progress", 0),
    ("shutdown", 0),
    ("ticket_keys", 0),
    ("tls", 0),
    ("backoff", 0),
    ("sharded", 0),
    ("live_calls", 0),
    ("telemetry", 1),
    ("store", 2),
    ("instances", 3),
    ("listener", 3),
    ("tokens", 3),
    ("route", 4),
    ("auth", 4),
    ("limits", 4),
    ("forward", 4),
    ("response", 5),
    ("gateway", 6),
    ("admin", 6),
    ("server", 7),
    ("demo", 8),
    ("selftest", 8),
    ("cli", 9),
];

/// Lines of a source file.
const LONGEST_FILE: usize = 400;

/// Words in file names that say nothing of what is inside.
const EMPTY_WORDS: [&str; 4] = ["util", "common", "helper", "manager"];

#[test]
fn imports_point_downward() {
    let broken = upward_arrows(&Crate::read(&rust_files("src")).uses());
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn files_do_not_use_each_other_in_circles() {
    let uses = Crate::read(&rust_files("src")).uses();
    let shown: Vec<String> = circles(&uses).iter().map(|circle| show(circle, &uses)).collect();
    assert!(shown.is_empty(), "{} circles\n{}", shown.len(), shown.join("\n"));
}

/// A circle with the lines that make it.
fn show(circle: &[String], uses: &[Use]) -> String {
    let inside = |one: &&Use| circle.contains(&one.file) && circle.contains(&one.used);
    let lines = uses.iter().filter(inside).map(|one| format!("  {}:{} uses {}", one.file, one.line, one.used));
    format!("{}\n{}", circle.join(", "), lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn every_file_keeps_the_house_rules() {
    let files = ["src", "tests", "benches"].into_iter().flat_map(rust_files);
    let broken: Vec<String> = files.flat_map(|(path, text)| broken_habits(&path, &text)).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// The uses of a module of the same or a higher level by another, and modules without a level.
fn upward_arrows(uses: &[Use]) -> Vec<String> {
    let mut broken = Vec::new();
    for one in uses.iter().filter(|one| one.file != "src/lib.rs") {
        let own = one.file.trim_start_matches("src/").trim_end_matches(".rs").split('/').next().unwrap_or_default();
        let Use { file, line, module, .. } = one;
        let Some(used) = module.first() else { continue };
        match (level_of(own), level_of(used)) {
            _ if used == own => {}
            (None, _) => broken.push(format!("{file}:{line}: the module {own} has no level: give it one in LEVELS")),
            (_, None) => broken.push(format!("{file}:{line}: crate::{used} is no module with a level")),
            (Some(level), Some(other)) if other < level || other == 0 => {}
            (Some(level), Some(other)) => {
                broken.push(format!("{file}:{line}: {own} (level {level}) uses {used} (level {other})"));
            }
        }
    }
    broken
}

fn level_of(module: &str) -> Option<u8> {
    LEVELS.iter().find(|(name, _)| *name == module).map(|(_, level)| *level)
}

fn broken_habits(path: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if !text.starts_with("//! ") {
        broken.push(format!("{path}:1: a file starts with //! and a sentence on its purpose"));
    }
    let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
    for word in stem.split('_').map(|word| word.trim_end_matches('s')) {
        if EMPTY_WORDS.contains(&word) {
            broken.push(format!("{path}:1: \"{word}\" doesn't say what the file is"));
        }
    }
    if !path.starts_with("src/") {
        return broken;
    }
    let lines = text.lines().count();
    if lines > LONGEST_FILE {
        broken.push(format!("{path}:{lines}: a file has at most {LONGEST_FILE} lines"));
    }
    let code = code_only(text);
    let code = if is_test_file(path) { String::new() } else { without_tests(&code) };
    for (index, line) in code.lines().enumerate() {
        if line.contains(".unwrap()") {
            broken.push(format!(
                "{path}:{}: unwrap is for tests (in tests.rs or tests/); use expect with the invariant",
                index + 1
            ));
        }
        if line.contains("use crate::*") {
            broken.push(format!("{path}:{}: name what is used instead of crate::*", index + 1));
        }
    }
    broken
}

mod samples {
    //! The checker itself, on samples that it must see through.

    use super::*;

    /// The crate that has one file with this text, and every module with a level.
    fn uses(path: &str, text: &str) -> Vec<Use> {
        let top = path.trim_start_matches("src/").trim_end_matches(".rs").split('/').next().unwrap().to_owned();
        let others = LEVELS.iter().filter(|(name, _)| *name != top || path.matches('/').count() > 1);
        let mut files: Vec<_> = others.map(|(name, _)| (format!("src/{name}/mod.rs"), String::new())).collect();
        files.retain(|(other, _)| other != path);
        files.extend([("src/lib.rs".to_owned(), String::new()), (path.to_owned(), text.to_owned())]);
        Crate::read(&files).uses()
    }

    fn arrows(path: &str, text: &str) -> Vec<String> {
        upward_arrows(&uses(path, text))
    }

    fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let files: Vec<_> = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        circles(&Crate::read(&files).uses())
    }

    #[test]
    fn circles_are_found_through_re_exports_modules_and_parents() {
        let root = ("src/lib.rs", "mod a;");
        let direct = [
            root,
            ("src/a/mod.rs", "mod b;\nmod c;"),
            ("src/a/b.rs", "use super::c::C;"),
            ("src/a/c.rs", "fn f() { super::b::g() }"),
        ];
        assert_eq!(circles_of(&direct), [["src/a/b.rs", "src/a/c.rs"]]);
        let behind = [
            root,
            ("src/a/mod.rs", "mod b;\nmod c;\npub use c::C;"),
            ("src/a/b.rs", "use crate::a::C;"),
            ("src/a/c.rs", "use super::b;"),
        ];
        assert_eq!(circles_of(&behind), [["src/a/b.rs", "src/a/c.rs"]]);
        let parent =
            [root, ("src/a/mod.rs", "mod b;\nstruct A;\nfn f() { b::g() }"), ("src/a/b.rs", "use super::{A, x as y};")];
        assert_eq!(circles_of(&parent), [["src/a/b.rs", "src/a/mod.rs"]]);
        let long = [
            root,
            ("src/a/b.rs", "use super::c::C;"),
            ("src/a/c.rs", "use super::d::D;"),
            ("src/a/d.rs", "use super::b::B;"),
        ];
        assert_eq!(circles_of(&long), [["src/a/b.rs", "src/a/c.rs", "src/a/d.rs"]]);
    }

    #[test]
    fn a_facade_and_tests_make_no_circle() {
        let facade = [("src/a/mod.rs", "mod b;\npub use b::B;\nstruct A;"), ("src/a/b.rs", "use super::A;")];
        assert!(circles_of(&facade).is_empty());
        let used = [("src/a/mod.rs", "mod b;\npub use b::B;\nstruct A(B);"), ("src/a/b.rs", "use super::A;")];
        assert_eq!(circles_of(&used).len(), 1, "what a file uses itself counts, re-exported or not");
        let tested =
            [("src/a/b.rs", "use super::c::C;"), ("src/a/c.rs", "#[cfg(test)]\nmod tests { use super::super::b::B; }")];
        assert!(circles_of(&tested).is_empty());
    }

    #[test]
    fn upward_and_sideways_arrows_are_found_with_their_line() {
        assert_eq!(
            arrows("src/limits/memory.rs", "//! x\nuse crate::gateway::Gateway;\n"),
            ["src/limits/memory.rs:2: limits (level 4) uses gateway (level 6)"]
        );
        assert_eq!(arrows("src/route.rs", "use crate::auth;").len(), 1);
        assert_eq!(arrows("src/admin/mod.rs", "use crate::gateway::x;").len(), 1);
        assert_eq!(arrows("src/gateway.rs", "fn f() { crate::admin::x() }").len(), 1);
        assert_eq!(
            arrows("src/config/mod.rs", "pub use crate::{\n    body::B,\n    telemetry,\n    store::{S, self},\n};")
                .len(),
            2
        );
        assert_eq!(arrows("src/store/mod.rs", "fn f(x: &'static str) { crate::cli::run(x) }").len(), 1);
    }

    #[test]
    fn the_root_is_found_through_super_too() {
        assert_eq!(arrows("src/auth/mod.rs", "use super::limits::Quota;").len(), 1);
        assert_eq!(arrows("src/auth/token.rs", "use super::super::limits::Quota;").len(), 1);
        assert_eq!(arrows("src/route.rs", "use super::{config::Config, server::Server};").len(), 1);
        assert!(arrows("src/auth/token.rs", "use super::limits::Quota;").is_empty());
    }

    #[test]
    fn downward_arrows_are_fine() {
        let text = "use crate::config::{Config, Plan};\nuse crate::{store::Redis, telemetry};\nuse crate::limits::memory;\n\
                    pub(crate) fn f<'a>(c: char) -> bool { c == '\"' }\npub(in crate::limits) struct S;";
        assert!(arrows("src/limits/mod.rs", text).is_empty());
        assert!(arrows("src/lib.rs", "pub use crate::cli::run;").is_empty());
    }

    #[test]
    fn comments_literals_and_tests_are_no_imports() {
        let text = "// use crate::cli;\n/* a /* b */ use crate::cli; */\nconst A: &str = \"use crate::cli; \\\" crate::cli::x\";\n\
                    const B: &str = r#\"crate::cli::x \" \"#;\nconst C: char = '\\'';\n\
                    #[cfg(test)]\nuse crate::{cli, server};\n#[cfg(test)]\n#[allow(unused)]\nmod tests {\n    use crate::cli;\n}\n";
        assert!(arrows("src/config/mod.rs", text).is_empty(), "{:?}", arrows("src/config/mod.rs", text));
        let behind = format!("{text}use crate::server::S;\n");
        assert_eq!(
            arrows("src/config/mod.rs", &behind),
            ["src/config/mod.rs:13: config (level 0) uses server (level 7)"]
        );
        assert_eq!(arrows("src/config/mod.rs", "#[cfg(not(test))]\nuse crate::cli;").len(), 1);
    }

    #[test]
    fn a_module_without_a_level_is_reported() {
        assert_eq!(arrows("src/misc/mod.rs", "use crate::config::C;").len(), 1);
        assert_eq!(arrows("src/cli/mod.rs", "use crate::misc::x;").len(), 1);
        assert_eq!(arrows("src/cli/mod.rs", "use crate::*;").len(), 1);
    }

    #[test]
    fn broken_habits_are_found() {
        let broken = |path: &str, text: &str| broken_habits(path, text).len();
        assert_eq!(broken("src/a.rs", "//! Good.\nfn f() { g().expect(\"it is set\") }"), 0);
        assert_eq!(broken("src/a.rs", "use x;\n//! Late."), 1);
        assert_eq!(broken("src/a.rs", "//! Bad.\nfn f() { g().unwrap() }"), 1);
        assert_eq!(
            broken("src/a.rs", "//! Good.\n/// g().unwrap()\n#[cfg(test)]\nmod tests { fn f() { g().unwrap() } }"),
            0
        );
        assert_eq!(broken("src/a.rs", "//! Bad.\npub use crate::*;"), 1);
        assert_eq!(broken("src/a.rs", &format!("//! Good.{}", "\n//".repeat(LONGEST_FILE - 1))), 0);
        assert_eq!(broken("src/a.rs", &format!("//! Bad.{}", "\n//".repeat(LONGEST_FILE))), 1);
        for name in ["src/utils.rs", "src/a/common.rs", "tests/it/test_helpers.rs", "benches/manager.rs"] {
            assert_eq!(broken(name, "//! Bad name."), 1, "{name}");
        }
        assert_eq!(broken("tests/it/a.rs", "//! Good.\nfn f() { g().unwrap() }"), 0);
    }
}
