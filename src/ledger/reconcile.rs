//! Comparing the ledger with the chain. Only a proof from the chain changes the ledger.

use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Filter, Ledger, LedgerError, Purchase, PurchaseId, State, Transition};
use crate::chain::{Answer, ChainReader, ProofKind, Question};
use crate::clock::Timestamp;
use crate::money::TransferMethod;
use crate::x402::PaymentMethod;

/// The number of purchases that are looked up on the chain at the same time.
const AT_ONCE: usize = 8;

/// The number of purchases that one round in the background looks up.
const PER_ROUND: usize = 32;
/// The time after the `validBefore` of a payment at which a final block can prove that it was not used. The block must be
/// [60 seconds](crate::chain) later, and it takes at least some seconds to become final.
pub(crate) const PROVABLE_AFTER: Duration = Duration::from_secs(75);

/// The result of a round over the purchases that have expired.
pub(crate) struct ExpiredRound {
    /// The purchases whose outcome is proved now, as they were before, and their new states.
    pub(crate) changed: Vec<(Purchase, State)>,
    /// The time at which the next purchase can be proved.
    pub(crate) next: Timestamp,
    /// The place to go on from, if there are more purchases.
    pub(crate) after: Option<u64>,
}

/// The chain's answer about one purchase, and the state of the purchase after it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Reconciled {
    /// The purchase.
    pub purchase: PurchaseId,
    /// The state before.
    pub before: State,
    /// The state now: settled, released by proof, or the same as before.
    pub after: State,
    /// The chain's answer. It is serialized as text.
    #[serde(serialize_with = "as_text")]
    pub answer: Answer,
}

fn as_text<S: Serializer>(answer: &Answer, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(answer)
}

