//! The running process's side of a takeover.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, TryLockError, mpsc};
use std::thread;
use std::time::Duration;

use super::holders::Holders;
use super::link;
use super::message::{Hello, Imported, PROTOCOL, Ready, Role, Serving, State, Verdict, Welcome, process_name};
use super::wire::{Connection, is_trusted};
use crate::limits::{ClockOrigin, MemoryLimiter, SuccessorRequest};
use crate::server::path_socket::PathSocket;
use crate::shutdown::Shutdown;

/// How long a new process may take from the sockets on until it is ready, and for each later step.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The same while decisions wait for the new process to take over what the limiter knows.
const FROZEN_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket, by its key in the configuration.
pub(crate) struct HeldSocket {
    pub(crate) key: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) socket: TcpListener,
}

/// A process that can be taken over from.
pub(crate) struct Predecessor {
    pub(crate) path: PathBuf,
    /// `None` once they are closed.
    pub(crate) sockets: Mutex<Option<Vec<HeldSocket>>>,
    /// With the memory store.
    pub(crate) memory: Option<Arc<MemoryLimiter>>,
    pub(crate) shutdown: Shutdown,
    pub(crate) holders: Holders,
    /// Held during a takeover.
    pub(crate) busy: Mutex<()>,
}

impl Predecessor {
    /// Takes the place at the path, and answers there from a thread of its own.
    pub(crate) fn start(self: Arc<Self>, mut socket: PathSocket) -> io::Result<()> {
        socket.take_place()?;
        if let Some(memory) = &self.memory {
            self.holders.expect_those_of(memory);
        }
        thread::Builder::new().name("takeover".into()).spawn(move || {
            loop {
                match accept(socket.listener()) {
                    Ok(stream) => {
                        let process = self.clone();
                        let serve = move || process.serve(stream);
                        if let Err(error) = thread::Builder::new().name("takeover".into()).spawn(serve) {
                            tracing::error!(%error, "can't answer a process that wants to take over");
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "can't accept connections at the takeover socket");
                        thread::sleep(ACCEPT_PAUSE);
                    }
                }
            }
        })?;
        Ok(())
    }

    /// Closes its handles of the listening sockets.
    pub(crate) fn close_sockets(&self) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn serve(&self, stream: UnixStream) {
        if let Err(error) = self.answer(stream) {
            tracing::debug!(%error, "a connection to the takeover socket broke off");
        }
    }

    fn answer(&self, stream: UnixStream) -> io::Result<()> {
        let mut connection = Connection::new(stream, TIMEOUT)?;
        let hello: Hello = connection.receive()?;
        if hello.protocol != PROTOCOL {
            let reason = format!("it is version {} and speaks another protocol", env!("CARGO_PKG_VERSION"));
            return connection.send(&Welcome::Refused(reason));
        }
        match (hello.role, &self.memory) {
            (Role::Successor, _) => self.hand_over(connection, hello.pid),
            (Role::Holder { calls }, Some(memory)) => self.holders.serve(connection, memory, hello.process, calls),
            (Role::Holder { .. }, None) => connection.send(&Welcome::Refused("it has no memory store".to_owned())),
        }
    }

    fn hand_over(&self, mut connection: Connection, pid: u32) -> io::Result<()> {
        let _busy = match self.busy.try_lock() {
            Ok(busy) => busy,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return connection.send(&Welcome::Refused("another process is taking over".to_owned()));
            }
        };
        if self.shutdown.is_handed_over() {
            return connection.send(&Welcome::Moved);
        }
        tracing::info!(pid, "another process wants to take over");
        match self.try_hand_over(&mut connection) {
            Ok(Outcome::Ending) => connection.send(&Welcome::Ending),
            Ok(Outcome::HandedOver(requests)) => {
                tracing::info!(pid, "another process has taken over");
                if let (Some(memory), Some(requests)) = (&self.memory, requests) {
                    link::start(self.path.clone(), memory.clone(), requests);
                }
                self.holders.close();
                self.close_sockets();
                self.shutdown.hand_over();
                Ok(())
            }
            Err(error) => {
                tracing::warn!(pid, %error, "a takeover failed, and this process goes on as before");
                if let Some(memory) = &self.memory {
                    // Some may have died while they were sent away.
                    self.holders.expect_those_of(memory);
                }
                let _ = connection.send(&Verdict::KeepOut(error.to_string()));
                Err(error)
            }
        }
    }

    fn try_hand_over(&self, connection: &mut Connection) -> io::Result<Outcome> {
        {
            let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(sockets) = sockets.as_deref().filter(|_| !self.shutdown.is_announced()) else {
                return Ok(Outcome::Ending);
            };
            let names = sockets.iter().map(|held| (held.key.to_owned(), held.address)).collect();
            let clock = self.memory.is_some().then(ClockOrigin::of_this_process);
            connection.send(&Welcome::Sockets { sockets: names, clock })?;
            let descriptors: Vec<_> = sockets.iter().map(|held| held.socket.as_fd()).collect();
            connection.send_sockets(&descriptors)?;
        }
        let ready: Ready = connection.receive()?;
        let Some(memory) = self.memory.as_ref().filter(|_| ready.takes_state) else {
            if ready.takes_state {
                connection.send(&State { calls: Default::default() })?;
                connection.send_bytes(&[])?;
                let Imported = connection.receive()?;
            }
            self.confirm(connection)?;
            return Ok(Outcome::HandedOver(None));
        };
        connection.set_timeout(FROZEN_TIMEOUT)?;
        let requests = memory.freeze();
        let handed_over = send_state(connection, memory).and_then(|()| self.confirm(connection));
        match handed_over {
            Ok(()) => Ok(Outcome::HandedOver(Some(requests))),
            Err(error) => {
                memory.thaw();
                Err(error)
            }
        }
    }

    /// Lets the new process go on, and waits until it serves.
    fn confirm(&self, connection: &mut Connection) -> io::Result<()> {
        if self.shutdown.is_announced() {
            return Err(io::Error::other("the running process is being stopped"));
        }
        connection.send(&Verdict::GoOn)?;
        connection.set_timeout(TIMEOUT)?;
        match connection.receive() {
            Ok(Serving) => Ok(()),
            // It is alive, and serves or is about to.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

enum Outcome {
    Ending,
    /// With the memory store: what the limiter has to ask the new process.
    HandedOver(Option<mpsc::Receiver<SuccessorRequest>>),
}

/// Waits for a process of the same user, or of root.
fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
    loop {
        let (stream, _) = listener.accept()?;
        if is_trusted(&stream)? {
            return Ok(stream);
        }
    }
}

fn send_state(connection: &mut Connection, memory: &MemoryLimiter) -> io::Result<()> {
    connection.send(&State { calls: memory.export_calls(process_name()) })?;
    memory.export(|part| connection.send_bytes(part))?;
    connection.send_bytes(&[])?;
    let Imported = connection.receive()?;
    Ok(())
}
