//! How a process that is being drained asks whichever process has taken over: on the memory store, one process decides.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::message::{Hello, HolderReply, HolderRequest, Role, Welcome};
use super::wire::Connection;
use crate::limits::{MemoryLimiter, SuccessorRequest};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How often an idle link makes sure that the other process is there: when that hands over itself, the next one must learn
/// within seconds who holds which calls.
const PING_INTERVAL: Duration = Duration::from_millis(200);
/// How long to look for a process that answers.
const SEARCH: Duration = Duration::from_secs(5);
/// How long to wait while the process that answers is itself taken over.
const MOVING: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Passes requests on from a thread of its own. When no process answers, this one decides by what it knows.
pub(super) fn start(path: PathBuf, memory: Arc<MemoryLimiter>, requests: Receiver<SuccessorRequest>) {
    let limiter = memory.clone();
    let run = move || {
        let mut link = Link { path, memory: limiter, connection: None, known_ends: 0 };
        if let Err(error) = link.run(&requests) {
            tracing::warn!(%error, "no process answers at the takeover socket: this one decides by itself while it drains");
        }
        // First the limiter, then the requests that wait: they are decided here.
        link.memory.thaw();
    };
    if let Err(error) = thread::Builder::new().name("takeover".into()).spawn(run) {
        tracing::error!(%error, "can't start a thread: this process decides by itself while it drains");
        memory.thaw();
    }
}

struct Link {
    path: PathBuf,
    memory: Arc<MemoryLimiter>,
    connection: Option<Connection>,
    /// The other process knows of so many ends of calls.
    known_ends: u64,
}

impl Link {
    fn run(&mut self, requests: &Receiver<SuccessorRequest>) -> io::Result<()> {
        loop {
            match requests.recv_timeout(PING_INTERVAL) {
                Ok(SuccessorRequest::Decide(question, answer)) => {
                    let request = HolderRequest::Decide(question);
                    let HolderReply::Decision(decided) = self.ask(&request)? else {
                        return Err(io::ErrorKind::InvalidData.into());
                    };
                    if let HolderRequest::Decide(question) = &request {
                        // If the client has gone meanwhile, the lease of its call ends here.
                        let _ = answer.send(self.memory.accept(question, &decided));
                    }
                }
                Ok(SuccessorRequest::EndCall { token, ended }) => {
                    self.tell(&HolderRequest::EndCall(token), |link| ended <= link.known_ends)?;
                }
                Ok(SuccessorRequest::Reset(token)) => self.tell(&HolderRequest::Reset(token), |_| false)?,
                Err(RecvTimeoutError::Timeout) => drop(self.ask(&HolderRequest::Ping)?),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Asks until a process answers.
    fn ask(&mut self, request: &HolderRequest) -> io::Result<HolderReply> {
        loop {
            let connection = self.connected()?;
            match connection.send(request).and_then(|()| connection.receive()) {
                Ok(HolderReply::Moved) | Err(_) => self.connection = None,
                Ok(reply) => return Ok(reply),
            }
        }
    }

    /// Sends what has no answer, unless the process knows it from the greeting.
    fn tell(&mut self, request: &HolderRequest, is_known: impl Fn(&Self) -> bool) -> io::Result<()> {
        loop {
            self.connected()?;
            if is_known(self) {
                return Ok(());
            }
            match self.connected()?.send(request) {
                Ok(()) => return Ok(()),
                Err(_) => self.connection = None,
            }
        }
    }

    fn connected(&mut self) -> io::Result<&mut Connection> {
        let began = Instant::now();
        let mut deadline = began + SEARCH;
        while self.connection.is_none() {
            match greet(&self.path, &self.memory) {
                Ok(Some((connection, ends))) => {
                    (self.connection, self.known_ends) = (Some(connection), ends);
                }
                // Somebody is alive, and hands over to another process, which is about to answer here.
                Ok(None) if began.elapsed() < MOVING => {
                    deadline = Instant::now() + SEARCH;
                    thread::sleep(PAUSE);
                }
                Ok(None) => return Err(io::ErrorKind::TimedOut.into()),
                Err(_) if Instant::now() < deadline => thread::sleep(PAUSE),
                Err(error) => return Err(error),
            }
        }
        self.connection.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// Connects, and says which calls this process holds. Also returns how many have ended before. `None`: not yet.
fn greet(path: &Path, memory: &MemoryLimiter) -> io::Result<Option<(Connection, u64)>> {
    let mut connection = Connection::open(path, TIMEOUT)?;
    let (calls, ends) = memory.own_calls();
    connection.send(&Hello::new(Role::Holder { calls }))?;
    match connection.receive()? {
        Welcome::Holder => Ok(Some((connection, ends))),
        Welcome::Moved => Ok(None),
        Welcome::Sockets { .. } | Welcome::Ending | Welcome::Refused(_) => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}
