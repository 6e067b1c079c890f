//! A pause after refusals that further signatures cannot change.
//!
//! A wallet without tokens is refused by every seller, and each signature counts as spent until it is proved unused. An
//! agent that goes on would use up its daily limit without paying anything. After a few such refusals in a row, bursar
//! signs nothing more for a while. It pauses payments by Permit2 in the same way for a wallet that has not approved Permit2. Each
//! further refusal doubles the time; a settled payment ends it. While one seller alone says that the wallet is empty, bursar pauses
//! for that seller only.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy::primitives::Address;
use tokio::sync::OnceCell;

use super::{Payer, Payment};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::ledger::{Filter, Purchase, PurchaseId, State};
use crate::money::{Network, TransferMethod};
use crate::origin::Origin;
use crate::permit2::MissingAllowance;
use crate::policy::{Denial, Facts, Rule};
use crate::x402::{Failure, PaymentMethod};

/// The refusals in a row after which bursar pauses.
const MOST: u32 = 3;
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(6 * 3600);
/// How many of the latest purchases show the refusals of earlier processes.
const READ: usize = 64;
/// The most wallets and sellers that are remembered.
const REMEMBERED: usize = 1024;

/// The refusals in a row, by the part that they are about.
#[derive(Default)]
pub(super) struct Refusals {
    /// Set once the ledger was read.
    read: OnceCell<()>,
    runs: Mutex<HashMap<Subject, Run>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    /// The wallet has too little of a token.
    Token(Network, Address),
    /// The wallet has not approved Permit2 for a token.
    Approval(Network, Address),
    /// The seller refuses every payment like the last ones.
    Seller(Origin),
}

#[derive(Clone, Debug)]
struct Run {
    count: u32,
    /// The last purchase that was refused. bursar presents it again, and counts its refusals once.
    last: PurchaseId,
    at: Timestamp,
    words: String,
    /// The seller of the first refusal, and whether another one agreed.
    seller: Origin,
    is_agreed: bool,
}

impl Run {
    /// The time before which bursar signs nothing.
    fn until(&self, pause: Duration) -> Option<Timestamp> {
        let further = self.count.checked_sub(MOST)?;
        let factor = 1_u32.checked_shl(further).unwrap_or(u32::MAX);
        let pause = pause.checked_mul(factor).unwrap_or(LONGEST);
        Some(self.at.after(pause.min(LONGEST)))
    }
}

/// The parts of a purchase that a refusal is about.
struct Refused<'a> {
    purchase: &'a PurchaseId,
    token: (Network, Address),
    by_permit: bool,
    origin: &'a Origin,
}

fn is_by_permit(method: Option<PaymentMethod>) -> bool {
    method.is_some_and(|method| method.transfer_method() == TransferMethod::Permit2)
}

impl<'a> Refused<'a> {
    fn stored(purchase: &'a Purchase) -> Self {
        Self {
            purchase: &purchase.id,
            token: (purchase.network, purchase.asset),
            by_permit: is_by_permit(purchase.payment_method),
            origin: &purchase.origin,
        }
    }

    fn of(payment: &'a Payment) -> Self {
        let asset = payment.signed.amount.asset();
        Self {
            purchase: &payment.signed.purchase,
            token: (asset.network(), asset.address()),
            by_permit: is_by_permit(Some(payment.signed.method)),
            origin: payment.guard.events().origin(),
        }
    }

    fn token(&self) -> Subject {
        Subject::Token(self.token.0, self.token.1)
    }

    fn approval(&self) -> Subject {
        Subject::Approval(self.token.0, self.token.1)
    }

    fn seller(&self) -> Subject {
        Subject::Seller(self.origin.clone())
    }
}

/// Whether two origins may belong to one seller: they have one registrable domain. Hosts without a domain, such as those of
/// a local network, are told apart by their ports too.
fn is_one_owner(one: &Origin, other: &Origin) -> bool {
    if one.address().is_some() || other.address().is_some() {
        return one == other;
    }
    one.registrable_domain() == other.registrable_domain()
}

impl Refusals {
    fn runs(&self) -> MutexGuard<'_, HashMap<Subject, Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, refused: &Refused<'_>, failure: Failure, words: &str, at: Timestamp) {
        let subject = match failure {
            Failure::WalletEmpty => refused.token(),
            Failure::Permanent => refused.seller(),
            Failure::NoAllowance if refused.by_permit => refused.approval(),
            Failure::Uncertain | Failure::NoAllowance | Failure::Refused => return,
        };
        let mut runs = self.runs();
        let (count, seller, is_agreed) = match runs.get(&subject) {
            Some(run) if run.last == *refused.purchase => return,
            Some(run) => (
                run.count.saturating_add(1),
                run.seller.clone(),
                run.is_agreed || !is_one_owner(&run.seller, refused.origin),
            ),
            None if runs.len() >= REMEMBERED => return,
            None => (1, refused.origin.clone(), false),
        };
        let run = Run {
            count,
            last: refused.purchase.clone(),
            at,
            words: words.to_owned(),
            seller,
            is_agreed,
        };
        runs.insert(subject, run);
    }

    fn settled(&self, refused: &Refused<'_>) {
        let mut runs = self.runs();
        if !runs.is_empty() {
            runs.remove(&refused.token());
            runs.remove(&refused.seller());
            if refused.by_permit {
                runs.remove(&refused.approval());
            }
        }
    }
}

