//! What is sent to Redis.

use redis::Cmd;

use super::resp::write_bulk;
use super::script::Script;
use super::slots::key_of_command;

/// A command, written anew each time it is sent.
pub(crate) trait Request: Sync {
    /// Appends it.
    fn write(&self, out: &mut Vec<u8>);

    /// Its first key, or that key's hash tag; `None`: any node of a cluster may answer.
    fn key(&self) -> Option<&[u8]>;

    /// The script that it runs: a server that doesn't know it is given it.
    fn script(&self) -> Option<&Script>;
}

impl Request for Cmd {
    fn write(&self, out: &mut Vec<u8>) {
        self.write_packed_command(out);
    }

    fn key(&self) -> Option<&[u8]> {
        key_of_command(self)
    }

    fn script(&self) -> Option<&Script> {
        None
    }
}

/// A run of a script.
pub(super) struct ScriptRun<'a> {
    pub(super) script: &'a Script,
    pub(super) keys: &'a [&'a [u8]],
    pub(super) args: &'a [&'a [u8]],
}

impl Request for ScriptRun<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        self.script.write_call(out, self.keys.len(), self.args.len());
        self.keys.iter().chain(self.args).for_each(|word| write_bulk(out, word));
    }

    fn key(&self) -> Option<&[u8]> {
        self.keys.first().copied()
    }

    fn script(&self) -> Option<&Script> {
        Some(self.script)
    }
}
