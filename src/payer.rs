//! The wallet with its policy and its books: terms in, payment out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{Address, B256, keccak256};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::asset::{AssetRegistry, TokenAmount};
use crate::ledger::{
    self, AnyLedger, Checks, Entry, Filter, Finding, Ledger, NewEntry, PurchaseId, PurchaseKey, Reservation, Reserved,
    State, Terms, Transition,
};
use crate::policy::{
    Amount, AnyApprover, ApprovalRequest, Approver, Denial, Explanation, Facts, Hypothetical, Policy, Rule, Verdict,
};
use crate::quote::{Quote, Unpayable};
use crate::receipt::{Claim, Paid, Receipt};
use crate::signer::{AnySigner, Signature, Signer, TransferAuthorization};
use crate::x402::{self, PaymentRequired, Proof, Version};
use crate::{Clock, Error, ErrorKind, Origin, Spend, SystemClock, Timestamp, text};

/// How long a hold outlives the signer's own time, before it lapses unsigned.
const LEASE_MARGIN: Duration = Duration::from_secs(30);
/// Version 1 clients date authorizations back, for chains whose clock is behind.
const V1_BACKDATE: u64 = 600;

/// A wallet that pays under a policy and keeps books, for any transport.
///
/// [`Client`](crate::Client) uses one for HTTP. Use it directly where terms arrive by other ways:
///
/// ```
/// # use bursar::{Error, Intent, LocalSigner, MemoryLedger, Payer, PaymentRequired, Policy};
/// # async fn example(terms: &[u8]) -> Result<(), Error> {
/// let payer = Payer::builder()
///     .signer(LocalSigner::random()?)
///     .policy(Policy::new().network("base-sepolia"))
///     .ledger(MemoryLedger::new())
///     .build()?;
/// let required = PaymentRequired::from_json(terms)?;
/// let intent = Intent::new("POST", "https://tools.example/call", b"the request's body")?;
/// let payment = payer.authorize(&required, &intent).await?;
/// // Send payment.json() or payment.header(); then say what became of it.
/// payment.lost("the connection was reset").await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Payer {
    inner: Arc<Inner>,
}

struct Inner {
    signer: AnySigner,
    policy: Policy,
    assets: AssetRegistry,
    ledger: AnyLedger,
    approver: Option<AnyApprover>,
    clock: Arc<dyn Clock>,
    agent: Option<String>,
}

impl fmt::Debug for Payer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payer")
            .field("address", &self.address())
            .field("agent", &self.inner.agent)
            .finish_non_exhaustive()
    }
}

/// Builds a [`Payer`]. Signer, policy and ledger are required: there is no wallet without limits,
/// and no limits without books.
#[derive(Default)]
pub struct PayerBuilder {
    signer: Option<AnySigner>,
    policy: Option<Policy>,
    ledger: Option<AnyLedger>,
    approver: Option<AnyApprover>,
    clock: Option<Arc<dyn Clock>>,
    agent: Option<String>,
}

