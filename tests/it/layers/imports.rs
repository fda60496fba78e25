//! Which file uses which: every path in the sources, followed through re-exports to the file that defines its name.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{code_only, is_test_file, tokens, without_tests};

/// A re-export leads to another at most so often.
const MAX_REEXPORTS: usize = 8;

/// The modules of the crate, by their path from its root.
pub(super) struct Crate {
    modules: BTreeMap<Vec<String>, Module>,
}

struct Module {
    file: String,
    imports: Vec<Import>,
    /// Paths outside of imports, and their lines.
    paths: Vec<(usize, Vec<String>)>,
    words: BTreeMap<String, usize>,
}

/// One name that a `use` brings in.
struct Import {
    line: usize,
    path: Vec<String>,
    name: String,
    is_public: bool,
}

/// One file uses something of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Use {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) used: String,
    /// The used module, from the crate's root.
    pub(super) module: Vec<String>,
    /// The file only hands a name on, and does not use it itself.
    pub(super) is_facade: bool,
}

impl Crate {
    /// Reads sources, each a path such as `src/auth/mod.rs` and its text. Tests are left out.
    pub(super) fn read(files: &[(String, String)]) -> Self {
        let files = files.iter().filter(|(path, _)| !is_test_file(path) && path != "src/main.rs");
        let modules = files.map(|(path, text)| (module_path(path), Module::read(path, text))).collect();
        Self { modules }
    }

    /// Every use of one file by another, in the order of files and lines.
    pub(super) fn uses(&self) -> Vec<Use> {
        let mut found = BTreeSet::new();
        for (place, module) in &self.modules {
            let is_facade = |import: &Import| {
                let times = module.words.get(&import.name).copied().unwrap_or_default();
                import.is_public && times <= import.path.iter().filter(|part| **part == import.name).count()
            };
            let imports = module.imports.iter().map(|import| (import.line, &import.path, is_facade(import)));
            let paths = module.paths.iter().map(|(line, path)| (*line, path, false));
            for (line, path, is_facade) in imports.chain(paths) {
                let Some(used) = self.resolve(place, path, MAX_REEXPORTS) else { continue };
                let other = self.modules.get(&used);
                let used_file = other.map_or_else(|| used.join("::"), |other| other.file.clone());
                if used_file != module.file {
                    let file = module.file.clone();
                    found.insert(Use { file, line, used: used_file, module: used, is_facade });
                }
            }
        }
        found.into_iter().collect()
    }

    /// The module that defines what `path` names in the module at `place`; `None` for what is of another crate.
    fn resolve(&self, place: &[String], path: &[String], reexports: usize) -> Option<Vec<String>> {
        let mut at = place.to_vec();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => (at, rest) = (Vec::new(), &path[1..]),
            "self" => rest = &path[1..],
            "super" => {
                while let Some((first, others)) = rest.split_first().filter(|(first, _)| *first == "super") {
                    debug_assert_eq!(first, "super");
                    at.pop()?;
                    rest = others;
                }
            }
            first => {
                self.child(place, first)?;
            }
        }
        while let Some((next, others)) = rest.split_first() {
            if let Some(child) = self.child(&at, next) {
                (at, rest) = (child, others);
                continue;
            }
            // The root has modules only: one that is not there is to be seen.
            if at.is_empty() {
                return Some(vec![next.clone()]);
            }
            let module = self.modules.get(&at)?;
            let import = module.imports.iter().find(|import| import.name == *next);
            if let Some(import) = import.filter(|_| reexports > 0)
                && let Some(origin) = self.resolve(&at, &import.path, reexports - 1)
            {
                return Some(origin);
            }
            break;
        }
        Some(at)
    }

    fn child(&self, of: &[String], name: &str) -> Option<Vec<String>> {
        let child: Vec<String> = of.iter().cloned().chain([name.to_owned()]).collect();
        self.modules.contains_key(&child).then_some(child)
    }
}

