//! Comparing the books with the chain, and acting on proof alone.

use serde::{Serialize, Serializer};
use serde_json::json;
use tokio::task::JoinSet;

use super::Payer;
use crate::chain::{Answer, ChainReader, Grounds, Question};
use crate::ledger::{Filter, LedgerError, Purchase, PurchaseId, State, Transition};
use crate::{Error, Timestamp};

/// How many purchases the chain is asked about at once.
const AT_ONCE: usize = 8;

/// What the chain said of one purchase, and what it made of it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Reconciled {
    /// The purchase.
    pub purchase: PurchaseId,
    /// Its state before.
    pub before: State,
    /// Its state now: settled, released, or as before.
    pub after: State,
    /// What the chain says; as text when serialised.
    #[serde(serialize_with = "as_text")]
    pub answer: Answer,
}

fn as_text<S: Serializer>(answer: &Answer, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(answer)
}

impl Payer {
    /// Asks the chain about every purchase that only it can tell of: those signed and unresolved,
    /// and those settled by the seller's word alone.
    ///
    /// Settled on the chain, a purchase is confirmed. Proved dead, because its authorization expired
    /// unused or was cancelled, it is released: its money counts no more, and under its id it can be
    /// bought anew. Where the chain cannot tell, nothing changes. What somebody is presenting at this
    /// moment is left for the next time.
    ///
    /// # Errors
    /// When the payer has no [chain](crate::PayerBuilder::chain) to read, or the books cannot be used.
    pub async fn reconcile(&self) -> Result<Vec<Reconciled>, Error> {
        let none =
            || Error::builder("no chain to read; add .chain(ChainReader::new().endpoint(…)?)");
        let chain = self.inner.chain.as_ref().ok_or_else(none)?;
        self.record_left().await?;
        let unproven = Filter {
            unproven: true,
            ..Filter::all()
        };
        let mut purchases = self.inner.ledger.purchases(&unproven).await?;
        let now = self.now();
        purchases.retain(|entry| entry.presenter_lease_until <= now || !entry.is_unresolved());
        let mut done = Vec::with_capacity(purchases.len());
        for purchases in purchases.chunks(AT_ONCE) {
            for (entry, answer) in purchases.iter().zip(ask(chain, purchases, now).await) {
                done.push(self.act_on(entry, answer).await?);
            }
        }
        Ok(done)
    }

    async fn act_on(&self, entry: &Purchase, answer: Answer) -> Result<Reconciled, Error> {
        let done = |after, answer| Reconciled {
            purchase: entry.purchase.clone(),
            before: entry.state,
            after,
            answer,
        };
        let (transition, after) = match &answer {
            Answer::Settled(settlement) => {
                let (transaction, proof) = (
                    Some(settlement.transaction),
                    json!({ "settled": settlement }).to_string(),
                );
                (
                    Transition::Confirmed {
                        nonce: entry.nonce,
                        transaction,
                        proof,
                    },
                    State::Settled,
                )
            }
            Answer::NotSettled(proof) => {
                let cancelled = proof.grounds == Grounds::Canceled;
                let proof = json!({ "not_settled": proof }).to_string();
                let (nonce, valid_before) = (entry.nonce, entry.valid_before);
                (
                    Transition::ReleasedByProof {
                        nonce,
                        valid_before,
                        cancelled,
                        proof,
                    },
                    State::ReleasedByProof,
                )
            }
            Answer::CannotTell { .. } => return Ok(done(entry.state, answer)),
        };
        match self
            .inner
            .ledger
            .record(&entry.key(), &transition, self.now())
            .await
        {
            Ok(()) => Ok(done(after, answer)),
            // It was signed again since it was read, or has not expired by our clock: next time.
            Err(LedgerError::Transition { state, .. }) => Ok(done(state, answer)),
            Err(error) => Err(error.into()),
        }
    }
}

/// The answers, in the order of the entries.
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

fn question(entry: &Purchase) -> Question {
    Question {
        network: entry.network,
        token: entry.asset,
        payer: entry.payer,
        nonce: entry.nonce,
        payee: entry.payee,
        value: entry.value,
        // Without one it never expires, and nothing is released.
        valid_before: entry.valid_before.unwrap_or(u64::MAX),
        claimed: entry.transaction,
        signed_at: entry.reserved_at,
    }
}
