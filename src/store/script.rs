//! A Lua script, sent by its digest.

use redis::Cmd;

use super::resp::{write_array, write_bulk, write_number};

/// A Lua script and the SHA-1 digest by which Redis knows it.
pub struct Script {
    source: &'static str,
    /// `EVALSHA` and the digest, as they are sent.
    call: Box<[u8]>,
}

impl Script {
    /// Prepares a script.
    #[must_use]
    pub fn new(source: &'static str) -> Self {
        let mut call = Vec::new();
        write_bulk(&mut call, b"EVALSHA");
        write_bulk(&mut call, redis::Script::new(source).get_hash().as_bytes());
        Self { source, call: call.into() }
    }

    /// Begins a command that runs it: so many keys follow, and then so many arguments.
    pub(crate) fn write_call(&self, out: &mut Vec<u8>, keys: usize, args: usize) {
        write_array(out, 3 + keys + args);
        out.extend_from_slice(&self.call);
        write_number(out, keys);
    }

    /// The command that makes the server know it.
    pub(super) fn load(&self) -> Cmd {
        redis::cmd("SCRIPT").arg("LOAD").arg(self.source).take()
    }
}
