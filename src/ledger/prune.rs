//! Pruning: the large parts of finished purchases move from the ledger to an archive.
//!
//! A purchase keeps its row: its id, its amount and everything that a limit, a report or an identical request needs. Thus
//! nothing is decided differently after a pruning. The seller's terms and answer move to the archive, and the stored payment
//! is deleted. In their place, the ledger stores the hash of the line of the archive, and the chain of hashes covers it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use alloy::primitives::B256;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::task::{JoinSet, spawn_blocking};

use super::{Filter, Ledger, LedgerError, Purchase, State, Transition};
use crate::clock::Timestamp;
use crate::json_text::hash;
use crate::text::json;

/// The number of purchases that are pruned at the same time. A SQLite ledger commits them together.
const AT_ONCE: usize = 64;
/// The length of the stored payment and the terms from which a purchase is pruned, in bytes. Pruning adds an event.
pub(super) const WORTHWHILE: usize = 512;

/// The result of [`Ledger::prune`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pruned {
    /// The number of purchases in the archive.
    pub archived: u64,
    /// The number of purchases that were pruned. A purchase that changed after it was archived is not pruned.
    pub pruned: u64,
    /// The length of the archive in bytes.
    pub bytes: u64,
}

/// The text in place of the terms of a pruned purchase, as JSON. Stored terms have no such member.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    archived: Archived,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Archived {
    #[serde(with = "hash")]
    sha256: B256,
}

impl Purchase {
    /// Returns the SHA-256 hash of the line of this purchase in the archive, without the end of the line. Returns `None`
    /// if the purchase was not pruned.
    ///
    /// ```
    /// # async fn example(ledger: bursar::Ledger) -> Result<(), Box<dyn std::error::Error>> {
    /// let id = "order-1".parse()?;
    /// if let Some(hash) = ledger.purchase_by_id(&id).await?.and_then(|purchase| purchase.archived()) {
    ///     println!("look for the line with the hash {hash} in the archives");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn archived(&self) -> Option<B256> {
        let mark: Mark = serde_json::from_str(self.terms.as_deref()?).ok()?;
        Some(mark.archived.sha256)
    }

    /// Returns whether the purchase can be pruned: its outcome does not change any more except by a proof, no call presents
    /// its payment, and it has large parts. Those of a pruned purchase are small.
    pub(crate) fn is_prunable(&self, now: Timestamp) -> bool {
        let is_final = match self.state {
            State::Settled => self.expires_at <= now,
            State::ApiCall | State::Voided | State::ReleasedByProof => true,
            State::Reserved | State::Signed | State::Rejected | State::Unresolved => false,
        };
        let payload = self.payload.as_ref();
        let payload = payload.map_or(0, |payload| payload.expose_secret().len());
        let terms = self.terms.as_ref().map_or(0, String::len);
        is_final && payload.saturating_add(terms) >= WORTHWHILE && self.presenter_lease_until <= now
    }

    /// Removes the large parts.
    pub(super) fn prune(&mut self, line: B256) {
        let mark = Mark {
            archived: Archived { sha256: line },
        };
        self.terms = serde_json::to_string(&mark).ok();
        (self.answer, self.payload) = (None, None);
    }
}

/// A new file that is written in parts. Each part is on the disk before the ledger forgets it.
struct Archive {
    path: PathBuf,
    file: Option<File>,
}

