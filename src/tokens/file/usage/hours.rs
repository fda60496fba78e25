//! The use of the tokens of a file by the hour, in a file for each day: most who read the sums have no use for it.
//!
//! Each line is a JSON object: an hour since 1970, and admitted and refused requests of some tokens in it. What several lines say of one
//! hour adds up. Lines are appended in the order of time, so that they can be merged, and read for one token, without the whole file in
//! memory. What is merged is never more than a day, and a file whose day is no longer kept is removed whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::super::atomic_replace::{LockedFile, beside, target};
use super::super::token_file::TokenFile;
use super::append::append;
use crate::tokens::hour::{Hour, HourUsage};
use crate::tokens::usage_counts::NewUsage;

/// What the files are called, behind the token file's name: this, the day, and the ending.
const INFIX: &str = ".usage.";
const ENDING: &str = ".log";
/// Tokens in a line.
const LINE_TOKENS: usize = 256;
/// A file of this many bytes, and twice those after its last merge, is merged.
const MIN_MERGED_LEN: u64 = 64 << 10;
/// Lines of this many hours are put together: clocks that are set back write an older one.
const OPEN_HOURS: usize = 2;

#[derive(Serialize, Deserialize)]
struct Line {
    hour: u32,
    tokens: Tokens,
}

/// Admitted and refused requests.
type Tokens = BTreeMap<String, (u64, u64)>;

/// Adds to the use of tokens. It is told where it fails, and not repeated: the sums are written already.
pub(super) fn add(file: &TokenFile, locked: &LockedFile, uses: &[(Arc<str>, NewUsage)]) {
    let mut days = BTreeMap::<Hour, BTreeMap<u32, Tokens>>::new();
    for (id, new) in uses {
        let hours = days.entry(new.hour.day()).or_default();
        add_to(hours.entry(new.hour.0).or_default(), id, (new.requests, new.refused));
    }
    for (day, hours) in days {
        let path = file_of(&locked.path, day);
        if let Err(error) = add_to_day(file, locked, &path, &hours) {
            tracing::warn!(%error, "can't save token usage by the hour in {}", path.display());
        }
    }
}

fn add_to_day(file: &TokenFile, locked: &LockedFile, path: &Path, hours: &BTreeMap<u32, Tokens>) -> io::Result<()> {
    if !path.try_exists()? {
        file.merged_hours_len.store(0, Ordering::Relaxed);
        remove_old(&locked.path, Hour::of(SystemTime::now()).oldest_kept());
    }
    append(locked, path, |text| hours.iter().try_for_each(|(hour, tokens)| write_hour(text, *hour, tokens)))?;
    let len = fs::metadata(path)?.len();
    if len > MIN_MERGED_LEN.max(2 * file.merged_hours_len.load(Ordering::Relaxed)) {
        let merged = locked.replace_with(path, |to| merge(BufReader::new(File::open(path)?), to));
        merged.map_err(io::Error::other)?;
        file.merged_hours_len.store(fs::metadata(path)?.len(), Ordering::Relaxed);
    }
    Ok(())
}

/// The file of a day; `path`: of the token file, without links.
fn file_of(path: &Path, day: Hour) -> PathBuf {
    beside(path, &format!("{INFIX}{}{ENDING}", date(day)))
}

/// `2026-12-01`
fn date(day: Hour) -> String {
    let mut text = humantime::format_rfc3339_seconds(day.begin()).to_string();
    text.truncate("2026-12-01".len());
    text
}

