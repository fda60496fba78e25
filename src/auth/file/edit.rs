//! Writing a token file: one writer at a time, the new file in place of the old one in one step, comments kept where they can be.
//!
//! An edit is made in the text itself, by adding lines. What comes out is parsed again; should it not say exactly what it was meant
//! to (an unusual layout), the whole file is written anew and only the comment at its head is kept.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::super::date::Date;
use super::super::plans::{Plans, limit_text};
use super::super::record::Record;
use super::FileError;
use super::parse::{Placed, parse};
use super::tree::Place;
use crate::config::Config;

/// The head of a file that Callgate makes.
const HEAD: &str = "\
# Tokens of Callgate: their SHA-256, never their text. `callgate token` adds and revokes them here; a running gateway follows.
";
/// How long a writer waits for another one.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Why a token file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It can't be read as it is.
    #[error(transparent)]
    File(#[from] FileError),
    /// Writing failed.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file or its folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Somebody else kept it locked.
    #[error("{}: another process has been changing it for {} seconds", .0.display(), LOCK_WAIT.as_secs())]
    Locked(PathBuf),
    /// A token with this hash or id is in it already.
    #[error("the token is registered already, with the id {0}")]
    Exists(String),
    /// No token has this id; the known ids are for a hint.
    #[error("no token has the id {id}")]
    Unknown {
        /// The id that was asked for.
        id: String,
        /// The ids that there are.
        known: Vec<String>,
    },
}

/// What became of an edit.
#[derive(Debug)]
pub struct Edited {
    /// The record as it is now.
    pub record: Record,
    /// Whether anything had to be changed.
    pub changed: bool,
    /// Whether the file was written anew, so that comments between its tokens are gone.
    pub rewritten: bool,
}

/// The token file as those see it who change it.
pub struct TokenFile {
    pub(super) path: PathBuf,
    pub(super) plans: Plans,
}

impl TokenFile {
    /// Names the file; nothing is read yet.
    #[must_use]
    pub fn new(config: &Config, path: &Path) -> Self {
        Self { path: path.to_owned(), plans: Plans::new(config) }
    }

    /// All records, in the order of the file.
    ///
    /// # Errors
    /// [`EditError::File`]
    pub fn list(&self) -> Result<Vec<Record>, EditError> {
        let (_, placed) = self.load(&self.path)?;
        Ok(placed.into_iter().map(|placed| placed.record).collect())
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`EditError`]
    pub fn create(&self, record: Record) -> Result<Edited, EditError> {
        self.change(|text, placed| {
            let same = |old: &&Placed| old.record.id == record.id || old.record.hashes[0] == record.hashes[0];
            if let Some(old) = placed.iter().find(same) {
                return Err(EditError::Exists(old.record.id.clone()));
            }
            let mut records = records_of(placed);
            records.push(record.clone());
            Ok(Edit { text: Some(appended(text, placed, &record)), records, at: placed.len() })
        })
    }

    /// Marks a token as revoked. One that is revoked already stays as it is.
    ///
    /// # Errors
    /// [`EditError`]
    pub fn revoke(&self, id: &str, now: SystemTime) -> Result<Edited, EditError> {
        self.change(|text, placed| {
            let mut records = records_of(placed);
            let Some(at) = records.iter().position(|record| record.id == id) else {
                let known = records.into_iter().map(|record| record.id).collect();
                return Err(EditError::Unknown { id: id.to_owned(), known });
            };
            if records[at].revoked_at.is_some() {
                return Ok(Edit { text: None, records, at });
            }
            let date = Date::new(now);
            records[at].revoked_at = Some(date);
            Ok(Edit { text: Some(with_line(text, placed[at].id_place, &format!("revoked_at: {date}"))), records, at })
        })
    }

    /// Reads the file, applies an edit and puts the result in its place, all under the lock.
    fn change(&self, edit: impl FnOnce(&str, &[Placed]) -> Result<Edit, EditError>) -> Result<Edited, EditError> {
        // A link stays a link: its target is exchanged.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let failed = |source| EditError::Write { path: path.clone(), source };
        let _lock = self.lock(folder)?;
        let (text, placed) = self.load(&path)?;
        let mut edit = edit(&text, &placed)?;
        let record = edit.records.swap_remove(edit.at);
        let Some(edited) = edit.text else { return Ok(Edited { record, changed: false, rewritten: false }) };
        edit.records.push(record.clone());
        let last = edit.records.len() - 1;
        edit.records.swap(edit.at, last);
        let says = |text: &str| parse(&path, text, &self.plans).is_ok_and(|placed| records_of(&placed) == edit.records);
        let rewritten = !says(&edited);
        let edited = if rewritten { rendered(&text, &edit.records) } else { edited };
        debug_assert!(says(&edited), "a file written anew says what it was meant to");
        replace(&path, folder, &edited).map_err(failed)?;
        Ok(Edited { record, changed: true, rewritten })
    }

