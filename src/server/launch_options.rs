//! What the command line and the process's surroundings say beside the configuration.

use std::path::PathBuf;

use super::sockets::ActivatedSocket;
use crate::config::{LogFormat, Problem};

/// What a start may find.
#[derive(Default)]
pub(crate) struct LaunchOptions {
    /// The path of the Unix socket by which processes take over from each other.
    pub(crate) takeover: Option<PathBuf>,
    pub(crate) activated: Vec<ActivatedSocket>,
    /// In place of `log.format`.
    pub(crate) log_format: Option<LogFormat>,
    /// What somebody should look at in the configuration; it is logged.
    pub(crate) warnings: Vec<Problem>,
}
