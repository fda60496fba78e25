//! The signals that end a process, and those that must not.

use std::io;

use rustix::process::Signal as SignalNumber;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM from a service manager, SIGINT and SIGQUIT from a terminal.
pub(crate) struct ExitSignals {
    signals: [Signal; 3],
}

impl ExitSignals {
    pub(crate) fn listen() -> io::Result<Self> {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()];
        let [terminate, interrupt, quit] = kinds.map(signal);
        Ok(Self { signals: [terminate?, interrupt?, quit?] })
    }

    /// From here on no other signal ends this process that could be ignored. (Those of faults can't: they end it.)
    pub(crate) fn ignore_others() -> io::Result<()> {
        let numbers = [
            SignalNumber::USR1,
            SignalNumber::USR2,
            SignalNumber::PIPE,
            SignalNumber::ALARM,
            SignalNumber::VTALARM,
            SignalNumber::PROF,
            SignalNumber::IO,
            SignalNumber::POWER,
            SignalNumber::STKFLT,
            SignalNumber::XCPU,
            SignalNumber::XFSZ,
        ];
        for number in numbers.map(SignalNumber::as_raw).into_iter().chain(REAL_TIME) {
            // What is listened to has no other effect, also when nobody listens any longer. A debugger may keep one for itself.
            let _ = signal(SignalKind::from_raw(number));
        }
        Ok(())
    }

    /// Returns at the first signal. A second signal ends the process at once, without a drain.
    pub(crate) async fn wait(mut self) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            eprintln!("callgate: stopped without waiting for the drain");
            std::process::exit(1);
        });
    }

    async fn next(&mut self) {
        let [terminate, interrupt, quit] = &mut self.signals;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

/// The real-time signals that a program may use on Linux.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;