    /// A file that isn't there is empty.
    fn load(&self, path: &Path) -> Result<(String, Vec<Placed>), EditError> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other.map_err(|source| FileError::Io { path: path.to_owned(), source })?,
        };
        let placed = parse(path, &text, &self.plans).map_err(FileError::Invalid)?;
        Ok((text, placed))
    }

    /// Locks the folder: the file itself is exchanged, and a lock on the old one would bind nobody.
    fn lock(&self, folder: &Path) -> Result<File, EditError> {
        let failed = |source| EditError::Write { path: folder.to_owned(), source };
        let handle = File::open(folder).map_err(failed)?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match handle.try_lock() {
                Ok(()) => return Ok(handle),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                    return Err(EditError::Locked(self.path.clone()));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// A change of the file.
struct Edit {
    /// The new text; `None` if nothing is to be changed.
    text: Option<String>,
    /// What it must say.
    records: Vec<Record>,
    /// Which of these the change is about.
    at: usize,
}

fn records_of(placed: &[Placed]) -> Vec<Record> {
    placed.iter().map(|placed| placed.record.clone()).collect()
}

/// The text with one more token at its end, as far in as the first one.
fn appended(text: &str, placed: &[Placed], record: &Record) -> String {
    let Some(first) = placed.first() else { return rendered(text, std::slice::from_ref(record)) };
    let line = text.lines().nth(first.place.0.saturating_sub(1)).unwrap_or_default();
    let indent = line.len() - line.trim_start_matches(' ').len();
    let mut text = text.to_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    push_entry(&mut text, indent, record);
    text
}

/// The text with one more line below that of `id`'s value, as far in as the token's keys.
fn with_line(text: &str, id: Place, line: &str) -> String {
    let number = id.0;
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let indent = lines.get(number.saturating_sub(1)).map_or(0, |line| line.find("id").unwrap_or_default());
    let line = format!("{}{line}\n", " ".repeat(indent));
    lines.insert(number.min(lines.len()), &line);
    lines.concat()
}

/// A whole file: the comment at the head of `old`, and all records.
fn rendered(old: &str, records: &[Record]) -> String {
    let is_head = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let mut text: String = old.split_inclusive('\n').take_while(is_head).collect();
    if text.trim().is_empty() {
        text = HEAD.to_owned();
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str("tokens:\n");
    for record in records {
        push_entry(&mut text, 2, record);
    }
    text
}

fn push_entry(text: &mut String, indent: usize, record: &Record) {
    // JSON's strings are YAML's double-quoted ones.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut keys = vec![
        format!("id: {}", quoted(&record.id)),
        format!("hash: {}", quoted(&record.hashes[0].sha256.to_hex())),
        format!("name: {}", quoted(&record.name)),
        format!("account: {}", quoted(&record.account)),
    ];
    let permissions: Vec<String> = record.permissions.iter().map(|permission| quoted(permission)).collect();
    keys.push(format!("permissions: [{}]", permissions.join(", ")));
    keys.extend(record.plan.as_ref().map(|plan| format!("plan: {}", quoted(plan))));
    if !record.limits.is_empty() {
        let limits: Vec<String> =
            record.limits.iter().map(|limit| format!("{}: {}", quoted(&limit.name), limit_text(limit))).collect();
        keys.push(format!("limits: {{ {} }}", limits.join(", ")));
    }
    keys.extend(record.concurrent_calls.map(|calls| format!("concurrent_calls: {calls}")));
    keys.extend(record.created_at.map(|date| format!("created_at: {date}")));
    keys.extend(record.expires_at.map(|date| format!("expires_at: {date}")));
    keys.extend((!record.enabled).then(|| "enabled: false".to_owned()));
    keys.extend(record.revoked_at.map(|date| format!("revoked_at: {date}")));
    for (at, key) in keys.iter().enumerate() {
        let lead = if at == 0 { "- " } else { "  " };
        // Writing to a string can't fail.
        let _ = writeln!(text, "{:indent$}{lead}{key}", "");
    }
}

/// Writes a file beside the old one and exchanges the two, so that a reader sees the one or the other and a crash loses neither. A new
/// file is for its owner alone; an old one keeps owner and group, and loses what it allowed to others.
fn replace(path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}.{:08x}.tmp", std::process::id(), fastrand::u32(..)));
    let result = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        if let Ok(old) = fs::metadata(path) {
            let new = file.metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                chown(&temporary, Some(old.uid()), Some(old.gid()))?;
            }
            file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o660 | 0o600))?;
        }
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    })();
    if result.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    result
}
