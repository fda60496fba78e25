//! Listening Unix sockets, at paths that one process takes from another without a moment in which nobody listens.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A socket that listens under a name of its own until it takes the place at the path.
pub(super) struct PathSocket {
    path: PathBuf,
    /// `None` once it is at the path.
    temporary: Option<PathBuf>,
    /// Device and inode of its file.
    file: (u64, u64),
    listener: UnixListener,
}

impl PathSocket {
    /// Listens beside the path. `mode` and `group` (`None`: that of this process) are those of the socket's file.
    ///
    /// # Errors
    /// Of the file system; and [`ErrorKind::AlreadyExists`] if something else than a socket is at the path.
    pub(super) fn bind(path: &Path, mode: u32, group: Option<u32>) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "a file that is no socket is there"));
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{:x}", fastrand::u32(..)));
        let temporary = path.with_file_name(name);
        let listener = UnixListener::bind(&temporary)?;
        let file = identity(&temporary)?;
        // From here on its drop removes the file.
        let socket = Self { path: path.to_owned(), temporary: Some(temporary.clone()), file, listener };
        if group.is_some() {
            chown(&temporary, None, group)?;
        }
        fs::set_permissions(&temporary, Permissions::from_mode(mode))?;
        Ok(socket)
    }

    /// Whether a process listens at the path.
    pub(super) fn is_taken(path: &Path) -> bool {
        UnixStream::connect(path).is_ok()
    }

    /// Takes the place of whatever is at the path.
    pub(super) fn take_place(&mut self) -> io::Result<()> {
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.path)?;
            self.temporary = None;
        }
        Ok(())
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for PathSocket {
    fn drop(&mut self) {
        let is_own = |path: &Path| identity(path).is_ok_and(|file| file == self.file);
        let path = self.temporary.as_deref().unwrap_or(&self.path);
        // It is of no use without its process. Another process may have taken its place.
        if is_own(path) {
            let _ = fs::remove_file(path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
