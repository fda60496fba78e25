//! `tests/run --quick` leaves out what needs more than cargo and redis-server.

use std::fs;

use super::source::rust_files;

/// What every machine with cargo has, and Redis.
const EVERYWHERE: [&str; 4] = ["env", "id", "redis-server", "sh"];

#[test]
fn every_test_that_starts_another_program_is_left_out() {
    let skipped = fs::read_to_string("tests/quick-skips.txt").unwrap();
    let words: Vec<_> = skipped.lines().filter_map(|line| line.split(' ').next()).filter(|word| *word != "#").collect();
    let mut found = 0;
    for (path, text) in rust_files("tests/it") {
        let module = module_of(&path);
        let started = text.split("Command::new(\"").skip(1).filter_map(|rest| rest.split('"').next());
        for program in started.filter(|program| !EVERYWHERE.contains(program)) {
            found += 1;
            let is_left_out =
                words.iter().any(|word| word.starts_with(&module) || module.starts_with(word.trim_end_matches("::")));
            assert!(is_left_out, "{path} starts {program}: add its tests to tests/quick-skips.txt");
        }
    }
    assert!(found > 5, "{found}");
}

/// `interim::http2` of `tests/it/interim/http2.rs`.
fn module_of(path: &str) -> String {
    let path = path.trim_start_matches("tests/it/").trim_end_matches(".rs").trim_end_matches("/mod");
    path.replace('/', "::")
}
