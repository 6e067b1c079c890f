//! The progress of a long read of a ledger, on standard error.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use crate::output;

/// The time before which nothing is shown: most reads are shorter.
const FIRST: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

/// Counts purchases or rows, and shows the count. It is cleared when it is dropped.
pub(crate) struct Progress {
    /// The words after the count.
    words: &'static str,
    /// Nothing is shown if a terminal shows the result itself.
    is_shown: bool,
    read: u64,
    next: Instant,
}

impl Progress {
    pub(crate) fn begin() -> Self {
        Self {
            is_shown: !io::stdout().is_terminal(),
            ..Self::of_report()
        }
    }

    /// Returns the progress of a report, which shows its result at the end.
    pub(crate) fn of_report() -> Self {
        Self::of("purchases read")
    }

    /// Returns the progress of other work, which shows its result at the end.
    pub(crate) fn of(words: &'static str) -> Self {
        let now = Instant::now();
        Self {
            words,
            is_shown: true,
            read: 0,
            next: now.checked_add(FIRST).unwrap_or(now),
        }
    }

    pub(crate) fn add(&mut self, purchases: usize) {
        let purchases = u64::try_from(purchases).unwrap_or(u64::MAX);
        self.read = self.read.saturating_add(purchases);
        let now = Instant::now();
        if self.is_shown && now >= self.next {
            output::status(format_args!("{} {}", self.read, self.words));
            self.next = now.checked_add(PAUSE).unwrap_or(now);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        output::clear_status();
    }
}
