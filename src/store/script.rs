//! A Lua script, sent by its digest.

use redis::Cmd;

/// A Lua script and the SHA-1 digest by which Redis knows it.
pub struct Script {
    source: &'static str,
    digest: Box<str>,
}

impl Script {
    /// Prepares a script.
    #[must_use]
    pub fn new(source: &'static str) -> Self {
        Self { source, digest: redis::Script::new(source).get_hash().into() }
    }

    /// The EVALSHA command.
    pub(super) fn by_digest(&self, keys: &[&[u8]], args: &[&[u8]]) -> Cmd {
        let bytes: usize = keys.iter().chain(args).map(|part| part.len()).sum();
        let mut command = Cmd::with_capacity(3 + keys.len() + args.len(), bytes + 64);
        command.arg("EVALSHA").arg(&*self.digest).arg(keys.len());
        for part in keys.iter().chain(args) {
            command.arg(*part);
        }
        command
    }

    /// The command that makes the server know it.
    pub(super) fn load(&self) -> Cmd {
        redis::cmd("SCRIPT").arg("LOAD").arg(self.source).take()
    }
}
