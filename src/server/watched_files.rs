//! The files that a configuration depends on: whether they have changed, and are whole by now.

use std::path::PathBuf;

use crate::tokens::Stamp;

/// Files, and what they looked like when they were read. Their paths are followed through symbolic links, as by which Kubernetes
/// exchanges them.
#[derive(Clone)]
pub(super) struct WatchedFiles {
    read: Vec<(PathBuf, Option<Stamp>)>,
    /// What they looked like at the last look, if that was something else.
    changed: Option<Vec<Option<Stamp>>>,
}

impl WatchedFiles {
    /// To be called before they are read, lest a change in between be missed.
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        let read = files.into_iter().map(|file| {
            let stamp = Stamp::read(&file);
            (file, stamp)
        });
        Self { read: read.collect(), changed: None }
    }

    /// Whether all of these are among them.
    pub(super) fn are_all(&self, files: &[PathBuf]) -> bool {
        files.iter().all(|file| self.read.iter().any(|(known, _)| known == file))
    }

    /// What they look like now.
    pub(super) fn look(&self) -> Vec<Option<Stamp>> {
        self.read.iter().map(|(file, _)| Stamp::read(file)).collect()
    }

    /// The same files as they are now.
    pub(super) fn look_again(&self) -> Self {
        Self::new(self.read.iter().map(|(file, _)| file.clone()).collect())
    }

    /// Whether they have changed since they were read and then stayed as they are for one look: what is being written is not read.
    /// `now`: what they look like.
    pub(super) fn have_settled(&mut self, now: Vec<Option<Stamp>>) -> bool {
        if self.read.iter().map(|(_, stamp)| stamp).eq(&now) {
            self.changed = None;
            return false;
        }
        let before = self.changed.replace(now);
        before == self.changed
    }
}
