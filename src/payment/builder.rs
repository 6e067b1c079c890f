//! Building a payer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alloy::primitives::Address;

use super::upkeep::{ChainWatch, Settings};
use super::{FreezeSwitch, Inner, Payer};
use crate::chain::ChainReader;
use crate::clock::Clock;
use crate::error::Error;
use crate::ledger::Ledger;
use crate::policy::{AnyApprover, Approver, Policy};
use crate::signer::{AnySigner, Signer};
use crate::telemetry::{AnyObserver, Observer};

/// Builds a [`Payer`]. Signer, policy and ledger are required.
///
/// ```
/// use bursar::{LocalSigner, Ledger, Payer, Policy, usd};
///
/// let payer = Payer::builder()
///     .signer(LocalSigner::random()?)
///     .policy(Policy::new().allow_network("base-sepolia").per_payment(usd!("0.05")))
///     .ledger(Ledger::memory())
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct PayerBuilder {
    signer: Option<AnySigner>,
    address: Option<Address>,
    policy: Option<Policy>,
    ledger: Option<Ledger>,
    approver: Option<AnyApprover>,
    clock: Option<Arc<dyn Clock>>,
    agent: Option<String>,
    switch: FreezeSwitch,
    observer: AnyObserver,
    upkeep: Settings,
}

impl fmt::Debug for PayerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayerBuilder")
            .field("signer", &self.signer)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Warns once for each wallet that has two ledgers in the memory of this process. Each of them allows the whole budget,
/// and a client for each request has no limits at all.
fn warn_of_second_memory(wallet: Address, number: u64) {
    const MOST_WALLETS: usize = 256;
    /// The ledger of each wallet, or `None` after the warning.
    static LEDGERS: Mutex<BTreeMap<Address, Option<u64>>> = Mutex::new(BTreeMap::new());
    let mut ledgers = LEDGERS.lock().unwrap_or_else(PoisonError::into_inner);
    let is_full = ledgers.len() >= MOST_WALLETS;
    match ledgers.get_mut(&wallet) {
        Some(known) if known.is_some_and(|known| known != number) => {
            *known = None;
            tracing::warn!(%wallet, "a second ledger in memory for the same wallet: each ledger allows the whole budget again; share one client, one `Ledger`, or a file");
        }
        None if !is_full => drop(ledgers.insert(wallet, Some(number))),
        _ => {}
    }
}

impl PayerBuilder {
    /// Sets the signer: the key that pays.
    #[must_use]
    pub fn signer(mut self, signer: impl Signer) -> Self {
        self.signer = Some(AnySigner::new(signer));
        self
    }

    /// Sets the policy that every payment must pass.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Sets the ledger, which records every purchase. Limits hold within one ledger: give all payers of a wallet the
    /// same one.
    #[must_use]
    pub fn ledger(mut self, ledger: Ledger) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// Sets the approver of payments that the policy wants approved. Without one, bursar denies such payments.
    #[must_use]
    pub fn approver(mut self, approver: impl Approver) -> Self {
        self.approver = Some(AnyApprover::new(approver));
        self
    }

    /// Sets the name of the agent that the ledger records with each payment.
    #[must_use]
    pub fn agent(mut self, name: impl Into<String>) -> Self {
        self.agent = Some(name.into());
        self
    }

