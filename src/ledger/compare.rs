//! Comparing the cost of payments with the plan of an API key.

use super::{Filter, Ledger, LedgerError, Purchase, State};
use crate::call_plan::{CallCost, CallPlan, Calls, Comparison, RecordedCall};
use crate::origin::HostMatch;

impl Ledger {
    /// Compares the cost of calls to a host with the cost of a plan for the same calls.
    ///
    /// `host` is a host such as `api.example.com`, a pattern such as `*.example.com`, or an origin
    /// such as `https://api.example.com`. Calls by payment and calls with an API key are counted, each
    /// at the cost that the ledger has for it.
    ///
    /// # Errors
    /// Returns [`LedgerError::Host`] if `host` has another form, and another error if the ledger
    /// cannot be read.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use bursar::Ledger;
    /// use bursar::credential::CallPlan;
    ///
    /// let ledger = Ledger::open("agent.db")?;
    /// let plan: CallPlan = "monthly=10,included=1000,per-call=0.002".parse()?;
    /// print!("{}", ledger.compare("api.example.com", &plan).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn compare(&self, host: &str, plan: &CallPlan) -> Result<Comparison, LedgerError> {
        let hosts: HostMatch = host
            .parse()
            .map_err(|_| LedgerError::Host(crate::text::shown_place(host)))?;
        let mut filter = Filter::all();
        match hosts {
            HostMatch::Origin(origin) => filter.origin = Some(origin),
            HostMatch::Host(host) => filter.host = Some(host),
        }
        let mut calls = Calls::default();
        let mut pages = self.pages(&filter);
        while let Some(purchases) = pages.next().await? {
            calls.extend(purchases.iter().filter_map(recorded_call));
        }
        Ok(calls.compare(host, plan))
    }
}

/// Returns the call that a purchase was, or `None` if nothing was bought.
fn recorded_call(purchase: &Purchase) -> Option<RecordedCall> {
    let cost = match (purchase.state, purchase.counted_usd()) {
        (State::Settled, Some(usd)) => CallCost::Paid(usd),
        (State::ApiCall, Some(usd)) => CallCost::ApiKey(usd),
        (State::Voided | State::ReleasedByProof | State::Reserved, _) => return None,
        _ => CallCost::Unknown,
    };
    Some(RecordedCall {
        at: purchase.reserved_at,
        cost,
    })
}
