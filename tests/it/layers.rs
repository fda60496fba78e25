//! House rules that no lint knows: imports point downward, and files look the way the house wants them.

use std::fs;
use std::path::{Path, PathBuf};

/// The top-level modules and their levels. A module uses only modules of lower levels, so siblings don't know each other;
/// the small foundations of level 0 may.
const LEVELS: [(&str, u8); 16] = [
    ("config", 0),
    ("body", 0),
    ("deadline", 0),
    ("shutdown", 0),
    ("telemetry", 1),
    ("store", 2),
    ("listener", 3),
    ("route", 4),
    ("auth", 4),
    ("limits", 4),
    ("forward", 4),
    ("response", 5),
    ("gateway", 6),
    ("admin", 6),
    ("server", 7),
    ("cli", 8),
];

/// Lines of a source file.
const LONGEST_FILE: usize = 400;

/// Words in file names that say nothing of what is inside.
const EMPTY_WORDS: [&str; 4] = ["util", "common", "helper", "manager"];

#[test]
fn imports_point_downward() {
    let broken: Vec<String> = rust_files("src").iter().flat_map(|(path, text)| upward_arrows(path, text)).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_file_keeps_the_house_rules() {
    let files = ["src", "tests", "benches"].into_iter().flat_map(rust_files);
    let broken: Vec<String> = files.flat_map(|(path, text)| broken_habits(&path, &text)).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// Every Rust file below a folder of the repository, its path relative to the repository and with slashes.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop().filter(|folder| folder.is_dir()) {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(folder != "src" || files.len() > 10, "the sources are found");
    files.sort();
    files
}

fn upward_arrows(path: &str, text: &str) -> Vec<String> {
    let inside = path.strip_prefix("src/").unwrap().trim_end_matches(".rs");
    if ["lib", "main"].contains(&inside) || is_test_file(path) {
        return Vec::new();
    }
    let mut modules: Vec<&str> = inside.split('/').collect();
    modules.pop_if(|last| *last == "mod");
    let own = modules[0];
    let Some(level) = level_of(own) else {
        return vec![format!("{path}:1: the module {own} has no level: give it one in tests/it/layers.rs")];
    };
    let code = without_tests(&code_only(text));
    let mut broken = Vec::new();
    for (line, used) in root_uses(&tokens(&code), modules.len()) {
        match level_of(&used) {
            _ if used == own => {}
            None => broken.push(format!("{path}:{line}: crate::{used} is no module with a level")),
            Some(other) if other < level || other == 0 => {}
            Some(other) => broken.push(format!("{path}:{line}: {own} (level {level}) uses {used} (level {other})")),
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

/// Whether a file is compiled for tests only, by its name.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The text with comments and the insides of literals blanked; lines stay where they are.
fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment_end(&chars, at);
        match end {
            Some(end) => code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' })),
            None => code.push(chars[at]),
        }
        at = end.unwrap_or(at + 1);
    }
    code
}

/// Where the comment or literal ends that starts at `at`, if one does.
fn literal_or_comment_end(chars: &[char], at: usize) -> Option<usize> {
    let rest = &chars[at..];
    let after = |length: usize| Some((at + length).min(chars.len()));
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match rest {
        ['/', '/', ..] => after(rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())),
        ['/', '*', ..] => {
            let (mut depth, mut i) = (0, 0);
            while i < rest.len() {
                match &rest[i..] {
                    ['/', '*', ..] => (depth, i) = (depth + 1, i + 2),
                    ['*', '/', ..] => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 {
                    break;
                }
            }
            after(i)
        }
        ['r', next @ ..] if !in_word || matches!(chars[at - 1], 'b' | 'c') => {
            let hashes = next.iter().take_while(|c| **c == '#').count();
            if next.get(hashes) != Some(&'"') {
                return None;
            }
            let closing: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let body = hashes + 2;
            let length = rest[body..].windows(closing.len()).position(|window| window == closing);
            after(length.map_or(rest.len(), |length| body + length + closing.len()))
        }
        ['"', ..] => after(quoted_length(rest)),
        ['\'', '\\', ..] => after(quoted_length(rest)),
        ['\'', _, '\'', ..] => after(3),
        _ => None,
    }
}

/// The length of a literal with escapes that opens and closes with its first character.
fn quoted_length(rest: &[char]) -> usize {
    let mut i = 1;
    while i < rest.len() && rest[i] != rest[0] {
        i += if rest[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// The code with every item blanked that is compiled for tests only.
fn without_tests(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(start) = code[from..].find("#[cfg(").map(|found| from + found) {
        let close = balanced_end(code, start + 1);
        let words: Vec<&str> = code[start..close].split(|c: char| !c.is_alphanumeric()).collect();
        from = close;
        if words.contains(&"test") && !words.contains(&"not") {
            from = item_end(code, close);
            bytes[start..from].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Where the item ends that starts behind `at`, further attributes included.
fn item_end(code: &str, at: usize) -> usize {
    let mut at = at + (code[at..].len() - code[at..].trim_start().len());
    while code[at..].starts_with("#[") {
        at = balanced_end(code, at + 1);
        at += code[at..].len() - code[at..].trim_start().len();
    }
    // The braces of an import are not its end.
    let ends_with_brace = !code[at..].trim_start_matches("pub ").starts_with("use ");
    while let Some(c) = code[at..].chars().next() {
        match c {
            ';' => return at + 1,
            '{' if ends_with_brace => return balanced_end(code, at),
            '{' | '(' | '[' => at = balanced_end(code, at),
            _ => at += c.len_utf8(),
        }
    }
    at
}

/// Where the bracket closes that opens at `at`.
fn balanced_end(code: &str, at: usize) -> usize {
    let mut depth = 0;
    for (i, c) in code[at..].char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + i + c.len_utf8();
        }
    }
    code.len()
}

/// Words, `::` and single other characters, each with its line.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                word => word,
            };
            found.push((index + 1, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    found
}

/// The top-level modules that paths from the crate's root name (`crate::…`, or as many `super` as the file lies deep),
/// one by one and in groups.
fn root_uses(tokens: &[(usize, &str)], depth: usize) -> Vec<(usize, String)> {
    let word = |at: usize| tokens.get(at).map_or("", |(_, word)| *word);
    let mut found = Vec::new();
    for start in 0..tokens.len() {
        let mut at = start;
        if start > 0 && word(start - 1) == "::" {
            continue;
        }
        match word(start) {
            "crate" => at += 1,
            "super" => {
                let supers = (0..)
                    .take_while(|n| word(start + 2 * n) == "super" && (*n == 0 || word(start + 2 * n - 1) == "::"));
                if supers.count() != depth {
                    continue;
                }
                at += 2 * depth - 1;
            }
            _ => continue,
        }
        if word(at) != "::" {
            continue;
        }
        at += 1;
        if word(at) != "{" {
            found.push((tokens[at].0, word(at).to_owned()));
            continue;
        }
        let mut nesting = 0;
        for (i, (line, _)) in tokens.iter().enumerate().skip(at) {
            match word(i) {
                "{" => nesting += 1,
                "}" => nesting -= 1,
                name if nesting == 1 && matches!(word(i - 1), "{" | ",") && name != "," && name != "self" => {
                    found.push((*line, name.to_owned()));
                }
                _ => {}
            }
            if nesting == 0 {
                break;
            }
        }
    }
    found
}

mod samples {
    //! The checker itself, on samples that it must see through.

    use super::*;

    fn arrows(path: &str, text: &str) -> Vec<String> {
        upward_arrows(path, text)
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
    fn a_module_without_a_level_is_told() {
        assert_eq!(arrows("src/misc/mod.rs", "").len(), 1);
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
