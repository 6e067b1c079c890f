//! Comparing the books with the chain, and acting on proof alone.

use serde::Serialize;
use serde_json::json;

use super::Payer;
use crate::Error;
use crate::chain::{Question, Reading};
use crate::ledger::{Entry, Filter, LedgerError, PurchaseId, State, Transition};

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
    /// What the chain says, in words.
    pub finding: String,
    /// What the chain says.
    #[serde(skip)]
    pub reading: Reading,
}

impl Payer {
    /// Asks the chain about every purchase that only it can tell of: those signed and unresolved,
    /// and those settled by the seller's word alone.
    ///
    /// Settled on the chain, a purchase is confirmed. Proved dead, because its authorization expired
    /// unused or was cancelled, it is released: its money counts no more, and under its id it can be
    /// bought anew. Where the chain cannot tell, nothing changes.
    ///
    /// # Errors
    /// When the payer has no [chain](crate::PayerBuilder::chain) to read, or the books cannot be used.
    pub async fn reconcile(&self) -> Result<Vec<Reconciled>, Error> {
        let chain = self.inner.chain.as_ref();
        let chain =
            chain.ok_or_else(|| Error::builder("no chain to read; add .chain(ChainReader::new().endpoint(…)?)"))?;
        self.record_left().await;
        let unproven = Filter { unproven: true, ..Filter::all() };
        let mut entries = self.inner.ledger.entries(&unproven).await?;
        let now = self.now();
        entries.retain(|entry| entry.owned_until <= now || !entry.is_unresolved());
        let readings = chain.read_all(entries.iter().map(question).collect()).await;
        let mut done = Vec::with_capacity(entries.len());
        for (entry, reading) in entries.into_iter().zip(readings) {
            done.push(self.settle_by(entry, reading).await?);
        }
        Ok(done)
    }

    async fn settle_by(&self, entry: Entry, reading: Reading) -> Result<Reconciled, Error> {
        let (transition, after, finding) = match &reading {
            Reading::Settled { payment, witnesses } => {
                let proof = json!({ "settled": payment, "witnesses": witnesses }).to_string();
                let (transaction, at) = (Some(payment.transaction), Some(payment.at));
                let finding = format!("settled in {}", payment.transaction);
                (Some(Transition::Confirmed { transaction, at, proof }), State::Settled, finding)
            }
            Reading::NotSettled { cancelled, witnesses } => {
                let why = if *cancelled { "cancelled" } else { "expired unused" };
                let proof = json!({ "released": why, "witnesses": witnesses }).to_string();
                let released = Transition::Released { valid_before: entry.valid_before, cancelled: *cancelled, proof };
                (Some(released), State::Released, format!("not settled: {why}"))
            }
            Reading::CannotTell { reason } => (None, entry.state, format!("cannot tell: {reason}")),
        };
        let (purchase, before) = (entry.purchase.clone(), entry.state);
        let done = |after, finding| Reconciled { purchase, before, after, finding, reading };
        let Some(transition) = transition else { return Ok(done(after, finding)) };
        match self.inner.ledger.record(&entry.key(), &transition, self.now()).await {
            Ok(()) => Ok(done(after, finding)),
            // Presented or signed again since it was read, or not expired by this clock.
            Err(LedgerError::Transition { state, .. }) => {
                Ok(done(state, format!("{finding}; but the purchase moved meanwhile, or our clock is behind")))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn question(entry: &Entry) -> Question {
    Question {
        network: entry.network,
        asset: entry.asset,
        payer: entry.payer,
        payee: entry.payee,
        nonce: entry.nonce,
        value: entry.value,
        valid_before: entry.valid_before.unwrap_or(u64::MAX),
        claimed: entry.transaction,
        since: entry.reserved_at,
    }
}