impl fmt::Debug for PayerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayerBuilder")
            .field("signer", &self.signer)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl PayerBuilder {
    /// Who signs.
    #[must_use]
    pub fn signer(mut self, signer: impl Signer) -> Self {
        self.signer = Some(AnySigner::new(signer));
        self
    }

    /// What may be bought.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Where it is written down.
    #[must_use]
    pub fn ledger(mut self, ledger: impl Ledger) -> Self {
        self.ledger = Some(AnyLedger::new(ledger));
        self
    }

    /// Who is asked when the policy wants a word. Without one, such payments are denied.
    #[must_use]
    pub fn approver(mut self, approver: impl Approver) -> Self {
        self.approver = Some(AnyApprover::new(approver));
        self
    }

    /// The name that this agent's payments are booked under.
    #[must_use]
    pub fn agent(mut self, name: impl Into<String>) -> Self {
        self.agent = Some(name.into());
        self
    }

    /// Where the time comes from; the machine's clock unless set.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.signer.is_none() && self.policy.is_none() && self.ledger.is_none()
    }

    /// The payer.
    ///
    /// # Errors
    /// When signer, policy or ledger is missing, or the policy cannot be used.
    pub fn build(self) -> Result<Payer, Error> {
        let missing = |what: &str, how: &str| Error::builder(format!("a wallet needs a {what}; add {how}"));
        let signer =
            self.signer.ok_or_else(|| missing("signer", ".signer(LocalSigner::from_env(\"BURSAR_PRIVATE_KEY\")?)"))?;
        let policy = self.policy.ok_or_else(|| missing("policy", ".policy(Policy::new().network(\"base\"))"))?;
        let ledger = self
            .ledger
            .ok_or_else(|| missing("ledger", ".ledger(SqliteLedger::open(\"agent.db\")?), or MemoryLedger by name"))?;
        policy.check()?;
        let assets = policy.asset_registry();
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock));
        Ok(Payer {
            inner: Arc::new(Inner {
                signer,
                policy,
                assets,
                ledger,
                approver: self.approver,
                clock,
                agent: self.agent,
            }),
        })
    }
}

/// What somebody wants to buy: a request, and how it is to be booked.
#[derive(Clone, Debug)]
pub struct Intent {
    method: Method,
    url: Url,
    origin: Origin,
    fingerprint: B256,
    purchase_id: Option<PurchaseId>,
    tag: Option<String>,
    max_price: Option<Amount>,
}

impl Intent {
    /// A request by method, URL and body. The body is hashed, to tell requests apart.
    ///
    /// # Errors
    /// When the method or the URL is not one.
    pub fn new(method: &str, url: &str, body: &[u8]) -> Result<Self, Error> {
        let method = method.parse().map_err(|_| Error::builder("not a method"))?;
        let url: Url = url
            .parse()
            .map_err(|error| Error::builder("not a URL").because(Box::new(error) as crate::error::BoxError))?;
        Self::of(method, url, Some(body))
    }

    pub(crate) fn of(method: Method, url: Url, body: Option<&[u8]>) -> Result<Self, Error> {
        let origin =
            Origin::of(&url).ok_or_else(|| Error::builder("the URL is not http or https with a host").at(&url))?;
        let fingerprint = fingerprint(&method, &url, body);
        Ok(Self { method, url, origin, fingerprint, purchase_id: None, tag: None, max_price: None })
    }

    /// What makes the request the same request.
    pub(crate) const fn id(&self) -> B256 {
        self.fingerprint
    }

    /// As a part of another request: of one that was redirected here.
    pub(crate) const fn fingerprint(mut self, fingerprint: B256) -> Self {
        self.fingerprint = fingerprint;
        self
    }

    /// Under the caller's own id: a second request with it is the same purchase.
    #[must_use]
    pub fn purchase_id(mut self, id: PurchaseId) -> Self {
        self.purchase_id = Some(id);
        self
    }

    /// Booked under a tag, which the policy may limit.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// Not above this price.
    #[must_use]
    pub fn max_price(mut self, max: impl Into<Amount>) -> Self {
        self.max_price = Some(max.into());
        self
    }
}

/// What makes a request the same request: method, URL without fragment, body.
fn fingerprint(method: &Method, url: &Url, body: Option<&[u8]>) -> B256 {
    let mut url = url.clone();
    url.set_fragment(None);
    let body = body.map_or(B256::ZERO, keccak256);
    let mut preimage = Vec::with_capacity(url.as_str().len().saturating_add(48));
    preimage.extend_from_slice(method.as_str().as_bytes());
    preimage.push(0);
    preimage.extend_from_slice(url.as_str().as_bytes());
    preimage.push(0);
    preimage.extend_from_slice(body.as_slice());
    keccak256(preimage)
}

/// What something would cost, and what the policy and the books say to it. Nothing is signed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Quotation {
    /// The seller's terms.
    pub required: PaymentRequired,
    /// Every offer, in the seller's order.
    pub offers: Vec<QuotedOffer>,
}

