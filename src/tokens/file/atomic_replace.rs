//! One writer at a time, and a new file in place of the old one in one step.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::accounts::{chown_error, is_root, read_error, write_error};
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
        let failed = |error| RegistryError::from(FileError::Io { path: folder.clone(), error });
        let lock = File::open(&folder).map_err(|error| failed(read_error(&folder, error)))?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path, folder, _lock: lock }),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if Instant::now() > deadline => return Err(RegistryError::Locked(path)),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Writes a file of this folder beside the old one and exchanges the two, so that a reader sees the one or the other and a crash
    /// loses neither. An old file keeps owner and group, and loses what it allowed to others. A new one is for its owner alone, for
    /// only the service that serves the tokens has any use for it.
    pub(super) fn replace(&self, path: &Path, text: &str) -> Result<(), FileError> {
        self.replace_with(path, |file| file.write_all(text.as_bytes()))
    }

    /// The same with a text that `write` writes piece by piece.
    pub(super) fn replace_with(
        &self,
        path: &Path,
        write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
    ) -> Result<(), FileError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.clear_away(&format!(".{name}."));
        let temporary = self.folder.join(format!(".{name}.{}.{:08x}.tmp", std::process::id(), fastrand::u32(..)));
        let result = (|| {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            let mut writer = BufWriter::new(&file);
            write(&mut writer)?;
            writer.flush()?;
            drop(writer);
            match fs::metadata(path) {
                Ok(old) => {
                    own_like(&file, path, &old)?;
                    file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o660 | 0o600))?;
                }
                Err(_) => self.give_away(&file)?,
            }
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            File::open(&self.folder)?.sync_all()
        })();
        if result.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(&temporary);
        }
        result.map_err(|error| FileError::Io { path: path.to_owned(), error: write_error(&self.folder, error) })
    }

    /// Removes a file of this folder, if it is there.
    pub(super) fn remove(&self, path: &Path) -> Result<(), FileError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(FileError::Io { path: path.to_owned(), error: write_error(&self.folder, error) })
            }
            _ => Ok(()),
        }
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

    /// Opens a file of this folder for appending; a new one is for its owner alone. Links are refused: root would follow them
    /// wherever the folder's owner wants.
    pub(super) fn append_to(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.append(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let opened = match options.clone().create_new(true).open(path) {
            Ok(file) => {
                let given = self.give_away(&file);
                if given.is_err() {
                    // The first error is the one to report.
                    let _ = fs::remove_file(path);
                }
                given.map(|()| file)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path),
            Err(error) => Err(error),
        };
        opened.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::LOOP) => io::Error::other("is a symbolic link: put the file itself in its place"),
            _ => write_error(&self.folder, error),
        })
    }

    /// Gives a new file that root has made to the owner and group of the token file or, without one, of the folder: else the service
    /// could not read it.
    fn give_away(&self, file: &File) -> io::Result<()> {
        if !is_root() {
            return Ok(());
        }
        let models = [&self.path, &self.folder];
        let model = models.into_iter().find_map(|path| fs::metadata(path).ok().map(|metadata| (path, metadata)));
        model.map_or(Ok(()), |(path, metadata)| own_like(file, path, &metadata))
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

/// By the open file: a name in a folder of somebody else may lead elsewhere by now.
fn own_like(file: &File, path: &Path, model: &fs::Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    if (model.uid(), model.gid()) == (own.uid(), own.gid()) {
        return Ok(());
    }
    fchown(file, Some(model.uid()), Some(model.gid())).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => chown_error(path, model),
        _ => error,
    })
}
