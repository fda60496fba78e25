//! The file of usage: what it costs to write, and what it says after all that can happen to it.

use std::path::PathBuf;

use super::*;
use crate::tokens::date::Date;
use crate::tokens::hour::Hour;
use crate::tokens::plans::tests::plans;
use crate::tokens::token::TokenHash;

fn entry(id: &str) -> String {
    let hash = TokenHash::of(id).to_hex();
    format!("  - id: {id}\n    hash: {hash}\n    name: {id}\n    account: acme\n")
}

/// A token file of the tokens `t0`, `t1` and so on, and the path of its file of usage.
fn tokens(count: usize) -> (tempfile::TempDir, TokenFile, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.yaml");
    let entries: String = (0..count).map(|number| entry(&format!("t{number}"))).collect();
    fs::write(&path, format!("tokens:\n{entries}")).unwrap();
    let usage = folder.path().join("tokens.yaml.usage.log");
    (folder, TokenFile::new(&path, Arc::new(plans())), usage)
}

fn new_usage() -> NewUsage {
    let last = Date::parse("2026-11-24T10:00:00Z").unwrap();
    NewUsage { hour: Hour::of(last.time()), requests: 2, refused: 1, last: Some(last) }
}

fn note(file: &TokenFile, ids: &[String]) {
    let new = new_usage();
    let uses: Vec<_> = ids.iter().map(|id| (Arc::from(id.as_str()), new)).collect();
    file.add_usage(&uses).unwrap();
}

fn requests(file: &TokenFile, id: &str) -> u64 {
    read(&file.path).get(id).map_or(0, |usage| usage.requests)
}

/// Bytes that this thread has read from files and written to files.
fn bytes_moved() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    let of = |key: &str| io.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok()).unwrap();
    of("rchar:") + of("wchar:")
}

#[test]
fn saving_the_use_of_one_token_costs_the_same_however_many_there_are() {
    let (_folder, file, path) = tokens(2_000);
    let all: Vec<String> = (0..2_000).map(|number| format!("t{number}")).collect();
    // The second time, the file is long enough to be merged.
    note(&file, &all);
    note(&file, &all);
    assert!(fs::metadata(&path).unwrap().len() > 100_000);
    let before = bytes_moved();
    for _ in 0..10 {
        note(&file, &all[..1]);
    }
    let each = (bytes_moved() - before) / 10;
    assert!(each < 2_000, "{each} bytes");
    assert_eq!((requests(&file, "t0"), requests(&file, "t1")), (24, 4));
}

#[test]
fn lines_are_merged_before_they_are_many() {
    let (_folder, file, path) = tokens(10);
    let all: Vec<String> = (0..10).map(|number| format!("t{number}")).collect();
    let mut longest = 0;
    for _ in 0..300 {
        note(&file, &all);
        longest = longest.max(fs::metadata(&path).unwrap().len());
    }
    assert!((60_000..70_000).contains(&longest), "{longest} bytes");
    assert_eq!(requests(&file, "t9"), 600);
}

#[test]
fn what_an_older_process_counts_is_added_up() {
    let (folder, file, _path) = tokens(1);
    fs::write(
        folder.path().join("tokens.yaml.usage"),
        "{\"t0\":{\"last_used\":\"2026-11-23T10:00:00Z\",\"requests\":5}}\n",
    )
    .unwrap();
    note(&file, &["t0".to_owned()]);
    assert_eq!(requests(&file, "t0"), 7);
    assert_eq!(read(&file.path)["t0"].last_used, Date::parse("2026-11-24T10:00:00Z"));
}

#[test]
fn a_line_that_was_cut_off_harms_no_other() {
    let (_folder, file, path) = tokens(2);
    note(&file, &["t0".to_owned()]);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}{}", &text[..text.len() / 2])).unwrap();
    note(&file, &["t1".to_owned()]);
    assert_eq!((requests(&file, "t0"), requests(&file, "t1")), (2, 2));
    // Nor does one that is no text at all.
    fs::write(&path, [text.as_bytes(), b"\xff\n"].concat()).unwrap();
    note(&file, &["t0".to_owned()]);
    assert_eq!(requests(&file, "t0"), 4);
}

#[test]
fn tokens_that_are_gone_are_forgotten_but_not_while_the_file_is_mended() {
    let (_folder, file, path) = tokens(2);
    note(&file, &["t0".to_owned(), "t1".to_owned()]);
    fs::write(&file.path, "tokens: [").unwrap();
    note(&file, &["t0".to_owned()]);
    assert_eq!((requests(&file, "t0"), requests(&file, "t1")), (4, 2));
    for empty in ["", "# nothing\n"] {
        fs::write(&file.path, empty).unwrap();
        note(&file, &["t0".to_owned()]);
    }
    fs::write(&file.path, format!("tokens:\n{}", entry("t0"))).unwrap();
    note(&file, &["t0".to_owned(), "t1".to_owned()]);
    assert_eq!((requests(&file, "t0"), requests(&file, "t1")), (10, 0));
    assert!(!fs::read_to_string(&path).unwrap().contains("t1"));
}

#[test]
fn a_link_is_replaced_and_a_file_that_cannot_be_read_stays() {
    let (folder, file, path) = tokens(1);
    let elsewhere = folder.path().join("elsewhere");
    fs::write(&elsewhere, "{}\n").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    note(&file, &["t0".to_owned()]);
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "{}\n");
    assert_eq!(requests(&file, "t0"), 2);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let new = new_usage();
    let error = file.add_usage(&[("t0".into(), new)]).unwrap_err().to_string();
    assert!(error.starts_with(&path.display().to_string()), "{error}");
}

#[test]
fn the_use_of_each_hour_is_kept_for_thirty_days() {
    let (folder, file, _path) = tokens(300);
    let all: Vec<String> = (0..300).map(|number| format!("t{number}")).collect();
    let last = Date::parse("2026-11-24T10:00:00Z").unwrap().time();
    let hours = folder.path().join("tokens.yaml.usage.2026-11-24.log");
    let mut longest = 0;
    for _ in 0..40 {
        note(&file, &all);
        longest = longest.max(fs::metadata(&hours).unwrap().len());
    }
    assert!(longest < 80_000, "{longest} bytes");
    let of = |id: &str, now| {
        let usage = file.usage_by_hour(id, now);
        usage.into_iter().map(|it| (it.hour, it.admitted, it.refused)).collect::<Vec<_>>()
    };
    let day = std::time::Duration::from_secs(86_400);
    assert_eq!(of("t299", last), [(Hour::of(last), 80, 40)]);
    assert_eq!(of("t299", last + 29 * day), [(Hour::of(last), 80, 40)]);
    assert_eq!(of("t299", last + 30 * day), []);
    assert_eq!(of("t2", last), [(Hour::of(last), 80, 40)]);
    assert_eq!(of("nobody", last), []);
}
