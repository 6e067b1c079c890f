//! Denials: how often which rule refused payments to which host.
//!
//! A denial is noted in memory and added to the database afterwards, so that a call waits for nothing. Of many denials
//! in a row, the database sees a sum about once a second.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::backend::Backend;
use super::{Ledger, LedgerError};
use crate::clock::Timestamp;
use crate::limit::{Denial, Rule};
use crate::text;

/// The most rules and hosts that a ledger counts apart. Small in tests, which otherwise would not reach it.
pub(super) const MOST: usize = if cfg!(test) { 20 } else { 1000 };
/// The most rules and hosts that wait in memory.
const MOST_WAITING: usize = 256;
/// The writes that can follow each other at once. Then one a second is made.
const BURST: u32 = 16;
const PAUSE: Duration = Duration::from_secs(1);
/// The host of the denials that are not counted by their host.
pub(super) const OTHERS: &str = "";

/// The number of payments that one rule refused for one host.
///
/// [`Ledger::denials`] returns it. It is also a part of a [`Report`](super::report::Report).
///
/// ```
/// use bursar::ledger::DenialCount;
///
/// fn describe(denials: &DenialCount) -> String {
///     let host = denials.host.as_deref().unwrap_or("other hosts");
///     format!("{} times {} at {host}, last: {}", denials.count, denials.rule, denials.message)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DenialCount {
    /// The rule that refused.
    pub rule: Rule,
    /// The host of the seller. `None` for the hosts that are counted together, because the ledger counts at most 1,000
    /// rules and hosts apart.
    pub host: Option<String>,
    /// The number of denials.
    pub count: u64,
    /// The time of the first denial.
    pub first_at: Timestamp,
    /// The time of the last denial.
    pub last_at: Timestamp,
    /// The last refusal in words, shortened. It can quote a seller.
    pub message: String,
}

impl DenialCount {
    /// Adds later or earlier denials of the same rule and host.
    pub(super) fn add(&mut self, more: Self) {
        self.count = self.count.saturating_add(more.count);
        self.first_at = self.first_at.min(more.first_at);
        if more.last_at >= self.last_at {
            (self.last_at, self.message) = (more.last_at, more.message);
        }
    }

    /// Returns the key by which denials are counted.
    pub(super) fn key(&self) -> (&'static str, String) {
        let host = self.host.clone();
        (self.rule.name(), host.unwrap_or_else(|| OTHERS.to_owned()))
    }
}

