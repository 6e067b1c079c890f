//! Stopping a program that pays, from inside.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Stops all paying of the clients that it was given to, at once and until it is lifted.
///
/// Clones are the same switch: keep one, and hand the other to
/// [`ClientBuilder::freeze_switch`](crate::ClientBuilder::freeze_switch). What was signed before stays
/// signed, and is not presented again while the switch is on. To stop from outside there are the
/// policy's [file](crate::Policy::freeze_file) and the [ledger](crate::Ledger::freeze).
///
/// ```
/// use bursar::FreezeSwitch;
///
/// let switch = FreezeSwitch::new();
/// let handle = switch.clone();
/// // Client::builder().freeze_switch(switch)…
/// handle.stop("the model went in circles");
/// assert!(handle.is_on());
/// handle.lift();
/// ```
#[derive(Clone, Default)]
pub struct FreezeSwitch(Arc<Mutex<Option<String>>>);

impl FreezeSwitch {
    /// A switch that is off.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops paying. The reason is told to whoever is denied.
    pub fn stop(&self, reason: impl Into<String>) {
        *self.lock() = Some(reason.into());
    }

    /// Lets paying go on.
    pub fn lift(&self) {
        *self.lock() = None;
    }

    /// Whether paying is stopped.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.lock().is_some()
    }

    pub(super) fn reason(&self) -> Option<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FreezeSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FreezeSwitch").field(&self.reason()).finish()
    }
}
