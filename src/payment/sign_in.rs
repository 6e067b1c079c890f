//! Signing in to a seller before anything is bought again.
//!
//! The order matters. A payment that may still settle is presented again first, because a sign-in proves nothing about it.
//! Then bursar signs in, if the policy allows it and the seller knows the wallet. It buys only if the seller still asks.

use alloy::primitives::Address;
use http::{HeaderValue, StatusCode};
use serde_json::value::RawValue;
use tracing::Instrument;
use url::Url;

use super::other_calls::Others;
use super::resume::Earlier;
use super::{Payer, Payment};
use crate::error::{Error, ErrorKind};
use crate::ledger::Bought;
use crate::limit::Denial;
use crate::policy::{Rule, SignIn, never_paid, unknown_there};
use crate::request::PurchaseRequest;
use crate::sign_in::{Challenge, Refusal, answer_once};
use crate::signer::{AnySigner, SignInMessage, Signature, SignerError};
use crate::telemetry::EventKind;
use crate::text;
use crate::x402::PaymentRequired;

/// The first step of a call whose seller offers a sign-in.
pub(crate) enum Entry {
    /// The request is sent again with this header, which is a secret.
    SignIn(HeaderValue),
    /// An earlier payment for the same request is presented again.
    Payment(Box<Payment>),
    /// There is no sign-in.
    Buy,
}

/// The reason why there is no signed challenge.
#[derive(Debug, thiserror::Error)]
enum Unsigned {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Signer(#[from] SignerError),
}

impl Payer {
    /// Returns whether the request may be answered with a sign-in, as far as the policy alone decides.
    pub(crate) fn may_sign_in(&self, request: &PurchaseRequest) -> bool {
        self.deny_sign_in(request).is_none()
    }

    fn deny_sign_in(&self, request: &PurchaseRequest) -> Option<Denial> {
        let origin = request.origin();
        if let Some(key) = self.never_pays(origin) {
            return Some(never_paid(origin.host(), key));
        }
        if request.forbids_sign_in() {
            let message = "the seller asks for a sign-in, and the request says `no_sign_in`";
            return Some(Denial::new(Rule::SignIn, message));
        }
        self.inner.policy.deny_sign_in(origin)
    }

    /// Takes the first step for terms that offer a sign-in. `url` is the URL that they came from.
    ///
    /// # Errors
    /// An earlier payment cannot be presented again. If the seller asks for a sign-in alone: there is none.
    pub(crate) async fn enter(
        &self,
        required: &PaymentRequired,
        request: &PurchaseRequest,
        url: &Url,
    ) -> Result<Entry, Error> {
        let Some((declared, signer)) = required.raw_sign_in().zip(self.inner.signer.as_ref())
        else {
            return Ok(Entry::Buy);
        };
        let entering = Box::pin(self.first_step(required, declared, signer, (request, url)));
        let entering = text::guarding(request.url(), entering);
        let entered = entering.instrument(self.span(request)).await;
        entered.map_err(|error| self.report_denial(request, error).at(request.url()))
    }

    async fn first_step(
        &self,
        required: &PaymentRequired,
        declared: &RawValue,
        signer: &AnySigner,
        (request, url): (&PurchaseRequest, &Url),
    ) -> Result<Entry, Error> {
        let is_only_way = required.offers().is_empty();
        let denial = self.deny_sign_in(request);
        if denial.is_some() && !is_only_way {
            return Ok(Entry::Buy);
        }
        // A payment that a killed process left comes before a sign-in, too.
        match self.earlier(request, Others::Watched).await? {
            Earlier::Payment(payment) => return Ok(Entry::Payment(payment)),
            // A signature may exist at the signer, so the purchase goes on.
            Earlier::Unsigned(_) => return Ok(Entry::Buy),
            Earlier::Nothing => {}
        }
        let denial = match denial {
            Some(denial) => Some(denial),
            None => self.stopped().await?,
        };
        let denial = match denial {
            Some(denial) => Some(denial),
            None => self.unknown_to_seller(request, is_only_way).await?,
        };
        match denial {
            Some(denial) if is_only_way => return Err(Error::denied(Box::new(denial))),
            Some(_) => return Ok(Entry::Buy),
            None => {}
        }
        match self.sign_challenge(declared, signer, url).await {
            Ok(header) => {
                self.emit(&self.event(EventKind::SignedIn, request));
                Ok(Entry::SignIn(header))
            }
            Err(unsigned) if is_only_way => Err(unsigned.into()),
            Err(unsigned) => {
                let reason = text::excerpt(&unsigned.to_string());
                tracing::warn!(origin = %request.origin(), %reason, "bursar does not sign in, and buys");
                Ok(Entry::Buy)
            }
        }
    }