/// Denials by rule and host.
#[derive(Debug, Default)]
pub(super) struct DenialCounts(BTreeMap<(&'static str, String), DenialCount>);

impl DenialCounts {
    /// Adds denials. Beyond `most` rules and hosts, all other hosts of a rule are counted together.
    pub(super) fn add(&mut self, mut more: DenialCount, most: usize) {
        if self.0.len() >= most && !self.0.contains_key(&more.key()) {
            more.host = None;
        }
        match self.0.get_mut(&more.key()) {
            Some(known) => known.add(more),
            None => drop(self.0.insert(more.key(), more)),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &DenialCount> {
        self.0.values()
    }
}

/// The denials that the database does not have yet. All clones of a ledger share them.
pub(super) struct Denials {
    backend: Backend,
    waiting: Mutex<Waiting>,
    /// Held by the task that writes, so that others wait for it.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    counts: DenialCounts,
    /// The number of writes that were made at once, and the time of the last one.
    made: u32,
    last: Option<Instant>,
}

impl Waiting {
    /// Returns whether the database should be written now.
    fn is_due(&mut self, now: Instant) -> bool {
        let passed = self
            .last
            .map_or(Duration::MAX, |last| now.duration_since(last));
        let recovered = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX);
        let made = self.made.saturating_sub(recovered);
        if made >= BURST && passed < PAUSE {
            return false;
        }
        self.made = made.saturating_add(1);
        self.last = Some(now);
        true
    }
}

impl Denials {
    pub(super) fn new(backend: Backend) -> Self {
        Self {
            backend,
            waiting: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<DenialCount> {
        let counts = std::mem::take(&mut self.waiting().counts);
        counts.0.into_values().collect()
    }

    fn put_back(&self, denials: Vec<DenialCount>) {
        let mut waiting = self.waiting();
        for more in denials {
            waiting.counts.add(more, MOST_WAITING);
        }
    }

    /// Writes the denials that wait, and returns after that.
    async fn write(&self) -> Result<(), LedgerError> {
        let _writing = self.writing.lock().await;
        let mut taken = Taken {
            counts: self.take(),
            from: self,
        };
        if taken.counts.is_empty() {
            return Ok(());
        }
        if self.backend.writes_later() {
            // The thread of a file writes them also if the caller stops waiting.
            let counts = std::mem::take(&mut taken.counts);
            let written = self.backend.add_denials(&counts).await;
            if written.is_err() {
                self.put_back(counts);
            }
            return written;
        }
        self.backend.add_denials(&taken.counts).await?;
        taken.counts.clear();
        Ok(())
    }
}

/// Denials that are being written. They wait again if the caller stops waiting, or if the write fails.
struct Taken<'a> {
    counts: Vec<DenialCount>,
    from: &'a Denials,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.from.put_back(std::mem::take(&mut self.counts));
    }
}

impl Drop for Denials {
    /// A file is closed only after the rest is written. A server is not asked again: a program that ends after a denial
    /// calls [`Ledger::record_denials`].
    fn drop(&mut self) {
        let rest = self.take();
        if !rest.is_empty() {
            self.backend.add_denials_later(rest);
        }
    }
}

impl Ledger {
    /// Returns how often each rule refused payments to each host, the latest denial first.
    ///
    /// bursar counts the denials of all clients that use the ledger: at most 1,000 rules and hosts, and the further
    /// hosts of each rule together. It does not count questions such as [`Client::explain`](crate::Client::explain).
    /// The counts are for people. They are not part of the hash chain that [`verify`](Self::verify) checks, and a
    /// process that is killed may lose the denials of its last second.
    ///
    /// # Errors
    /// Returns an error if the ledger cannot be read or written.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bursar::ledger::LedgerError> {
    /// use bursar::Ledger;
    ///
    /// let ledger = Ledger::memory();
    /// for denials in ledger.denials().await? {
    ///     println!("{} {:?}: {}", denials.rule, denials.host, denials.count);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn denials(&self) -> Result<Vec<DenialCount>, LedgerError> {
        // A ledger that can be read and not written still shows the stored counts.
        let unwritten = match self.record_denials().await {
            Ok(()) => Vec::new(),
            Err(_) => self.denials.waiting().counts.0.values().cloned().collect(),
        };
        let mut counts = DenialCounts::default();
        let stored = self.backend.denials().await?;
        for more in stored.into_iter().chain(unwritten) {
            counts.add(more, usize::MAX);
        }
        let mut counts: Vec<DenialCount> = counts.0.into_values().collect();
        counts.sort_by_key(|denials| std::cmp::Reverse(denials.last_at));
        Ok(counts)
    }

    /// Adds the denials that wait in memory to the database, and returns after that.
    ///
    /// bursar does so by itself soon after a denial. A program that uses PostgreSQL and ends right after a denial should
    /// call it.
    ///
    /// # Errors
    /// Returns an error if the ledger cannot be written. The denials then wait further.
    pub async fn record_denials(&self) -> Result<(), LedgerError> {
        self.denials.write().await
    }

    /// Notes a denial, and has it written soon. Does not wait and does not fail.
    pub(crate) fn note_denial(&self, denial: &Denial, host: &str) {
        let now = self.now();
        let noted = DenialCount {
            rule: denial.rule,
            host: Some(host.to_owned()),
            count: 1,
            first_at: now,
            last_at: now,
            message: text::excerpt(&denial.message),
        };
        let is_due = {
            let mut waiting = self.denials.waiting();
            waiting.counts.add(noted, MOST_WAITING);
            waiting.is_due(Instant::now())
        };
        if !is_due {
            return;
        }
        if self.backend.writes_later() {
            let denials = self.denials.take();
            self.backend.add_denials_later(denials);
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let denials = std::sync::Arc::clone(&self.denials);
            drop(runtime.spawn(async move {
                if let Err(error) = denials.write().await {
                    tracing::warn!(%error, "the ledger did not count denials; it tries again with the next one");
                }
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_denials_in_a_row_are_written_about_once_a_second() {
        let mut waiting = Waiting::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let written =
            (0..100_000).filter(|nanos| waiting.is_due(start + Duration::from_nanos(*nanos)));
        assert_eq!(written.count(), 16);
        assert!(!waiting.is_due(at(900)));
        assert!(waiting.is_due(at(1001)));
        assert!(!waiting.is_due(at(1002)));
        let written = (1100..11_100).filter(|millis| waiting.is_due(at(*millis)));
        assert!((9..=11).contains(&written.count()));
        // After a quiet minute, some can follow each other again.
        assert!((0..3).all(|_| waiting.is_due(at(80_000))));
    }

    #[tokio::test]
    async fn a_flood_of_denials_stays_small_and_loses_no_count() {
        let ledger = Ledger::memory();
        for number in 0_u32..5000 {
            let denial = Denial::new(Rule::Host, "not on the list");
            ledger.note_denial(&denial, &format!("host-{number}.example"));
        }
        let denials = ledger.denials().await.unwrap();
        assert!(denials.len() <= MOST + 1, "{}", denials.len());
        let count: u64 = denials.iter().map(|denials| denials.count).sum();
        assert_eq!(count, 5000);
        let others = denials.iter().find(|denials| denials.host.is_none());
        let apart = u64::try_from(denials.len()).unwrap() - 1;
        assert_eq!(others.unwrap().count, 5000 - apart);
    }
}