/// One offer of a seller with what would become of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QuotedOffer {
    /// What could be signed, or why not.
    pub quote: Result<Quote, Unpayable>,
    /// What each rule answers; `None` for an offer that cannot be signed for, and for a client
    /// without a wallet.
    pub explanation: Option<Explanation>,
}

impl Quotation {
    pub(crate) fn unjudged(required: PaymentRequired, assets: &AssetRegistry) -> Self {
        let offers =
            Quote::read_all(&required, assets).into_iter().map(|quote| QuotedOffer { quote, explanation: None });
        Self { offers: offers.collect(), required }
    }

    /// The offer that would be paid: the cheapest that the policy allows.
    #[must_use]
    pub fn best(&self) -> Option<&Quote> {
        let allowed =
            self.offers.iter().filter(|offer| offer.explanation.as_ref().is_some_and(|said| said.denial().is_none()));
        allowed.filter_map(|offer| offer.quote.as_ref().ok()).min_by_key(|quote| quote.preference())
    }

    /// The cheapest offer that could be signed for, whatever the policy says.
    #[must_use]
    pub fn cheapest(&self) -> Option<&Quote> {
        self.offers.iter().filter_map(|offer| offer.quote.as_ref().ok()).min_by_key(|quote| quote.preference())
    }
}

/// How the attempt to buy at one quote ended, short of an error.
enum Attempt {
    Paid(Box<Payment>),
    Denied(Box<Denial>),
}

impl Payer {
    /// Builds a payer.
    #[must_use]
    pub fn builder() -> PayerBuilder {
        PayerBuilder::default()
    }

    /// The address that pays.
    #[must_use]
    pub fn address(&self) -> Address {
        self.inner.signer.address()
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.inner.policy
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// What the terms would cost, and what each rule says. Signs and holds nothing.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn quote(&self, required: PaymentRequired, intent: &Intent) -> Result<Quotation, Error> {
        let mut offers = Vec::with_capacity(required.offers().len());
        for quote in Quote::read_all(&required, &self.inner.assets) {
            let explanation = match &quote {
                Ok(quote) => Some(self.explain_quote(&required, intent, quote).await?),
                Err(_) => None,
            };
            offers.push(QuotedOffer { quote, explanation });
        }
        Ok(Quotation { required, offers })
    }

    async fn explain_quote(
        &self,
        required: &PaymentRequired,
        intent: &Intent,
        quote: &Quote,
    ) -> Result<Explanation, Error> {
        let path = self.inner.policy.stored_path(&intent.url);
        let facts = self.facts(required, intent, quote, &path);
        let findings = self.inner.ledger.examine(&self.inner.policy.checks(&facts)).await?;
        Ok(Explanation::new(&self.inner.policy, &facts, findings))
    }

    /// What each rule says to a payment that nobody asked for, with the books as they are.
    ///
    /// # Errors
    /// When the URL has no origin, no dollar token lives on the network, or the books cannot be
    /// read.
    pub async fn explain(&self, payment: &Hypothetical) -> Result<Explanation, Error> {
        let origin =
            Origin::of(&payment.url).ok_or_else(|| Error::builder("the URL is not http or https with a host"))?;
        let quote = self
            .inner
            .policy
            .imagine(payment)
            .ok_or_else(|| Error::builder("no dollar token is known on the network"))?;
        let path = self.inner.policy.stored_path(&payment.url);
        let agent = payment.agent.as_deref().or(self.inner.agent.as_deref());
        let facts = Facts { payer: self.address(), agent, ..payment.facts(&origin, &quote, &path, self.now()) };
        let findings = self.inner.ledger.examine(&self.inner.policy.checks(&facts)).await?;
        Ok(Explanation::new(&self.inner.policy, &facts, findings))
    }