impl Ledger {
    /// Looks up every purchase whose outcome is not proved on the chain, and records the outcome.
    ///
    /// These are the unresolved purchases, and the settled ones for which there is only the seller's
    /// receipt. Three things can happen to each:
    ///
    /// * The chain shows the payment. The purchase is settled, with a verified transaction.
    /// * The chain proves that the payment can never settle, because it expired unused or was
    ///   cancelled. The purchase is released: it no longer counts against the limits, and the same id
    ///   can be bought again.
    /// * The chain cannot tell yet. Nothing changes.
    ///
    /// A purchase that another call presents at this moment is skipped. Call this function regularly,
    /// for example every few minutes.
    ///
    /// # Errors
    /// Returns an error if the ledger cannot be read or written. An unreachable endpoint is not an
    /// error: its purchases stay as they are.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use bursar::{ChainReader, Ledger, Network};
    ///
    /// let base: Network = "base".parse()?;
    /// let chain = ChainReader::new()
    ///     .endpoint(base, "https://mainnet.base.org")?
    ///     .endpoint(base, "https://base.example-provider.com/rpc")?;
    /// let ledger = Ledger::open("agent.db")?;
    /// for purchase in ledger.reconcile(&chain).await? {
    ///     println!("{}: {} is now {}", purchase.purchase, purchase.before, purchase.after);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reconcile(&self, chain: &ChainReader) -> Result<Vec<Reconciled>, LedgerError> {
        self.reconcile_with_progress(chain, |_| {}).await
    }

    /// Looks the purchases up as [`reconcile`](Self::reconcile) does. Calls `asked` with the number of purchases that each step
    /// looked up, because a chain takes long to answer about many purchases.
    ///
    /// # Errors
    /// Returns an error if the ledger cannot be read or written.
    ///
    /// ```no_run
    /// # async fn example(ledger: bursar::Ledger, chain: bursar::ChainReader) -> Result<(), bursar::ledger::LedgerError> {
    /// let mut total = 0_usize;
    /// let reconciled = ledger
    ///     .reconcile_with_progress(&chain, |purchases| {
    ///         total = total.saturating_add(purchases);
    ///         eprintln!("{total} purchases looked up");
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reconcile_with_progress(
        &self,
        chain: &ChainReader,
        mut asked: impl FnMut(usize) + Send,
    ) -> Result<Vec<Reconciled>, LedgerError> {
        let unproven = Filter {
            unproven: true,
            ..Filter::all()
        };
        let now = self.now();
        let mut reconciled = Vec::new();
        let mut pages = self.pages(&unproven);
        while let Some(mut purchases) = pages.next().await? {
            purchases.retain(|purchase| !purchase.is_leased(now) || !purchase.is_unresolved());
            for purchases in purchases.chunks(AT_ONCE) {
                for (purchase, answer) in purchases.iter().zip(ask(chain, purchases, now).await) {
                    reconciled.push(self.apply_answer(purchase, answer).await?);
                }
                asked(purchases.len());
            }
        }
        Ok(reconciled)
    }

    /// Looks up unresolved purchases that have expired, at most [`PER_ROUND`], and settled ones without a proof if
    /// `receipts` is true. `after` is the place from the last round.
    pub(crate) async fn reconcile_expired(
        &self,
        chain: &ChainReader,
        receipts: bool,
        after: Option<u64>,
    ) -> Result<ExpiredRound, LedgerError> {
        let filter = Filter {
            unproven: true,
            unresolved: !receipts,
            after,
            ..Filter::all()
        };
        let now = self.now();
        let mut round = ExpiredRound {
            changed: Vec::new(),
            next: Timestamp::MAX,
            after: None,
        };
        let mut left = PER_ROUND;
        let mut pages = self.pages(&filter);
        while left > 0
            && let Some(mut purchases) = pages.next().await?
        {
            purchases.retain(|purchase| {
                let due = provable_at(purchase);
                if due > now {
                    round.next = round.next.min(due);
                }
                due <= now && chain.reads(purchase.network) && !purchase.is_leased(now)
            });
            if purchases.len() > left {
                purchases.truncate(left);
                round.after = purchases.last().map(|purchase| purchase.seq);
            }
            left = left.saturating_sub(purchases.len());
            for purchases in purchases.chunks(AT_ONCE) {
                for (purchase, answer) in purchases.iter().zip(ask(chain, purchases, now).await) {
                    let proved = !matches!(answer, Answer::CannotTell { .. });
                    let reconciled = self.apply_answer(purchase, answer).await?;
                    let is_open = matches!(
                        reconciled.after,
                        State::Signed | State::Rejected | State::Unresolved
                    );
                    if proved && !is_open {
                        round.changed.push((purchase.clone(), reconciled.after));
                    } else {
                        round.next = now;
                    }
                }
            }
            if left == 0 && round.after.is_none() {
                round.after = purchases.last().map(|purchase| purchase.seq);
            }
        }
        if round.after.is_some() {
            round.next = now;
        } else if after.is_some() {
            // The purchases before `after` were not looked at.
            round.next = round.next.min(now);
        }
        Ok(round)
    }

    async fn apply_answer(
        &self,
        purchase: &Purchase,
        answer: Answer,
    ) -> Result<Reconciled, LedgerError> {
        let reconciled = |after, answer| Reconciled {
            purchase: purchase.id.clone(),
            before: purchase.state,
            after,
            answer,
        };
        let (transition, after) = match &answer {
            Answer::Settled(settlement) => {
                // The charge is known where a transaction shows it.
                let by_permit = transfer_method(purchase) == TransferMethod::Permit2;
                let charged = settlement.transaction.map(|_| settlement.value);
                let confirmed = Transition::Confirmed {
                    nonce: purchase.nonce,
                    transaction: settlement.transaction,
                    charged: charged.filter(|_| by_permit),
                    proof: json!({ "settled": settlement }).to_string(),
                };
                (confirmed, State::Settled)
            }
            Answer::NotSettled(proof) => {
                let released = Transition::ReleasedByProof {
                    nonce: purchase.nonce,
                    valid_before: purchase.valid_before,
                    cancelled: proof.kind == ProofKind::Canceled,
                    proof: json!({ "not_settled": proof }).to_string(),
                };
                (released, State::ReleasedByProof)
            }
            Answer::CannotTell { .. } => return Ok(reconciled(purchase.state, answer)),
        };
        match self.record(&purchase.key(), &transition, self.now()).await {
            Ok(()) => Ok(reconciled(after, answer)),
            // The purchase was signed again meanwhile, or it has not expired by this clock. The next
            // call looks it up again.
            Err(LedgerError::Transition { state, .. }) => Ok(reconciled(state, answer)),
            Err(error) => Err(error),
        }
    }
}

/// Returns the kind of the authorizations of a purchase, which all have one nonce.
fn transfer_method(purchase: &Purchase) -> TransferMethod {
    let method = purchase.payment_method;
    method.map_or(TransferMethod::Eip3009, PaymentMethod::transfer_method)
}

/// Returns the time at which the chain can show the outcome of a purchase: at once for a receipt.
fn provable_at(purchase: &Purchase) -> Timestamp {
    match purchase.valid_before {
        _ if !purchase.is_unresolved() => purchase.updated_at,
        Some(valid_before) => Timestamp::from_secs(valid_before).after(PROVABLE_AFTER),
        None => purchase.expires_at,
    }
}

/// Returns the chain's answers, in the order of the purchases.
async fn ask(chain: &ChainReader, purchases: &[Purchase], now: Timestamp) -> Vec<Answer> {
    let mut asked = JoinSet::new();
    for (order, purchase) in purchases.iter().enumerate() {
        let (chain, question) = (chain.clone(), question(purchase));
        asked.spawn(async move { (order, chain.ask(&question, now).await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(order, _)| *order);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn question(purchase: &Purchase) -> Question {
    Question {
        network: purchase.network,
        method: transfer_method(purchase),
        token: purchase.asset,
        payer: purchase.payer,
        nonce: purchase.nonce,
        payee: purchase.payee,
        value: purchase.value,
        // Without a `validBefore` the payment never expires, so the purchase is never released.
        valid_before: purchase.valid_before.unwrap_or(u64::MAX),
        claimed: purchase.transaction,
        signed_at: purchase.reserved_at,
    }
}
