//! The balance of the wallet, read before a payment is signed.
//!
//! A reading is kept for seconds. Payments of this process that have no answer yet are taken off it, and so are payments
//! that ended after it, because it may not show them. A payment is denied only by a reading that began after the payment
//! was asked for, so a wallet that was topped up pays at once. A payment that only those in flight leave without cover waits
//! for them, as long as it would wait for a reading.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy::primitives::{Address, U256};
use tokio::sync::Notify;

use super::Payer;
use super::upkeep::ChainWatch;
use crate::chain::{ChainReader, Reason, RpcError};
use crate::clock::Timestamp;
use crate::eip3009::PurchaseId;
use crate::money::{Asset, Network, TokenAmount};
use crate::policy::{Answer, Denial, Facts, Rule, Shortfall};
use crate::telemetry::EventKind;

/// How long a reading is used.
const FRESH: Duration = Duration::from_secs(10);
/// How long a payment waits for a reading. bursar signs without one after that.
const LONGEST_READ: Duration = Duration::from_secs(3);
/// How long bursar does not try again after a failed reading.
const PAUSE: Duration = Duration::from_secs(30);

/// The balances of the wallets of a payer, by wallet and token.
#[derive(Default)]
pub(super) struct Balances {
    accounts: Mutex<HashMap<(Address, Network, Address), Arc<Account>>>,
}

/// The balance of one wallet in one token.
#[derive(Default)]
struct Account {
    sums: Mutex<Sums>,
    /// Held by the call that reads, so that other calls wait for its reading.
    reading: tokio::sync::Mutex<()>,
    /// Told when a payment in flight ended.
    ended: Notify,
}

#[derive(Default)]
struct Sums {
    /// The number of readings that began.
    begun: u64,
    last: Option<Reading>,
    /// The payments without an answer. Two of one purchase exclude each other on the chain.
    in_flight: HashMap<PurchaseId, (usize, U256)>,
    /// The payments that ended after the last reading began, and after the one that is under way began.
    ended_since_last: U256,
    ended_since_begun: U256,
    /// The time before which no reading is tried.
    paused_until: Option<Timestamp>,
}

#[derive(Clone, Copy)]
struct Reading {
    number: u64,
    balance: U256,
    at: Timestamp,
}

/// The answer for one payment.
enum Cover {
    Held(Hold),
    Short(Shortfall),
    /// The balance covers the payment, and not those in flight too. Some of these may have left it already.
    Crowded(Shortfall),
    /// There is no reading that can decide.
    Unread,
}

/// The part of a balance that a payment needs, until its outcome is known.
pub(super) struct Hold {
    account: Arc<Account>,
    purchase: PurchaseId,
    value: U256,
    is_signed: AtomicBool,
    has_ended: AtomicBool,
}

impl Hold {
    /// From now on, the payment may take the money.
    pub(super) fn sign(&self) {
        self.is_signed.store(true, Ordering::Relaxed);
    }

    /// The outcome of the payment is known, or nobody waits for it.
    pub(super) fn end(&self) {
        if self.has_ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut sums = self.account.sums();
        let sums = &mut *sums;
        if let Some((holders, _)) = sums.in_flight.get_mut(&self.purchase) {
            *holders = holders.saturating_sub(1);
            if *holders == 0 {
                sums.in_flight.remove(&self.purchase);
            }
        }
        if self.is_signed.load(Ordering::Relaxed) {
            sums.ended_since_last = sums.ended_since_last.saturating_add(self.value);
            sums.ended_since_begun = sums.ended_since_begun.saturating_add(self.value);
        }
        self.account.ended.notify_waiters();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end();
    }
}

/// The payment that asks for cover.
#[derive(Clone, Copy)]
struct Need<'a> {
    wallet: Address,
    asset: &'a Asset,
    value: U256,
}

/// The last reading, compared with a payment.
enum Weighed {
    /// The balance that covers the payment.
    Enough(U256),
    Short(Shortfall),
    Crowded(Shortfall),
    Unread,
}

