//! Comparing the ledger with the chain. Only a proof from the chain changes the ledger.

use serde::{Serialize, Serializer};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Filter, Ledger, LedgerError, Purchase, PurchaseId, State, Transition};
use crate::chain::{Answer, ChainReader, ProofKind, Question};
use crate::clock::Timestamp;

/// The number of purchases that are looked up on the chain at the same time.
const AT_ONCE: usize = 8;

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
            }
        }
        Ok(reconciled)
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
                let confirmed = Transition::Confirmed {
                    nonce: purchase.nonce,
                    transaction: Some(settlement.transaction),
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

/// Returns the chain's answers, in the order of the purchases.
async fn ask(chain: &ChainReader, purchases: &[Purchase], now: Timestamp) -> Vec<Answer> {
    let mut asked = JoinSet::new();
    for (order, question) in purchases.iter().map(question).enumerate() {
        let chain = chain.clone();
        asked.spawn(async move { (order, chain.ask(&question, now).await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(order, _)| *order);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn question(purchase: &Purchase) -> Question {
    Question {
        network: purchase.network,
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
