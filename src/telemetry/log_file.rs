//! `log.file`: a file of log lines that can be rotated under it, or that it rotates itself.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::LogFile;

/// The group may read, for a collector of logs.
const MODE: u32 = 0o640;

/// Appends to the file.
pub(super) struct LogFileWriter {
    settings: LogFile,
    file: File,
    size: u64,
    /// The last byte ended a line.
    ends_line: bool,
    reopen: Arc<AtomicBool>,
}

impl LogFileWriter {
    /// Opens the file, or makes it. It is opened again before the next write when the flag is set.
    ///
    /// # Errors
    /// Those of opening it.
    pub(super) fn open(settings: LogFile) -> io::Result<(Self, Arc<AtomicBool>)> {
        let (file, size) = open(&settings)?;
        let reopen = Arc::<AtomicBool>::default();
        Ok((Self { settings, file, size, ends_line: true, reopen: reopen.clone() }, reopen))
    }

    /// Goes on in a new file at the path. Without one, the lines go on into the file that was open.
    fn open_again(&mut self) {
        match open(&self.settings) {
            Ok((file, size)) => (self.file, self.size) = (file, size),
            Err(error) => {
                // The log itself is what is wrong. Standard error may be gone, too.
                let _ = writeln!(
                    io::stderr(),
                    "callgate: can't open {} again, so the log goes on into the file that was open: {error}",
                    self.settings.path.display()
                );
            }
        }
    }

    /// Makes the file an older one.
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| match number {
            0 => self.settings.path.clone(),
            number => {
                let mut name = OsString::from(&self.settings.path);
                name.push(format!(".{number}"));
                PathBuf::from(name)
            }
        };
        // Another process that writes this file may have rotated it already.
        let is_current = |at: fs::Metadata| self.file.metadata().is_ok_and(|own| own.ino() == at.ino());
        if fs::metadata(&self.settings.path).is_ok_and(is_current) {
            if self.settings.keep == 0 {
                return fs::remove_file(&self.settings.path);
            }
            for number in (0..self.settings.keep).rev() {
                match fs::rename(numbered(number), numbered(number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }
}

impl Write for LogFileWriter {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.reopen.swap(false, Ordering::Relaxed) {
            self.open_again();
        }
        let is_full = self.settings.max_size.is_some_and(|max| self.size + lines.len() as u64 > max);
        if is_full && self.size > 0 && self.ends_line {
            // A full disk must not end the log: it grows on where it can't be rotated.
            match self.rotate() {
                Ok(()) => self.open_again(),
                Err(_) => self.size = 0,
            }
        }
        let written = self.file.write(lines)?;
        self.size += written as u64;
        self.ends_line = lines[..written].last().is_none_or(|last| *last == b'\n');
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(settings: &LogFile) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(MODE).open(&settings.path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(path: PathBuf, max_size: Option<u64>, keep: u32) -> (LogFileWriter, Arc<AtomicBool>) {
        LogFileWriter::open(LogFile { path, max_size, keep }).unwrap()
    }

    #[test]
    fn a_full_file_becomes_an_older_one_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut writer, _) = writer(path.clone(), Some(10), 2);
        for line in ["one 1\n", "two 2\n", "three\n", "four\n", "5\n"] {
            assert_eq!(writer.write(line.as_bytes()).unwrap(), line.len());
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).ok();
        assert_eq!(read("log").as_deref(), Some("four\n5\n"));
        assert_eq!(read("log.1").as_deref(), Some("three\n"));
        assert_eq!(read("log.2").as_deref(), Some("two 2\n"));
        assert_eq!(read("log.3"), None);
    }

    #[test]
    fn a_line_is_not_split_between_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut writer, _) = writer(path.clone(), Some(4), 1);
        for part in ["half", " a line\n", "next\n"] {
            writer.write_all(part.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "next\n");
        assert_eq!(fs::read_to_string(folder.path().join("log.1")).unwrap(), "half a line\n");
    }

    #[test]
    fn two_writers_rotate_one_file_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut one, _) = writer(path.clone(), Some(10), 3);
        one.write_all(b"one 1\n").unwrap();
        let (mut other, _) = writer(path.clone(), Some(10), 3);
        one.write_all(b"one 2\n").unwrap();
        other.write_all(b"two 1\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one 2\ntwo 1\n");
        assert!(!folder.path().join("log.2").exists());
    }

    #[test]
    fn a_moved_file_is_left_when_asked_and_lines_survive_a_path_that_can_t_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut writer, reopen) = writer(path.clone(), None, 5);
        writer.write_all(b"1\n").unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        writer.write_all(b"2\n").unwrap();
        fs::create_dir(&path).unwrap();
        reopen.store(true, Ordering::Relaxed);
        writer.write_all(b"3\n").unwrap();
        fs::remove_dir(&path).unwrap();
        reopen.store(true, Ordering::Relaxed);
        writer.write_all(b"4\n").unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("moved")).unwrap(), "1\n2\n3\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "4\n");
    }
}