impl Module {
    fn read(path: &str, text: &str) -> Self {
        let code = without_tests(&code_only(text));
        let tokens = tokens(&code);
        let mut module = Self { file: path.to_owned(), imports: Vec::new(), paths: Vec::new(), words: BTreeMap::new() };
        for (_, word) in &tokens {
            *module.words.entry((*word).to_owned()).or_default() += 1;
        }
        let mut at = 0;
        while at < tokens.len() {
            let (line, word) = tokens[at];
            if word == "use" {
                let is_public = at > 0 && matches!(tokens[at - 1].1, "pub" | ")");
                at = read_tree(&tokens, at + 1, &mut Vec::new(), is_public, &mut module.imports);
            } else if is_name(word) && (at == 0 || tokens[at - 1].1 != "::") {
                let mut path = vec![word.to_owned()];
                while tokens.get(at + 1).is_some_and(|(_, word)| *word == "::")
                    && let Some((_, next)) = tokens.get(at + 2).filter(|(_, word)| is_name(word))
                {
                    path.push((*next).to_owned());
                    at += 2;
                }
                if path.len() > 1 {
                    module.paths.push((line, path));
                }
                at += 1;
            } else {
                at += 1;
            }
        }
        module
    }
}

/// Reads one tree of a `use` from `at` on, below `prefix`; returns where it ends.
fn read_tree(
    tokens: &[(usize, &str)],
    mut at: usize,
    prefix: &mut Vec<String>,
    is_public: bool,
    imports: &mut Vec<Import>,
) -> usize {
    let depth = prefix.len();
    let word = |at: usize| tokens.get(at).map_or(";", |(_, word)| *word);
    loop {
        match word(at) {
            "::" => at += 1,
            "{" => {
                at += 1;
                while word(at) != "}" {
                    at = read_tree(tokens, at, prefix, is_public, imports);
                    if word(at) == "," {
                        at += 1;
                    }
                }
                at += 1;
                break;
            }
            name => {
                prefix.push(name.to_owned());
                at += 1;
                if word(at) != "::" {
                    let path: Vec<String> =
                        prefix.iter().filter(|part| *part != "self" || depth == 0).cloned().collect();
                    let mut alias = path.last().cloned().unwrap_or_default();
                    if word(at) == "as" {
                        alias = word(at + 1).to_owned();
                        at += 2;
                    }
                    let line = tokens[at.min(tokens.len()) - 1].0;
                    imports.push(Import { line, path, name: alias, is_public });
                    break;
                }
            }
        }
    }
    prefix.truncate(depth);
    at
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// `src/auth/open_calls/mod.rs` is the module `auth::open_calls`, `src/lib.rs` the crate's root.
fn module_path(file: &str) -> Vec<String> {
    let inside = file.trim_start_matches("src/").trim_end_matches(".rs");
    let mut path: Vec<String> = inside.split('/').map(str::to_owned).collect();
    path.pop_if(|last| *last == "mod" || *last == "lib");
    path
}

/// The files that use each other in a circle, circle by circle.
pub(super) fn circles(uses: &[Use]) -> Vec<Vec<String>> {
    let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for one in uses.iter().filter(|one| !one.is_facade) {
        graph.entry(&one.file).or_default().insert(&one.used);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = graph.keys().map(|file| (*file, reachable(&graph, file))).collect();
    let mut found = BTreeSet::new();
    for file in graph.keys().filter(|file| reached[*file].contains(**file)) {
        let circle = reached[file].iter().filter(|other| reached.get(*other).is_some_and(|back| back.contains(file)));
        found.insert(circle.map(|other| (*other).to_owned()).collect::<Vec<_>>());
    }
    found.into_iter().collect()
}

fn reachable<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(file) = open.pop() {
        for next in graph.get(file).into_iter().flatten() {
            if seen.insert(*next) {
                open.push(next);
            }
        }
    }
    seen
}
