//! The use of the tokens of a file by the hour, in a file of its own: most who read the sums have no use for it.
//!
//! Each line is a JSON object: an hour since 1970, and admitted and refused requests of some tokens in it. What several lines say of one
//! hour adds up. Lines are appended in the order of time, so that they can be merged, and read for one token, without the whole file in
//! memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::super::atomic_replace::{LockedFile, beside, target};
use super::super::token_file::TokenFile;
use super::append::append;
use crate::tokens::hour::{Hour, HourUsage};
use crate::tokens::usage_counts::NewUsage;

/// What the file is called, behind the token file's name.
const ENDING: &str = ".usage.hours.log";
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
    let path = beside(&locked.path, ENDING);
    if let Err(error) = try_add(file, locked, &path, uses) {
        tracing::warn!(%error, "can't save token usage by the hour in {}", path.display());
    }
}

fn try_add(file: &TokenFile, locked: &LockedFile, path: &Path, uses: &[(Arc<str>, NewUsage)]) -> io::Result<()> {
    let mut hours = BTreeMap::<u32, Tokens>::new();
    for (id, new) in uses {
        add_to(hours.entry(new.hour.0).or_default(), id, (new.requests, new.refused));
    }
    append(locked, path, |text| hours.iter().try_for_each(|(hour, tokens)| write_hour(text, *hour, tokens)))?;
    let len = fs::metadata(path)?.len();
    if len > MIN_MERGED_LEN.max(2 * file.merged_hours_len.load(Ordering::Relaxed)) {
        let oldest = Hour::of(SystemTime::now()).oldest_kept().0;
        let merged = locked.replace_with(path, |to| merge(BufReader::new(File::open(path)?), to, oldest));
        merged.map_err(io::Error::other)?;
        file.merged_hours_len.store(fs::metadata(path)?.len(), Ordering::Relaxed);
    }
    Ok(())
}

/// The use of one token, the oldest hour first. A file that can't be read tells of none.
pub(in super::super) fn read(path: &Path, id: &str, now: SystemTime) -> Vec<HourUsage> {
    let oldest = Hour::of(now).oldest_kept();
    let mut hours = BTreeMap::<u32, (u64, u64)>::new();
    // Of a line without it, nothing need be read.
    let quoted = format!("{id:?}:");
    let each = |line: &[u8]| {
        if memchr::memmem::find(line, quoted.as_bytes()).is_none() {
            return;
        }
        let Ok(Line { hour, tokens }) = serde_json::from_slice(line) else { return };
        if let Some((admitted, refused)) = tokens.get(id).filter(|_| hour >= oldest.0) {
            let sum = hours.entry(hour).or_default();
            *sum = (sum.0.saturating_add(*admitted), sum.1.saturating_add(*refused));
        }
    };
    if let Ok(file) = File::open(beside(&target(path), ENDING)) {
        // What was read until an error is better than nothing.
        let _ = for_each_line(BufReader::new(file), each);
    }
    let usage = |(hour, (admitted, refused))| HourUsage { hour: Hour(hour), admitted, refused };
    hours.into_iter().map(usage).collect()
}

/// Writes the lines with as few as there can be, and without hours that are older than `oldest`.
fn merge(from: impl BufRead, to: &mut impl Write, oldest: u32) -> io::Result<()> {
    let mut open = BTreeMap::<u32, Tokens>::new();
    let mut written = Ok(());
    for_each_line(from, |line| {
        // A damaged line tells of nothing.
        let Ok(Line { hour, tokens }) = serde_json::from_slice(line) else { return };
        if hour < oldest || written.is_err() {
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
        for hour in [9, 10, 10, 11, 10, 12, 13] {
            let tokens = Tokens::from([("a".to_owned(), (1, 2)), (format!("t{hour}"), (3, 0))]);
            write_hour(&mut text, hour, &tokens).unwrap();
        }
        text.extend(b"{\"half");
        let mut merged = Vec::new();
        merge(&text[..], &mut merged, 10).unwrap();
        let merged = String::from_utf8(merged).unwrap();
        let wanted = "\
{\"hour\":10,\"tokens\":{\"a\":[3,6],\"t10\":[9,0]}}
{\"hour\":11,\"tokens\":{\"a\":[1,2],\"t11\":[3,0]}}
{\"hour\":12,\"tokens\":{\"a\":[1,2],\"t12\":[3,0]}}
{\"hour\":13,\"tokens\":{\"a\":[1,2],\"t13\":[3,0]}}
";
        assert_eq!(merged, wanted);
    }
}
