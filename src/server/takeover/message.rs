//! What two processes say to each other.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::limits::{CallsByHolder, ClockOrigin, LimitAnswer, LimitQuestion};

/// The version of all this. Another one is refused politely.
pub(super) const PROTOCOL: u32 = 1;

/// The first message of whoever connects.
#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) protocol: u32,
    /// Of the program.
    pub(super) version: String,
    pub(super) process: u64,
    pub(super) pid: u32,
    pub(super) role: Role,
}

/// What it wants.
#[derive(Serialize, Deserialize)]
pub(super) enum Role {
    /// To take over.
    Successor,
    /// To have its last requests decided. It still holds these calls.
    Holder { calls: HashMap<Box<str>, u32> },
}

/// The answer.
#[derive(Serialize, Deserialize)]
pub(super) enum Welcome {
    /// The sockets follow, in this order. With the memory store also the clock of its logs.
    Sockets {
        sockets: Vec<(String, SocketAddr)>,
        clock: Option<ClockOrigin>,
    },
    /// Ask on.
    Holder,
    /// Another process has taken over already, and will answer here in a moment.
    Moved,
    /// This process ends, and accepts nothing any longer.
    Ending,
    Refused(String),
}

/// The new process could serve.
#[derive(Serialize, Deserialize)]
pub(super) struct Ready {
    /// Whether it has the memory store.
    pub(super) takes_state: bool,
}

/// Parts of logs follow, then an empty part.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    pub(super) calls: CallsByHolder,
}

/// Everything has come.
#[derive(Serialize, Deserialize)]
pub(super) struct Imported;

#[derive(Serialize, Deserialize)]
pub(super) enum Verdict {
    GoOn,
    /// The old process goes on instead.
    KeepOut(String),
}

/// The new process accepts connections.
#[derive(Serialize, Deserialize)]
pub(super) struct Serving;

#[derive(Serialize, Deserialize)]
pub(super) enum HolderRequest {
    /// Gets a [`HolderReply`].
    Decide(LimitQuestion),
    /// Gets a [`HolderReply`], so that the holder notices when nobody is there.
    Ping,
    EndCall(Box<str>),
    Reset(Box<str>),
}

#[derive(Serialize, Deserialize)]
pub(super) enum HolderReply {
    Decision(LimitAnswer),
    Here,
    /// Another process decides.
    Moved,
}

/// The name of this process among those that hand over to each other.
pub(super) fn process_name() -> u64 {
    static NAME: OnceLock<u64> = OnceLock::new();
    // JSON has no larger integers that every reader keeps.
    *NAME.get_or_init(|| fastrand::u64(1..1 << 53))
}

impl Hello {
    pub(super) fn new(role: Role) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { protocol: PROTOCOL, version, process: process_name(), pid: std::process::id(), role }
    }
}
