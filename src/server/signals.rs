//! The signals that end a process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end an instance: SIGTERM from whoever runs it, SIGINT from a terminal.
pub(crate) struct ExitSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl ExitSignals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns at the first signal. A second one ends the process at once: whoever sends it does not want to wait.
    pub(crate) async fn wait(mut self) {
        self.either().await;
        tokio::spawn(async move {
            self.either().await;
            eprintln!("callgate: ended without waiting for the drain");
            std::process::exit(1);
        });
    }

    async fn either(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
