//! Whole lines behind those of a file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::super::atomic_replace::LockedFile;

/// Appends what `write` writes, or nothing.
pub(super) fn append(
    locked: &LockedFile,
    path: &Path,
    write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    let mut text = Vec::new();
    // A line that was cut off by a crash must not swallow this one.
    if !ends_with_line(path)? {
        text.push(b'\n');
    }
    write(&mut text)?;
    let mut file = locked.append_to(path)?;
    let len = file.metadata()?.len();
    let written = file.write_all(&text).and_then(|()| file.sync_data());
    if written.is_err() {
        // The first error is the one to report. The use will be written again.
        let _ = file.set_len(len);
    }
    written
}

/// Also a file that isn't there or is empty.
fn ends_with_line(path: &Path) -> io::Result<bool> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        opened => opened?,
    };
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}
