//! Freezing the payments of a program from inside it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A switch that freezes all payments of the clients that hold it, until you unfreeze it.
///
/// Clones are the same switch: keep one, and give the other to
/// [`ClientBuilder::freeze_switch`](crate::ClientBuilder::freeze_switch). A payment that was signed before stays signed,
/// and bursar does not present it again while the switch is on. To freeze payments from outside the program, use
/// [`Policy::freeze_file`](crate::Policy::freeze_file) or [`Ledger::freeze`](crate::Ledger::freeze).
///
/// ```
/// use bursar::FreezeSwitch;
///
/// let switch = FreezeSwitch::new();
/// let handle = switch.clone();
/// // Client::builder().freeze_switch(switch)…
/// handle.freeze("the model repeats itself");
/// assert!(handle.is_on());
/// handle.unfreeze();
/// assert!(!handle.is_on());
/// ```
#[derive(Clone, Default)]
pub struct FreezeSwitch(Arc<Mutex<Option<String>>>);

impl FreezeSwitch {
    /// Returns a switch that is off.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Freezes payments. A denial repeats the reason.
    pub fn freeze(&self, reason: impl Into<String>) {
        *self.lock() = Some(reason.into());
    }

    /// Allows payments again.
    pub fn unfreeze(&self) {
        *self.lock() = None;
    }

    /// Returns whether payments are frozen.
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