    /// Returns the denial of a sign-in at a seller that does not know this wallet, if the policy wants that.
    ///
    /// A seller knows the wallet by a purchase that settled or was delivered. Where a payment is an alternative, it must be a
    /// purchase of the same path: official sellers grant access by path and payer. Method, query and body do not matter.
    async fn unknown_to_seller(
        &self,
        request: &PurchaseRequest,
        is_only_way: bool,
    ) -> Result<Option<Denial>, Error> {
        let origin = request.origin();
        if self.inner.policy.signs_in(origin) == SignIn::Always {
            return Ok(None);
        }
        let path = self.inner.policy.stored_path(request);
        let bought = Bought {
            payer: self.address(),
            origin,
            path: Some(path.as_str()).filter(|_| !is_only_way),
        };
        let is_known = self.inner.ledger.has_bought(&bought).await?;
        Ok((!is_known).then(|| unknown_there(origin)))
    }

    /// Checks the challenge, notes that it is answered, and has it signed. Returns the header.
    async fn sign_challenge(
        &self,
        declared: &RawValue,
        signer: &AnySigner,
        url: &Url,
    ) -> Result<HeaderValue, Unsigned> {
        let now = self.now();
        let challenge = Challenge::read(declared, url, now)?;
        let nonce = challenge.nonce().to_owned();
        let issued_at = challenge.issued_at();
        let payable: Vec<_> = self.inner.policy.payable_networks().collect();
        let message = challenge.message(signer.address(), |network| payable.contains(&network))?;
        answer_once(url, &nonce, issued_at, now)?;
        let signature = signer.sign_in(&message).await?;
        if signer.is_contract() {
            self.check_by_contract(&message, &signature).await?;
        }
        let header = message
            .header(&signature, signer.is_contract())
            .map_err(|error| error.to_string())
            .and_then(|header| HeaderValue::try_from(header).map_err(|error| error.to_string()));
        let mut header = header.map_err(Refusal::Unreadable)?;
        header.set_sensitive(true);
        Ok(header)
    }

    /// Has a contract wallet check its signature. The seller asks it from no account of the chain.
    async fn check_by_contract(
        &self,
        message: &SignInMessage,
        signature: &Signature,
    ) -> Result<(), SignerError> {
        let place = (message.network(), message.address(), Address::ZERO);
        if let Some(reason) = self
            .ask_contract(place, message.digest(), signature)
            .await?
        {
            let (wallet, network) = (message.address(), message.network());
            tracing::warn!(%reason, %wallet, %network, "a contract wallet could not check its sign-in, which is sent all the same");
        }
        Ok(())
    }
}

/// The error of a route that asks for a sign-in alone.
impl From<Unsigned> for Error {
    fn from(unsigned: Unsigned) -> Self {
        let refusal = match unsigned {
            Unsigned::Signer(error) => return error.into(),
            Unsigned::Refused(refusal) => refusal,
        };
        let message = format!("the seller asks for a sign-in, and bursar signs none: {refusal}");
        let kind = match refusal {
            Refusal::TooMany => {
                return Self::denied(Box::new(Denial::new(Rule::SignIn, message)));
            }
            Refusal::Chain => ErrorKind::NotPayable,
            _ => ErrorKind::Malformed,
        };
        Self::new(kind, message).with_status(StatusCode::PAYMENT_REQUIRED)
    }
}
