//! Which configuration file a command uses.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;

/// Where it is looked for when nobody names it.
const DEFAULT_PATHS: [&str; 2] = ["callgate.yaml", "/etc/callgate/callgate.yaml"];

#[derive(Debug, Clone, Args)]
pub(super) struct ConfigFile {
    /// The configuration file. Without it: ./callgate.yaml, then /etc/callgate/callgate.yaml
    #[arg(short, long, value_name = "FILE", env = "CALLGATE_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

impl ConfigFile {
    /// The file that is named, or the first of the default ones that exists.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.config {
            return Ok(path.clone());
        }
        match DEFAULT_PATHS.iter().map(Path::new).find(|path| path.exists()) {
            Some(path) => Ok(path.to_owned()),
            None => bail!(
                "no configuration: there is neither ./{} nor {} (name one with --config FILE or CALLGATE_CONFIG; \
                 `callgate init` writes one)",
                DEFAULT_PATHS[0],
                DEFAULT_PATHS[1]
            ),
        }
    }

    /// The same, where the name of the file may also be an argument by itself.
    ///
    /// # Errors
    /// As [`ConfigFile::path`].
    pub(super) fn path_or(&self, argument: Option<PathBuf>) -> anyhow::Result<PathBuf> {
        argument.map_or_else(|| self.path(), Ok)
    }
}