    /// Sets the observer of payment events; see [`telemetry`](crate::telemetry).
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observer = AnyObserver::new(observer);
        self
    }

    /// Sets the switch that freezes all payments at once.
    #[must_use]
    pub fn freeze_switch(mut self, switch: FreezeSwitch) -> Self {
        self.switch = switch;
        self
    }

    /// Sets the clock. The default is the clock of the ledger, which is that of the machine.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Sets the reader of the chain. bursar then does three things more:
    ///
    /// * It reads the balance of the wallet before it signs, and denies a payment that the wallet cannot cover, with
    ///   [`Rule::InsufficientBalance`](crate::policy::Rule::InsufficientBalance). Of several offers, it takes one that the
    ///   balance covers. A reading is used for ten seconds. If no endpoint answers within three seconds, bursar pays without
    ///   it, emits an event and tries again after 30 seconds.
    /// * It reconciles unresolved payments in the background once they have expired; see
    ///   [`reconcile_every`](Self::reconcile_every).
    /// * It has a contract wallet check its own signatures (ERC-1271, ERC-6492) before they leave. If no endpoint answers
    ///   within five seconds, the signature is used without the check, and bursar emits an event.
    ///
    /// Networks without an endpoint in the reader work as without a reader.
    ///
    /// ```
    /// use bursar::{ChainReader, Ledger, LocalSigner, Network, Payer, Policy};
    ///
    /// let base: Network = "base".parse()?;
    /// let chain = ChainReader::new()
    ///     .endpoint(base, "https://mainnet.base.org")?
    ///     .endpoint(base, "https://base-rpc.publicnode.com")?;
    /// let payer = Payer::builder()
    ///     .signer(LocalSigner::random()?)
    ///     .policy(Policy::new().allow_network("base"))
    ///     .ledger(Ledger::memory())
    ///     .chain(chain)
    ///     .build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn chain(mut self, reader: ChainReader) -> Self {
        self.upkeep.chain = Some(reader);
        self
    }

    /// Sets the time between two rounds in which bursar asks the chain about unresolved payments that have expired. The
    /// default is five minutes. [`Duration::ZERO`] switches the rounds off.
    ///
    /// It needs a [chain reader](Self::chain), and does as [`Ledger::reconcile`] does, for at most 32 payments in a round. The
    /// rounds run in a task of the tokio runtime of the first payment, and end with the last clone of the payer. There is
    /// no task before the first payment, and none that runs while no payment can be proved.
    #[must_use]
    pub const fn reconcile_every(mut self, time: Duration) -> Self {
        self.upkeep.every = time;
        self
    }

    /// Sets whether the rounds in the background also confirm receipts: settled payments for which there is only the claim
    /// of the seller. The default is `false`, because each receipt takes several calls to each endpoint.
    #[must_use]
    pub const fn confirm_receipts(mut self, confirm: bool) -> Self {
        self.upkeep.receipts = confirm;
        self
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.signer.is_none() && self.policy.is_none() && self.ledger.is_none()
    }

    /// Sets the address of the wallet, for a payer that is [built](Self::build_read_only) without a signer. The address of a
    /// signer wins.
    ///
    /// ```
    /// use bursar::{Address, Payer};
    ///
    /// let payer = Payer::builder().address(Address::repeat_byte(7)).build_read_only()?;
    /// assert_eq!(payer.address(), Address::repeat_byte(7));
    /// # Ok::<(), bursar::Error>(())
    /// ```
    #[must_use]
    pub const fn address(mut self, address: Address) -> Self {
        self.address = Some(address);
        self
    }

    /// Returns a payer that answers questions and signs nothing.
    ///
    /// It needs no part. A signer gives its address and is never called. With a [chain reader](Self::chain) and an address,
    /// the answers include the balance; there are no rounds in the background. Without a policy, every payment is denied.
    /// Without a ledger, the payer uses an empty one in memory. A call that has to pay fails with
    /// [`ErrorKind::NoWallet`](crate::ErrorKind::NoWallet), and the ledger reserves nothing for it.
    ///
    /// ```
    /// use bursar::{Payer, Policy, PurchaseRequest, usd};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let payer = Payer::builder().policy(Policy::new().allow_network("base")).build_read_only()?;
    /// let request = PurchaseRequest::new("GET", "https://api.example.com/report", b"")?;
    /// println!("{}", payer.explain(&request, usd!("0.05")).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the policy is not valid.
    pub fn build_read_only(mut self) -> Result<Payer, Error> {
        if let Some(policy) = &self.policy {
            policy.check()?;
        }
        let address = self.signer.as_ref().map(AnySigner::address);
        let address = address.or(self.address);
        self.upkeep.every = Duration::ZERO;
        let policy = self.policy.clone().unwrap_or_default();
        let ledger = self.ledger.clone().unwrap_or_else(Ledger::memory);
        Ok(self.assemble(None, address.unwrap_or_default(), policy, ledger))
    }

    /// Returns the payer.
    ///
    /// # Errors
    /// When signer, policy or ledger is missing, or the policy is not valid.
    pub fn build(mut self) -> Result<Payer, Error> {
        let missing =
            |part: &str, how: &str| Error::builder(format!("a wallet needs a {part}; add {how}"));
        let signer = self.signer.take().ok_or_else(|| {
            missing(
                "signer",
                ".signer(LocalSigner::from_env(\"BURSAR_PRIVATE_KEY\")?)",
            )
        })?;
        let policy = self
            .policy
            .take()
            .ok_or_else(|| missing("policy", ".policy(Policy::new().allow_network(\"base\"))"))?;
        let ledger = self.ledger.take().ok_or_else(|| {
            missing(
                "ledger",
                ".ledger(Ledger::open(\"agent.db\")?), or .ledger(Ledger::memory())",
            )
        })?;
        policy.check()?;
        let address = signer.address();
        if let Some(number) = ledger.memory_number() {
            warn_of_second_memory(address, number);
        }
        Ok(self.assemble(Some(signer), address, policy, ledger))
    }

    fn assemble(
        self,
        signer: Option<AnySigner>,
        address: Address,
        policy: Policy,
        ledger: Ledger,
    ) -> Payer {
        let assets = policy.asset_registry();
        let ledger = match self.clock {
            Some(clock) => ledger.with_clock(clock),
            None => ledger,
        };
        // Without a wallet there is nothing to cover and nothing to reconcile.
        let upkeep = Some(self.upkeep).filter(|_| address != Address::ZERO);
        let chain =
            upkeep.and_then(|upkeep| ChainWatch::new(upkeep, &ledger, &assets, &self.observer));
        Payer {
            keys: Arc::from([]),
            inner: Arc::new(Inner {
                signer,
                address,
                policy,
                assets,
                ledger,
                approver: self.approver,
                agent: self.agent,
                switch: self.switch,
                observer: self.observer,
                terms: Arc::default(),
                refusals: Arc::default(),
                chain,
            }),
        }
    }
}