impl Archive {
    /// Writes lines to the file. The first lines create it, so that nothing is left if there is nothing to prune.
    async fn write(&mut self, lines: Vec<u8>) -> Result<(), LedgerError> {
        let (path, file) = (self.path.clone(), self.file.take());
        let written = spawn_blocking(move || {
            let mut file = file.map_or_else(|| create(&path), Ok)?;
            file.write_all(&lines)?;
            file.sync_all()?;
            Ok(file)
        });
        let written = written.await.map_err(io::Error::other).flatten();
        let file = written.map_err(|error| LedgerError::Archive {
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        self.file = Some(file);
        Ok(())
    }
}

/// Creates a file that its owner alone can read, durably.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    {
        let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(file)
}

impl Ledger {
    /// Moves the seller's terms and answer of old, finished purchases to a new file, and deletes their stored payments. The
    /// ledger grows less then.
    ///
    /// The archive has one purchase as JSON on each line, as [`write_jsonl`](super::write_jsonl) writes it, without a
    /// signature. It is on the disk before the ledger is changed. The ledger keeps the hash of the line; see
    /// [`Purchase::archived`].
    ///
    /// Everything else stays: id, amount, times, state, transactions, proofs and refunds. Limits, reports, `reconcile` and
    /// [`verify`](Self::verify) work as before, and a purchase id that was pruned is not bought again.
    /// A call with such an id is an error, because there is no payment to present.
    ///
    /// Purchases are pruned if they were reserved before `before`, and if they are settled and expired, voided or released by
    /// proof. Purchases whose parts are shorter than an event of the ledger stay whole. Unresolved purchases stay whole too:
    /// [reconcile](Self::reconcile) them. If the process ends within the call, some purchases are in the archive and not
    /// pruned. The next call archives them again.
    ///
    /// Call it on a schedule, each time with another file. The file is created only if there is something to prune. A
    /// SQLite file does not become shorter, but new purchases use the free space. A [`backup`](Self::backup) has none of it.
    ///
    /// # Errors
    /// Returns [`LedgerError::Archive`] if the file exists or cannot be written, and another error if the ledger cannot be
    /// read or written.
    ///
    /// ```no_run
    /// # async fn example(now: bursar::Timestamp) -> Result<(), bursar::ledger::LedgerError> {
    /// use std::time::Duration;
    ///
    /// use bursar::{Ledger, Timestamp};
    ///
    /// let ledger = Ledger::open("agent.db")?;
    /// let before = now.before(Duration::from_secs(90 * 24 * 3600));
    /// let pruned = ledger.prune(before, "archive-2026-11-26.jsonl").await?;
    /// println!("{} purchases are in the archive", pruned.archived);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn prune(
        &self,
        before: Timestamp,
        archive: impl AsRef<Path>,
    ) -> Result<Pruned, LedgerError> {
        self.prune_with_progress(before, archive, |_| {}).await
    }

    /// Prunes as [`prune`](Self::prune) does. Calls `done` with the number of purchases of each step.
    ///
    /// # Errors
    /// The errors of [`prune`](Self::prune).
    pub async fn prune_with_progress(
        &self,
        before: Timestamp,
        archive: impl AsRef<Path>,
        mut done: impl FnMut(usize) + Send,
    ) -> Result<Pruned, LedgerError> {
        let mut archive = Archive {
            path: archive.as_ref().to_owned(),
            file: None,
        };
        let filter = Filter {
            until: Some(before),
            prunable: true,
            ..Filter::all()
        };
        let mut result = Pruned::default();
        let mut pages = self.pages(&filter);
        while let Some(mut purchases) = pages.next().await? {
            let now = self.now();
            purchases.retain(|purchase| purchase.is_prunable(now));
            if purchases.is_empty() {
                continue;
            }
            let mut lines = Vec::new();
            let mut hashes = Vec::with_capacity(purchases.len());
            for purchase in &purchases {
                let line = json(purchase).map_err(|error| LedgerError::Archive {
                    path: archive.path.clone(),
                    reason: error.to_string(),
                })?;
                hashes.push(B256::new(Sha256::digest(&line).into()));
                lines.extend_from_slice(line.as_bytes());
                lines.push(b'\n');
            }
            let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
            result.bytes = result.bytes.saturating_add(count(lines.len()));
            result.archived = result.archived.saturating_add(count(purchases.len()));
            archive.write(lines).await?;
            let archived: Vec<_> = purchases.iter().zip(hashes).collect();
            for archived in archived.chunks(AT_ONCE) {
                let pruned = self.prune_archived(archived).await?;
                result.pruned = result.pruned.saturating_add(pruned);
                done(archived.len());
            }
        }
        Ok(result)
    }

    /// Records that these purchases are archived. Returns the number of those that had not changed meanwhile.
    async fn prune_archived(&self, archived: &[(&Purchase, B256)]) -> Result<u64, LedgerError> {
        let mut changes = JoinSet::new();
        for (purchase, line) in archived {
            let (ledger, key) = (self.clone(), purchase.key());
            let pruned = Transition::Pruned {
                as_of: purchase.updated_at,
                line: *line,
            };
            changes.spawn(async move { ledger.record(&key, &pruned, ledger.now()).await });
        }
        let mut pruned = 0_u64;
        for change in changes.join_all().await {
            match change {
                Ok(()) => pruned = pruned.saturating_add(1),
                // It changed after it was archived, and the next call archives it again.
                Err(LedgerError::Transition { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }
}