    /// How much of each limit is used and left. Limits that hold for each origin, payee and so on
    /// are left out: [`explain`](Self::explain) shows them for one request.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn budget(&self) -> Result<Vec<Finding>, Error> {
        let meters = self.inner.policy.standing_meters();
        let checks = Checks { now: self.now(), payment: None, meters, payee: None, price: None };
        Ok(self.inner.ledger.examine(&checks).await?)
    }

    /// Purchases in the books, oldest first.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn entries(&self, filter: &Filter) -> Result<Vec<Entry>, Error> {
        Ok(self.inner.ledger.entries(filter).await?)
    }

    /// Buys: chooses the cheapest offer that the policy allows, holds its money, signs, and records
    /// the signature before it is returned.
    ///
    /// A purchase that was signed before, by its id, comes back with the same bytes.
    ///
    /// # Errors
    /// Nothing can be signed for, the policy or an approver refuses, the books cannot be used, the
    /// purchase id belongs to another request or is being bought now, or the signer fails. In all
    /// these cases nothing was signed, but for a signer that did not answer in time.
    pub async fn authorize(&self, required: &PaymentRequired, intent: &Intent) -> Result<Payment, Error> {
        let bought = match self.resume(intent).await {
            Ok(Some(payment)) => return Ok(payment),
            Ok(None) => self.buy(required, intent, Terms::First).await,
            Err(error) => Err(error),
        };
        bought.map_err(|error| error.at(&intent.url))
    }

    /// Signs changed terms for a purchase that was signed before: the whole policy again, the same
    /// nonce, the larger of the amounts held.
    pub(crate) async fn requote(&self, required: &PaymentRequired, intent: &Intent) -> Result<Payment, Error> {
        self.buy(required, intent, Terms::Changed).await.map_err(|error| error.at(&intent.url))
    }

    async fn buy(&self, required: &PaymentRequired, intent: &Intent, terms: Terms) -> Result<Payment, Error> {
        let (mut quotes, mut reasons) = (Vec::new(), Vec::new());
        for quote in Quote::read_all(required, &self.inner.assets) {
            match quote {
                Ok(quote) => quotes.push(quote),
                Err(reason) => reasons.push(reason),
            }
        }
        quotes.sort_by_key(Quote::preference);
        let purchase = match &intent.purchase_id {
            Some(id) => id.clone(),
            None => PurchaseId::random().map_err(no_randomness)?,
        };
        let mut denial = None;
        for quote in &quotes {
            match self.attempt(required, intent, quote, &purchase, terms).await? {
                Attempt::Paid(payment) => return Ok(*payment),
                Attempt::Denied(refusal) if refusal.rule == Rule::Approval => return Err(Error::denied(refusal)),
                Attempt::Denied(refusal) => denial = denial.or(Some(refusal)),
            }
        }
        Err(denial.map_or_else(|| Error::not_payable(reasons), Error::denied))
    }

    /// One quote through policy, approval, books and signer, in this order.
    async fn attempt(
        &self,
        required: &PaymentRequired,
        intent: &Intent,
        quote: &Quote,
        purchase: &PurchaseId,
        terms: Terms,
    ) -> Result<Attempt, Error> {
        let path = self.inner.policy.stored_path(&intent.url);
        let facts = self.facts(required, intent, quote, &path);
        if let Some(denial) = self.inner.policy.deny(&facts) {
            return Ok(Attempt::Denied(Box::new(denial)));
        }
        let checks = self.inner.policy.checks(&facts);
        let entry = self.new_entry(&facts, intent, purchase)?;
        if let Some(why) = self.inner.policy.ask(&facts) {
            // Nobody is asked for what the limits refuse. Changed terms are not measured here: the
            // books would add them to what they replace.
            let findings = if terms == Terms::First { self.inner.ledger.examine(&checks).await? } else { Vec::new() };
            let refusal = findings.into_iter().find_map(|finding| finding.denial);
            let refusal = match refusal {
                None => self.ask(required, &facts, &entry, why).await,
                refusal => refusal,
            };
            if let Some(denial) = refusal {
                return Ok(Attempt::Denied(Box::new(denial)));
            }
        }
        let lease = self.inner.signer.time_limit().saturating_add(LEASE_MARGIN);
        let checks = Checks { now: self.now(), ..checks };
        let key = entry.key();
        let wrong = |message: &str| Err(Error::new(ErrorKind::Purchase, message).of_purchase(purchase));
        match self.inner.ledger.reserve(&Reservation { entry, checks, lease, terms }).await? {
            Reserved::Denied(denial) => Ok(Attempt::Denied(denial)),
            Reserved::Known(entry) => Ok(Attempt::Paid(Box::new(self.present_again(*entry)?))),
            Reserved::InFlight => wrong("the purchase is being bought at this moment"),
            Reserved::Mismatch => wrong("the purchase id belongs to another request"),
            Reserved::Held(entry) => {
                let hold = Hold { payer: self.clone(), key, armed: entry.state == State::Reserved };
                self.sign(required, quote, *entry, hold).await.map(Box::new).map(Attempt::Paid)
            }
        }
    }

    /// The refusal of whoever is asked, if any.
    async fn ask(
        &self,
        required: &PaymentRequired,
        facts: &Facts<'_>,
        entry: &NewEntry,
        why: String,
    ) -> Option<Denial> {
        let Some(approver) = &self.inner.approver else {
            return Some(Denial::new(
                Rule::Approval,
                format!("needs approval ({why}), and the client has no approver"),
            ));
        };
        let request = ApprovalRequest {
            why,
            origin: facts.origin.clone(),
            method: facts.method.to_owned(),
            path: facts.path.to_owned(),
            amount: facts.quote.amount(),
            usd: facts.quote.dollars(),
            network: facts.quote.network(),
            payer: facts.payer,
            payee: facts.quote.pay_to(),
            validity: self.validity(facts.origin, facts.quote),
            nonce: ledger::nonce(facts.payer, facts.quote.asset(), &entry.purchase, 0),
            untrusted: crate::policy::Untrusted {
                description: required.description().map(text::excerpt),
                resource_url: required.resource_url().map(text::excerpt),
            },
        };
        match approver.decide(&request, self.inner.policy.time_to_approve()).await {
            Verdict::Approve => None,
            Verdict::Deny { reason } => Some(Denial::new(Rule::Approval, format!("not approved: {reason}"))),
        }
    }

    fn validity(&self, origin: &Origin, quote: &Quote) -> Duration {
        quote.window().min(self.inner.policy.validity_ceiling(origin))
    }

    async fn sign(
        &self,
        required: &PaymentRequired,
        quote: &Quote,
        mut entry: Entry,
        mut hold: Hold,
    ) -> Result<Payment, Error> {
        let key = entry.key();
        let authorization = self.authorization(quote, &entry);
        let valid_before = authorization.valid_before();
        let signature = match self.inner.signer.sign(&authorization).await {
            Ok(signature) => signature,
            Err(error) => return Err(self.unsigned(error, &entry, &authorization, hold).await),
        };
        let payload = encode(required, quote, &authorization, &signature, &entry)?;
        let signed = Transition::Signed { lease: entry.lease_until, valid_before, payload: payload.clone() };
        let now = self.now();
        self.inner.ledger.record(&key, &signed, now).await.map_err(|error| Error::from(error).of_purchase(&key.id))?;
        hold.armed = false;
        entry.apply(&signed, now)?;
        Ok(Payment {
            payer: self.clone(),
            paid: paid(&entry, &authorization),
            version: required.version(),
            payload,
            again: false,
            settled: None,
        })
    }

    fn authorization(&self, quote: &Quote, entry: &Entry) -> TransferAuthorization {
        let now = self.now().secs();
        let valid_after = match quote.version() {
            Version::V1 => now.saturating_sub(V1_BACKDATE),
            Version::V2 => 0,
        };
        let valid_before = now.saturating_add(self.validity(&entry.origin, quote).as_secs());
        let parties = (entry.payer, quote.pay_to());
        TransferAuthorization::new(
            quote.asset().clone(),
            parties,
            quote.value(),
            (valid_after, valid_before),
            entry.nonce,
        )
    }

    /// The error of a signer, once the books know what it means for the money.
    async fn unsigned(
        &self,
        error: crate::SignerError,
        entry: &Entry,
        authorization: &TransferAuthorization,
        mut hold: Hold,
    ) -> Error {
        let valid_before = authorization.valid_before();
        let doubtful = error.is_timeout();
        if !doubtful && hold.armed {
            hold.free().await;
        } else if doubtful {
            hold.armed = false;
            let transition = Transition::Doubtful { valid_before, reason: text::excerpt(&error.to_string()) };
            if let Err(error) = self.inner.ledger.record(&hold.key, &transition, self.now()).await {
                tracing::error!(%error, "the ledger did not record a signer's timeout");
            }
        }
        if doubtful {
            return Error::from(error).spent(Spend::Unknown).of_payment(&paid(entry, authorization));
        }
        let spend = if entry.state == State::Reserved { Spend::None } else { Spend::Unknown };
        Error::from(error).spent(spend).of_purchase(&entry.purchase)
    }

    /// A purchase that was signed before, if the books hold it for this request.
    pub(crate) async fn resume(&self, intent: &Intent) -> Result<Option<Payment>, Error> {
        let Some(id) = &intent.purchase_id else { return Ok(None) };
        let key = PurchaseKey::new(self.address(), id.clone());
        let Some(entry) = self.inner.ledger.purchase(&key).await? else { return Ok(None) };
        if entry.fingerprint != intent.fingerprint {
            return Err(Error::new(ErrorKind::Purchase, "the purchase id belongs to another request").of_purchase(id));
        }
        match entry.state {
            State::Reserved | State::Freed => Ok(None),
            State::Signed | State::Settled | State::Rejected | State::Unknown => self.present_again(entry).map(Some),
        }
    }

    fn present_again(&self, entry: Entry) -> Result<Payment, Error> {
        let unusable =
            |what: &str| Error::new(ErrorKind::Purchase, what).spent(Spend::Unknown).of_purchase(&entry.purchase);
        let payload = entry.payload.clone().ok_or_else(|| {
            unusable("the signer may have signed this purchase, but bursar has no signature to present")
        })?;
        let asset = self.inner.assets.find(entry.network, entry.asset).cloned();
        let asset = asset.ok_or_else(|| unusable("the purchase's token is no longer in the registry"))?;
        let version = if entry.version == Version::V1.number() { Version::V1 } else { Version::V2 };
        // The books hold the largest of what was signed; what is presented is the latest.
        let signed = x402::decode_authorization(payload.expose_secret());
        let signed = signed.ok_or_else(|| unusable("the stored payment header is damaged"))?;
        let paid = Paid {
            amount: TokenAmount::from_units(asset, signed.value),
            payer: entry.payer,
            pay_to: signed.to,
            nonce: entry.nonce,
            valid_before: signed.valid_before,
            purchase: entry.purchase,
        };
        let settled = entry.transaction.filter(|_| entry.state == State::Settled);
        let settled = settled.map(|transaction| Box::new(Receipt::from_books(&paid, transaction)));
        Ok(Payment { payer: self.clone(), paid, version, payload, again: true, settled })
    }

    fn facts<'a>(
        &'a self,
        required: &'a PaymentRequired,
        intent: &'a Intent,
        quote: &'a Quote,
        path: &'a str,
    ) -> Facts<'a> {
        Facts {
            url: &intent.url,
            origin: &intent.origin,
            method: intent.method.as_str(),
            path,
            tag: intent.tag.as_deref(),
            agent: self.inner.agent.as_deref(),
            payer: self.address(),
            quote,
            resource_url: required.resource_url(),
            max_price: intent.max_price.as_ref(),
            now: self.now(),
        }
    }

    fn new_entry(&self, facts: &Facts<'_>, intent: &Intent, purchase: &PurchaseId) -> Result<NewEntry, Error> {
        Ok(NewEntry {
            purchase: purchase.clone(),
            payer: facts.payer,
            fingerprint: intent.fingerprint,
            identifier: format!("pay_{}", ledger::random_hex().map_err(no_randomness)?),
            origin: facts.origin.clone(),
            method: facts.method.to_owned(),
            path: facts.path.to_owned(),
            foreign_resource: facts.foreign_resource(),
            version: facts.quote.version().number(),
            asset: facts.quote.asset().clone(),
            payee: facts.quote.pay_to(),
            value: facts.quote.value(),
            tag: intent.tag.clone(),
            agent: self.inner.agent.clone(),
        })
    }
}