impl Sums {
    /// Compares the last reading with a payment. `purchase` is the purchase of the payment, if somebody makes it.
    fn weigh(
        &self,
        need: Need<'_>,
        purchase: Option<&PurchaseId>,
        now: Timestamp,
        asked: u64,
    ) -> Weighed {
        let Some(reading) = self.last else {
            return Weighed::Unread;
        };
        let decides = reading.number > asked;
        let is_fresh = reading.at <= now && reading.at.until(now) < FRESH;
        if !decides && !is_fresh {
            return Weighed::Unread;
        }
        let others = self.in_flight.iter();
        let others = others.filter(|(other, _)| Some(*other) != purchase);
        let others = others.map(|(_, (_, value))| *value);
        let taken = others.fold(self.ended_since_last, U256::saturating_add);
        if reading.balance.saturating_sub(taken) >= need.value {
            return Weighed::Enough(reading.balance);
        }
        if !decides {
            return Weighed::Unread;
        }
        let answer = match reading.balance < need.value {
            true => Weighed::Short,
            false => Weighed::Crowded,
        };
        let amount = |units| TokenAmount::from_units(need.asset.clone(), units);
        answer(Shortfall {
            wallet: need.wallet,
            balance: amount(reading.balance),
            in_flight: amount(taken),
            needed: amount(need.value),
        })
    }

    /// Returns the number of readings so far, or `None` while no reading is tried after a failed one.
    fn asked(&self, now: Timestamp) -> Option<u64> {
        match self.paused_until {
            Some(until) if until > now && until <= now.after(PAUSE) => None,
            _ => Some(self.begun),
        }
    }
}

impl Balances {
    fn account(&self, need: Need<'_>) -> Arc<Account> {
        let accounts = self.accounts.lock();
        let mut accounts = accounts.unwrap_or_else(PoisonError::into_inner);
        let key = (need.wallet, need.asset.network(), need.asset.address());
        Arc::clone(accounts.entry(key).or_default())
    }
}

impl Account {
    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(self: &Arc<Self>, sums: &mut Sums, need: Need<'_>, purchase: &PurchaseId) -> Hold {
        let (holders, value) = sums.in_flight.entry(purchase.clone()).or_default();
        *holders = holders.saturating_add(1);
        *value = need.value.max(*value);
        Hold {
            account: Arc::clone(self),
            purchase: purchase.clone(),
            value: need.value,
            is_signed: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        }
    }

    /// Returns whether other payments are in flight.
    fn has_others(&self, purchase: &PurchaseId) -> bool {
        let sums = self.sums();
        sums.in_flight.keys().any(|other| other != purchase)
    }

    /// Holds the amount without a reading.
    fn hold_unread(self: &Arc<Self>, need: Need<'_>, purchase: &PurchaseId) -> Hold {
        self.hold(&mut self.sums(), need, purchase)
    }

    /// Holds the amount if the last reading covers it. A reading denies if its number is above `asked`.
    fn cover(
        self: &Arc<Self>,
        need: Need<'_>,
        purchase: &PurchaseId,
        now: Timestamp,
        asked: u64,
    ) -> Cover {
        let mut sums = self.sums();
        match sums.weigh(need, Some(purchase), now, asked) {
            Weighed::Enough(_) => Cover::Held(self.hold(&mut sums, need, purchase)),
            Weighed::Short(shortfall) => Cover::Short(shortfall),
            Weighed::Crowded(shortfall) => Cover::Crowded(shortfall),
            Weighed::Unread => Cover::Unread,
        }
    }

    /// Reads the balance, unless another call read it after `asked`.
    async fn read(
        &self,
        chain: &ChainReader,
        need: Need<'_>,
        asked: u64,
        clock: impl Fn() -> Timestamp,
    ) -> Result<(), Reason> {
        let _turn = self.reading.lock().await;
        let (number, enough) = {
            let mut sums = self.sums();
            if sums.last.is_some_and(|reading| reading.number > asked) {
                return Ok(());
            }
            sums.begun = sums.begun.saturating_add(1);
            sums.ended_since_begun = U256::ZERO;
            let in_flight = sums.in_flight.values().map(|(_, value)| *value);
            let enough = in_flight.fold(need.value, U256::saturating_add);
            (sums.begun, enough)
        };
        let balance = chain.balance_up_to(need.asset, need.wallet, enough).await?;
        let mut sums = self.sums();
        sums.last = Some(Reading {
            number,
            balance,
            at: clock(),
        });
        sums.ended_since_last = sums.ended_since_begun;
        sums.paused_until = None;
        Ok(())
    }
}

