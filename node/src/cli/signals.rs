//! What ends a process, or has it read its configuration again: signals, and the end of the process that started it.

use rustix::process::{Pid, Signal as OsSignal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;

/// Tells a node whose process it shall not outlive.
pub(super) const PARENT_VARIABLE: &str = "CARILLON_DEV_PARENT";

/// What a process is told to do.
pub(super) enum Signal {
    Stop,
    Reload,
}

/// SIGINT and SIGTERM, and SIGHUP.
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|e| Failure::failed(format!("can't listen for signals: {e}")));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.hang_up.recv() => Signal::Reload,
        }
    }

    /// Returns at the first signal to stop.
    pub(super) async fn stop(&mut self) {
        while let Signal::Reload = self.next().await {}
    }
}

/// In a node that `carillon dev` started: asks the system to be ended with it.
pub(super) fn follow_parent() {
    let Some(parent) = std::env::var(PARENT_VARIABLE).ok().and_then(|pid| pid.parse().ok()) else { return };
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::process::set_parent_process_death_signal(Some(OsSignal::TERM));
    }
    // It may have gone before the system was asked.
    if rustix::process::getppid() != Pid::from_raw(parent) {
        let _ = kill_process(rustix::process::getpid(), OsSignal::TERM);
    }
}