fn no_randomness(error: getrandom::Error) -> Error {
    Error::builder(format!("the operating system gives no randomness: {error}"))
}

fn paid(entry: &Entry, authorization: &TransferAuthorization) -> Paid {
    Paid {
        purchase: entry.purchase.clone(),
        amount: authorization.amount(),
        payer: authorization.from(),
        pay_to: authorization.to(),
        nonce: authorization.nonce(),
        valid_before: authorization.valid_before(),
    }
}

fn encode(
    required: &PaymentRequired,
    quote: &Quote,
    authorization: &TransferAuthorization,
    signature: &Signature,
    entry: &Entry,
) -> Result<SecretString, Error> {
    let proof = Proof::new(authorization, signature);
    let json =
        x402::encode_payment(required, quote.offer(), &proof, &entry.identifier).map_err(x402::WireError::from)?;
    Ok(SecretString::from(x402::encode_header(&json)))
}

/// Frees a hold that nothing was signed for, also when the caller stops waiting. Where there is no
/// runtime to do so on, the lease frees it.
struct Hold {
    payer: Payer,
    key: PurchaseKey,
    armed: bool,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut hold = Self { payer: self.payer.clone(), key: self.key.clone(), armed: false };
        runtime.spawn(async move { hold.free().await });
    }
}

