//! Processes that are being drained: this one decides for them, and knows which calls they hold.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::message::{HolderReply, HolderRequest, Welcome, process_name};
use super::wire::Connection;
use crate::limits::{MemoryLimiter, Moment};

/// How long a process whose calls were taken over may take to connect. If it has died, its calls end then.
const GRACE: Duration = Duration::from_secs(10);

/// The connections of these processes, by their names; the latest of each.
#[derive(Default)]
pub(crate) struct Holders {
    connections: Arc<Mutex<Connections>>,
}

#[derive(Default)]
struct Connections {
    by_process: HashMap<u64, (u64, UnixStream)>,
    /// Connections so far.
    count: u64,
}

fn lock(connections: &Mutex<Connections>) -> MutexGuard<'_, Connections> {
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Holders {
    /// Forgets the calls of processes that don't connect in time.
    pub(super) fn expect_those_of(&self, memory: &Arc<MemoryLimiter>) {
        let holders: Vec<u64> =
            memory.export_calls(process_name()).into_keys().filter(|holder| *holder != process_name()).collect();
        if holders.is_empty() {
            return;
        }
        let (memory, connections) = (memory.clone(), self.connections.clone());
        let forget = move || {
            thread::sleep(GRACE);
            let connections = lock(&connections);
            for holder in holders.iter().filter(|holder| !connections.by_process.contains_key(holder)) {
                memory.forget_calls_of(*holder);
            }
        };
        if let Err(error) = thread::Builder::new().name("takeover".into()).spawn(forget) {
            tracing::error!(%error, "can't start a thread: calls of a process that has died count until this one ends");
        }
    }

    /// Sends them away: another process decides.
    pub(super) fn close(&self) {
        for (_, (_, connection)) in lock(&self.connections).by_process.drain() {
            // It may be closed already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Decides for a process until it ends.
    pub(super) fn serve(
        &self,
        mut connection: Connection,
        memory: &MemoryLimiter,
        process: u64,
        calls: HashMap<Box<str>, u32>,
    ) -> io::Result<()> {
        if memory.is_frozen() {
            return connection.send(&Welcome::Moved);
        }
        connection.never_times_out()?;
        let number = {
            let mut connections = lock(&self.connections);
            connections.count += 1;
            let number = connections.count;
            connections.by_process.insert(process, (number, connection.closer()?));
            memory.set_calls_of(process, calls);
            number
        };
        let served = connection.send(&Welcome::Holder).and_then(|()| answer(&mut connection, memory, process));
        let mut connections = lock(&self.connections);
        if connections.by_process.get(&process).is_some_and(|(latest, _)| *latest == number) {
            connections.by_process.remove(&process);
            // Behind a takeover the next process counts them.
            if !memory.is_frozen() {
                memory.forget_calls_of(process);
            }
        }
        served
    }
}

fn answer(connection: &mut Connection, memory: &MemoryLimiter, process: u64) -> io::Result<()> {
    loop {
        match connection.receive()? {
            HolderRequest::Decide(question) => {
                let reply = match memory.decide_for(process, &question, Moment::now().steady_ms()) {
                    Some(answer) => HolderReply::Decision(answer),
                    None => HolderReply::Moved,
                };
                connection.send(&reply)?;
            }
            HolderRequest::Ping if memory.is_frozen() => connection.send(&HolderReply::Moved)?,
            HolderRequest::Ping => connection.send(&HolderReply::Here)?,
            HolderRequest::EndCall(token) => memory.end_call_of(process, &token),
            HolderRequest::Reset(token) => memory.reset(&token),
        }
    }
}
