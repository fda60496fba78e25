//! Messages, bytes and sockets over a Unix socket. Each message is behind its length.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of one message: more than the logs of a 64th of all tokens take.
const MAX_MESSAGE: usize = 1 << 30;
/// Sockets in one message; the kernel takes 253.
const BATCH: usize = 64;

// Other systems lack these flags. There Rust ignores SIGPIPE for the whole process, and no program is executed.
#[cfg(target_os = "linux")]
const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(target_os = "linux"))]
const NO_SIGNAL: SendFlags = SendFlags::empty();
#[cfg(target_os = "linux")]
const CLOSE_ON_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
const CLOSE_ON_EXEC: RecvFlags = RecvFlags::empty();

/// A connection to another Callgate.
pub(super) struct Connection {
    stream: UnixStream,
}

impl Connection {
    pub(super) fn open(path: &Path, timeout: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        if !is_trusted(&stream)? {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the process there belongs to another user"));
        }
        Self::new(stream, timeout)
    }

    pub(super) fn new(stream: UnixStream, timeout: Duration) -> io::Result<Self> {
        let connection = Self { stream };
        connection.set_timeout(timeout)?;
        Ok(connection)
    }

    /// How long each step may take from here on.
    pub(super) fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(timeout))?;
        self.stream.set_write_timeout(Some(timeout))
    }

    /// Waits for the next message however long it takes.
    pub(super) fn never_times_out(&self) -> io::Result<()> {
        self.stream.set_read_timeout(None)
    }

    /// Another handle, by which the connection can be closed.
    pub(super) fn closer(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    pub(super) fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        self.send_bytes(&serde_json::to_vec(message)?)
    }

    pub(super) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        Ok(serde_json::from_slice(&self.receive_bytes()?)?)
    }

    pub(super) fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.stream.write_all(&length.to_le_bytes())?;
        self.stream.write_all(bytes)
    }

    pub(super) fn receive_bytes(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
        }
        let mut bytes = Vec::new();
        // What is announced may never come, so that no room is made for it beforehand.
        Read::by_ref(&mut self.stream).take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
    }

    pub(super) fn send_sockets(&mut self, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        for batch in sockets.chunks(BATCH) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(batch)) {
                return Err(io::Error::other("too many sockets for one message"));
            }
            sendmsg(self.stream.as_fd(), &[IoSlice::new(&[0])], &mut control, NO_SIGNAL)?;
        }
        Ok(())
    }

    pub(super) fn receive_sockets(&mut self, count: usize) -> io::Result<Vec<TcpListener>> {
        let mut sockets = Vec::new();
        while sockets.len() < count {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let got = recvmsg(self.stream.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, CLOSE_ON_EXEC)?;
            let before = sockets.len();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    sockets.extend(received.map(|socket: OwnedFd| TcpListener::from(socket)));
                }
            }
            if got.bytes == 0 || sockets.len() == before {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(sockets)
    }
}

/// Whether the process at the other end belongs to the same user, or to root.
#[cfg(target_os = "linux")]
pub(super) fn is_trusted(stream: &UnixStream) -> io::Result<bool> {
    let uid = rustix::net::sockopt::socket_peercred(stream)?.uid;
    Ok(uid == rustix::process::getuid() || uid.is_root())
}

/// The mode of the socket's file, 0600, is the only guard elsewhere.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_trusted(_: &UnixStream) -> io::Result<bool> {
    Ok(true)
}

/// Whether sockets bound there serve a configuration that says `configured`: port 0 means any.
pub(crate) fn fits(bound: SocketAddr, configured: SocketAddr) -> bool {
    bound.ip() == configured.ip() && (configured.port() == 0 || bound.port() == configured.port())
}