impl Hold {
    async fn free(&mut self) {
        self.armed = false;
        let now = self.payer.now();
        if let Err(error) = self.payer.inner.ledger.record(&self.key, &Transition::Freed, now).await {
            tracing::warn!(%error, "a hold was not freed; it lapses by itself");
        }
    }
}

/// A signed payment, recorded in the books and about to leave.
///
/// Say what became of it with [`conclude`](Self::conclude) or [`lost`](Self::lost). Dropped, it
/// stays in the books as signed and counts as spent.
#[must_use = "a payment that is not presented still counts as spent"]
pub struct Payment {
    payer: Payer,
    paid: Paid,
    version: Version,
    payload: SecretString,
    again: bool,
    /// From the books: the seller has given its receipt before.
    settled: Option<Box<Receipt>>,
}

impl fmt::Debug for Payment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payment").field("paid", &self.paid).field("again", &self.again).finish_non_exhaustive()
    }
}

/// What became of a payment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The seller named a transaction that matches.
    Settled(Box<Receipt>),
    /// The seller answered 402. Its reason, untrusted, where it gave one.
    Refused {
        /// Machine-readable or in words; at most 160 characters.
        reason: Option<String>,
        /// Whether the seller says that the transaction is sent and not yet included.
        pending: bool,
    },
    /// Another answer without a receipt that matches.
    Unknown {
        /// What is missing.
        reason: String,
    },
}

