//! The allowance of Permit2, read before a payment by Permit2 is signed.
//!
//! A reading is kept for seconds, and a kept reading allows and never denies. So a wallet that approved pays at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use alloy::primitives::{Address, U256};

use super::Payer;
use crate::chain::{Reason, RpcError};
use crate::clock::Timestamp;
use crate::money::{Network, TransferMethod};
use crate::permit2::MissingAllowance;
use crate::policy::{Denial, Facts};

/// How long a reading is used.
const FRESH: Duration = Duration::from_secs(10);
/// How long a payment waits for a reading. bursar signs without one after that.
const LONGEST_READ: Duration = Duration::from_secs(3);

/// The wallet and the token of an allowance.
type Key = (Address, Network, Address);

/// The last readings of a payer.
#[derive(Default)]
pub(super) struct Allowances {
    readings: Mutex<HashMap<Key, (U256, Timestamp)>>,
}

impl Allowances {
    /// Returns whether a reading of the last seconds covers the amount.
    fn covers(&self, key: Key, value: U256, now: Timestamp) -> bool {
        let readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        readings.get(&key).is_some_and(|(allowance, at)| {
            *at <= now && at.until(now) < FRESH && *allowance >= value
        })
    }

    fn note(&self, key: Key, allowance: U256, now: Timestamp) {
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        readings.insert(key, (allowance, now));
    }
}

impl Payer {
    /// Returns the approval that a payment by Permit2 lacks, if a chain reader is set and can read it.
    pub(super) async fn missing_allowance(&self, facts: &Facts<'_>) -> Option<MissingAllowance> {
        let (quote, asset) = (facts.quote, facts.quote.asset());
        let watch = self.inner.chain.as_ref()?;
        if quote.method() != TransferMethod::Permit2 || !watch.chain.reads(asset.network()) {
            return None;
        }
        let key = (facts.payer, asset.network(), asset.address());
        if watch.allowances.covers(key, quote.value(), self.now()) {
            return None;
        }
        let limit = facts.request.time_left();
        let limit = limit.map_or(LONGEST_READ, |left| left.min(LONGEST_READ));
        let read = watch
            .chain
            .permit2_allowance_up_to(asset, facts.payer, quote.value());
        let read = tokio::time::timeout(limit, read).await;
        match read.unwrap_or(Err(Reason::Endpoint(RpcError::Timeout))) {
            Ok(allowance) => {
                watch.allowances.note(key, allowance, self.now());
                (allowance < quote.value())
                    .then(|| MissingAllowance::of(facts.payer, &quote.amount()))
            }
            Err(reason) => {
                tracing::warn!(%reason, wallet = %facts.payer, token = asset.symbol(), network = %asset.network(), "the allowance of Permit2 cannot be read; bursar pays without it");
                None
            }
        }
    }
}

/// Returns the denial of a payment that Permit2 could not move.
pub(super) fn denial(missing: MissingAllowance, reason: Option<String>) -> Box<Denial> {
    Box::new(Denial::by_allowance(missing, reason))
}
