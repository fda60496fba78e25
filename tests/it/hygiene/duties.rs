//! The list of duties names tests that exist, and it lists every test in this folder.

use std::collections::BTreeSet;
use std::path::Path;

const DUTIES: &str = include_str!("duties.txt");

/// The names of the tests in a folder and below.
fn tests_in(folder: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(path).unwrap();
                let mut is_marked = false;
                for line in text.lines().map(str::trim_start) {
                    if line.starts_with("#[") {
                        is_marked |= line.contains("test]") || line.contains("test(");
                    } else if let Some((_, name)) = line.split_once("fn ").filter(|_| is_marked) {
                        found.extend(name.split('(').next().map(str::to_owned));
                        is_marked = false;
                    }
                }
            }
        }
    }
    found
}

/// Each line's demand, and the tests that hold it.
fn duties() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut duties: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in DUTIES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("    ") {
            Some(test) => duties.last_mut().expect("a demand stands first").1.push(test),
            None => duties.push((line, Vec::new())),
        }
    }
    duties
}

#[test]
fn every_duty_has_a_test_and_every_test_a_duty() {
    let existing: BTreeSet<String> = ["tests/it", "src"].into_iter().flat_map(tests_in).collect();
    let duties = duties();
    let mut named = BTreeSet::new();
    for (duty, tests) in &duties {
        assert!(!tests.is_empty(), "nothing tests this: {duty}");
        for test in tests {
            assert!(existing.contains(*test), "{duty}: there is no test {test}");
            named.insert((*test).to_owned());
        }
    }
    assert!(duties.len() > 50, "the list is read");
    let here = ["tests/it/hygiene", "tests/it/attack"].into_iter().flat_map(tests_in);
    let strays: Vec<_> =
        here.filter(|test| !named.contains(test) && test != "every_duty_has_a_test_and_every_test_a_duty").collect();
    assert!(strays.is_empty(), "in no line of duties.txt: {strays:?}");
}