impl Payment {
    /// What was signed.
    #[must_use]
    pub const fn paid(&self) -> &Paid {
        &self.paid
    }

    /// Whether this was signed earlier and is to be presented again.
    #[must_use]
    pub const fn is_again(&self) -> bool {
        self.again
    }

    /// What is known of the money before the seller answers.
    pub(crate) const fn spend(&self) -> Spend {
        if self.settled.is_some() { Spend::Settled } else { Spend::Unknown }
    }

    /// Seconds that the seller has, at most, to settle.
    pub(crate) fn window(&self) -> u64 {
        self.paid.valid_before.saturating_sub(self.payer.now().secs())
    }

    /// The request header that carries the payment, marked sensitive.
    ///
    /// # Errors
    /// Never for payments that bursar signed; the books may hold damaged ones.
    pub fn header(&self) -> Result<(HeaderName, HeaderValue), Error> {
        let value = HeaderValue::from_str(self.payload.expose_secret());
        let mut value = value
            .map_err(|_| Error::new(ErrorKind::Ledger, "the stored payment header is damaged").spent(Spend::Unknown))?;
        value.set_sensitive(true);
        Ok((self.version.payment_header(), value))
    }

    /// The payment as JSON, for transports without headers such as MCP. As good as the money until
    /// it expires.
    ///
    /// # Errors
    /// Never for payments that bursar signed; the books may hold damaged ones.
    pub fn json(&self) -> Result<SecretString, Error> {
        let bytes = x402::decode_header(self.payload.expose_secret().as_bytes())?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Error::new(ErrorKind::Ledger, "the stored payment header is damaged").spent(Spend::Unknown))?;
        Ok(SecretString::from(text))
    }

    /// Records what the seller answered: status, headers, and the terms of a second 402.
    ///
    /// Books that cannot be written do not lose the answer; the purchase then stays signed in them,
    /// which counts as spent.
    pub async fn conclude(&self, status: StatusCode, headers: &HeaderMap, terms: Option<&PaymentRequired>) -> Outcome {
        let claim = Claim::read(&self.paid, headers);
        let outcome = match claim {
            Claim::Matching(receipt) => Outcome::Settled(receipt),
            claim if status == StatusCode::PAYMENT_REQUIRED => refused(claim, terms),
            claim if self.settled.is_some() => self
                .settled
                .clone()
                .map_or_else(|| Outcome::Unknown { reason: unproven(claim, status) }, Outcome::Settled),
            claim => Outcome::Unknown { reason: unproven(claim, status) },
        };
        let status = status.as_u16();
        let transition = match &outcome {
            Outcome::Settled(receipt) => Transition::Settled { transaction: receipt.transaction(), status },
            Outcome::Refused { reason, .. } => {
                Transition::Rejected { reason: reason.clone().unwrap_or_else(|| "402".to_owned()), status }
            }
            Outcome::Unknown { reason } => Transition::Unknown { reason: reason.clone(), status: Some(status) },
        };
        self.record(&transition).await;
        outcome
    }

    /// Records that the answer was lost.
    pub async fn lost(&self, reason: &str) {
        self.record(&Transition::Unknown { reason: text::excerpt(reason), status: None }).await;
    }

    async fn record(&self, transition: &Transition) {
        let key = PurchaseKey::new(self.paid.payer, self.paid.purchase.clone());
        if let Err(error) = self.payer.inner.ledger.record(&key, transition, self.payer.now()).await {
            tracing::error!(%error, purchase = %key.id, "the ledger did not record an outcome; the purchase stays signed and counts as spent");
        }
    }
}

fn refused(claim: Claim, terms: Option<&PaymentRequired>) -> Outcome {
    let pending = matches!(&claim, Claim::Other(claim) if claim.is_pending());
    let claimed = match claim {
        Claim::Other(claim) => claim.error_reason.or(claim.error_message),
        _ => None,
    };
    let reason = claimed.or_else(|| terms.and_then(PaymentRequired::error).map(ToOwned::to_owned));
    Outcome::Refused { reason: reason.as_deref().map(text::excerpt), pending }
}

fn unproven(claim: Claim, status: StatusCode) -> String {
    match claim {
        Claim::Malformed(error) => format!("status {status} with a receipt that cannot be read: {error}"),
        Claim::Other(claim) if claim.success => {
            format!("status {status} with a receipt that does not match what was signed")
        }
        Claim::Other(claim) => {
            let reason = claim.error_reason.as_deref().map_or_else(|| "no reason".to_owned(), text::excerpt);
            format!("status {status} with a receipt of failure: {reason}")
        }
        Claim::Absent | Claim::Matching(_) => format!("status {status} without a receipt"),
    }
}
