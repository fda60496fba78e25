//! The Unix socket on which a process can be asked to hand over.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::wire::is_trusted;

/// A socket that listens under a name of its own until it takes the place at the path.
pub(crate) struct PathSocket {
    path: PathBuf,
    temporary: Option<PathBuf>,
    listener: UnixListener,
}

impl PathSocket {
    /// Listens beside the path.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{:x}", process_name() as u32));
        let temporary = path.with_file_name(name);
        let listener = UnixListener::bind(&temporary)?;
        fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
        Ok(Self { path: path.to_owned(), temporary: Some(temporary), listener })
    }

    /// Takes the place of whatever is at the path.
    pub(super) fn take_place(&mut self) -> io::Result<()> {
        if let Some(temporary) = self.temporary.take() {
            fs::rename(temporary, &self.path)?;
        }
        Ok(())
    }

    /// Waits for a process of the same user, or of root.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept()?;
            if is_trusted(&stream)? {
                return Ok(stream);
            }
        }
    }
}

impl Drop for PathSocket {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // It is of no use without its process.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// The name of this process among those that hand over to each other.
pub(super) fn process_name() -> u64 {
    static NAME: OnceLock<u64> = OnceLock::new();
    // JSON has no larger integers that every reader keeps.
    *NAME.get_or_init(|| fastrand::u64(1..1 << 53))
}
