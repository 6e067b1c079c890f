//! The signals that ask a serving command to stop: ctrl-c, and SIGTERM where the system has it.

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
#[cfg(windows)]
use tokio::signal::windows::{CtrlC, ctrl_c};

use crate::exit::Failure;

/// Receives the signals that were sent since [`listen`](Self::listen).
pub(crate) struct Stop {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
    #[cfg(windows)]
    interrupt: CtrlC,
}

impl Stop {
    /// Starts to receive the signals.
    ///
    /// A command calls this before it prints that it is ready. A program that reads that line can send a signal at once,
    /// and before this call, the signal would kill the process.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let failed =
            |error| Failure::failed(format!("signals to stop cannot be received: {error}"));
        Ok(Self {
            #[cfg(unix)]
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            #[cfg(windows)]
            interrupt: ctrl_c().map_err(failed)?,
        })
    }

    /// Waits for the next signal. No signal is lost if you drop the future.
    pub(crate) async fn asked(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(windows)]
        self.interrupt.recv().await;
    }
}