impl Payer {
    /// Notes a refusal by the seller.
    pub(super) fn note_refusal(&self, payment: &Payment, failure: Failure, words: Option<&str>) {
        let (refusals, now) = (&self.inner.refusals, self.now());
        refusals.refused(&Refused::of(payment), failure, words.unwrap_or("402"), now);
    }

    /// Notes that a payment settled.
    pub(super) fn note_settled(&self, payment: &Payment) {
        self.inner.refusals.settled(&Refused::of(payment));
    }

    /// Reads the refusals of earlier processes from the ledger, once.
    pub(super) async fn read_refusals(&self) -> Result<(), Error> {
        let refusals = &self.inner.refusals;
        let read = refusals.read.get_or_try_init(|| async {
            let mut filter = Filter::all();
            filter.last = Some(READ);
            let mut purchases = self.inner.ledger.purchases(&filter).await?;
            purchases.sort_by_key(|purchase| purchase.seq);
            for purchase in purchases
                .iter()
                .filter(|known| known.payer == self.address())
            {
                let refused = Refused::stored(purchase);
                match (purchase.state, &purchase.reason) {
                    (State::Settled, _) => refusals.settled(&refused),
                    (State::Rejected, Some(reason)) => {
                        let at = purchase.updated_at;
                        refusals.refused(&refused, Failure::of(reason), reason, at);
                    }
                    _ => {}
                }
            }
            Ok::<(), Error>(())
        });
        read.await.copied()
    }

    /// Returns the denial while bursar pauses after refusals.
    pub(super) fn paused(&self, facts: &Facts<'_>) -> Option<Denial> {
        let runs = self.inner.refusals.runs();
        if runs.is_empty() {
            return None;
        }
        let pause = self.inner.policy.time_after_refusals();
        let asset = facts.quote.asset();
        let token = Subject::Token(asset.network(), asset.address());
        let approval = Subject::Approval(asset.network(), asset.address());
        // A chain reader knows more than the sellers.
        let chain = self.inner.chain.as_ref();
        let asks_sellers = facts.quote.method() == TransferMethod::Permit2
            && !chain.is_some_and(|watch| watch.chain.reads(asset.network()));
        let seller = Subject::Seller(facts.request.origin().clone());
        let find = |subject: &Subject| {
            let run = runs.get(subject)?;
            // One seller alone cannot stop the payments to all others by a lie.
            if !run.is_agreed && run.seller != *facts.request.origin() {
                return None;
            }
            let until = run.until(pause).filter(|until| *until > facts.now)?;
            Some((run, until))
        };
        if let Some((run, until)) = Some(&approval).filter(|_| asks_sellers).and_then(find) {
            let missing = MissingAllowance::of(facts.payer, &facts.quote.amount());
            let mut denial = Denial::by_allowance(missing, None);
            denial.message.push_str(&format!(
                "; sellers refused the last {} payments by Permit2 for that; after the approval, the same request presents the \
                 first payment again; bursar signs again at {until}, or set `refusal_pause`",
                run.count
            ));
            denial.room_returns = Some(until);
            return Some(denial);
        }
        let (rule, message, until) = if let Some((run, until)) = find(&token) {
            let message = format!(
                "the wallet {} has too little {} on {}: sellers refused its last {} payments ({}); send {} to it; \
                 bursar signs again at {until}, or set `refusal_pause`",
                facts.payer,
                asset.symbol(),
                asset.network(),
                run.count,
                run.words,
                asset.symbol(),
            );
            (Rule::WalletEmpty, message, until)
        } else {
            let (run, until) = find(&seller)?;
            let message = format!(
                "{} refused the last {} payments, and will refuse others like them ({}); bursar signs again at \
                 {until}, or set `refusal_pause`",
                facts.request.origin(),
                run.count,
                run.words,
            );
            (Rule::RefusedBefore, message, until)
        };
        let mut denial = Denial::new(rule, message);
        denial.room_returns = Some(until);
        Some(denial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_further_refusal_doubles_the_pause() {
        let run = |count| Run {
            count,
            last: "order-1".parse().unwrap(),
            at: Timestamp::from_secs(1000),
            words: String::new(),
            seller: "https://api.example.com".parse().unwrap(),
            is_agreed: false,
        };
        let pause = Duration::from_secs(1200);
        let ends = [0, 2, 3, 4, 5, 40].map(|count| run(count).until(pause));
        let at = |secs| Some(Timestamp::from_secs(secs));
        assert_eq!(ends, [None, None, at(2200), at(3400), at(5800), at(22_600)]);
        assert_eq!(run(9).until(Duration::ZERO), at(1000));
    }
}
