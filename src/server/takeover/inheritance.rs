//! The new process's side of a takeover.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::error::TakeoverError;
use super::message::{Hello, Imported, Ready, Role, Serving, State, Verdict, Welcome};
use super::wire::{Connection, fits};
use crate::limits::{ClockOrigin, MemoryLimiter, Moment};

/// How long the running process may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take until a process that has just taken over answers.
const MOVING: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// What a running process gives to this one.
pub(crate) struct Inheritance {
    path: PathBuf,
    connection: Connection,
    sockets: Vec<(String, SocketAddr, TcpListener)>,
}

/// Asks the process at the path for its sockets. `None`: no process is there, or it ends.
pub(crate) fn connect(path: &Path) -> Result<Option<Inheritance>, TakeoverError> {
    let deadline = Instant::now() + MOVING;
    loop {
        match ask(path) {
            Ok(Answer::Sockets(inheritance, clock)) => {
                if clock.is_some_and(|clock| !clock.adopt()) {
                    tracing::warn!(
                        "the clock of the running process can't be taken over: windows may be off by a correction of the clock"
                    );
                }
                return Ok(Some(inheritance));
            }
            Ok(Answer::Nobody) => return Ok(None),
            Ok(Answer::Refused(reason)) => return Err(TakeoverError::Refused(reason)),
            Ok(Answer::Moved) if Instant::now() < deadline => thread::sleep(PAUSE),
            Ok(Answer::Moved) => return Err(TakeoverError::Refused("another process is taking over".to_owned())),
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

enum Answer {
    /// With the memory store, also the clock of its logs.
    Sockets(Inheritance, Option<ClockOrigin>),
    Nobody,
    Moved,
    Refused(String),
}

fn ask(path: &Path) -> io::Result<Answer> {
    let mut connection = Connection::open(path, TIMEOUT)?;
    connection.send(&Hello::new(Role::Successor))?;
    let (sockets, clock) = match connection.receive()? {
        Welcome::Sockets { sockets, clock } => (sockets, clock),
        Welcome::Moved => return Ok(Answer::Moved),
        Welcome::Ending => return Ok(Answer::Nobody),
        Welcome::Refused(reason) => return Ok(Answer::Refused(reason)),
        Welcome::Holder => return Err(io::ErrorKind::InvalidData.into()),
    };
    let received = connection.receive_sockets(sockets.len())?;
    let sockets = sockets.into_iter().zip(received).map(|((key, address), socket)| (key, address, socket)).collect();
    Ok(Answer::Sockets(Inheritance { path: path.to_owned(), connection, sockets }, clock))
}

/// Whether nobody is there, or whoever was has died.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    [NotFound, ConnectionRefused, ConnectionReset, BrokenPipe, UnexpectedEof].contains(&error.kind())
}

impl Inheritance {
    /// The sockets for a key of the configuration, if they are bound where it says.
    pub(crate) fn take(&mut self, key: &str, configured: SocketAddr) -> Vec<TcpListener> {
        let fitting = self.sockets.extract_if(.., |(name, bound, _)| name == key && fits(*bound, configured));
        fitting.map(|(_, _, socket)| socket).collect()
    }

    /// Takes over what the limiter of the running process knows. Returns when this process decides, and has to accept.
    /// A running process that dies meanwhile leaves everything to this one.
    pub(crate) fn take_state(&mut self, memory: Option<&Arc<MemoryLimiter>>) -> Result<(), TakeoverError> {
        match self.try_take_state(memory) {
            Ok(Verdict::GoOn) => Ok(()),
            Ok(Verdict::KeepOut(reason)) => Err(TakeoverError::Refused(reason)),
            Err(error) if is_absent(&error) && self.is_nobody_there() => {
                tracing::warn!("the running process died while this one took over; this one goes on with its sockets");
                Ok(())
            }
            Err(error) if is_absent(&error) => {
                Err(TakeoverError::Refused("it has waited too long, and goes on as before".to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the running process has died, and not only given up this takeover. Both end the connection.
    fn is_nobody_there(&mut self) -> bool {
        // What it said last may still be there to be read.
        let verdict = self.connection.receive::<Verdict>();
        !matches!(verdict, Ok(Verdict::KeepOut(_)))
            && match ask(&self.path) {
                Ok(Answer::Nobody) => true,
                Ok(Answer::Sockets(..) | Answer::Moved | Answer::Refused(_)) => false,
                Err(error) => is_absent(&error),
            }
    }

    fn try_take_state(&mut self, memory: Option<&Arc<MemoryLimiter>>) -> io::Result<Verdict> {
        let connection = &mut self.connection;
        connection.send(&Ready { takes_state: memory.is_some() })?;
        if let Some(memory) = memory {
            let State { calls } = connection.receive()?;
            calls.into_iter().for_each(|(holder, calls)| memory.set_calls_of(holder, calls));
            loop {
                let part = connection.receive_bytes()?;
                if part.is_empty() {
                    break;
                }
                memory.import(&part, Moment::now().steady_ms()).map_err(io::Error::other)?;
            }
            connection.send(&Imported)?;
        }
        connection.receive()
    }

    /// Lets the running process drain.
    pub(crate) fn finish(mut self) {
        // If it has died, there is nobody to tell.
        let _ = self.connection.send(&Serving);
    }
}
