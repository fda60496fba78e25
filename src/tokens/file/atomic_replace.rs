//! One writer at a time, and a new file in place of the old one in one step.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::tokens::error::{FileError, LOCK_WAIT, RegistryError, Result};

/// A token file that is being changed, and its folder, locked for as long as this lives.
pub(super) struct LockedFile {
    /// The file itself, not a link to it.
    pub(super) path: PathBuf,
    folder: PathBuf,
    _lock: File,
}

impl LockedFile {
    /// Locks the folder: the file itself is exchanged, and a lock on the old one would bind nobody.
    pub(super) fn wait_for(path: &Path) -> Result<Self> {
        let path = target(path);
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let failed = |source| RegistryError::from(FileError::Io { path: folder.clone(), source });
        let lock = File::open(&folder).map_err(failed)?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path, folder, _lock: lock }),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) if Instant::now() > deadline => return Err(RegistryError::Locked(path)),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Writes a file of this folder beside the old one and exchanges the two, so that a reader sees the one or the other and a crash
    /// loses neither. A new file is for its owner alone; an old one keeps owner and group, and loses what it allowed to others.
    pub(super) fn replace(&self, path: &Path, text: &str) -> Result<(), FileError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.clear_away(&format!(".{name}."));
        let temporary = self.folder.join(format!(".{name}.{}.{:08x}.tmp", std::process::id(), fastrand::u32(..)));
        let result = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(text.as_bytes())?;
            // A file that is new gets the owner of the token file that it lies beside.
            let old = fs::metadata(path);
            if let Some(model) = old.as_ref().ok().cloned().or_else(|| fs::metadata(&self.path).ok()) {
                own_like(&file, &temporary, &model)?;
            }
            if let Ok(old) = old {
                file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o660 | 0o600))?;
            }
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            File::open(&self.folder)?.sync_all()
        })();
        if result.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(&temporary);
        }
        result.map_err(|source| FileError::Io { path: path.to_owned(), source })
    }

    /// Removes what writers left behind that were killed. Nobody else writes, for the folder is locked.
    fn clear_away(&self, start: &str) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_left = |name: &str| name.starts_with(start) && name.ends_with(".tmp");
            if name.to_str().is_some_and(is_left) {
                // It harms nobody should it stay.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Opens a file of this folder for appending; a new one is for the token file's owner alone.
    pub(super) fn append_to(&self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        if file.metadata()?.len() == 0
            && let Ok(model) = fs::metadata(&self.path)
        {
            own_like(&file, path, &model)?;
        }
        Ok(file)
    }
}

/// The file itself where `path` is a link to it: a link stays a link, and its target is exchanged.
pub(super) fn target(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// A file beside another: its name with one more ending.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

fn own_like(file: &File, path: &Path, model: &fs::Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    if (model.uid(), model.gid()) != (own.uid(), own.gid()) {
        chown(path, Some(model.uid()), Some(model.gid()))?;
    }
    Ok(())
}
