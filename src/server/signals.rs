//! The signals that end a process, and those that must not.

use std::io;

use rustix::process::Signal as SignalNumber;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::telemetry;

use super::drain::HURRIED;

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
            // It reloads, but must do no harm before and after that is listened to.
            SignalNumber::HUP,
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

    /// Listens during a drain: a second signal cancels the token that this returns, a third one ends the process at once. If no
    /// signal has begun the drain, the first one changes nothing.
    pub(super) fn hurry(mut self, began_without: bool) -> CancellationToken {
        let hurry = CancellationToken::new();
        let hurried = hurry.clone();
        tokio::spawn(async move {
            if began_without {
                self.next().await;
                tracing::info!("the drain goes on as it is");
            }
            self.next().await;
            tracing::warn!(
                "a second signal hurries the drain: calls are closed and requests are cut within {HURRIED:?}; a third signal \
                 ends the process at once"
            );
            hurried.cancel();
            self.exit_at_next().await;
        });
        hurry
    }

    /// At the next signal, ends the process at once.
    pub(crate) async fn exit_at_next(mut self) {
        self.next().await;
        eprintln!("callgate: stopped at once, at one more signal");
        telemetry::write_last_lines();
        std::process::exit(1);
    }

    /// Returns at the next signal.
    pub(crate) async fn next(&mut self) {
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