impl Payer {
    /// Holds the amount of a payment in the balance of the wallet, if a chain reader is set. Returns the denial if the
    /// wallet has too little.
    pub(super) async fn cover(
        &self,
        facts: &Facts<'_>,
        purchase: &PurchaseId,
    ) -> Result<Option<Hold>, Box<Denial>> {
        let asset = facts.quote.asset();
        let Some(watch) = &self.inner.chain else {
            return Ok(None);
        };
        if !watch.chain.reads(asset.network()) {
            return Ok(None);
        }
        let need = Need {
            wallet: facts.payer,
            asset,
            value: facts.quote.value(),
        };
        let account = watch.balances.account(need);
        let asked = account.sums().asked(self.now());
        // A kept reading allows and never denies.
        if let Cover::Held(hold) = account.cover(need, purchase, self.now(), u64::MAX) {
            return Ok(Some(hold));
        }
        let Some(asked) = asked else {
            return Ok(Some(account.hold_unread(need, purchase)));
        };
        let limit = facts.request.time_left();
        let limit = limit.map_or(LONGEST_READ, |left| left.min(LONGEST_READ));
        let mut crowded = None;
        let decided = self.decide(watch, &account, (need, purchase), asked, &mut crowded);
        let decided = tokio::time::timeout(limit, decided).await;
        let reason = match (decided, crowded) {
            (Ok(Ok(Cover::Held(hold))), _) => return Ok(Some(hold)),
            (Ok(Ok(Cover::Short(shortfall) | Cover::Crowded(shortfall))), _)
            | (Err(_), Some(shortfall)) => return Err(Box::new(Denial::by_balance(shortfall))),
            (Ok(Ok(Cover::Unread)), _) => return Ok(Some(account.hold_unread(need, purchase))),
            (Ok(Err(reason)), _) => reason,
            (Err(_), None) => Reason::Endpoint(RpcError::Timeout),
        };
        account.sums().paused_until = Some(self.now().after(PAUSE));
        self.balance_unknown(facts, &reason);
        Ok(Some(account.hold_unread(need, purchase)))
    }

    /// Reads the balance until it decides: it covers the payment or is below it. While payments in flight leave it open,
    /// this waits for them and reads again, and `crowded` is the denial if the time is up.
    async fn decide(
        &self,
        watch: &ChainWatch,
        account: &Arc<Account>,
        (need, purchase): (Need<'_>, &PurchaseId),
        mut asked: u64,
        crowded: &mut Option<Shortfall>,
    ) -> Result<Cover, Reason> {
        loop {
            let mut ended = pin!(account.ended.notified());
            // Payments that end from here on are told.
            ended.as_mut().enable();
            account
                .read(&watch.chain, need, asked, || self.now())
                .await?;
            match account.cover(need, purchase, self.now(), asked) {
                Cover::Crowded(shortfall) => *crowded = Some(shortfall),
                cover => return Ok(cover),
            }
            if account.has_others(purchase) {
                ended.await;
            }
            asked = account.sums().begun;
        }
    }

    /// Returns the answer of the balance to a payment that nobody makes, if a chain reader can read it. It holds nothing, and a
    /// reading that fails denies nothing.
    pub(super) async fn balance_answer(&self, facts: &Facts<'_>) -> Option<Answer> {
        let asset = facts.quote.asset();
        let watch = self.inner.chain.as_ref();
        let watch = watch.filter(|watch| watch.chain.reads(asset.network()))?;
        let need = Need {
            wallet: facts.payer,
            asset,
            value: facts.quote.value(),
        };
        let account = watch.balances.account(need);
        let weigh = |asked| account.sums().weigh(need, None, self.now(), asked);
        let (first, asked) = (weigh(u64::MAX), account.sums().asked(self.now()));
        let weighed = match (first, asked) {
            (Weighed::Unread, Some(asked)) => {
                let limit = facts.request.time_left();
                let limit = limit.map_or(LONGEST_READ, |left| left.min(LONGEST_READ));
                let read = account.read(&watch.chain, need, asked, || self.now());
                if !matches!(tokio::time::timeout(limit, read).await, Ok(Ok(()))) {
                    account.sums().paused_until = Some(self.now().after(PAUSE));
                }
                weigh(asked)
            }
            (known, _) => known,
        };
        let (detail, denial) = match weighed {
            Weighed::Enough(balance) => {
                let balance = TokenAmount::from_units(asset.clone(), balance);
                (Some(format!("{balance} in {}", facts.payer)), None)
            }
            Weighed::Short(shortfall) | Weighed::Crowded(shortfall) => {
                (None, Some(Denial::by_balance(shortfall)))
            }
            Weighed::Unread => (Some("the balance cannot be read".to_owned()), None),
        };
        let rule = Rule::InsufficientBalance;
        Some(Answer {
            name: rule.name().to_owned(),
            rule,
            detail,
            denial,
        })
    }

    fn balance_unknown(&self, facts: &Facts<'_>, reason: &Reason) {
        let asset = facts.quote.asset();
        tracing::warn!(%reason, wallet = %facts.payer, token = asset.symbol(), network = %asset.network(), "the balance of the wallet cannot be read; bursar pays without it");
        self.emit(&self.event(EventKind::BalanceUnknown, facts.request));
    }
}