/// Removes the files of days before that of `oldest`.
fn remove_old(path: &Path, oldest: Hour) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
    let (prefix, oldest) = (format!("{}{INFIX}", name.display()), date(oldest.day()));
    // What can't be listed or removed is tried again tomorrow.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let day = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(ENDING));
        if day.is_some_and(|day| is_date(day) && day < oldest.as_str()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether it has the form of a date, and so can be compared with one as text.
fn is_date(text: &str) -> bool {
    let form = |(at, byte): (usize, u8)| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    text.len() == "2026-12-01".len() && text.bytes().enumerate().all(form)
}

/// The use of one token, the oldest hour first. A file that can't be read tells of none.
pub(in super::super) fn read(path: &Path, id: &str, now: SystemTime) -> Vec<HourUsage> {
    let (path, now) = (target(path), Hour::of(now));
    let oldest = now.oldest_kept();
    let mut hours = BTreeMap::<u32, (u64, u64)>::new();
    // Of a line without it, nothing need be read.
    let quoted = format!("{id:?}:");
    let mut each = |line: &[u8]| {
        if memchr::memmem::find(line, quoted.as_bytes()).is_none() {
            return;
        }
        let Ok(Line { hour, tokens }) = serde_json::from_slice(line) else { return };
        if let Some((admitted, refused)) = tokens.get(id).filter(|_| hour >= oldest.0) {
            let sum = hours.entry(hour).or_default();
            *sum = (sum.0.saturating_add(*admitted), sum.1.saturating_add(*refused));
        }
    };
    for day in (oldest.day().0..=now.0).step_by(24) {
        if let Ok(file) = File::open(file_of(&path, Hour(day))) {
            // What was read until an error is better than nothing.
            let _ = for_each_line(BufReader::new(file), &mut each);
        }
    }
    let usage = |(hour, (admitted, refused))| HourUsage { hour: Hour(hour), admitted, refused };
    hours.into_iter().map(usage).collect()
}

/// Writes the lines with as few as there can be.
fn merge(from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
    let mut open = BTreeMap::<u32, Tokens>::new();
    let mut written = Ok(());
    for_each_line(from, |line| {
        // A damaged line tells of nothing.
        let Ok(Line { hour, tokens }) = serde_json::from_slice(line) else { return };
        if written.is_err() {
            return;
        }
        let of_hour = open.entry(hour).or_default();
        tokens.iter().for_each(|(id, counts)| add_to(of_hour, id, *counts));
        if open.len() > OPEN_HOURS
            && let Some((hour, tokens)) = open.pop_first()
        {
            written = write_hour(to, hour, &tokens);
        }
    })?;
    written?;
    open.iter().try_for_each(|(hour, tokens)| write_hour(to, *hour, tokens))
}

fn for_each_line(mut from: impl BufRead, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        each(&line);
        line.clear();
    }
    Ok(())
}

fn add_to(tokens: &mut Tokens, id: &str, (admitted, refused): (u64, u64)) {
    let sum = tokens.entry(id.to_owned()).or_default();
    *sum = (sum.0.saturating_add(admitted), sum.1.saturating_add(refused));
}

fn write_hour(to: &mut impl Write, hour: u32, tokens: &Tokens) -> io::Result<()> {
    let mut tokens = tokens.iter().peekable();
    while tokens.peek().is_some() {
        let tokens = tokens.by_ref().take(LINE_TOKENS).map(|(id, counts)| (id.clone(), *counts)).collect();
        serde_json::to_writer(&mut *to, &Line { hour, tokens })?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_lines_say_the_same_in_fewer_words() {
        let mut text = Vec::new();
        for hour in [10, 10, 11, 10, 12, 13] {
            let tokens = Tokens::from([("a".to_owned(), (1, 2)), (format!("t{hour}"), (3, 0))]);
            write_hour(&mut text, hour, &tokens).unwrap();
        }
        text.extend(b"{\"half");
        let mut merged = Vec::new();
        merge(&text[..], &mut merged).unwrap();
        let merged = String::from_utf8(merged).unwrap();
        let wanted = "\
{\"hour\":10,\"tokens\":{\"a\":[3,6],\"t10\":[9,0]}}
{\"hour\":11,\"tokens\":{\"a\":[1,2],\"t11\":[3,0]}}
{\"hour\":12,\"tokens\":{\"a\":[1,2],\"t12\":[3,0]}}
{\"hour\":13,\"tokens\":{\"a\":[1,2],\"t13\":[3,0]}}
";
        assert_eq!(merged, wanted);
    }

    #[test]
    fn a_day_has_a_file_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.yaml");
        let (now, names) = (Hour::of(SystemTime::now()), ["tokens.yaml.usage.log", "tokens.yaml.usage.9.log", "a.log"]);
        names.iter().for_each(|name| fs::write(folder.path().join(name), "").unwrap());
        let exists = |day: Hour| file_of(&path, day).exists();
        for back in [31, 30, 29, 0] {
            fs::write(file_of(&path, Hour(now.0 - back * 24).day()), "").unwrap();
        }
        remove_old(&path, now.oldest_kept());
        let oldest = now.oldest_kept().day();
        assert!(!exists(Hour(oldest.0 - 24)) && exists(Hour(oldest.0)) && exists(now.day()));
        assert!(names.iter().all(|name| folder.path().join(name).exists()));
        assert_eq!(date(Hour(20_788 * 24 + 5).day()), "2026-12-01");
    }
}
